"""Colours, fonts and margins of every figure and report, in one place.

The diverging pair (blue, vermilion) is told apart with every common form of colour blindness, and on grey paper by the
numbers that are printed into the cells.
"""

from __future__ import annotations

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
    (0.0, "#0f3f78"),
    (0.125, "#1d5fa6"),
    (0.25, "#5b93cc"),
    (0.375, "#b3cfe8"),
    (0.5, "#ffffff"),
    (0.625, "#f6cfb3"),
    (0.75, "#e59560"),
    (0.875, "#b5470f"),
    (1.0, "#7f2d06"),
]


def dress(figure: go.Figure, height: int, title: str = "") -> go.Figure:
    """The same figure in the house's fonts, colours and margins, `height` pixels tall and as wide as its place."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        font={"family": FONT, "size": 12, "color": INK},
        title={"text": title, "font": {"size": 13, "color": INK}, "x": 0, "xanchor": "left", "xref": "paper"},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin={"l": 56, "r": 12, "t": 34 if title else 10, "b": 48},
        hoverlabel={"font": {"family": FONT, "size": 12, "color": INK}, "bgcolor": PAPER, "align": "left"},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": 11},
        },
        dragmode=False,
    )
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
            pairs = zip(_channels(first), _channels(second), strict=True)
            return "#" + "".join(f"{round(a + (b - a) * weight):02x}" for a, b in pairs)
    return DIVERGING[-1][1]


def ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on `colour`.

    >>> ink_on("#ffffff"), ink_on("#0f3f78")
    ('#1c2127', '#ffffff')
    """
    red, green, blue = _channels(colour)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
