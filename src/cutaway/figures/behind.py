"""The numbers behind a figure, read off its description: what is plotted, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from cutaway.figures.still import per_mark, plain

if TYPE_CHECKING:
    import pandas as pd

#: A map of more cells than these is told on a page by its largest ones.
_MOST_CELLS = 1500
_MOST_ROWS = 300
_ENDS = ("low", "high", "q")

Row = dict[str, Any]


@dataclass(frozen=True)
class NumberTable:
    """One table of strings.

    Attributes:
        name: what of the figure it is of; "" where that goes without saying.
        head: names of the columns.
        rows: the cells.
        more: how many rows or cells are left out.
    """

    name: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def rows_of(figure: go.Figure) -> pd.DataFrame:
    """One row for each mark that is plotted: where it stands, its value, and the ends of its interval where it has one.

    A heat map's rows have `row`, `column`, `value`; those of bars, lines and marks `name`, `x`, `y` or `label`, `value`.
    """
    import pandas as pd

    return pd.DataFrame(list(_rows(figure)))


def sheets_of(figure: go.Figure, most: int = _MOST_CELLS) -> list[NumberTable]:
    """The same as tables of strings for a page: heat maps as they stand, layer by token, all else row by row.

    most: a map of more cells is told by its largest ones.
    """
    maps, others = [], []
    kept = _kept(figure)
    if kept is not None:
        listed = _listed("", list(kept))
        meta: Any = figure.layout.meta  # pyright: ignore[reportAttributeAccessIssue]
        return [replace(listed, more=listed.more + meta.get("more", 0))]
    panels = _panels(figure)
    for trace in _traces(figure):
        if trace.get("type") == "heatmap":
            maps.append(_map(figure, trace, panels.get(str(trace.get("xaxis") or "x"), ""), most))
        else:
            others += list(_marks(figure, trace))
    return [*maps, *([_listed("", [_titled(figure, row) for row in others])] if others else [])]


def _titled(figure: go.Figure, row: Row) -> Row:
    """A row of a mark with the axes' own names in place of `x` and `value`."""
    layout: Any = figure.layout
    across, up = plain(layout.xaxis.title.text), plain(layout.yaxis.title.text)
    names = {"x": across, "value": across if "label" in row else up}
    return {names.get(key) or key: value for key, value in row.items()}


def _rows(figure: go.Figure) -> Iterator[Row]:
    kept = _kept(figure)
    if kept is not None:
        yield from kept
        return
    panels = _panels(figure)
    for trace in _traces(figure):
        if trace.get("type") == "heatmap":
            panel = panels.get(str(trace.get("xaxis") or "x"), "")
            yield from ({"panel": panel, **row} if panel else row for row in _cells(figure, trace))
        else:
            yield from _marks(figure, trace)


def _kept(figure: go.Figure) -> Iterator[Row] | None:
    """Rows that the description holds itself, because its marks are not what was measured; None where it has none."""
    meta = figure.layout.meta  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(meta, dict) or "rows" not in meta:
        return None
    return (dict(zip(meta["head"], row, strict=True)) for row in meta["rows"])


def _traces(figure: go.Figure) -> list[dict[str, Any]]:
    return [trace.to_plotly_json() for trace in figure.data]  # pyright: ignore[reportAttributeAccessIssue]


def _panels(figure: go.Figure) -> dict[str, str]:
    """The title of each panel, by its x axis, where there are several."""
    names = list(dict.fromkeys(str(t.get("xaxis") or "x") for t in _traces(figure)))
    titles = [plain(a.text) for a in figure.layout.annotations or () if a.xref == "paper"]  # pyright: ignore
    return dict(zip(names, titles, strict=False)) if len(names) > 1 else {}


def _labels(figure: go.Figure, axis: str, values: Sequence[Any]) -> list[Any]:
    """The labels of places along an axis ("xaxis2"): its tick texts where they stand there, else the places as numbers."""
    described: Any = figure.layout[axis]
    ticks = described.tickvals
    known = (
        {}
        if ticks is None
        else dict(zip(map(float, ticks), map(plain, described.ticktext or ()), strict=False))
    )
    return [plain(v) if isinstance(v, str) else known.get(float(v), float(v)) for v in values]


def _axis(trace: dict[str, Any], kind: str) -> str:
    return f"{kind}axis{str(trace.get(f'{kind}axis') or kind)[1:]}"


def _grid(
    figure: go.Figure, trace: dict[str, Any]
) -> tuple[np.ndarray, list[Any], list[Any], dict[str, np.ndarray]]:
    """Values, labels of rows and of columns, and what else is known of each cell."""
    meta = trace.get("meta") or {}
    values = np.array(meta.get("values", trace["z"]), dtype=float)
    rows, columns = values.shape
    y = _labels(figure, _axis(trace, "y"), trace["y"] if trace.get("y") is not None else range(rows))
    x = _labels(figure, _axis(trace, "x"), trace["x"] if trace.get("x") is not None else range(columns))
    y, x = (
        [plain(label) for label in meta.get(side) or known] for side, known in (("rows", y), ("columns", x))
    )
    more = {name: np.array(meta[name], dtype=float) for name in _ENDS if meta.get(name) is not None}
    return values, y, x, more


