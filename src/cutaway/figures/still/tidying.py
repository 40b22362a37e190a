"""Matplotlib's SVG made small, and fit to stand in a page: few names, short numbers, a title over each mark."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_FONT = re.compile(
    r"(?:(?P<style>italic|oblique) )?(?:(?P<weight>bold|\d{3}) )?(?P<size>[\d.]+)px (?P<family>.*)"
)
_TURN = re.compile(r"rotate\((-?[\d.]+)[ ,]")
_PAIR = r"-?[\d.]+ -?[\d.]+"
_ROUND = re.compile(rf"M{_PAIR}(?:C{_PAIR} {_PAIR} {_PAIR}){{8}}z")
_UPRIGHT = re.compile(r"M(-?[\d.]+) (-?[\d.]+)" + r"L(-?[\d.]+) (-?[\d.]+)" * 3 + "z")
#: What an element may carry, and what goes without saying.
_KEPT = {
    "fill": None, "stroke": "none", "stroke-width": None, "stroke-dasharray": "none", "opacity": "1", "fill-opacity": "1",
    "stroke-opacity": "1", "text-anchor": "start", "stroke-linejoin": "miter",
}  # fmt: skip
_DROPPED = {"metadata", "style"}
_PLACES = {
    "id",
    "d",
    "x",
    "y",
    "width",
    "height",
    "r",
    "cx",
    "cy",
    "href",
    "transform",
    "preserveAspectRatio",
}


@dataclass(frozen=True)
class _Piece:
    """An element to be written: its tag, where it is, how it looks, what is inside."""

    tag: str
    place: Mapping[str, str]
    look: Mapping[str, str]
    inner: str = ""


def tidy(source: str, titles: Mapping[str, Sequence[str]], prefix: str = "f") -> str:
    """The same drawing in a few bytes.

    Args:
        source: what Matplotlib wrote with its letters as text.
        titles: group name -> the words over each of its marks.
        prefix: begins every name, so that several drawings can stand in one page.
    """
    root = ElementTree.fromstring(source)
    box = root.get("viewBox", "0 0 100 100")
    width, height = (round(float(end)) for end in box.split()[2:])
    body = _written([piece for child in root for piece in _pieces(child, titles, prefix, ())])
    return (
        f'<svg {_SPACE} viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{_FAMILY}" font-size="11">{body}</svg>'
    )


_SPACE = 'xmlns="http://www.w3.org/2000/svg"'
_FAMILY = "system-ui,-apple-system,Segoe UI,Roboto,Helvetica Neue,Noto Sans,DejaVu Sans,sans-serif"


def inlined(drawing: str) -> str:
    """A drawing without the name of its language, which goes without saying inside HTML."""
    return drawing.replace(f"<svg {_SPACE}", "<svg", 1)


def _pieces(
    item: ElementTree.Element, titles: Mapping[str, Sequence[str]], prefix: str, words: Sequence[str]
) -> list[_Piece]:
    tag = item.tag.removeprefix(_SVG) if isinstance(item.tag, str) else ""
    if not tag or tag in _DROPPED or (tag == "defs" and not len(item)):
        return []
    if tag == "g":
        return _group(item, titles, prefix, titles.get(item.get("id", ""), words))
    said = (
        f"<title>{html.escape(words[0], quote=False)}</title>"
        if words and tag in ("path", "use") and words[0]
        else ""
    )
    kept = _attributes(item, tag, prefix)
    if tag == "path" and "d" in kept:
        tag, kept = _shape(kept)
    if tag == "path" and "id" not in item.attrib and _unseen(kept):
        return []
    inner = said + html.escape(item.text or "", quote=False) if tag == "text" else said
    inner += _written([piece for child in item for piece in _pieces(child, titles, prefix, ())])
    place = {name: value for name, value in kept.items() if name in _PLACES}
    return [_Piece(tag, place, {name: value for name, value in kept.items() if name not in _PLACES}, inner)]


def _group(
    item: ElementTree.Element, titles: Mapping[str, Sequence[str]], prefix: str, words: Sequence[str]
) -> list[_Piece]:
    """What stands in a group, without the group where it says nothing; each mark takes one of its words."""
    marks = [
        child
        for child in item.iter()
        if child.tag in (f"{_SVG}use", f"{_SVG}path") and child.get("id") is None
    ]
    each = dict(zip(map(id, marks), words, strict=True)) if len(marks) == len(words) else {}

    def inside(group: ElementTree.Element) -> list[_Piece]:
        pieces: list[_Piece] = []
        for child in group:
            if child.tag == f"{_SVG}g" and child.get("id") not in titles:
                pieces += clipped(child)
            else:
                pieces += _pieces(child, titles, prefix, (each[id(child)],) if id(child) in each else ())
        return pieces

    def clipped(group: ElementTree.Element) -> list[_Piece]:
        pieces, clip = inside(group), group.get("clip-path", "")
        return (
            [_Piece("g", {}, {"clip-path": _renamed(clip, prefix)}, _written(pieces))]
            if clip and pieces
            else pieces
        )

    return clipped(item)


def _written(pieces: Sequence[_Piece]) -> str:
    """Elements one after the other; what looks alike shares its looks, and opaque paths that look alike are one path."""
    parts = []
    for (tag, look), run in groupby(pieces, key=lambda piece: (piece.tag, tuple(piece.look.items()))):
        alike = list(run)
        if tag == "path" and not {"opacity", "fill-opacity", "stroke-opacity"} & dict(look).keys():
            alike = list(_joined(alike))
        shared = len(alike) > 2 and bool(look) and tag != "g"
        body = "".join(_markup(piece, {} if shared else piece.look) for piece in alike)
        parts.append(f"<g{_said(dict(look))}>{body}</g>" if shared else body)
    return "".join(parts)


def _joined(pieces: Sequence[_Piece]) -> Iterator[_Piece]:
    """Paths that look alike, say nothing and have no name as one; the order stays."""
    for mute, run in groupby(pieces, key=lambda piece: not piece.inner and list(piece.place) == ["d"]):
        alike = list(run)
        yield from [replace(alike[0], place={"d": "".join(p.place["d"] for p in alike)})] if mute else alike


def _markup(piece: _Piece, look: Mapping[str, str]) -> str:
    opened = f"<{piece.tag}{_said(piece.place)}{_said(look)}"
    return f"{opened}>{piece.inner}</{piece.tag}>" if piece.inner else f"{opened}/>"


def _said(attributes: Mapping[str, str]) -> str:
    return "".join(f' {name}="{html.escape(value)}"' for name, value in attributes.items())


def _attributes(item: ElementTree.Element, tag: str, prefix: str) -> dict[str, str]:
    given = dict(item.attrib)
    for piece in given.pop("style", "").split(";"):
        name, _, value = piece.partition(":")
        if name.strip():
            given[name.strip()] = value.strip()
    kept: dict[str, str] = {}
    if "id" in given:
        kept["id"] = prefix + given["id"]
    for name in ("d", "x", "y", "width", "height", "r", "cx", "cy"):
        if name in given:
            kept[name] = _short(given[name])
    if _LINK in given:
        link = given[_LINK]
        kept["href"] = f"#{prefix}{link[1:]}" if link.startswith("#") else link
    if "clip-path" in given:
        kept["clip-path"] = _renamed(given["clip-path"], prefix)
    if tag == "image":
        kept |= {name: given[name] for name in ("transform", "preserveAspectRatio") if name in given}
        kept["preserveAspectRatio"] = "none"
    if tag == "text":
        kept |= _text(given)
    for name, usual in _KEPT.items():
        value = given.get(name)
        if value is not None and value != usual:
            kept[name] = _short(value) if name != "fill" else value
    return kept


def _text(given: Mapping[str, str]) -> dict[str, str]:
    """Height, face and turn of letters, as far as they are not the usual."""
    kept = {}
    match = _FONT.match(given.get("font", ""))
    size = match["size"] if match else given.get("font-size", "").removesuffix("px")
    family = match["family"] if match else given.get("font-family", "")
    if size and _short(size) not in ("11", "11.0"):
        kept["font-size"] = _short(size)
    if "Mono" in family or "monospace" in family:
        kept["font-family"] = "monospace"
    turned = given.get("transform", "")
    if (match := _TURN.search(turned)) and float(match[1]) or turned and not match:
        kept["transform"] = _short(turned)
    return kept


def _shape(kept: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A path that is a circle or an upright rectangle, written shorter."""
    if _ROUND.fullmatch(kept["d"]):
        at = [float(n) for n in re.findall(r"-?[\d.]+", kept["d"])]
        (left, right), (top, bottom) = ((min(ends), max(ends)) for ends in (at[::2], at[1::2]))
        round_ = {"cx": (left + right) / 2, "cy": (top + bottom) / 2, "r": (bottom - top) / 2}
        del kept["d"]
        return "circle", {name: _short(f"{value:.2f}") for name, value in round_.items()} | kept
    if match := _UPRIGHT.fullmatch(kept["d"]):
        x0, y0, x1, y1, x2, y2, x3, y3 = (float(n) for n in match.groups())
        if y0 == y1 and x1 == x2 and y2 == y3 and x3 == x0:
            wide, tall = (_short(f"{end:.2f}") for end in (x1 - x0, y2 - y1))
            kept["d"] = f"M{match[1]} {match[2]}h{wide}v{tall}h{_short(f'{x0 - x1:.2f}')}z"
    return "path", kept


def _unseen(kept: Mapping[str, str]) -> bool:
    return kept.get("fill") == "none" and kept.get("stroke", "none") == "none"


def _renamed(link: str, prefix: str) -> str:
    return link.replace("url(#", f"url(#{prefix}")


def _short(numbers: str) -> str:
    """Numbers to a tenth of a pixel; the blanks that paths do without."""

    def cut(match: re.Match[str]) -> str:
        value = f"{float(match[0]):.1f}"
        return value.removesuffix(".0") if value not in ("-0.0", "0.0") else "0"

    return re.sub(r"\s*([MLCQzZ])\s*", r"\1", _NUMBER.sub(cut, numbers)).strip()
