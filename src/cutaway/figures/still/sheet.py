"""The sheet that a still drawing is made on: its size, its axes where the description puts them, its margins."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutaway.figures.colours import FAINT, GRID_LINE, INK, PAPER
from cutaway.figures.still.shades import shade
from cutaway.figures.still.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The largest letters at ticks [pixels].
_LABEL = 11


@dataclass
class Sheet:
    """A drawing under way.

    Attributes:
        figure: of Matplotlib.
        layout: of the description, as plain data.
        unit: points to a pixel of the description: 1 on a screen, less on paper, where everything is set smaller.
        width, height: in pixels of the description.
        axes: by their names in the description, ("x", "y"), ("x2", "y2"), ...
        paper: an empty frame over all axes, for what is placed relative to the whole.
        margins: left, right, bottom, top in pixels.
        titles: the words of marks, by the name of their group in the SVG.
        names: names along an axis and their numbers, by axes and "x" or "y".
        bars: colour bars: their axes, the axes that they stand beside, and how long they are.
    """

    figure: Figure
    layout: dict[str, Any]
    unit: float
    width: float
    height: float
    axes: dict[tuple[str, str], Axes] = field(default_factory=dict)
    paper: Any = None
    margins: list[float] = field(default_factory=lambda: [48.0, 12.0, 44.0, 12.0])
    titles: dict[str, list[str]] = field(default_factory=dict)
    names: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)
    bars: list[tuple[Any, Any, dict[str, Any]]] = field(default_factory=list)

    def size(self, pixels: float) -> float:
        """A length or a letter's height in points."""
        return pixels * self.unit

    def name(self, titles: list[str]) -> str:
        """A name for a group of marks that carry these words."""
        key = f"words-{len(self.titles)}"
        self.titles[key] = titles
        return key

    def axis(self, kind: str, name: str) -> dict[str, Any]:
        """The description of an axis: kind "x" or "y", name "x2"."""
        return self.layout.get(f"{kind}axis{name[1:]}", {})

    def on(self, x: str, y: str) -> Axes:
        """The axes on which a trace of these axes is drawn; made when first asked for."""
        if (x, y) not in self.axes:
            axes = self.figure.add_axes((0.1, 0.1, 0.8, 0.8))
            ground = shade(self.layout.get("plot_bgcolor"), PAPER)
            axes.set_facecolor("none" if ground == PAPER else ground)
            self.axes[x, y] = axes
        return self.axes[x, y]

    def place(self) -> None:
        """Put every axes where its domain is between the margins."""
        for axes, (x, y, width, height) in self._boxes():
            axes.set_position((x / self.width, y / self.height, width / self.width, height / self.height))

    def _boxes(self) -> Iterator[tuple[Any, tuple[float, float, float, float]]]:
        left, right, bottom, top = self.margins
        across, up = max(20.0, self.width - left - right), max(20.0, self.height - bottom - top)
        yield self.paper, (left, bottom, across, up)
        for (x, y), axes in self.axes.items():
            x0, x1 = self.axis("x", x).get("domain", (0, 1))
            y0, y1 = self.axis("y", y).get("domain", (0, 1))
            yield axes, (left + x0 * across, bottom + y0 * up, (x1 - x0) * across, (y1 - y0) * up)
        for axes, beside, bar in self.bars:
            down = [
                self.axis("y", y).get("domain", (0, 1))
                for (_, y), owner in self.axes.items()
                if owner is beside
            ][0]
            share = float(bar.get("len", 1.0)) if bar.get("len") is not None else 1.0
            whole = (0.0, 1.0) if bar.get("whole") else down
            low, high = (bottom + end * up for end in whole)
            middle, half = (low + high) / 2, (high - low) / 2 * share
            yield axes, (self.width - right + 12, middle - half, 10.0, 2 * half)

    def fit(self, rounds: int = 2, pad: float = 7.0) -> None:
        """Set the margins to what labels, legends and colour bars need."""
        renderer = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        for _ in range(rounds):
            self.place()
            boxes = [axes.get_tightbbox(renderer) for axes in self.figure.axes]
            scale = self.width / self.figure.bbox.width
            known = [box for box in boxes if box is not None]
            left, right = min(b.x0 for b in known) * scale, self.width - max(b.x1 for b in known) * scale
            low, top = min(b.y0 for b in known) * scale, self.height - max(b.y1 for b in known) * scale
            self.margins = [
                m + pad - gap for m, gap in zip(self.margins, (left, right, low, top), strict=True)
            ]
        self.place()


