"""Bars with intervals: effects of layers and of single components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from cutaway.figures import theme
from cutaway.statistics import Estimate


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: its name, escaped.
        value: how long it is.
        low, high: the ends of its interval.
        significant: faint where it is not.
    """

    label: str
    value: float
    low: float
    high: float
    significant: bool = True

    @classmethod
    def of(cls, label: str, figure: Estimate | float) -> Bar:
        """The bar of an estimate with its interval; of a bare figure, and where there is no interval, without one."""
        if isinstance(figure, Estimate):
            return cls(label, figure.value, *figure.ends(figure.value))
        return cls(label, figure, figure, figure)


def bars(
    items: Sequence[Bar], title: str = "", unit: str = "share of the gap", colour: str = ""
) -> go.Figure:
    """Horizontal bars with their intervals, first item on top; faint where not significant."""
    return groups_of_bars({unit: items}, title=title, unit=unit, colours=[colour or theme.ACCENT])


def groups_of_bars(
    groups: Mapping[str, Sequence[Bar]],
    title: str = "",
    unit: str = "share of the gap",
    colours: Sequence[str] = (),
) -> go.Figure:
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
            marker={"color": colour, "opacity": [1.0 if bar.significant else 0.3 for bar in items]},
            error_x=theme.whiskers(value, low, high, theme.INK, thickness=1.1, width=3),
            customdata=[
                f"{bar.label}<br>{bar.value:+.3f} ({bar.low:+.3f} to {bar.high:+.3f})<br>{name}" for bar in items
            ],
            hovertemplate=theme.HOVER,
        )  # fmt: skip
    longest = max((len(items) for items in groups.values()), default=0)
    labels = [bar.label for bar in next(iter(groups.values()), [])]
    row = 20 * max(1, len(groups)) + 6
    theme.dress(figure, height=int(86 + (22 if len(groups) > 1 else 0) + row * longest), title=title)
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
    return figure
