"""Where the nodes of a network stand on paper, and a circuit drawn on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.circuits.graph.nodes import Graph, Reader, Writer
from cutaway.figures.circuit import Dot, Line, circuit_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from cutaway.circuits.circuit import Circuit


def _place(graph: Graph, node: Writer, widest: int) -> tuple[float, float]:
    """(column, height): heads in their own column, whole sublayers to the right of them."""
    if node.kind == "input":
        return (widest - 1) / 2, 0.0
    kinds = [k for k in ("attention", "cross", "mixer", "mlp") if any(w.kind == k for w in graph.writers)]
    column = float(node.head) if node.head is not None else float(widest + kinds.index(node.kind))
    return column, 1.0 + node.layer + (0.0 if node.kind in ("head", "attention", "mixer") else 0.45)


def draw(circuit: Circuit, most: int = 400) -> Figure:
    """The circuit of a network, on axes that are the network's: layer up, head across.

    most: how many edges are drawn, the strongest first; how many were left out is said in the title.
    """
    graph = circuit.graph
    widest = 1 + max((w.head for w in graph.writers if w.head is not None), default=0)
    kinds = [k for k in ("attention", "cross", "mixer", "mlp") if any(w.kind == k for w in graph.writers)]
    columns = [f"head {h}" for h in range(widest)] if any(w.head is not None for w in graph.writers) else [""]
    columns += [{"mlp": "MLP"}.get(k, k) for k in kinds]
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
    left_out = len(edges) - most
    lines = [_line(graph, w, graph.readers[r], score, int(graph.owner[r])) for w, r, score in edges[:most]]
    rows = [(0.0, "input"), *((1.0 + i, f"layer {i}") for i in range(graph.layers)), (top, "logits")]
    title = f"{circuit}" + (f"; the {most} strongest are drawn" if left_out > 0 else "")
    return circuit_figure(dots, lines, columns, rows, title=title)


def _line(graph: Graph, writer: int, reader: Reader, score: float, owner: int) -> Line:
    end = len(graph.writers) if owner < 0 else owner
    return Line(writer, end, score, reader.kind if reader.kind in "qkv" else "")


def _merged(
    graph: Graph, circuit: Circuit, edges: list[tuple[int, int, float]]
) -> list[tuple[int, int, float]]:
    """Node circuits: only edges between nodes that are both in (or into the logits), one for q, k and v."""
    inside = np.append(circuit.node_membership, True)
    seen: dict[tuple[int, int], tuple[int, int, float]] = {}
    for w, r, score in edges:
        owner = int(graph.owner[r])
        if inside[owner]:
            seen.setdefault((w, owner), (w, r, score))
    return list(seen.values())
