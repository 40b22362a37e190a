"""What a terminal shows of results that hold many numbers: grouped, whole at 80 columns, readable without colours.

A map is a grid of numbers, or of shades where these do not fit; long lists are grouped by layer or by reader; what is left
out is counted and added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

_BARS, _STRONGEST, _LAYERS = 40, 6, 14
_UP, _DOWN = "░▒▓█", "∙∘○●"
_ABSENT, _NOTHING = "×", "·"
_Q = 0.05


@dataclass(frozen=True)
class Strongest:
    """Rows that are shown as a table.

    Attributes:
        frame: the rows.
        title: above them.
    """

    frame: pd.DataFrame
    title: str


def summary(result: Any, width: int) -> list[Any] | None:
    """What a result's summary prints, at most `width` wide (`Strongest` for a table); None where its kind has none."""
    made = SUMMARIES.get(getattr(result, "kind", ""))
    return None if made is None else made(result, width)


def number(value: float) -> str:
    """A number in four or five characters, its sign always shown; "·" for what rounds to nothing.

    >>> number(0.437), number(-1.234), number(0.001), number(12.3)
    ('+.44', '-1.2', '·', '+12')
    """
    if not np.isfinite(value):
        return ""
    size = abs(value)
    if size < 0.005:
        return _NOTHING
    text = (
        f"{size:.2f}".removeprefix("0") if size < 0.995 else f"{size:.1f}" if size < 9.95 else f"{size:.0f}"
    )
    return f"{'-' if value < 0 else '+'}{text}"


def shade(value: float, most: float) -> str:
    """A number as one sign: the darker the larger, other signs below zero, "×" where there is none.

    >>> [shade(v, 1.0) for v in (1.0, 0.3, 0.0, -0.9, float("nan"))]
    ['█', '▒', '·', '●', '×']
    """
    if not np.isfinite(value):
        return _ABSENT
    size = abs(value) / most if most > 0 else 0.0
    if size < 0.05:
        return _NOTHING
    return (_UP if value > 0 else _DOWN)[min(3, int(size * 4))]


def numbers_grid(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    width: int,
    corner: str = "",
    below: str = "",
) -> list[Any]:
    """A map [rows columns], its last row on top: numbers where they fit, shades where not, and a line that explains them.

    Column names that do not fit are written below one another, numbered as they stand.
    """
    left = max(map(cell_len, [*rows, corner]), default=0)
    room = (width - left - 2) // max(1, len(columns))
    if room >= 6:
        names = [name if cell_len(name) < room else f"{name[: room - 2]}…" for name in columns]
        table = Table(Column(corner, no_wrap=True), *(Column(escape(n), justify="right", no_wrap=True) for n in names),
                      box=None, padding=(0, 1, 0, 0))  # fmt: skip
        for label, line in reversed(list(zip(rows, values, strict=True))):
            table.add_row(escape(label), *map(number, line))
        return [table, *_told(columns, names), *([Text(below)] if below else [])]
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
    each = 2 if room >= 2 else 1
    lines = [Text(f"{label:>{left}}  " + "".join(shade(v, most).ljust(each) for v in line))
             for label, line in reversed(list(zip(rows, values, strict=True)))]  # fmt: skip
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if s * each >= 4)
    marks = "".join(str(i).ljust(step * each) for i in range(0, len(columns), step))
    lines.append(Text(f"{'':>{left}}  {marks[: each * len(columns) + 3]}"))
    if any(name != str(i) for i, name in enumerate(columns)):
        lines.append(Text("columns: " + ", ".join(f"{i} {name.strip()}" for i, name in enumerate(columns))))
    signs = [f"{_UP[0]} to {_UP[-1]} above zero"] if (values > 0.05 * most).any() else []
    signs += [f"{_DOWN[0]} to {_DOWN[-1]} below"] if (values < -0.05 * most).any() else []
    signs += [f"{_ABSENT} not there"] if not np.isfinite(values).all() else []
    said = ", ".join([*signs, f"the largest {most:.2g}"])
    return [*lines, Text(f"{said}. {below}".strip())]


def _told(columns: Sequence[str], names: Sequence[str]) -> list[Text]:
    """The names of columns that were cut, in full."""
    cut = [name for name, short in zip(columns, names, strict=True) if name != short]
    return [Text(f"columns: {', '.join(columns)}")] if cut else []