def dress_axis(sheet: Sheet, axes: Axes, kind: str, name: str) -> None:
    """Range, scale, ticks, grid and title of an axis, as described."""
    described = sheet.axis(kind, name)
    axis = axes.xaxis if kind == "x" else axes.yaxis
    if described.get("type") == "log":
        (axes.set_xscale if kind == "x" else axes.set_yscale)("log")
    if described.get("range") is not None:
        low, high = described["range"]
        ends = (10**low, 10**high) if described.get("type") == "log" else (low, high)
        if ends[0] != ends[1]:
            (axes.set_xlim if kind == "x" else axes.set_ylim)(*ends)
    elif described.get("rangemode") == "tozero":
        low, high = axes.get_xlim() if kind == "x" else axes.get_ylim()
        (axes.set_xlim if kind == "x" else axes.set_ylim)(min(0.0, low), max(0.0, high))
    _ticks(sheet, axes, axis, kind, described)
    title = described.get("title") or {}
    if title.get("text"):
        font = title.get("font") or {}
        words = {
            "fontsize": sheet.size(font.get("size", 12)),
            "color": shade(font.get("color"), INK),
            "parse_math": False,
        }
        axis.labelpad = sheet.size(4)
        text = plain(title["text"])
        if kind == "x":
            # its middle is under the axes, right of the sheet's own: a line as long as the sheet would be cut off
            letters = max(12, int(0.75 * sheet.width / (0.55 * font.get("size", 12))))
            text = "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))
        (axes.set_xlabel if kind == "x" else axes.set_ylabel)(text, **words)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if described.get("showgrid", True):
        axis.grid(
            True, color=shade(described.get("gridcolor"), GRID_LINE), linewidth=sheet.size(0.8), zorder=0
        )
    axes.set_axisbelow(True)
    if described.get("zeroline", True) and described.get("type") not in ("log", "category"):
        pen = {"color": shade(described.get("zerolinecolor"), FAINT), "zorder": 1.5}
        pen["linewidth"] = sheet.size(described.get("zerolinewidth", 1))
        low, high = axes.get_xlim() if kind == "x" else axes.get_ylim()
        if min(low, high) <= 0 <= max(low, high):
            (axes.axvline if kind == "x" else axes.axhline)(0, **pen)


def _ticks(sheet: Sheet, axes: Axes, axis: Any, kind: str, described: dict[str, Any]) -> None:
    from matplotlib import ticker

    font = described.get("tickfont") or {}
    size, colour = (
        sheet.size(font.get("size", 12 if "tickfont" not in described else 11)),
        shade(font.get("color"), INK),
    )
    axis.set_tick_params(
        length=0, pad=sheet.size(4), labelsize=min(size, sheet.size(_LABEL)), labelcolor=colour
    )
    axis.set_minor_locator(ticker.NullLocator())
    if described.get("showticklabels") is False:
        axis.set_major_locator(ticker.NullLocator())
        return
    room = max(3, min(8, int(sheet.width / 70))) if kind == "x" else 6
    if described.get("tickvals") is not None:
        values = list(described["tickvals"])
        words = described.get("ticktext")
        words = [plain(w) for w in (words if words is not None else values)]
        if kind == "y":
            words = _in_lines(words, sheet)
        axis.set_major_locator(ticker.FixedLocator(values))
        axis.set_major_formatter(ticker.FixedFormatter(words))
        for label in axis.get_ticklabels():
            label.set_parse_math(False)
        _turn(axes, axis, kind, described, words, size)
    elif described.get("type") == "log":
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    elif described.get("dtick") == 1:
        low, high = axes.get_xlim() if kind == "x" else axes.get_ylim()
        step = max(1, -(-int(high - low) // (2 * room)))
        axis.set_major_locator(ticker.FixedLocator(list(range(int(-(-low // 1)), int(high // 1) + 1, step))))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.0f}"))
    elif described.get("type") != "category":
        axis.set_major_locator(ticker.MaxNLocator(nbins=room, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", "−")))


def _in_lines(words: list[str], sheet: Sheet) -> list[str]:
    """Labels at the side in two lines where they would take half of the width, and two have room."""
    most = int(0.45 * sheet.width / (0.55 * _LABEL))
    if sheet.height < 2.2 * _LABEL * len(words):
        return words
    return [
        textwrap.fill(word, max(most, len(word) // 2 + 4)) if len(word) > most else word for word in words
    ]


def _turn(axes: Axes, axis: Any, kind: str, described: dict[str, Any], words: list[str], size: float) -> None:
    """Turn the labels of an axis to where they have room."""
    angle = described.get("tickangle")
    if kind == "x" and angle is None:
        room = axes.figure.bbox.width * axes.get_position().width / max(1, len(words))
        angle = -60 if max(map(len, words), default=0) * 0.6 * size * axes.figure.dpi / 72 > room else 0
    if kind == "x" and angle:
        axis.set_tick_params(labelrotation=-angle, labelrotation_mode="anchor")
        for label in axis.get_ticklabels():
            label.set_horizontalalignment("right" if angle < 0 else "left")
            label.set_verticalalignment("top")
