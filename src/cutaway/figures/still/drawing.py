"""From a description to a Matplotlib figure: axes, traces, shapes, words, legend and title, and room for all of them."""

from __future__ import annotations

import textwrap
from typing import Any

import plotly.graph_objects as go

from cutaway.figures.colours import FAINT, INK
from cutaway.figures.still.shades import shade
from cutaway.figures.still.sheet import Sheet, dress_axis
from cutaway.figures.still.traces import draw_traces
from cutaway.figures.still.words import plain, wrapped

#: Fonts for letters, and for those that the first, which comes with Matplotlib, does not have; as far as they are installed.
FONTS = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Droid Sans Fallback", "WenQuanYi Zen Hei", "Hiragino Sans",
    "Microsoft YaHei", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Emoji", "Segoe UI Symbol",
)  # fmt: skip
#: Settings under which everything is drawn: text stays text, fonts are embedded as TrueType, names in the file are fixed.
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "cutaway", "pdf.fonttype": 42, "ps.fonttype": 42, "text.parse_math": False,
    "axes.unicode_minus": True, "axes.formatter.use_mathtext": False, "text.usetex": False,
    "path.simplify": True, "figure.dpi": 72.0, "savefig.dpi": "figure",
}  # fmt: skip


def draw(figure: go.Figure, width: float, unit: float = 1.0, title: bool = True) -> Sheet:
    """The description drawn, `width` pixels wide, at `unit` points to the pixel. To be called under `SETTINGS`.

    Raises BadInput for a kind of trace that has no still drawing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = figure.layout.to_plotly_json()  # pyright: ignore[reportAttributeAccessIssue]
    meta = layout.get("meta")
    height = float((meta.get("height") if isinstance(meta, dict) else None) or layout.get("height") or 300)
    canvas = Figure(figsize=(width * unit / 72, height * unit / 72), dpi=72)
    FigureCanvasAgg(canvas)
    sheet = Sheet(canvas, layout, unit, width, height)
    sheet.paper = canvas.add_axes((0.1, 0.1, 0.8, 0.8), frameon=False, zorder=5)
    sheet.paper.set_axis_off()
    traces = [trace.to_plotly_json() for trace in figure.data]  # pyright: ignore[reportAttributeAccessIssue]
    sheet.on("x", "y") if not traces else None
    draw_traces(sheet, traces)
    for (x, y), axes in sheet.axes.items():
        dress_axis(sheet, axes, "x", x)
        dress_axis(sheet, axes, "y", y)
        _unclip(sheet, axes, x, y)
    sheet.place()
    for shape in layout.get("shapes", ()):
        _shape(sheet, shape)
    for words in layout.get("annotations", ()):
        _annotation(sheet, words)
    _legend(sheet)
    _title(sheet, plain((layout.get("title") or {}).get("text")) if title else "")
    return sheet


def _unclip(sheet: Sheet, axes: Any, x: str, y: str) -> None:
    """Nothing reaches beyond axes that have no range of their own: clipping them would only make the file larger."""
    if (
        any(sheet.axis(kind, name).get("range") is not None for kind, name in (("x", x), ("y", y)))
        and axes.lines
    ):
        return
    for part in (*axes.get_children(), *axes.xaxis.get_gridlines(), *axes.yaxis.get_gridlines()):
        part.set_clip_on(False)


def _frame(sheet: Sheet, described: dict[str, Any]) -> tuple[Any, Any]:
    """The axes that a shape or words belong to, and the transform of their places: data, share of axes, or of the paper."""
    from matplotlib.transforms import blended_transform_factory

    xref, yref = str(described.get("xref", "x")), str(described.get("yref", "y"))
    names = (xref.split()[0], yref.split()[0])
    if names == ("paper", "paper"):
        return sheet.paper, sheet.paper.transAxes
    known = next(
        (pair for pair in sheet.axes if names[0] in (pair[0], "paper") and names[1] in (pair[1], "paper")),
        None,
    )
    axes = sheet.axes[known] if known else next(iter(sheet.axes.values()))
    across = {"paper": sheet.paper.transAxes, "domain": axes.transAxes}.get(xref.split()[-1], axes.transData)
    up = {"paper": sheet.paper.transAxes, "domain": axes.transAxes}.get(yref.split()[-1], axes.transData)
    return axes, blended_transform_factory(across, up)


def _shape(sheet: Sheet, shape: dict[str, Any]) -> None:
    """A line or a rectangle."""
    from matplotlib.patches import Rectangle

    axes, transform = _frame(sheet, shape)
    pen = shape.get("line") or {}
    colour, thick = shade(pen.get("color"), FAINT), sheet.size(float(pen.get("width", 1)))
    x0, x1, y0, y1 = (float(shape[end]) for end in ("x0", "x1", "y0", "y1"))
    if shape.get("type") == "line":
        dash = {"dot": (0, (1, 1.6)), "dash": (0, (4, 2.4))}.get(str(pen.get("dash")), "-")
        axes.plot(
            [x0, x1], [y0, y1], transform=transform, color=colour, linewidth=thick, linestyle=dash, zorder=1.8
        )
        return
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, transform=transform, linewidth=thick, edgecolor=colour,
                             facecolor=shade(shape.get("fillcolor"), "none"), zorder=1.7))  # fmt: skip


def _annotation(sheet: Sheet, words: dict[str, Any]) -> None:
    """Words at a place."""
    axes, transform = _frame(sheet, words)
    font = words.get("font") or {}
    size = float(font.get("size", 12))
    across = {"left": "left", "right": "right"}.get(str(words.get("xanchor")), "center")
    up = {"bottom": "bottom", "top": "top"}.get(str(words.get("yanchor")), "center")
    text = plain(words.get("text"))
    if words.get("xref") == words.get("yref") == "paper" and len(sheet.axes) <= 1:
        text = wrapped(text, size, sheet.width - 90)
    axes.annotate(
        text, (float(words.get("x", 0)), float(words.get("y", 0))), xycoords=transform, ha=across, va=up,
        xytext=(sheet.size(float(words.get("xshift") or 0)), sheet.size(float(words.get("yshift") or 0) + 2)),
        textcoords="offset points", fontsize=sheet.size(size), color=shade(font.get("color"), INK), parse_math=False,
        annotation_clip=False, zorder=7,
    )  # fmt: skip


def _legend(sheet: Sheet) -> None:
    """The legend above the axes, in as many columns as have room, each name once."""
    if sheet.layout.get("showlegend") is False:
        return
    handles: dict[str, Any] = {}
    for axes in sheet.axes.values():
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if not handles or (len(handles) < 2 and not sheet.layout.get("showlegend")):
        return
    ticks = max((axes.yaxis.get_ticklabels() for axes in sheet.axes.values()), key=len, default=[])
    beside = max((len(line) for tick in ticks for line in tick.get_text().split("\n")), default=0) * 6.2
    most = max(12, int((sheet.width - beside - 50) / 6))
    handles = {textwrap.fill(n, most) if len(n) > most else n: handle for n, handle in handles.items()}
    room = sheet.width - 60
    longest = max(len(name) for name in handles)
    columns = max(1, min(len(handles), int(room / (longest * 6.2 + 44))))
    sheet.paper.set_axis_on()
    sheet.paper.set_xticks([])
    sheet.paper.set_yticks([])
    sheet.paper.patch.set_alpha(0)
    drawn = sheet.paper.legend(
        list(handles.values()), list(handles), loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
        fontsize=sheet.size(11), borderaxespad=0.2, borderpad=0.2, handlelength=1.8, columnspacing=1.4, handletextpad=0.6,
        labelcolor=INK,
    )  # fmt: skip
    for words in drawn.get_texts():
        words.set_parse_math(False)


def _title(sheet: Sheet, text: str) -> None:
    """The title at the top left, over everything; all the rest is fitted below it."""
    font = (sheet.layout.get("title") or {}).get("font") or {}
    size = float(font.get("size", 13))
    text = wrapped(text, size, sheet.width - 16) if text else ""
    sheet.fit()
    if not text:
        return
    lines = text.count("\n") + 1
    sheet.margins[3] += lines * size * 1.3 + 4
    sheet.place()
    left = sheet.margins[0] / sheet.width
    sheet.figure.text(0.008 if left > 0.3 else left, 1 - 4 / sheet.height, text, ha="left", va="top", parse_math=False,
                      fontsize=sheet.size(size), color=shade(font.get("color"), INK))  # fmt: skip
