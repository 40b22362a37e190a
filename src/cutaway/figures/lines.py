"""Plain lines and dots: values against a number, values in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from cutaway.figures.theme import ACCENT, GRID_LINE, MUTED, NEGATIVE, POSITIVE, axis_title, dress

_LOOKS = ((ACCENT, "solid"), (POSITIVE, "solid"), (MUTED, "dash"), (NEGATIVE, "dash"))


def lines(
    x: Sequence[float], series: Mapping[str, Sequence[float]], x_title: str, unit: str, title: str = ""
) -> go.Figure:
    """One line for each entry of `series` over `x`; NaN leaves a gap."""
    figure = go.Figure()
    for number, (name, values) in enumerate(series.items()):
        colour, dash = _LOOKS[number % len(_LOOKS)]
        figure.add_scatter(
            x=list(x), y=[None if v != v else float(v) for v in values], mode="lines+markers", name=name,
            line={"color": colour, "width": 2, "dash": dash}, marker={"size": 6},
            hovertemplate=f"{name}<br>%{{x:g}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    dress(figure, 320, title)
    figure.update_xaxes(title=axis_title(x_title), showgrid=False, zeroline=True, zerolinecolor=GRID_LINE)
    figure.update_yaxes(title=axis_title(unit), rangemode="tozero")
    return figure


def spread(groups: Mapping[str, Sequence[float]], unit: str, title: str = "") -> go.Figure:
    """Every value of each group as a dot on the group's own row."""
    figure = go.Figure()
    for number, (name, values) in enumerate(groups.items()):
        figure.add_scatter(
            x=list(values), y=[number + 0.18 * ((i % 5) - 2) / 2 for i in range(len(values))], mode="markers", name=name,
            marker={"size": 8, "color": (POSITIVE, NEGATIVE)[number % 2], "opacity": 0.7},
            hovertemplate=f"{name}: %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    dress(figure, 90 + 70 * len(groups), title)
    figure.update_xaxes(title=axis_title(unit), zeroline=True, zerolinecolor=MUTED)
    names = list(groups)
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=names,
        showgrid=False,
        zeroline=False,
        range=[-0.5, len(names) - 0.5],
    )
    return figure
