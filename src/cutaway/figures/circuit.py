"""A circuit drawn: layers upwards, heads across; edges weighted by the size of their score and coloured by its sign."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from cutaway.figures.showing import Picture
from cutaway.figures.theme import FAINT, FONT, INK, MUTED, NEGATIVE, PAPER, POSITIVE, dress, legend_of_signs

_WIDEST, _THINNEST = 6.0, 0.6
_STEPS = 5
#: A sketch of more nodes than this does not name them.
_NAMED = 60
#: Pixels of the slider.
_SLIDER = 90
#: What an edge enters a head by: in words, by how it is dashed, and how far beside the head's middle it arrives.
_PORTS = {"q": "queries", "k": "keys", "v": "values"}
_DASHES = {"q": "dash", "k": "dot"}
_DASH_WORDS = {"q": "dashed", "k": "dotted"}
_BESIDE = {"q": -0.1, "v": 0.1}


@dataclass(frozen=True)
class Dot:
    """A node.

    Attributes:
        label: what stands beside it: its words, or, where it is crowded, its number only.
        words: what it is.
        x, y: its column and height.
        inside: whether it is in the circuit.
    """

    label: str
    words: str
    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True)
class EdgeLine:
    """An edge between two dots.

    Attributes:
        start, end: the dots, by number.
        score: NaN where it has none.
        part: the input it arrives at ("q", "k", "v" or "").
    """

    start: int
    end: int
    score: float
    part: str = ""


def circuit_figure(
    dots: Sequence[Dot], lines: Sequence[EdgeLine], columns: Sequence[str], rows: Sequence[tuple[float, str]],
    unit: str = "", title: str = "", first: int = 50, of: int | None = None,
) -> Picture:  # fmt: skip
    """The drawing of a circuit. columns: labels of x = 0, 1, ...; rows: (height, label) of the layers; unit: of scores.

    The axes are those of the network, not of the circuit, so that two circuits of one network can be laid side by side.
    The `first` strongest edges are drawn; where Plotly draws, a slider says how many. All are in the figure's table, which
    says how many there are besides where the circuit has more of them (`of`).
    Hovering over an edge's middle says from where to where and how much, over a node what goes in and out.
    """
    lines = sorted(lines, key=lambda line: -abs(line.score) if line.score == line.score else 0.0)
    figure, largest = go.Figure(), _largest(lines)
    steps = _steps(len(lines), first)
    shown: list[int] = []
    for step, (start, end) in enumerate(zip([0, *steps], steps, strict=False)):
        traces = [*_strokes_of(dots, lines[start:end], largest), _middles(dots, lines[start:end], unit)]
        figure.add_traces([trace.update(visible=end <= first or len(steps) == 1) for trace in traces])
        shown += [step] * len(traces)
    figure.add_trace(_marks(dots, lines, unit))
    height = min(max(int(150 + 58 * max((y for y, _ in rows), default=1)), 260), 1400)
    dressed = dress(figure, height, title)
    figure.update_layout(showlegend=False, hovermode="closest", dragmode="pan")
    figure.update_xaxes(
        tickvals=list(range(len(columns))), ticktext=list(columns), range=[-0.7, len(columns) - 0.3], showgrid=False,
        zeroline=False, tickfont={"size": 10, "color": MUTED}, fixedrange=False,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=[y for y, _ in rows], ticktext=[label for _, label in rows], showgrid=False, zeroline=False,
        tickfont={"size": 10, "color": MUTED}, fixedrange=False,
    )  # fmt: skip
    legend_of_signs(figure, _signs(dots, lines, min(first, len(lines)), of or len(lines)))
    _keep_rows(figure, dots, lines, of or len(lines))
    if len(steps) > 1:
        _add_slider(figure, steps, shown, sum(end <= first for end in steps) - 1)
    return dressed


def _steps(n: int, first: int) -> list[int]:
    """How many edges may be drawn: `first`, and fewer and more of them up to all."""
    return sorted({min(n, count) for count in (10, 25, first, 2 * first, 4 * first, 8 * first, n)} - {0})


def _signs(dots: Sequence[Dot], lines: Sequence[EdgeLine], drawn: int, of: int) -> list[str]:
    """What colours, widths and dashes mean, as far as they occur."""
    ports = {line.part for line in lines}
    signs = ["orange: moves towards the right answer", "blue: away from it", "width: size of the score"]
    signs += [f"{_DASH_WORDS[port]}: into {_PORTS[port]}" for port in ("q", "k") if port in ports]
    signs += ["solid: into values and all else"] if ports & {"q", "k"} else []
    signs += ["3.1: layer 3, number 1"] if any(dot.label != dot.words for dot in dots) else []
    return signs + ([f"drawn: the {drawn} strongest of {of} edges"] if drawn < of else [])


def _keep_rows(figure: go.Figure, dots: Sequence[Dot], lines: Sequence[EdgeLine], of: int) -> None:
    """The edges as rows in the description itself: strokes do not say what they were drawn from."""
    rows = [
        [dots[line.start].words, dots[line.end].words, _PORTS.get(line.part, ""), _known(line.score)]
        for line in lines
    ]  # fmt: skip
    figure.update_layout(
        meta={"head": ["from", "to", "into", "score"], "rows": rows, "more": of - len(lines)}
    )


def _known(score: float) -> float | None:
    return score if score == score else None


def _add_slider(figure: go.Figure, steps: Sequence[int], shown: Sequence[int], active: int) -> None:
    """A slider under the drawing for how many edges are drawn; the still drawing goes without its room."""
    moves = [
        {
            "method": "update",
            "label": str(count),
            "args": [{"visible": [step <= at for step in shown] + [True]}],
        }
        for at, count in enumerate(steps)
    ]
    figure.update_layout(
        sliders=[{"active": active, "steps": moves, "currentvalue": {"prefix": "strongest edges drawn: "}, "pad": {"t": 34},
                  "len": 0.6, "font": {"size": 11, "color": MUTED}}],
    )  # fmt: skip
    height, below = figure.layout.height, figure.layout.margin.b  # pyright: ignore[reportAttributeAccessIssue]
    kept = {**figure.layout.meta, "height": height}  # pyright: ignore[reportAttributeAccessIssue]
    figure.update_layout(meta=kept, height=height + _SLIDER, margin={"b": below + _SLIDER})


def circuit_svg(
    dots: Sequence[Dot], lines: Sequence[EdgeLine], rows: Sequence[tuple[float, str]], width: int = 560
) -> str:
    """The same drawing as a still picture, for a notebook: SVG that needs no script and no file.

    >>> circuit_svg([Dot("input", "input", 0, 0), Dot("logits", "logits", 0, 1)], [EdgeLine(0, 1, 0.5)], [(0, "input")])[:4]
    '<svg'
    """
    across, up = max((d.x for d in dots), default=0.0) + 1, max((d.y for d in dots), default=0.0) + 1
    height = int(min(40 + 46 * up, 640))
    largest = _largest(lines)

    def at(x: float, y: float) -> str:
        x, y = 70 + (x + 0.5) / across * (width - 90), height - 14 - (y + 0.3) / up * (height - 30)
        return f"{x:.0f},{y:.0f}"

    shapes = []
    for line in reversed(lines):
        share = abs(line.score) / largest if line.score == line.score else 0.3
        points = " ".join(at(x, y) for x, y in _curve(dots[line.start], dots[line.end], line.part))
        colour = NEGATIVE if line.score < 0 else POSITIVE
        shapes.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='{0.6 + 3.4 * share:.1f}' "
            f"opacity='{0.35 + 0.6 * share:.2f}'/>"
        )
    inside = [dot for dot in dots if dot.inside]
    for those, ink, size in (([d for d in dots if not d.inside], FAINT, 3), (inside, INK, 8)):
        path = "".join(f"M{at(dot.x, dot.y)}h0" for dot in those)
        shapes.append(f"<path d='{path}' stroke='{ink}' stroke-width='{size}' stroke-linecap='round'/>")
    for dot in inside if len(inside) <= _NAMED else ():
        x, y = at(dot.x, dot.y).split(",")
        shapes.append(
            f"<circle cx='{x}' cy='{y}' r='4' fill='{PAPER}' stroke='{INK}'>"
            f"<title>{html.escape(dot.words)}</title></circle>"
        )
    for level, label in rows:
        y = at(0, level).split(",")[1]
        shapes.append(f"<text x='0' y='{y}' font-size='10' fill='{MUTED}'>{html.escape(label)}</text>")
    return f"<svg width='{width}' height='{height}' role='img'>{''.join(shapes)}</svg>"


def _largest(lines: Sequence[EdgeLine]) -> float:
    """The largest size of a score; 1 where there is none."""
    return max((abs(line.score) for line in lines if line.score == line.score), default=0.0) or 1.0


def _band(share: float) -> int:
    return min(int(share * _STEPS), _STEPS - 1) if share == share else 0


def _strokes_of(dots: Sequence[Dot], lines: Sequence[EdgeLine], largest: float) -> list[go.Scatter]:
    """Edges as strokes: one trace for all of one colour, width and dash, the faint ones below."""
    alike: dict[tuple[int, bool, str], list[EdgeLine]] = {}
    for line in lines:
        alike.setdefault(
            (_band(abs(line.score) / largest), line.score < 0, _DASHES.get(line.part, "solid")), []
        ).append(line)
    return [
        _strokes(dots, part, NEGATIVE if negative else POSITIVE, (band + 0.5) / _STEPS, dash)
        for (band, negative, dash), part in sorted(alike.items(), key=lambda item: item[0])
    ]


def _strokes(
    dots: Sequence[Dot], lines: Sequence[EdgeLine], colour: str, share: float, dash: str
) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for line in lines:
        points = _curve(dots[line.start], dots[line.end], line.part)
        x += [*(across for across, _ in points), None]
        y += [*(up for _, up in points), None]
    pen = {"color": colour, "width": _THINNEST + (_WIDEST - _THINNEST) * share, "dash": dash}
    return go.Scatter(x=x, y=y, mode="lines", hoverinfo="skip", opacity=0.35 + 0.6 * share, line=pen)


def _curve(a: Dot, b: Dot, part: str = "", points: int = 9) -> list[tuple[float, float]]:
    """A line that bends a little to the side when it would run straight through the nodes of its column.

    It arrives left of a head's middle at its queries, and right of it at its values.
    """
    bend = 0.28 if abs(a.x - b.x) < 0.3 and b.y - a.y > 1 else 0.0
    across = b.x + _BESIDE.get(part, 0.0) - a.x
    shares = [i / (points - 1) for i in range(points)] if bend else [0.0, 0.5, 1.0]
    return [(a.x + across * t + bend * 4 * t * (1 - t), a.y + (b.y - a.y) * t) for t in shares]


def _middles(dots: Sequence[Dot], lines: Sequence[EdgeLine], unit: str) -> go.Scatter:
    """Invisible marks on the edges that carry their words."""
    x, y, text = [], [], []
    for line in lines:
        a, b = dots[line.start], dots[line.end]
        points = _curve(a, b, line.part)
        across, up = points[len(points) // 2]
        x.append(across)
        y.append(up)
        port = f"the {_PORTS[line.part]} of " if line.part in _PORTS else ""
        text.append(f"{a.words} → {port}{b.words}<br>{_amount(line.score, unit)}")
    mark = {"size": 9, "color": INK, "opacity": 0.0}
    return go.Scatter(
        x=x, y=y, mode="markers", text=text, hovertemplate="%{text}<extra></extra>", marker=mark
    )


def _amount(score: float, unit: str) -> str:
    return "no score" if score != score else f"{score:+.3g} {unit}".strip()


def _marks(dots: Sequence[Dot], lines: Sequence[EdgeLine], unit: str) -> go.Scatter:
    into, out = [0.0] * len(dots), [0.0] * len(dots)
    for line in lines:
        if line.score == line.score:
            out[line.start] += line.score
            into[line.end] += line.score
    text = [
        f"{d.words}<br>in {_amount(into[i], unit)}, out {_amount(out[i], unit)}"
        if d.inside
        else f"{d.words}: not in it"
        for i, d in enumerate(dots)
    ]
    return go.Scatter(
        x=[d.x for d in dots], y=[d.y for d in dots], mode="markers+text", text=[d.label if d.inside else "" for d in dots],
        textposition="top center", textfont={"size": 10, "family": FONT, "color": INK}, customdata=text,
        hovertemplate="%{customdata}<extra></extra>",
        marker={
            "size": [11 if d.inside else 4 for d in dots], "color": [PAPER if d.inside else FAINT for d in dots],
            "line": {"color": [INK if d.inside else FAINT for d in dots], "width": 1.6},
        },
    )  # fmt: skip
