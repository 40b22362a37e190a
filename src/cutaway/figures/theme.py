"""Colours, fonts and margins of every figure and report, in one place.

The diverging pair (blue, vermilion) is told apart with every common form of colour blindness, and on grey paper by the
numbers that are printed into the cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif'
)
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'

INK = "#1c2127"
MUTED = "#5f6975"
FAINT = "#c3c9d1"
GRID_LINE = "#e6e9ed"
PAPER = "#ffffff"
ABSENT = "#eef0f3"

NEGATIVE = "#1d5fa6"
POSITIVE = "#b5470f"
ACCENT = "#0f6e6a"

# -1 ... 0 ... +1; the middle is exactly white, so that a white cell reads "nothing happened".
DIVERGING: list[tuple[float, str]] = [
    (0.0, "#0f3f78"), (0.125, "#1d5fa6"), (0.25, "#5b93cc"), (0.375, "#b3cfe8"), (0.5, "#ffffff"),
    (0.625, "#f6cfb3"), (0.75, "#e59560"), (0.875, "#b5470f"), (1.0, "#7f2d06"),
]  # fmt: skip


HOVER = "%{customdata}<extra></extra>"


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


def dress(figure: go.Figure, height: int, title: str = "") -> go.Figure:
    """The same figure in the house's fonts, colours and margins, `height` pixels tall and as wide as its place."""
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
    return figure


def blend(value: float, limit: float) -> str:
    """The colour of `value` on the diverging scale from -limit to limit, as `#rrggbb`.

    >>> blend(0.0, 1.0), blend(9.0, 1.0)
    ('#ffffff', '#7f2d06')
    """
    share = min(max((value / limit + 1) / 2, 0.0), 1.0) if limit > 0 else 0.5
    for (left, first), (right, second) in zip(DIVERGING, DIVERGING[1:], strict=False):
        if share <= right:
            weight = (share - left) / (right - left)
            pairs = zip(channels(first), channels(second), strict=True)
            return "#" + "".join(f"{round(a + (b - a) * weight):02x}" for a, b in pairs)
    return DIVERGING[-1][1]


def ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on `colour`.

    >>> ink_on("#ffffff"), ink_on("#0f3f78")
    ('#1c2127', '#ffffff')
    """
    red, green, blue = channels(colour)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`, 0 to 255 each."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
