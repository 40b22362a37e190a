"""Attention patterns: one head in full size with its tokens, or all heads at once in small. Every scale runs from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from cutaway.figures import theme
from cutaway.figures.tokens import show_token

#: 0 ... 1: white to green.
_SCALE = [(0.0, "#ffffff"), (0.25, "#d3ebe6"), (0.5, "#93cfc4"), (0.75, "#3f9d92"), (1.0, "#0b4f4c")]
#: Cells of a small picture along one side; longer texts are drawn in blocks, each as dark as its darkest cell.
MOST_CELLS = 32


def attention_map(
    table: np.ndarray,
    looking: Sequence[str],
    looked_at: Sequence[str],
    title: str = "",
    unit: str = "attention",
) -> go.Figure:
    """One head: rows look, columns are looked at, the first token on top; NaN where a token cannot look.

    Args:
        table: [looking looked_at], from 0 to 1.
        looking, looked_at: the tokens.
        title: shown above.
        unit: name of the colour bar.
    """
    n_rows, n_columns = table.shape
    names = [show_token(t) for t in looked_at]
    small = n_columns <= 24
    texts = [
        ["" if not v >= 0.05 or not small else f"{v:.2f}".lstrip("0") for v in row] for row in table[::-1]
    ]
    hovers = [
        [
            f"<b>{show_token(a)}</b> looks at <b>{b}</b><br>{v:.3f} {unit}"
            for b, v in zip(names, row, strict=True)
        ]
        for a, row in zip(reversed(looking), table[::-1], strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=table[::-1], x=list(range(n_columns)), y=list(range(n_rows)), zmin=0, zmax=1, colorscale=_SCALE, xgap=1,
            ygap=1, text=texts, texttemplate="%{text}", textfont={"size": 10 if n_columns <= 16 else 8},
            customdata=hovers, hovertemplate=theme.HOVER, hoverongaps=False, colorbar=theme.colour_bar(unit),
        )
    )  # fmt: skip
    theme.dress(figure, height=int(130 + min(26, max(12, 560 // max(1, n_rows))) * n_rows), title=title)
    figure.update_layout(plot_bgcolor=theme.ABSENT)
    upwards = [show_token(t) for t in reversed(looking)]
    for update, labels, name in (
        (figure.update_xaxes, names, "is looked at"),
        (figure.update_yaxes, upwards, "looks"),
    ):
        step = max(1, -(-len(labels) // 48))
        ticks = list(range(0, len(labels), step))
        update(
            tickmode="array", tickvals=ticks, ticktext=[labels[i] for i in ticks], showgrid=False, zeroline=False,
            range=[-0.5, len(labels) - 0.5], title=theme.axis_title(name, standoff=8),
        )  # fmt: skip
    figure.update_xaxes(tickangle=-60)
    return figure


def small_patterns(
    tables: np.ndarray, layers: Sequence[int], heads: Sequence[int], title: str = "", unit: str = "attention"
) -> go.Figure:
    """All heads at once, one small picture for each: layers upwards, heads to the right.

    Each picture has the first token on top and at the left; grey is what a token cannot look at, or no head.

    Args:
        tables: [n looking looked_at], from 0 to 1, NaN where a token cannot look.
        layers, heads: [n], whose each is.
        title: shown above.
        unit: name of the colour bar.
    """
    small = np.stack([in_blocks(table) for table in tables])
    rows, columns = sorted(set(layers)), sorted(set(heads))
    size = small.shape[1] + 1
    mosaic = np.zeros((size * len(rows) - 1, size * len(columns) - 1), np.uint8)
    for table, layer, head in zip(small, layers, heads, strict=True):
        top, left = size * rows.index(layer), size * columns.index(head)
        cells = np.where(np.isnan(table), 0, 1 + np.round(254 * np.clip(np.nan_to_num(table), 0, 1)))
        mosaic[top : top + size - 1, left : left + size - 1] = cells[::-1]
    first = 1 / 255
    scale = [(0.0, theme.GRID_LINE), (first / 2, theme.GRID_LINE)]
    scale += [(first / 2 + share * (1 - first / 2), colour) for share, colour in _SCALE]
    bar = theme.colour_bar(unit, tickvals=[1, 128, 255], ticktext=["0", "0.5", "1"], len=min(1.0, 4 / len(rows)), y=1,
                           yanchor="top")  # fmt: skip
    figure = go.Figure(
        go.Heatmap(
            z=mosaic, zmin=0, zmax=255, colorscale=scale, colorbar=bar, hoverinfo="skip", zsmooth=False
        )
    )
    each = max(36, min(180, 840 // len(columns), 2200 // len(rows)))
    theme.dress(figure, height=90 + each * len(rows), title=title)
    middle = (size - 1) / 2 - 0.5
    figure.update_xaxes(
        tickmode="array", tickvals=[size * i + middle for i in range(len(columns))], ticktext=[str(h) for h in columns],
        title=theme.axis_title("head"), showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(
        tickmode="array", tickvals=[size * i + middle for i in range(len(rows))], ticktext=[str(r) for r in rows],
        title=theme.axis_title("layer"), showgrid=False, zeroline=False,
    )  # fmt: skip
    return figure


def in_blocks(table: np.ndarray) -> np.ndarray:
    """A table of at most `MOST_CELLS` a side: in blocks, each as dark as its darkest cell."""
    block = -(-max(table.shape) // MOST_CELLS)
    if block == 1:
        return table
    n = -(-max(table.shape) // block)
    padded = np.full((n * block, n * block), -1.0)
    padded[: table.shape[0], : table.shape[1]] = np.nan_to_num(table, nan=-1.0)
    darkest = padded.reshape(n, block, n, block).max((1, 3))
    return np.where(darkest < 0, np.nan, darkest)
