"""Bars with intervals: effects of layers and of single components."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from cutaway.figures import theme
from cutaway.figures.showing import Picture
from cutaway.statistics import Estimate


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: its name, escaped.
        value: how long it is.
        low, high: the ends of its interval.
        significant: faint where it is not.
        rest: grey: what is not drawn one by one, added up.
    """

    label: str
    value: float
    low: float
    high: float
    significant: bool = True
    rest: bool = False

    @classmethod
    def of(cls, label: str, figure: Estimate | float) -> Bar:
        """The bar of an estimate with its interval; of a bare figure, and where there is no interval, without one."""
        if isinstance(figure, Estimate):
            return cls(label, figure.value, *figure.ends(figure.value))
        return cls(label, figure, figure, figure)


def first_and_rest(items: Sequence[Bar], most: int) -> list[Bar]:
    """The first `most` bars, and one more for all others added up, so that what is drawn adds up to the whole.

    >>> [bar.label for bar in first_and_rest([Bar.of(name, 1.0) for name in "abcd"], 2)]
    ['a', 'b', 'and 2 more, together +2']
    """
    shown, others = list(items[:most]), items[most:]
    if len(others) < 2:
        return list(items)
    total = sum(bar.value for bar in others)
    label = f"and {len(others)} more, together {total:+.3g}".replace("-", "−")
    return [*shown, Bar(label, total, total, total, rest=True)]


def bars(items: Sequence[Bar], title: str = "", unit: str = "share of the gap", colour: str = "") -> Picture:
    """Horizontal bars with their intervals, first item on top; faint where not significant."""
    return groups_of_bars({unit: items}, title=title, unit=unit, colours=[colour or theme.ACCENT])


def groups_of_bars(
    groups: Mapping[str, Sequence[Bar]],
    title: str = "",
    unit: str = "share of the gap",
    colours: Sequence[str] = (),
) -> Picture:
    """Horizontal bars in named groups side by side (the same labels in each), with intervals.

    Args:
        groups: name -> bars; the first label is drawn on top.
        title: shown above.
        unit: name of the value axis.
        colours: one per group; default vermilion, blue, green.
    """
    palette = list(colours) or [theme.POSITIVE, theme.NEGATIVE, theme.ACCENT]
    figure = go.Figure()
    for (name, items), colour in zip(groups.items(), palette, strict=False):
        places = list(range(len(items)))[::-1]
        value, low, high = ([getattr(bar, end) for bar in items] for end in ("value", "low", "high"))
        figure.add_bar(
            y=places, x=value, name=name, orientation="h",
            marker={
                "color": [theme.MUTED if bar.rest else colour for bar in items],
                "opacity": [1.0 if bar.significant else 0.3 for bar in items],
            },
            error_x=theme.whiskers(value, low, high, theme.INK, thickness=1.1, width=3),
            customdata=[
                f"{bar.label}<br>{bar.value:+.3f}{_interval(bar)}<br>{html.escape(name)}" for bar in items
            ],
            hovertemplate=theme.HOVER,
        )  # fmt: skip
    longest = max((len(items) for items in groups.values()), default=0)
    labels = [bar.label for bar in next(iter(groups.values()), [])]
    row = 20 * max(1, len(groups)) + 6
    dressed = theme.dress(
        figure, height=int(86 + (22 if len(groups) > 1 else 0) + row * longest), title=title
    )
    figure.update_layout(barmode="group", bargap=0.28, bargroupgap=0.08, showlegend=len(groups) > 1)
    if len(groups) > 1 and title:
        figure.update_layout(margin={"t": 58}, title={"y": 0.99, "yanchor": "top"})
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(longest))[::-1], ticktext=labels, ticks="outside", ticklen=5,
        tickcolor=theme.PAPER, showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_xaxes(
        title=theme.axis_title(unit), gridcolor=theme.GRID_LINE, zeroline=True, zerolinecolor=theme.INK,
        zerolinewidth=1, ticks="",
    )  # fmt: skip
    signs = _signs([bar for items in groups.values() for bar in items])
    theme.legend_of_signs(figure, signs, above=22 if len(groups) > 1 else 0)
    return dressed


def _interval(bar: Bar) -> str:
    return f" ({bar.low:+.3f} to {bar.high:+.3f})" if bar.high > bar.low else ""


def _signs(items: Sequence[Bar]) -> list[str]:
    """What whiskers, faint and grey bars mean, where there are any."""
    signs = ["whiskers: 95 % interval"] if any(bar.high > bar.low for bar in items) else []
    signs += ["faint: cannot be told from 0"] if any(not bar.significant for bar in items) else []
    return signs + (["grey: all others added up"] if any(bar.rest for bar in items) else [])
