"""Where the nodes of a network stand on paper, and a circuit drawn on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.circuits.graph.nodes import Graph
from cutaway.figures.circuit import Dot, Line, circuit_figure, circuit_svg
from cutaway.network.parts import KINDS, Input, Part

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from cutaway.circuits.circuit import Circuit

_Drawing = tuple[list[Dot], list[Line], list[str], list[tuple[float, str]]]
#: Kinds that stand in a layer's lower row; what reads them stands above.
_LOWER = ("head", "attention", "mixer")


def _wholes(graph: Graph) -> list[str]:
    """Kinds of nodes without a number in their layer, in the order of their columns."""
    return [k for k in KINDS if k != "input" and any(w.kind == k and w.index is None for w in graph.writers)]


def _place(graph: Graph, node: Part, widest: int) -> tuple[float, float]:
    """(column, height): heads and experts in their own column, whole sublayers to the right of them."""
    if node.layer is None:
        return (widest - 1) / 2, 0.0
    column = float(node.index) if node.index is not None else float(widest + _wholes(graph).index(node.kind))
    return column, 1.0 + node.layer + (0.0 if node.kind in _LOWER else 0.45)


def draw(circuit: Circuit, most: int = 400) -> Figure:
    """The circuit of a network, on axes that are the network's: layer up, head across.

    most: how many edges are drawn, the strongest first; how many were left out is said in the title.
    """
    dots, lines, columns, rows = _drawing(circuit)
    title = f"{circuit}" + (f"; the {most} strongest are drawn" if len(lines) > most else "")
    return circuit_figure(dots, lines[:most], columns, rows, title=title)


def sketch(circuit: Circuit, most: int = 80) -> str:
    """The same as a small still picture (SVG), which needs nothing to be shown."""
    dots, lines, _, rows = _drawing(circuit)
    return circuit_svg(dots, lines[:most], rows)


def _drawing(circuit: Circuit) -> _Drawing:
    """Dots, lines (the strongest first), labels of columns and of rows."""
    graph = circuit.graph
    numbered = [w.index for w in graph.writers if w.index is not None]
    widest = 1 + max(numbered, default=0)
    split = [
        KINDS[k].words.replace("{n}", "").strip()
        for k in KINDS
        if any(w.kind == k and w.index is not None for w in graph.writers)
    ]
    columns = [f"{'/'.join(split)} {number}" for number in range(widest)] if numbered else [""]
    columns += [KINDS[k].words.replace("{n}", "").strip() for k in _wholes(graph)]
    inside = circuit.node_membership
    top = 1.0 + graph.layers
    dots = [
        Dot(str(w), w.words, *_place(graph, w, widest), bool(inside[i])) for i, w in enumerate(graph.writers)
    ]
    dots.append(Dot("logits", "logits", (widest - 1) / 2, top))
    values = None if circuit.scores is None else circuit.scores.values
    edges = [
        (w, r, float("nan") if values is None else float(values[w, r]))
        for w, r in graph.edges(circuit.membership)
    ]
    if circuit.grain == "node":
        edges = _merged(graph, circuit, edges)
    edges.sort(key=lambda e: -abs(e[2]) if e[2] == e[2] else 0.0)
    lines = [_line(graph, w, graph.readers[r], score, int(graph.owner[r])) for w, r, score in edges]
    rows = [(0.0, "input"), *((1.0 + i, f"layer {i}") for i in range(graph.layers)), (top, "logits")]
    return dots, lines, columns, rows


def _line(graph: Graph, writer: int, reader: Input, score: float, owner: int) -> Line:
    end = len(graph.writers) if owner < 0 else owner
    return Line(writer, end, score, "" if reader.port == "in" else reader.port)


def _merged(
    graph: Graph, circuit: Circuit, edges: list[tuple[int, int, float]]
) -> list[tuple[int, int, float]]:
    """Node circuits: only edges between nodes that are both in (or into the logits), one for q, k and v."""
    inside = [*circuit.node_membership, True]
    seen: dict[tuple[int, int], tuple[int, int, float]] = {}
    for w, r, score in edges:
        owner = int(graph.owner[r])
        if inside[owner]:
            seen.setdefault((w, owner), (w, r, score))
    return list(seen.values())