def bar_rows(items: Iterable[tuple[str, float, str]], width: int, most: int = _BARS) -> list[Any]:
    """Bars from zero, one a line: label, bar, figure. The `most` largest, in the order given; the rest is added up."""
    items = [item for item in items if np.isfinite(item[1])]
    kept = sorted(sorted(range(len(items)), key=lambda i: -abs(items[i][1]))[:most])
    if not kept:
        return [Text("Nothing to show.")]
    names = max(cell_len(items[i][0]) for i in kept)
    figures = max(cell_len(items[i][2]) for i in kept)
    room = max(8, min(30, width - names - figures - 6))
    values = [items[i][1] for i in kept]
    low, high = min(0.0, *values), max(0.0, *values)
    unit = (high - low) / room or 1.0
    zero = round(-low / unit)
    lines = []
    for i in kept:
        label, value, figure = items[i]
        end = round((value - low) / unit)
        bar = " " * min(zero, end) + ("█" * abs(end - zero) if end != zero else "▏")
        pad = " " * (names - cell_len(label))
        lines.append(Text(f"{label}{pad}  {bar:<{room + 1}}  {figure}"))
    rest = [items[i][1] for i in range(len(items)) if i not in set(kept)]
    return [*lines, *([Text(f"and {len(rest)} more, together {sum(rest):+.3g}")] if rest else [])]


def _interval(row: Any) -> str:
    low, high = row.get("low", np.nan), row.get("high", np.nan)
    band = f" [{low:+.2f}, {high:+.2f}]" if np.isfinite([low, high]).all() else ""
    sure = (
        ""
        if row.get("known_zero") or not np.isfinite(row.get("q", np.nan)) or row["q"] <= _Q
        else "  not significant"
    )
    return f"{row['mean']:+.2f}{band}{sure}"


def effects(result: Any, width: int) -> list[Any]:
    """Effects: bars over one dimension; a grid over two or three; paths by receiver; neurons by layer."""
    shown, lines = result, []
    if "position" in result.dims:
        groups = result.groups()
        shown = groups[0][1]
        n, of = shown.data.sizes["example"], result.data.sizes["example"]
        if len(groups) > 1:
            lines.append(
                Text(
                    f"The commonest form of prompt, {n} of {of} pairs; {len(groups) - 1} others on the page."
                )
            )
    unit = "In shares of the gap" if shown.unit == "share of the gap" else f"In units of {shown.unit}"
    unit = f"{unit}; {shown.ends_in_words}. {shown.doubt}".strip()
    lines.insert(0, Text(f"{result.about}."))
    if len(shown.dims) <= 1:
        rows = shown.to_pandas().to_dict("records")
        name = shown.dims[0] if shown.dims else ""
        items = [(f"{name} {row.get(name, '')}".strip(), row["mean"], _interval(row)) for row in rows]
        return [*lines, *bar_rows(items, width), Text(unit)]
    if shown.dims == ("sender", "receiver"):
        return [*lines, *_by_reader(shown), Text(unit)]
    grid = shown.grid()
    columns = [_plain(label) for label in grid.columns]
    if len(columns) > width - 12:
        return [*lines, *_by_layer(shown), Text(unit)]
    rows, values = [_plain(label) for label in grid.rows], np.asarray(grid.values, dtype=float)
    if len(rows) > _BARS:
        sizes = np.nanmax(np.where(np.isfinite(values), np.abs(values), 0.0), 1)
        kept = sorted(np.argsort(-sizes, kind="stable")[:_BARS])
        lines.append(Text(f"The {_BARS} of {len(rows)} rows with the largest cells."))
        rows, values = [rows[i] for i in kept], values[kept]
    drawn = numbers_grid(values, rows, columns, width, grid.row_title, unit)
    top = shown.top(_STRONGEST)
    if "q" not in top or top["q"].isna().all():  # nothing could be told from zero, so neither could a p-value
        top = top.drop(columns=["p", "q"], errors="ignore")
    return [*lines, *drawn, Strongest(top, f"the {len(top)} strongest of {len(shown.to_pandas())}")]


