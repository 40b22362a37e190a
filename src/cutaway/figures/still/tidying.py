"""Matplotlib's SVG made small, and fit to stand in a page: few names, short numbers, a title over each mark."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
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
    body = "".join(_element(child, titles, prefix, ()) for child in root)
    return (
        f'<svg {_SPACE} viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{_FAMILY}" font-size="11">{body}</svg>'
    )


_SPACE = 'xmlns="http://www.w3.org/2000/svg"'
_FAMILY = "system-ui,-apple-system,Segoe UI,Roboto,Helvetica Neue,Noto Sans,DejaVu Sans,sans-serif"


def inlined(drawing: str) -> str:
    """A drawing without the name of its language, which goes without saying inside HTML."""
    return drawing.replace(f"<svg {_SPACE}", "<svg", 1)


def _element(
    item: ElementTree.Element, titles: Mapping[str, Sequence[str]], prefix: str, words: Sequence[str]
) -> str:
    tag = item.tag.removeprefix(_SVG) if isinstance(item.tag, str) else ""
    if not tag or tag in _DROPPED:
        return ""
    if tag == "g":
        words = titles.get(item.get("id", ""), words)
        return _group(item, titles, prefix, words)
    said = f"<title>{html.escape(words[0])}</title>" if words and tag in ("path", "use") and words[0] else ""
    kept = _attributes(item, tag, prefix)
    if tag == "path" and "d" in kept:
        tag, kept = _shape(kept)
    if tag == "path" and "id" not in item.attrib and _unseen(kept):
        return ""
    inner = said + html.escape(item.text or "", quote=False) if tag == "text" else said
    inner += "".join(_element(child, titles, prefix, ()) for child in item)
    written = "".join(f' {name}="{html.escape(value)}"' for name, value in kept.items())
    return f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>"


def _group(
    item: ElementTree.Element, titles: Mapping[str, Sequence[str]], prefix: str, words: Sequence[str]
) -> str:
    """What stands in a group, without the group where it says nothing; each mark takes one of its words."""
    marks = [
        child
        for child in item.iter()
        if child.tag in (f"{_SVG}use", f"{_SVG}path") and child.get("id") is None
    ]
    each = dict(zip(map(id, marks), words, strict=True)) if len(marks) == len(words) else {}

    def inside(group: ElementTree.Element) -> str:
        parts = []
        for child in group:
            if child.tag == f"{_SVG}g" and child.get("id") not in titles:
                parts.append(wrap(child))
            else:
                own = (each[id(child)],) if id(child) in each else ()
                parts.append(_element(child, titles, prefix, own))
        return "".join(parts)

    def wrap(group: ElementTree.Element) -> str:
        body, clip = inside(group), group.get("clip-path", "")
        return f'<g clip-path="{_renamed(clip, prefix)}">{body}</g>' if clip and body else body

    return wrap(item)


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
    if match := _FONT.match(given.get("font", "")):
        if match["size"] != "11":
            kept["font-size"] = _short(match["size"])
        if "Mono" in match["family"] or "monospace" in match["family"]:
            kept["font-family"] = "ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace"
    turned = given.get("transform", "")
    if (match := _TURN.search(turned)) and float(match[1]):
        kept["transform"] = _short(turned)
    elif turned and not match:
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
