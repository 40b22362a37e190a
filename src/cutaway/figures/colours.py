"""The colours of every figure and page, and how they are mixed.

The diverging pair (blue, vermilion) is told apart with every common form of colour blindness, and on grey paper by the
numbers that are printed into the cells.
"""

from __future__ import annotations

from collections.abc import Sequence

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

# 0 ... 1: white to green, so that ink stays readable up to the dark end.
SEQUENTIAL: list[tuple[float, str]] = [
    (0.0, "#ffffff"), (0.25, "#d3ebe6"), (0.5, "#93cfc4"), (0.75, "#3f9d92"), (1.0, "#0b4f4c"),
]  # fmt: skip


def on_scale(share: float, scale: Sequence[tuple[float, str]]) -> str:
    """The colour of a scale, `(place, colour)` from 0 to 1, at a share of its length, as `#rrggbb`.

    >>> on_scale(0.5, [(0.0, "#000000"), (1.0, "#ffffff")])
    '#808080'
    """
    share = min(max(share, 0.0), 1.0)
    for (left, first), (right, second) in zip(scale, scale[1:], strict=False):
        if share <= right:
            weight = (share - left) / max(right - left, 1e-12)
            pairs = zip(channels(first), channels(second), strict=True)
            return "#" + "".join(f"{round(a + (b - a) * weight):02x}" for a, b in pairs)
    return scale[-1][1]


def blend(value: float, limit: float) -> str:
    """The colour of `value` on the diverging scale from -limit to limit, as `#rrggbb`.

    >>> blend(0.0, 1.0), blend(9.0, 1.0)
    ('#ffffff', '#7f2d06')
    """
    return on_scale((value / limit + 1) / 2 if limit > 0 else 0.5, DIVERGING)


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
