"""Faithfulness over the size of a circuit: the curve, its interval, and where a circuit of the same size by chance lies."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from cutaway.figures.showing import Picture
from cutaway.figures.theme import ACCENT, FAINT, MUTED, dress


def faithfulness_curve(
    shares: Sequence[float],
    values: Sequence[float],
    tested: tuple[float, float] | None = None,
    random: Sequence[float] = (),
) -> Picture:
    """f(k) over the share k of edges, on a logarithmic axis; the tested circuit and random ones of its size as marks.

    shares, values: the curve. tested: (share, faithfulness) of the tested circuit. random: faithfulness of random circuits.
    """
    figure = go.Figure()
    for level, label in ((1.0, "whole network"), (0.0, "everything ablated")):
        figure.add_hline(y=level, line={"color": FAINT, "width": 1}, annotation_text=label, annotation_position="top left",
                         annotation_font={"size": 10, "color": MUTED})  # fmt: skip
    percent = [100 * s for s in shares]
    figure.add_scatter(
        x=percent, y=list(values), mode="lines+markers", name="best edges by score", line={"color": ACCENT, "width": 2},
        hovertemplate="%{x:g} % of edges: %{y:.2f}<extra></extra>",
    )  # fmt: skip
    if tested is not None:
        at = 100 * tested[0]
        if random:
            figure.add_scatter(
                x=[at] * len(random), y=list(random), mode="markers", name="random circuits of its size",
                marker={"symbol": "line-ew-open", "size": 12, "color": MUTED},
                hovertemplate="random: %{y:.2f}<extra></extra>",
            )  # fmt: skip
        figure.add_scatter(
            x=[at], y=[tested[1]], mode="markers", name="the tested circuit",
            marker={"size": 12, "color": ACCENT, "symbol": "diamond"},
            hovertemplate="this circuit: %{x:.2g} %, %{y:.2f}<extra></extra>",
        )  # fmt: skip
    dressed = dress(figure, 300)
    figure.update_xaxes(
        type="log", title={"text": "share of edges (%)", "font": {"size": 11, "color": MUTED}}
    )
    figure.update_yaxes(title={"text": "faithfulness", "font": {"size": 11, "color": MUTED}}, zeroline=False)
    return dressed
