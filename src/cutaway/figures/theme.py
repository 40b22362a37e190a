"""Fonts, margins and axes of every figure and report, in one place; the colours are those of `colours`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from cutaway.figures.colours import (
    ABSENT,
    ACCENT,
    DIVERGING,
    FAINT,
    GRID_LINE,
    INK,
    MUTED,
    NEGATIVE,
    PAPER,
    POSITIVE,
    SEQUENTIAL,
    blend,
    channels,
    ink_on,
)  # fmt: skip
from cutaway.figures.showing import Picture

__all__ = [
    "ABSENT", "ACCENT", "DIVERGING", "FAINT", "FONT", "GRID_LINE", "HOVER", "INK", "MONO", "MUTED", "NEGATIVE", "PAPER",
    "POSITIVE", "SEQUENTIAL", "axis_title", "blend", "channels", "colour_bar", "dress", "ink_on", "legend_of_signs",
    "whiskers",
]  # fmt: skip

FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif'
)
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'
#: What stands in the box over a mark: the mark's own text.
HOVER = "%{customdata}<extra></extra>"
#: Letters in a line of what signs mean.
_LINE = 105


def axis_title(text: str, size: int = 12, standoff: int = 6) -> dict[str, Any]:
    """The name of an axis."""
    return {"text": text, "font": {"size": size, "color": MUTED}, "standoff": standoff}


def colour_bar(unit: str, x: float = 1.01, **more: Any) -> dict[str, Any]:
    """A thin colour bar at the right, with the unit along it."""
    return {
        "title": {"text": unit, "side": "right", "font": {"size": 11, "color": MUTED}}, "thickness": 10,
        "outlinewidth": 0.5, "outlinecolor": FAINT, "tickfont": {"size": 10}, "x": x, **more,
    }  # fmt: skip


def whiskers(
    value: Iterable[float], low: Iterable[float], high: Iterable[float], colour: str, **more: Any
) -> dict[str, Any]:
    """The intervals of values, as the error bars of a trace; an end on the wrong side of its value counts as the value."""
    ends = list(zip(low, value, high, strict=True))
    up, down = [max(0.0, top - v) for _, v, top in ends], [max(0.0, v - bottom) for bottom, v, _ in ends]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": colour, **more}


def legend_of_signs(figure: go.Figure, signs: Sequence[str], above: int = 0) -> None:
    """One quiet line above the drawing that says what its signs mean; the margin grows by as much.

    above: pixels between it and the drawing, where a legend of names stands.
    """
    if not signs:
        return
    lines = [""]
    for sign in (sign.replace(" ", "\u00a0") for sign in signs):  # a line is broken between signs only
        lines = (
            [*lines[:-1], f"{lines[-1]}\u2003 {sign}".strip()]
            if len(lines[-1] + sign) < _LINE
            else [*lines, sign]
        )
    figure.add_annotation(
        text="<br>".join(lines), x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
        align="left", font={"size": 11, "color": MUTED}, yshift=above,
    )  # fmt: skip
    taller = 4 + 15 * len(lines)
    top = figure.layout.margin.t or 10  # pyright: ignore[reportAttributeAccessIssue]
    figure.update_layout(margin={"t": top + taller}, height=(figure.layout.height or 300) + taller)  # pyright: ignore


def dress(figure: go.Figure, height: int, title: str = "") -> Picture:
    """The same figure in the house's fonts, colours and margins, `height` pixels tall and as wide as its place.

    It becomes a `Picture` in place, so that whoever began it as a plain figure goes on with the same object.
    """
    dressed = Picture.of(figure)
    font = {"family": FONT, "size": 12, "color": INK}
    legend = {
        "orientation": "h",
        "x": 0,
        "y": 1.0,
        "xanchor": "left",
        "yanchor": "bottom",
        "font": {"size": 11},
    }
    figure.update_layout(
        template="none", height=height, autosize=True, font=font, paper_bgcolor=PAPER, plot_bgcolor=PAPER,
        title={"text": title, "font": {"size": 13, "color": INK}, "x": 0, "xanchor": "left", "xref": "paper"},
        margin={"l": 56, "r": 12, "t": 34 if title else 10, "b": 48},
        hoverlabel={"font": font, "bgcolor": PAPER, "align": "left"}, legend=legend, dragmode=False,
    )  # fmt: skip
    figure.update_xaxes(automargin=True, fixedrange=True)
    figure.update_yaxes(automargin=True, fixedrange=True)
    return dressed