def _by_reader(shown: Any, most: int = 10) -> list[Any]:
    """Direct paths, grouped by what receives them."""
    from cutaway.network.parts import in_words

    mean = shown.mean
    sums = np.abs(np.nan_to_num(mean.values)).sum(0)
    order = [i for i in np.argsort(-sums, kind="stable") if sums[i] > 0]
    senders = [in_words(str(s)) for s in mean["sender"].values]
    q = shown.q.values
    table = Table(Column("into", no_wrap=True), "from, the strongest first", box=None, padding=(0, 2, 0, 0))
    for i in order[:most]:
        column = np.nan_to_num(mean.values[:, i])
        best = [w for w in np.argsort(-np.abs(column), kind="stable") if abs(column[w]) >= 0.005]
        said = [f"{senders[w]} {number(column[w])}{'' if q[w, i] <= _Q else '?'}" for w in best[:4]]
        rest = column[best[4:]]
        said += [f"and {len(rest)} more {number(rest.sum())}"] if len(rest) else []
        table.add_row(
            escape(in_words(str(mean["receiver"].values[i]))), escape(", ".join(said) or "below .005 each")
        )
    left = [Text(f"and {len(order) - most} more receivers, on the page")] if len(order) > most else []
    return [table, *left, Text("? marks what is not significant.")]


def _by_layer(shown: Any) -> list[Any]:
    """Cells of a wide map, grouped by the rows: how many are significant, and which are the strongest."""
    grid, q = shown.grid(), shown.grid().q
    columns = [_plain(label) for label in grid.columns]
    heads = (Column(grid.row_title, no_wrap=True), Column("significant", justify="right"))
    table = Table(*heads, f"strongest {grid.column_title}s", box=None, padding=(0, 2, 0, 0))
    for r in reversed(range(len(grid.rows))):
        values = np.nan_to_num(grid.values[r])
        best = np.argsort(-np.abs(values), kind="stable")[:5]
        said = ", ".join(f"{columns[c]} {number(values[c])}" for c in best if abs(values[c]) >= 0.005)
        sure = "" if q is None else f"{int((np.nan_to_num(q[r], nan=1.0) <= _Q).sum())} of {len(columns)}"
        table.add_row(_plain(grid.rows[r]), sure, escape(said or "below .005 each"))
    return [table]


def attribution(result: Any, _width: int) -> list[Any]:
    """Who wrote the logit: by layer, each layer's parts beside it; what is not shown is added up, and so is the whole."""
    layers: dict[str, list[tuple[str, float]]] = {}
    for part, words, value in zip(result.writers, result.words, result.mean(), strict=True):
        place = "before and after" if part.layer is None else f"layer {part.layer}"
        layers.setdefault(place, []).append((words, float(value)))
    sums = {place: sum(v for _, v in those) for place, those in layers.items()}
    kept = sorted(sums, key=lambda place: -abs(sums[place]))[:_LAYERS]
    table = Table(Column("", no_wrap=True), Column("adds", justify="right", no_wrap=True), "of which", box=None,
                  padding=(0, 2, 0, 0))  # fmt: skip
    for place in (p for p in layers if p in kept):
        those = sorted(layers[place], key=lambda item: -abs(item[1]))
        alone = len(those) == 1 and place != "before and after"
        said = [] if alone else [f"{words} {value:+.2f}" for words, value in those[:4]]
        rest = sum(value for _, value in those[4:])
        said += [f"and {len(those) - 4} more {rest:+.2f}"] if len(those) > 4 else []
        table.add_row(place, f"{sums[place]:+.2f}", escape(", ".join(said)))
    others = [place for place in layers if place not in kept]
    if others:
        table.add_row(f"{len(others)} more layers", f"{sum(sums[p] for p in others):+.2f}", "")
    table.add_row("together", f"{sum(sums.values()):+.2f}", escape(result.what), style="bold")
    return [table]


