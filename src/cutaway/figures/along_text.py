"""One number for each token of a text, as lines along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from cutaway.figures.theme import ACCENT, MUTED, axis_title, dress
from cutaway.figures.tokens import show_token

_COLOURS = (ACCENT, MUTED)
_TICKS = 80


def along_text(
    tokens: Sequence[str], lines: Mapping[str, Sequence[float]], unit: str, title: str = ""
) -> go.Figure:
    """Values along a text: one line for each entry of `lines`, NaN where a token has none."""
    figure = go.Figure()
    places = list(range(len(tokens)))
    for number, (name, values) in enumerate(lines.items()):
        figure.add_scatter(
            x=places, y=[None if v != v else float(v) for v in values], mode="lines+markers", name=name,
            line={"color": _COLOURS[number % len(_COLOURS)], "width": 2}, marker={"size": 5},
            customdata=[f"{show_token(t)}: {v:.3f} ({name})" for t, v in zip(tokens, values, strict=True)],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    dress(figure, 280, title)
    step = -(-len(tokens) // _TICKS)
    figure.update_xaxes(
        tickmode="array", tickvals=places[::step], ticktext=[show_token(t) for t in tokens[::step]], tickangle=-60,
        showgrid=False,
    )  # fmt: skip
    figure.update_yaxes(title=axis_title(unit), rangemode="tozero")
    return figure
