"""Heat maps of effects: layers against tokens, layers against heads."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from cutaway.figures import theme
from cutaway.figures.showing import Picture

NOT_SIGNIFICANT = "·"
KNOWN_ZERO = "–"


@dataclass(frozen=True)
class Grid:
    """What a heat map shows.

    Attributes:
        values: [rows columns]; NaN where there is nothing.
        rows, columns: labels, already escaped (see `show_token`); duplicates are fine.
        row_title, column_title: axis names.
        low, high: [rows columns] ends of the interval, or None.
        q: [rows columns] corrected significance, NaN where too few examples can tell; or None.
        known_zero: [rows columns] bool, cells that need no run because nothing can change there.
        notes: [rows columns] one more line for the hover, or None.
        unit: name of the colour bar.
    """

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str = "layer"
    column_title: str = "token"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    q: np.ndarray | None = None
    known_zero: np.ndarray | None = None
    notes: np.ndarray | None = None
    unit: str = "share of the gap"

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.rows), len(self.columns)):
            raise ValueError(
                f"{self.values.shape} values for {len(self.rows)} rows and {len(self.columns)} columns"
            )


def scale_limit(*values: np.ndarray) -> float:
    """A common symmetric limit for heat maps shown together: the largest finite magnitude, rounded up to a tenth.

    >>> scale_limit(np.array([0.2, -0.73, np.nan]))
    0.8
    """
    peak = max((float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for v in values), default=0.0)
    return max(0.1, float(np.ceil(peak * 10 - 1e-6) / 10))


def heatmap(
    grid: Grid,
    title: str = "",
    limit: float | None = None,
    q_threshold: float = 0.05,
    span: tuple[float, float] | None = None,
) -> Picture:
    """A heat map with a symmetric diverging scale: what has no colour is zero, and the signs in cells are explained above.

    Args:
        grid: values and labels.
        title: shown above.
        limit: the scale runs from -limit to limit; default the largest magnitude.
        q_threshold: cells with a larger q are marked faintly instead of showing their number.
        span: a scale in one colour from the first of these to the second, such as (0, 1) for shares, in its place.
    """
    limit = scale_limit(grid.values) if limit is None else limit
    low, high = span or (-limit, limit)
    n_rows, n_columns = grid.values.shape
    hovers = [[_hover(grid, r, c) for c in range(n_columns)] for r in range(n_rows)]
    texts = _cell_texts(grid, q_threshold)
    known = {"low": grid.low, "high": grid.high, "q": grid.q}
    figure = go.Figure(
        go.Heatmap(
            z=grid.values, x=list(range(n_columns)), y=list(range(n_rows)), zmin=low, zmax=high,
            colorscale=theme.SEQUENTIAL if span else theme.DIVERGING, xgap=1, ygap=1, text=texts, texttemplate="%{text}",
            textfont={"size": 11 if n_columns <= 12 else 10 if n_columns <= 18 else 8}, customdata=hovers,
            hovertemplate=theme.HOVER, hoverongaps=False, colorbar=_colorbar(grid.unit, low, high),
            meta={name: values.tolist() for name, values in known.items() if values is not None}
            | {"rows": list(grid.rows), "columns": list(grid.columns)},
        )
    )  # fmt: skip
    dressed = theme.dress(figure, height=_height(grid), title=title)
    figure.update_layout(plot_bgcolor=theme.ABSENT)
    figure.update_xaxes(**_axis(grid.columns, grid.column_title), tickangle=_angle(grid.columns))
    figure.update_yaxes(**_axis(grid.rows, grid.row_title))
    theme.legend_of_signs(figure, _signs(grid, texts, q_threshold, span is None))
    return dressed


def _signs(grid: Grid, texts: list[list[str]], q_threshold: float, diverging: bool) -> list[str]:
    """What the signs that occur in this map mean."""
    shown = {text for row in texts for text in row}
    signs = ["no colour: 0"] if diverging else []
    if NOT_SIGNIFICANT in shown:
        signs.append(f"{NOT_SIGNIFICANT} cannot be told from 0 (q > {q_threshold:g})")
    if KNOWN_ZERO in shown:
        signs.append(f"{KNOWN_ZERO} nothing can change here")
    if not np.isfinite(grid.values).all():
        signs.append("grey: no value")
    return signs


def heatmap_table(grid: Grid, limit: float | None = None, q_threshold: float = 0.05) -> str:
    """The same heat map as a small HTML table without any script: what a notebook shows."""
    limit = scale_limit(grid.values) if limit is None else limit
    texts = _cell_texts(grid, q_threshold, always=True)
    cell = "padding:2px 5px;text-align:center;font-size:11px"
    head = "".join(f'<th style="{cell};font-weight:normal">{label}</th>' for label in grid.columns)
    body = []
    for r in reversed(range(len(grid.rows))):
        cells = []
        for c in range(len(grid.columns)):
            value = float(grid.values[r, c])
            colour = theme.blend(value, limit) if np.isfinite(value) else theme.ABSENT
            style = f"{cell};background:{colour};color:{theme.ink_on(colour)}"
            cells.append(f'<td style="{style}">{texts[r][c]}</td>')
        body.append(f'<tr><th style="{cell}">{grid.rows[r]}</th>{"".join(cells)}</tr>')
    corner = f'<th style="{cell};font-weight:normal">{html.escape(grid.row_title)}</th>'
    return f'<table style="border-collapse:collapse">{"".join(body)}<tr>{corner}{head}</tr></table>'


def _cell_texts(grid: Grid, q_threshold: float, always: bool = False) -> list[list[str]]:
    show_numbers = always or len(grid.columns) <= 24

    def text(r: int, c: int) -> str:
        value = float(grid.values[r, c])
        if not np.isfinite(value):
            return ""
        if grid.known_zero is not None and grid.known_zero[r, c]:
            return KNOWN_ZERO
        if grid.q is not None and grid.q[r, c] > q_threshold:
            return NOT_SIGNIFICANT
        return _short(value) if show_numbers else ""

    return [[text(r, c) for c in range(len(grid.columns))] for r in range(len(grid.rows))]


def _short(value: float) -> str:
    """A number short enough for a cell: two places below one, one below a hundred."""
    if abs(value) < 0.005:
        return "0"
    text = f"{abs(value):.2f}"
    text = text[1:] if text.startswith("0.") else f"{abs(value):.{0 if abs(value) >= 100 else 1}f}"
    return f"−{text}" if value < 0 else text


def _hover(grid: Grid, r: int, c: int) -> str:
    value = float(grid.values[r, c])
    lines = [f"{grid.row_title} {grid.rows[r]} · {grid.column_title} <b>{grid.columns[c]}</b>"]
    if not np.isfinite(value):
        lines.append("no value")
    elif grid.known_zero is not None and grid.known_zero[r, c]:
        lines.append("0: both prompts agree here and nothing upstream differs")
    else:
        lines.append(f"{value:+.3f} {grid.unit}")
        if grid.low is not None and grid.high is not None and np.isfinite(grid.low[r, c]):
            lines.append(f"95 % interval {grid.low[r, c]:+.3f} to {grid.high[r, c]:+.3f}")
        if grid.q is not None and np.isfinite(grid.q[r, c]):
            lines.append(f"q = {grid.q[r, c]:.3g}")
    if grid.notes is not None and grid.notes[r, c]:
        lines.append(str(grid.notes[r, c]))
    return "<br>".join(lines)


def _axis(labels: Sequence[str], title: str) -> dict[str, Any]:
    step = max(1, int(np.ceil(len(labels) / 48)))
    ticks = list(range(0, len(labels), step))
    return {
        "tickmode": "array", "tickvals": ticks, "ticktext": [labels[i] for i in ticks], "showgrid": False,
        "title": theme.axis_title(title, standoff=8), "zeroline": False, "ticks": "outside", "ticklen": 4,
        "tickcolor": theme.PAPER, "range": [-0.5, len(labels) - 0.5], "tickfont": {"size": 11 if len(labels) <= 30 else 9},
    }  # fmt: skip


def _colorbar(unit: str, low: float, high: float) -> dict[str, Any]:
    values = [low + (high - low) * share for share in (0, 0.25, 0.5, 0.75, 1)]
    words = [f"{value:.3g}".replace("-", "−") for value in values]
    return theme.colour_bar(unit, len=1.0, tickvals=values, ticktext=words, ticks="outside", ticklen=3)


def _angle(labels: Sequence[str]) -> int:
    longest = max((len(html.unescape(label)) for label in labels), default=0)
    return 0 if longest <= 2 or longest * len(labels) <= 40 else -60


def _height(grid: Grid) -> int:
    longest = max((len(html.unescape(label)) for label in grid.columns), default=0)
    below = 52 if _angle(grid.columns) == 0 else 58 + min(90, 6 * longest)
    return int(max(150, 44 + below + min(26, max(14, 420 // max(1, len(grid.rows)))) * len(grid.rows)))
