"""What lenses read: a table of tokens, layer by position, and figures by layer as lines."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from cutaway.figures import theme
from cutaway.figures.showing import Picture
from cutaway.figures.tokens import show_token

#: How many powers of ten a logarithmic scale reaches down from the largest value; what is less counts as its end.
_DECADES = 4
_LINES = (theme.ACCENT, theme.POSITIVE, theme.NEGATIVE, "#7a4fa3", "#8a6d00", theme.MUTED)


@dataclass(frozen=True)
class LensGrid:
    """What a lens table shows.

    Attributes:
        values: [l p], which colour it.
        tokens: [l p], printed into it.
        rows: layer names, the first at the bottom.
        columns: the text's tokens.
        notes: one more text for each hover.
        unit: of the values; name of the colour bar.
    """

    values: np.ndarray
    tokens: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    notes: Sequence[Sequence[str]]
    unit: str


def lens_table(grid: LensGrid, title: str = "") -> Picture:
    """Layer by token: the likeliest token in each cell, coloured by probability, entropy or divergence.

    Where a quarter of the values are less than a tenth of the largest, as divergences are, the colours are logarithmic.
    """
    n_rows, n_columns = grid.values.shape
    scale = _scale(grid)
    shown = [[_short(str(t), n_columns) for t in row] for row in grid.tokens]
    hover = [
        [
            f"layer {grid.rows[r]}, behind <b>{show_token(grid.columns[c])}</b><br>{_escaped(grid.notes[r][c])}"
            for c in range(n_columns)
        ]
        for r in range(n_rows)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=scale.places, x=list(range(n_columns)), y=list(range(n_rows)), zmin=scale.low, zmax=scale.high,
            colorscale=theme.SEQUENTIAL, xgap=1, ygap=1, text=shown, texttemplate="%{text}", customdata=hover,
            hovertemplate=theme.HOVER, textfont={"size": 11 if n_columns <= 12 else 10 if n_columns <= 20 else 8,
            "family": theme.MONO}, colorbar=theme.colour_bar(grid.unit, tickvals=scale.ticks, ticktext=scale.words),
            meta={"values": grid.values.tolist(), "words": [[show_token(str(t)) for t in row] for row in grid.tokens]},
        )
    )  # fmt: skip
    dressed = theme.dress(figure, height=int(110 + 28 * n_rows), title=title)
    figure.update_layout(plot_bgcolor=theme.ABSENT)
    ticks = [show_token(t) for t in grid.columns]
    axis = {"showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(
        tickmode="array", tickvals=list(range(n_columns)), ticktext=ticks, title={"text": "token read", "standoff": 6},
        tickangle=0 if n_columns <= 12 else -60, **axis,
    )  # fmt: skip
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(n_rows)), ticktext=list(grid.rows),
        title={"text": "layer entered", "standoff": 6}, **axis,
    )  # fmt: skip
    signs = ["colours on a logarithmic scale"] if scale.logarithmic else []
    signs += [] if np.isfinite(grid.values).all() else ["grey: no value"]
    theme.legend_of_signs(figure, signs)
    return dressed


@dataclass(frozen=True, eq=False)
class _Scale:
    """Where values lie on a colour scale: their places [l p], its ends, and its ticks with their words."""

    places: np.ndarray
    low: float
    high: float
    ticks: list[float]
    words: list[str]
    logarithmic: bool = False


def _scale(grid: LensGrid) -> _Scale:
    """From 0 to 1 for probabilities, else from 0 to the largest; in powers of ten where many are far below it."""
    known = grid.values[np.isfinite(grid.values)]
    if grid.unit.startswith("probability"):
        return _Scale(grid.values, 0.0, 1.0, [0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    top = max(float(known.max(initial=0.0)), 1e-6)
    above = known[known > 0]
    if not above.size or np.quantile(above, 0.25) > top / 10:
        ticks = [top * share for share in (0, 0.25, 0.5, 0.75, 1)]
        return _Scale(grid.values, 0.0, top, ticks, [f"{tick:.3g}" for tick in ticks])
    low = max(float(np.floor(np.log10(above.min()))), float(np.floor(np.log10(top))) - _DECADES)
    high = float(np.log10(top))
    places = np.log10(np.maximum(grid.values, 10**low))
    ticks = [float(power) for power in range(int(low), int(np.floor(high)) + 1)]
    words = [f"{10**power:g}" for power in ticks]
    words[0] = f"≤{words[0]}" if (known < 10**low).any() else words[0]
    return _Scale(places, low, high, ticks, words, True)


def _short(token: str, columns: int) -> str:
    most = 12 if columns <= 10 else 8 if columns <= 16 else 5
    text = show_token(token, escape=False)
    return html.escape(text if len(text) <= most else text[: most - 1] + "…")


def _escaped(note: str) -> str:
    return "<br>".join(html.escape(line) for line in note.split("<br>"))


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: what it is called.
        x, y: places and values.
        low, high: the ends of their intervals.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def lines(drawn: Sequence[Line], x_title: str, y_title: str, title: str = "") -> Picture:
    """Lines with shaded intervals over whole numbers (layers)."""
    figure = go.Figure()
    for number, line in enumerate(drawn):
        colour = _LINES[number % len(_LINES)]
        figure.add_scatter(
            x=[*line.x, *reversed(line.x)], y=[*line.high, *reversed(line.low)], mode="lines", fill="toself",
            fillcolor=_faint(colour), line={"width": 0}, hoverinfo="skip", showlegend=number == 0 and _known(line),
            name="95 % interval",
        )  # fmt: skip
        figure.add_scatter(
            x=list(line.x), y=list(line.y), name=html.escape(line.name), mode="lines+markers",
            line={"color": colour, "width": 2, "dash": ("solid", "dash", "dot")[number // len(_LINES) % 3]},
            marker={"size": 6, "symbol": ("circle", "square", "diamond", "cross", "x", "triangle-up")[number % 6]},
            meta={"low": list(map(float, line.low)), "high": list(map(float, line.high))},
            customdata=[[low, high] for low, high in zip(line.low, line.high, strict=True)],
            hovertemplate=f"{html.escape(line.name)}, {x_title} %{{x}}<br>%{{y:.3f}} (%{{customdata[0]:.3f}} to "
            "%{customdata[1]:.3f})<extra></extra>",
        )  # fmt: skip
    dressed = theme.dress(figure, height=340, title=title)
    figure.update_layout(margin={"t": 44})
    figure.update_xaxes(title={"text": x_title}, dtick=1, gridcolor=theme.GRID_LINE, zeroline=False)
    figure.update_yaxes(title={"text": y_title}, gridcolor=theme.GRID_LINE, rangemode="tozero", zeroline=True,
                        zerolinecolor=theme.FAINT)  # fmt: skip
    return dressed


def _known(line: Line) -> bool:
    """Whether the line has intervals that are more than its values."""
    return bool(np.any(np.asarray(line.high, float) > np.asarray(line.low, float)))


def _faint(colour: str) -> str:
    return f"rgba({','.join(map(str, theme.channels(colour)))},0.15)"
