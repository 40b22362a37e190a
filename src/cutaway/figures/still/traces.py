"""Each kind of trace, drawn still. `DRAWERS` is the table of the kinds that there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import BadInput
from cutaway.figures.colours import ACCENT, INK, PAPER
from cutaway.figures.still.cells import heatmap
from cutaway.figures.still.places import Trace, per_mark, places, point_words
from cutaway.figures.still.shades import shade
from cutaway.figures.still.sheet import Sheet
from cutaway.figures.still.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SYMBOLS = {
    "circle": "o", "circle-open": "o", "square": "s", "diamond": "D", "cross": "P", "x": "X", "triangle-up": "^",
    "triangle-down": "v", "line-ew-open": "_", "line-ew": "_", "line-ns-open": "|", "triangle-right": ">",
}  # fmt: skip
_DASHES: dict[str, Any] = {
    "solid": "-", "dot": (0, (1, 1.6)), "dash": (0, (4, 2.4)), "dashdot": (0, (4, 2, 1, 2)), "longdash": (0, (7, 3)),
}  # fmt: skip


def scatter(sheet: Sheet, axes: Axes, trace: Trace) -> None:
    """Lines, marks, filled bands, words beside marks, and error bars."""
    x, y = places(sheet, axes, "x", trace.get("x")), places(sheet, axes, "y", trace.get("y"))
    mode = str(trace.get("mode") or "lines")
    line = trace.get("line") or {}
    faint = float(trace.get("opacity", 1.0))
    name = plain(trace.get("name")) if trace.get("showlegend") is not False and trace.get("name") else None
    if trace.get("fill") == "toself":
        axes.fill(
            x, y, facecolor=shade(trace.get("fillcolor"), ACCENT), edgecolor="none", label=name, zorder=2
        )
        return
    colour = shade(line.get("color"), ACCENT)
    label = name
    if "lines" in mode and float(line.get("width", 2)):
        axes.plot(x, y, color=colour, linewidth=sheet.size(line.get("width", 2)), alpha=faint, label=label, zorder=3,
                  linestyle=_DASHES.get(str(line.get("dash") or "solid"), "-"), solid_joinstyle="round")  # fmt: skip
        label = None
    if "markers" in mode and len(x):
        _marks(sheet, axes, trace, (x, y), colour, label)
    for kind in ("x", "y"):
        _whiskers(sheet, axes, trace.get(f"error_{kind}"), (x, y), kind)
    if "text" in mode:
        _words_beside(sheet, axes, trace, x, y)


def _marks(
    sheet: Sheet, axes: Axes, trace: Trace, at: tuple[np.ndarray, np.ndarray], colour: Any, label: Any
) -> None:
    marker = trace.get("marker") or {}
    n = len(at[0])
    symbol = str(marker.get("symbol") or "circle")
    sizes = np.array([float(s) for s in per_mark(marker.get("size"), n, 6.0)])
    fills = [shade(c, colour) for c in per_mark(marker.get("color"), n, colour)]
    edge = marker.get("line") or {}
    edges = [shade(c, PAPER) for c in per_mark(edge.get("color"), n, None)]
    pen = sheet.size(float(edge.get("width") or 0))
    hollow = symbol.endswith("-open")
    thin = _SYMBOLS.get(symbol) in ("_", "|")
    drawn = axes.scatter(
        *at, s=[(sheet.size(s)) ** 2 for s in sizes], marker=_SYMBOLS.get(symbol, "o"), label=label, zorder=4,
        alpha=float(marker.get("opacity", 1.0)) * float(trace.get("opacity", 1.0)),
        facecolors="none" if hollow and not thin else fills, edgecolors=_edges(fills, edges, hollow, thin, pen),
        linewidths=pen or (sheet.size(1.4) if hollow or thin else 0), clip_on=False,
    )  # fmt: skip
    if (words := point_words(trace, n)) is not None:
        drawn.set_gid(sheet.name(words))


def _edges(fills: list[Any], edges: list[Any], hollow: bool, thin: bool, pen: float) -> Any:
    """The rims of marks: their fill where they are nothing but a rim; thin marks have no other colour than their face."""
    if thin:
        return None
    return fills if hollow else edges if pen else "none"


def _whiskers(sheet: Sheet, axes: Axes, error: Any, at: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    if not error or error.get("array") is None:
        return
    up = np.array([0.0 if v is None else v for v in error["array"]], dtype=float)
    down = up if error.get("arrayminus") is None else np.array(error["arrayminus"], dtype=float)
    if not (up.any() or down.any()):
        return
    pen = sheet.size(float(error.get("thickness", 1.5)))
    long = np.stack([down, up])
    across, upwards = (long, None) if kind == "x" else (None, long)
    axes.errorbar(*at, xerr=across, yerr=upwards, fmt="none", ecolor=shade(error.get("color"), INK), zorder=5,
                  elinewidth=pen, capsize=sheet.size(float(error.get("width", 3))), capthick=pen)  # fmt: skip


def _words_beside(sheet: Sheet, axes: Axes, trace: Trace, x: np.ndarray, y: np.ndarray) -> None:
    font, where = trace.get("textfont") or {}, str(trace.get("textposition") or "middle center")
    up = {"top": (5, "bottom"), "bottom": (-5, "top")}.get(where.split()[0], (0, "center"))
    side = {"left": (-3, "right"), "right": (3, "left")}.get(where.split()[-1], (0, "center"))
    gap = 7 if up[0] and side[0] == 0 else 1
    for across, high, word in zip(x, y, per_mark(trace.get("text"), len(x), ""), strict=True):
        if word:
            axes.annotate(plain(word), (across, high), (sheet.size(side[0]), sheet.size(up[0] / 5 * gap)),
                          textcoords="offset points", ha=side[1], va=up[1], fontsize=sheet.size(font.get("size", 10)),
                          color=shade(font.get("color"), INK), parse_math=False, zorder=6,
                          annotation_clip=False)  # fmt: skip


def bar(sheet: Sheet, axes: Axes, trace: Trace, slot: tuple[int, int] = (0, 1)) -> None:
    """Bars, across or upright, with their whiskers. slot: which of how many groups side by side."""
    flat = trace.get("orientation") == "h"
    along, lengths = ("y", "x") if flat else ("x", "y")
    at = places(sheet, axes, along, trace.get(along))
    values = np.array([np.nan if v is None else float(v) for v in trace.get(lengths, [])])
    values = np.where(np.isfinite(values), values, np.nan)
    number, count = slot
    gap = float(sheet.layout.get("bargap", 0.2))
    width = (1 - gap) / max(1, count)
    at = at + ((count - 1) / 2 - number if flat else number - (count - 1) / 2) * width
    marker = trace.get("marker") or {}
    n = len(values)
    colours = [shade(c, ACCENT) for c in per_mark(marker.get("color"), n, ACCENT)]
    faint = per_mark(marker.get("opacity"), n, 1.0)
    thick = width * (1 - float(sheet.layout.get("bargroupgap", 0.0) or 0.0))
    words = point_words(trace, n)
    draw = axes.barh if flat else axes.bar
    drawn = draw(at, np.nan_to_num(values), thick, color=colours, zorder=2,
                 label=plain(trace.get("name")) if trace.get("name") else None)  # fmt: skip
    for i, patch in enumerate(drawn.patches):
        patch.set_alpha(float(faint[i]))
        if words is not None:
            patch.set_gid(sheet.name([words[i]]))
    kind = "x" if flat else "y"
    _whiskers(sheet, axes, trace.get(f"error_{kind}"), (values, at) if flat else (at, values), kind)
    (axes.set_ylim if flat else axes.set_xlim)(min(at, default=0) - 0.6, max(at, default=0) + 0.6)


def histogram(_: Sheet, axes: Axes, trace: Trace) -> None:
    """Counts of values, or percents of them, in the bins that are described."""
    values = np.array([float(v) for v in trace["x"]])
    bins = trace.get("xbins") or {}
    if bins.get("size"):
        edges: Any = np.arange(bins["start"], bins["end"] + bins["size"], bins["size"])
    else:
        edges = 30
    percent = trace.get("histnorm") == "percent"
    weights = np.full(len(values), 100 / max(1, len(values))) if percent else None
    marker = trace.get("marker") or {}
    axes.hist(values, bins=edges, weights=weights, color=shade(marker.get("color"), ACCENT), rwidth=0.98, zorder=2,
              alpha=float(trace.get("opacity", 1.0)), label=plain(trace.get("name")) or None)  # fmt: skip


DRAWERS: dict[str, Callable[..., None]] = {
    "heatmap": heatmap,
    "scatter": scatter,
    "bar": bar,
    "histogram": histogram,
}


def draw_traces(sheet: Sheet, traces: Sequence[Trace]) -> None:
    """All traces on their axes.

    Raises BadInput for a kind of trace that has no still drawing.
    """
    beside = (
        [id(t) for t in traces if t.get("type") == "bar"] if sheet.layout.get("barmode") == "group" else []
    )
    for trace in traces:
        kind = str(trace.get("type", "scatter"))
        if kind not in DRAWERS:
            known = ", ".join(DRAWERS)
            raise BadInput(
                f"A trace of type {kind!r} has no still drawing.", f"There are: {known}. Or use .show()."
            )
        if trace.get("visible") in (False, "legendonly"):
            continue
        axes = sheet.on(str(trace.get("xaxis") or "x"), str(trace.get("yaxis") or "y"))
        if id(trace) in beside:
            bar(sheet, axes, trace, (beside.index(id(trace)), len(beside)))
        else:
            DRAWERS[kind](sheet, axes, trace)
