"""Heat maps drawn still: cells with their colours, words and titles, and the colour bar at the side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.figures.colours import ABSENT, INK, SEQUENTIAL, ink_on, on_scale
from cutaway.figures.still.places import Trace, places
from cutaway.figures.still.shades import scale_of, shade
from cutaway.figures.still.sheet import Sheet
from cutaway.figures.still.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: More cells than these are drawn as one image: each of them as a shape of its own would make the file heavy.
_MOST_CELLS = 2500
#: Pixels of a colour bar with its labels.
_BAR = 76.0
#: Words that are drawn as strokes, so many pixels wide and thick: maps are full of them.
_SIGNS = {"·": (2.4, 2.2), "–": (6.0, 1.1)}
#: Of more cells than these, colours are rounded to so many shades.
_MANY, _SHADES = 150, 80
#: More words than these are left out of the drawing; the table has them.
_MOST_WORDS = 3000


def heatmap(sheet: Sheet, axes: Axes, trace: Trace) -> None:
    """Cells with their colours, words and titles, and the colour bar at the side."""
    from matplotlib.patches import Rectangle

    z = np.array(trace["z"], dtype=float)
    z[~np.isfinite(z)] = np.nan
    if not z.size:
        return
    rows, columns = z.shape
    x = places(sheet, axes, "x", trace.get("x") if trace.get("x") is not None else range(columns))
    y = places(sheet, axes, "y", trace.get("y") if trace.get("y") is not None else range(rows))
    known = z[np.isfinite(z)]
    low = trace["zmin"] if trace.get("zmin") is not None else float(known.min()) if known.size else 0.0
    high = trace["zmax"] if trace.get("zmax") is not None else float(known.max()) if known.size else 1.0
    scale = scale_of(trace.get("colorscale") or SEQUENTIAL)
    shares = (z - low) / ((high - low) or 1.0)
    axes.set_xlim(x.min() - 0.5, x.max() + 0.5)
    axes.set_ylim(y.min() - 0.5, y.max() + 0.5)
    if trace.get("showscale", True) and trace.get("colorbar") is not None:
        _bar_beside(sheet, axes, trace["colorbar"], scale, low, high)
    if z.size > _MOST_CELLS:
        _image(axes, shares, scale, x, y)
        return
    gap = 0.0 if not trace.get("xgap") else min(0.06, 0.0015 * columns * float(trace["xgap"]))
    tall = 0.0 if not trace.get("ygap") else min(0.06, 0.003 * rows * float(trace["ygap"]))
    words = _titles(trace)
    if z.size > _MANY:  # in fewer shades and by shade, which the file then holds as one shape each
        shares = np.round(shares * _SHADES) / _SHADES
    cells = np.argwhere(np.isfinite(z))
    for r, c in cells[np.argsort(shares[tuple(cells.T)], kind="stable")] if z.size > _MANY else cells:
        cell = Rectangle((float(x[c]) - 0.5 + gap / 2, float(y[r]) - 0.5 + tall / 2), 1 - gap, 1 - tall, linewidth=0,
                         facecolor=on_scale(float(shares[r, c]), scale), antialiased=bool(gap))  # fmt: skip
        if words is not None:
            cell.set_gid(sheet.name([words(r, c)]))
        cell.set_in_layout(False)
        axes.add_patch(cell)
    if trace.get("texttemplate") and trace.get("text") is not None:
        _cell_words(sheet, axes, trace, (x, y), shares, scale)


def _titles(trace: Trace) -> Callable[[int, int], str] | None:
    """What stands over a cell, by row and column."""
    source = trace.get("customdata") if trace.get("customdata") is not None else None
    if source is None and trace.get("hovertemplate") and "%{text}" in trace["hovertemplate"]:
        source = trace.get("text")
    if source is None:
        return None
    return lambda r, c: plain(source[r][c])


def _image(axes: Axes, shares: np.ndarray, scale: Any, x: np.ndarray, y: np.ndarray) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("scale", scale).with_extremes(bad=ABSENT)
    axes.imshow(
        np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest",
        extent=(x.min() - 0.5, x.max() + 0.5, y.min() - 0.5, y.max() + 0.5), zorder=2,
    )  # fmt: skip


def _cell_words(sheet: Sheet, axes: Axes, trace: Trace, at: Any, shares: np.ndarray, scale: Any) -> None:
    font = trace.get("textfont") or {}
    mono = "mono" in str(font.get("family", "")).lower()
    words = [[plain(w) for w in row] for row in trace["text"]]
    if sum(bool(w) for row in words for w in row) > _MOST_WORDS:
        return
    sheet.place()
    box = axes.get_position()
    room = 0.9 * box.width * sheet.width / max(1, shares.shape[1]) - 2
    tall = box.height * sheet.height / max(1, shares.shape[0])
    longest = max((len(w) for row in words for w in row), default=1)
    size = min(float(font.get("size", 11)), 0.8 * tall, room / (0.62 * max(1, min(longest, 6))))
    if size < 5.5:
        return
    most = max(3, int(room / (0.6 * size)))
    signs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for r, c in np.argwhere(np.isfinite(shares)):
        word, ink = words[r][c], ink_on(on_scale(float(shares[r, c]), scale))
        if word in _SIGNS:
            signs.setdefault((word, ink), []).append((at[0][c], at[1][r]))
        elif word:
            shown = word if len(word) <= most else word[: most - 1] + "…"
            said = axes.text(at[0][c], at[1][r], shown, ha="center", va="center_baseline", fontsize=sheet.size(size),
                             color=ink, family="monospace" if mono else None, parse_math=False, clip_on=False)  # fmt: skip
            said.set_in_layout(False)
    for (sign, ink), cells in signs.items():
        wide, thick = _SIGNS[sign]
        _strokes(axes, cells, wide / room, sheet.size(thick), ink)


def _strokes(axes: Axes, cells: Sequence[tuple[float, float]], wide: float, thick: float, ink: str) -> None:
    """A short stroke in the middle of each cell, `wide` of a cell: all of them are one line with gaps."""
    x = np.array([[across - wide / 2, across + wide / 2, np.nan] for across, _ in cells]).reshape(-1)
    y = np.array([[up, up, np.nan] for _, up in cells]).reshape(-1)
    (line,) = axes.plot(x, y, color=ink, linewidth=thick, zorder=3, clip_on=False)
    line.set_solid_capstyle("butt")
    line.get_path().should_simplify = False


def _bar_beside(sheet: Sheet, axes: Axes, described: Trace, scale: Any, low: float, high: float) -> None:
    """The colour bar: thin rectangles, each reaching to the top so that no seams show."""
    from matplotlib.patches import Rectangle

    sheet.margins[1] = max(
        sheet.margins[1], _BAR
    )  # about what it will take, so that words are fitted to what is left
    bar = sheet.figure.add_axes((0.9, 0.1, 0.02, 0.8))
    steps = 48
    for step in range(steps):
        start = step / steps
        bar.add_patch(Rectangle((0, low + start * (high - low)), 1, (1 - start) * (high - low), linewidth=0,
                                facecolor=on_scale((step + 0.5) / steps, scale)))  # fmt: skip
    bar.set_xlim(0, 1)
    bar.set_ylim(low, high)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    for part in bar.get_children():
        part.set_clip_on(False)
    for spine in bar.spines.values():
        spine.set_visible(False)
    ticks = described.get("tickvals")
    ticks = list(ticks) if ticks is not None else [low, (low + high) / 2, high]
    words = described.get("ticktext")
    words = [plain(w) for w in words] if words is not None else [f"{t:.3g}".replace("-", "−") for t in ticks]
    bar.set_yticks(ticks, words, parse_math=False)
    font = described.get("tickfont") or {}
    bar.tick_params(length=0, pad=sheet.size(3), labelsize=sheet.size(font.get("size", 10)), labelcolor=INK)
    title = described.get("title") or {}
    font = title.get("font") or {}
    bar.yaxis.set_label_position("right")
    bar.yaxis.labelpad = sheet.size(7)
    bar.set_ylabel(plain(title.get("text")), fontsize=sheet.size(font.get("size", 11)),
                   color=shade(font.get("color"), INK), parse_math=False)  # fmt: skip
    many = len({x for x, _ in sheet.axes}) > 1
    sheet.bars.append((bar, axes, {"len": described.get("len"), "whole": many}))