def circuit(result: Any, _width: int) -> list[Any]:
    """A circuit by layer: its nodes there, and the strongest edges that leave them."""
    from cutaway.network.listing import listing

    writers, readers = result.graph.writers, result.graph.readers
    edges = sorted(result.scored(), key=lambda edge: -abs(edge[2]) if edge[2] == edge[2] else 0.0)
    nodes = [w for w, used in zip(writers, result.node_membership, strict=True) if used]
    table = Table(
        Column("", no_wrap=True), "nodes", "edges", "the strongest that leave", box=None, padding=(0, 2, 0, 0)
    )
    for layer in dict.fromkeys(w.layer for w in reversed(nodes)):
        here = [w for w in nodes if w.layer == layer]
        out = [(w, r, score) for w, r, score in edges if writers[w].layer == layer]
        said = [
            f"{writers[w].words} → {readers[r].words}{'' if s != s else f' {s:+.3g}'}" for w, r, s in out[:3]
        ]
        place = "input" if layer is None else f"layer {layer}"
        table.add_row(
            place, "" if layer is None else escape(listing(here)), str(len(out)), escape("\n".join(said))
        )
    return [table]


def head_scores(result: Any, _width: int) -> list[Any]:
    """For each score the heads that stand out, with their values."""
    table = Table(
        Column("score", no_wrap=True), f"heads above chance, in {result.unit}", box=None, padding=(0, 2, 0, 0)
    )
    frame = result.to_pandas()
    for name in result.values:
        rows = frame[(frame["score"] == name) & frame["above"]].sort_values("value", ascending=False)
        heads = [f"{head.removeprefix('a').replace('.h', '.')} {value:.2f}"
                 for head, value in zip(rows["head"], rows["value"], strict=True)]  # fmt: skip
        rest = f" and {len(heads) - 8} more" if len(heads) > 8 else ""
        table.add_row(escape(name), ", ".join(heads[:8]) + rest or "none")
    return [table]


def copying(result: Any, width: int) -> list[Any]:
    """Copying scores, layer by head."""
    layers = sorted({head.layer for head in result.heads})
    values = np.full((len(layers), 1 + max(head.index for head in result.heads)), np.nan)
    for head, score in zip(result.heads, result.scores, strict=True):
        values[layers.index(head.layer), head.index] = float(score)
    columns = [str(i) for i in range(values.shape[1])]
    return numbers_grid(
        values, [str(layer) for layer in layers], columns, width, "layer", "Copying score, layer by head."
    )


def reading(result: Any, width: int) -> list[Any]:
    """What a lens reads: layer by token."""
    return reading_table(result, width)


def lens_report(result: Any, _width: int) -> list[Any]:
    """How far lenses are from the output, by layer."""
    return [report_table(result)]


def reading_table(reading: Any, width: int) -> list[Any]:
    """The reading, and where not all tokens fit the screen a word on which are shown."""
    from cutaway.figures import show_token

    fit = max(3, (width - 7) // 13)
    start = max(0, len(reading.tokens) - fit)
    heads = [show_token(t, escape=False) for t in reading.tokens[start:]]
    rows = []
    for i in reversed(range(len(reading.layers))):
        best = zip(reading.top[i, start:, 0], reading.probability[i, start:, 0], strict=True)
        cells = (f"{show_token(str(t), escape=False)} {p:.2f}" for t, p in best)
        rows.append((str(reading.layers[i]), *cells))
    part = f", the last {len(heads)} of {len(reading.tokens)} tokens" if start else ""
    return [f"{reading.lens} lens of {reading.network}{part}", _plain_table(("layer", *heads), rows)]


def report_table(report: Any) -> Any:
    """Divergence from the output by layer, lens beside lens."""
    title = f"KL from the output in nats, on {report.rows} held-out rows"
    rows = (
        (str(layer), *("" if v != v else f"{v:.3f}" for v in row)) for layer, row in report.wide().iterrows()
    )
    return _plain_table(("layer", *report.lenses), rows, title=title, title_justify="left")


def _plain_table(heads: Iterable[str], rows: Iterable[Iterable[str]], **looks: Any) -> Table:
    table = Table(*heads, box=None, **looks)
    for row in rows:
        table.add_row(*row)
    return table


def _plain(label: str) -> str:
    """A label as text: those of grids are escaped for HTML."""
    import html

    return html.unescape(str(label))


#: By kind of result; the others are shown by their strongest rows.
SUMMARIES: dict[str, Callable[[Any, int], list[Any]]] = {
    "effects": effects, "attribution": attribution, "circuit": circuit, "head-scores": head_scores, "copying": copying,
    "reading": reading, "lens-report": lens_report,
}  # fmt: skip
