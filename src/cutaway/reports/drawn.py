"""How a figure stands on a page: drawn still, wide and narrow, with words for those who do not see it, and its numbers."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from cutaway.figures.behind import NumberTable, sheets_of
from cutaway.figures.still import inlined, plain, svg, widths
from cutaway.reports.content import Figure, Page

#: A title without a name of its own stands over a mark.
_OVER_A_MARK = re.compile(r"<title>[^<]*</title>")
#: Cells of a map that a heavy page tells one by one.
_FEW = 100
_KINDS = {"heatmap": "heat map", "scatter": "lines and marks", "bar": "bars", "histogram": "histogram"}


@dataclass(frozen=True)
class Exhibit:
    """A figure ready to be set.

    Attributes:
        number: its place among the figures of the page, from 1.
        wide, narrow: SVG; narrow is empty where the wide one is to be scrolled on a narrow screen.
        caption: with the figure's title in front where nothing else on the page says it.
        sheets: the numbers behind it.
        data: the figure as JSON, for Plotly; empty on a still page.
        height: in pixels.
    """

    number: int
    wide: Markup
    narrow: Markup
    caption: str
    sheets: tuple[NumberTable, ...]
    data: Markup
    height: int


def drawn(block: Figure, number: int, page: Page, heading: str, interactive: bool) -> Exhibit:
    """A figure of a page, under this heading."""
    figure = block.figure
    title = plain(figure.layout.title.text)  # pyright: ignore[reportAttributeAccessIssue]
    told = any(said(title, other) for other in (block.caption, heading, page.title, page.headline))
    caption = block.caption if told or not title else f"{title.rstrip('.')}. {block.caption}"
    sheets = tuple(sheets_of(figure))
    words = caption.split(". ")[0].rstrip(".") or f"Figure {number}"
    wide, narrow = widths(figure)
    spec: dict[str, Any] = json.loads(figure.to_json() or "{}") if interactive else {}
    spec.get("layout", {}).pop("title", None)
    large = svg(figure, wide, title=False, prefix=f"w{number}-")
    small = svg(figure, narrow, title=False, prefix=f"n{number}-", words=False) if narrow else ""
    return Exhibit(
        number,
        _named(large, f"w{number}", words, block),
        _named(small, f"n{number}", words, block) if small else Markup(),
        caption,
        sheets,
        embed_json(spec) if interactive else Markup(),
        block.height,
    )


def lighter(one: Exhibit, block: Figure) -> Exhibit:
    """The same with fewer bytes, for a page that would be heavy: no words over marks, of large maps the largest cells."""
    return replace(
        one, wide=Markup(_OVER_A_MARK.sub("", one.wide)), sheets=tuple(sheets_of(block.figure, _FEW)), narrow=Markup()
    )  # fmt: skip


def weight(one: Exhibit) -> int:
    """About how many bytes it takes."""
    cells = sum(len(cell) + 9 for sheet in one.sheets for row in sheet.rows for cell in row)
    return len(one.wide) + len(one.narrow) + cells


def said(title: str, other: str) -> bool:
    """Whether another text says all that a title says."""

    def letters(text: str) -> str:
        return re.sub(r"\W+", "", plain(text)).casefold()

    return letters(title) in letters(other)


def _named(drawing: str, name: str, words: str, block: Figure) -> Markup:
    """A drawing with its name and what it is, for those who hear it."""
    types = [str(trace.type) for trace in block.figure.data]  # pyright: ignore[reportAttributeAccessIssue]
    kinds = dict.fromkeys(_KINDS.get(name, name) for name in types)
    what = f"A drawing: {', '.join(kinds) or 'empty'}. Its numbers are in the table below it."
    head, rest = inlined(drawing).split(">", 1)
    return Markup(
        f'{head} role="img" aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{html.escape(words)}</title>'
        f'<desc id="{name}-desc">{html.escape(what)}</desc>{rest}'
    )


def embed_json(value: Any) -> Markup:
    """JSON that may stand inside a `<script>` element whatever strings it holds.

    Every character by which a script or a comment could be ended or begun, and the two line ends that JavaScript does
    not allow in strings, are written as escapes; a JSON parser reads them back as they were.

    >>> str(embed_json("</script>"))
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
