"""Many small networks side by side: a score for every head and MLP, and which of them are known to matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from plotly.subplots import make_subplots

from cutaway.figures import theme
from cutaway.figures.showing import Picture


@dataclass(frozen=True, eq=False)
class Panel:
    """One network.

    Attributes:
        title: its name.
        scores: [layers columns], NaN where there is no such node.
        known: [layers columns], which nodes are known to matter.
    """

    title: str
    scores: np.ndarray
    known: np.ndarray


def node_grids(panels: Sequence[Panel], columns: int = 5, limit: float = 1.0) -> Picture:
    """One small map for each network, layers upwards, heads by number and last the MLP to the right; known nodes are ringed.

    Args:
        panels: the networks, in the order of reading.
        columns: how many stand side by side.
        limit: the score at which the colour is full.
    """
    columns = min(columns, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=[p.title for p in panels], horizontal_spacing=0.03,
        vertical_spacing=0.42 / rows,
    )  # fmt: skip
    for i, panel in enumerate(panels):
        row, column = 1 + i // columns, 1 + i % columns
        layers, width = panel.scores.shape
        names = [*map(str, range(width - 1)), "MLP"]
        words = [[*(f"head {r}.{h}" for h in range(width - 1)), f"MLP {r}"] for r in range(layers)]
        figure.add_heatmap(
            z=panel.scores, x=names, text=words, y=[str(r) for r in range(layers)], zmin=-limit, zmax=limit,
            colorscale=theme.DIVERGING, showscale=False, xgap=2, ygap=2, row=row, col=column,
            hovertemplate="%{text}: %{z:.3f}<extra></extra>",
            meta={"words": [["known" if known else "" for known in line] for line in panel.known]},
        )  # fmt: skip
        ringed = [(names[c], str(r)) for r, c in np.argwhere(panel.known)]
        for colour, line in (
            (theme.PAPER, 5),
            (theme.INK, 2),
        ):  # dark on a pale rim, to be seen on every colour
            figure.add_scatter(
                x=[x for x, _ in ringed], y=[y for _, y in ringed], mode="markers", hoverinfo="skip", row=row, col=column,
                marker={"symbol": "circle-open", "size": 15, "color": colour, "line": {"width": line}},
            )  # fmt: skip
    dressed = theme.dress(figure, height=60 + 118 * rows)
    figure.update_layout(
        plot_bgcolor=theme.GRID_LINE, showlegend=False, margin={"l": 26, "r": 8, "t": 34, "b": 24}
    )
    figure.update_annotations(font={"size": 11, "color": theme.INK, "family": theme.FONT})
    figure.update_xaxes(tickfont={"size": 9}, ticks="", showgrid=False, zeroline=False, type="category")
    figure.update_yaxes(tickfont={"size": 9}, ticks="", showgrid=False, zeroline=False, type="category")
    return dressed