def _words(trace: dict[str, Any]) -> list[list[str]] | None:
    """What a cell says besides its number, where the description says that it does."""
    said = (trace.get("meta") or {}).get("words")
    return None if said is None else [[plain(w) for w in row] for row in said]


def _cells(figure: go.Figure, trace: dict[str, Any]) -> Iterator[Row]:
    values, rows, columns, more = _grid(figure, trace)
    words = _words(trace)
    for (r, c), value in np.ndenumerate(values):
        said = {} if words is None else {"says": words[r][c]}
        ends = {name: float(known[r, c]) for name, known in more.items()}
        yield {"row": rows[r], "column": columns[c], **said, "value": float(value), **ends}


def _map(figure: go.Figure, trace: dict[str, Any], panel: str, most: int) -> NumberTable:
    """A heat map as it stands, the top row first; of one too large the largest cells."""
    values, rows, columns, more = _grid(figure, trace)
    if values.size > most:
        cells = [row for row in _cells(figure, trace) if np.isfinite(row["value"])]
        order = sorted(cells, key=lambda row: -abs(row["value"]))
        return _listed(panel, order, min(_MOST_ROWS, most))
    words = _words(trace)

    def cell(r: int, c: int) -> str:
        text = number(float(values[r, c]))
        if "low" in more and "high" in more and np.isfinite(more["low"][r, c]):
            text += f" ({number(more['low'][r, c])} to {number(more['high'][r, c])})"
        return f"{words[r][c]} {text}" if words is not None and words[r][c] else text

    head = ("", *map(_cell, columns))
    body = tuple(
        (_cell(rows[r]), *(cell(r, c) for c in range(len(columns)))) for r in reversed(range(len(rows)))
    )
    return NumberTable(panel, head, body)


def _marks(figure: go.Figure, trace: dict[str, Any]) -> Iterator[Row]:
    """The rows of bars, lines, marks or a histogram."""
    kind, name = trace.get("type"), plain(trace.get("name"))
    if kind == "histogram":
        yield from _bins(trace, name)
        return
    if trace.get("fill") == "toself" or (kind == "scatter" and trace.get("mode") == "markers" and not name):
        return
    flat = trace.get("orientation") == "h"
    along, lengths = ("y", "x") if flat else ("x", "y")
    values = [float("nan") if v is None else float(v) for v in trace.get(lengths, ())]
    places = list(trace.get(along, ()))
    labels = (
        _labels(figure, _axis(trace, along), [p for p in places if p is not None])
        if None not in places
        else places
    )
    ends = _ends(trace, values, lengths)
    for i, (label, value) in enumerate(zip(labels, values, strict=False)):
        shown = {"name": name} if name else {}
        at = {"label": label} if kind == "bar" else {"x": label}
        yield {**shown, **at, "value": value, **{end: known[i] for end, known in ends.items()}}


def _ends(trace: dict[str, Any], values: Sequence[float], lengths: str) -> dict[str, list[float]]:
    """The ends of intervals: from the description's own record of them, or from its error bars."""
    meta = trace.get("meta") or {}
    if meta.get("low") is not None:
        return {name: [float(v) for v in meta[name]] for name in ("low", "high")}
    error = trace.get(f"error_{lengths}") or {}
    if error.get("array") is None:
        return {}
    up = per_mark(error["array"], len(values), 0.0)
    down = per_mark(error["arrayminus"] if error.get("arrayminus") is not None else up, len(values), 0.0)
    if not (any(up) or any(down)):
        return {}
    return {
        "low": [v - d for v, d in zip(values, down, strict=True)],
        "high": [v + u for v, u in zip(values, up, strict=True)],
    }


def _bins(trace: dict[str, Any], name: str) -> Iterator[Row]:
    values = np.array(trace["x"], dtype=float)
    bins = trace.get("xbins") or {}
    edges = np.arange(bins["start"], bins["end"] + bins["size"], bins["size"]) if bins.get("size") else 30
    counts, edges = np.histogram(values, edges)
    share = 100 / max(1, len(values)) if trace.get("histnorm") == "percent" else 1
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            yield {"name": name, "from": float(low), "to": float(high), "value": float(count * share)}


def _listed(name: str, rows: Sequence[Row], most: int = _MOST_ROWS) -> NumberTable:
    head = tuple(dict.fromkeys(key for row in rows[:most] for key in row))
    cells = tuple(tuple(_cell(row.get(key)) for key in head) for row in rows[:most])
    return NumberTable(name, head, cells, max(0, len(rows) - most))


def _cell(value: Any) -> str:
    return "" if value is None else number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """A number for people: three figures, a true minus; nothing for NaN.

    >>> number(-0.12345), number(1234.5), number(float("nan"))
    ('−0.123', '1234', '')
    """
    if value != value:
        return ""
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")
