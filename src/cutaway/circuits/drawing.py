"""Where the nodes of a network and the edges of a circuit stand on paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.selection import nodes_of
from cutaway.figures.circuit import Dot, EdgeLine
from cutaway.network.parts import KINDS, Part

#: Writer, reader, score.
ScoredEdge = tuple[int, int, float]
#: Kinds that stand in a layer's lower row; what reads them stands above.
_LOWER = ("head", "attention", "mixer")
#: With more columns than this there is room for numbers only; which kind has which, the columns and the hover say.
_ROOMY = 10


@dataclass(frozen=True)
class CircuitLayout:
    """A circuit laid out for `cutaway.figures`.

    Attributes:
        dots: one for each node of the network, the logits last.
        lines: the circuit's edges, the strongest first.
        columns: labels of x = 0, 1, ...
        rows: height and label of the layers.
    """

    dots: list[Dot]
    lines: list[EdgeLine]
    columns: list[str]
    rows: list[tuple[float, str]]


def _kinds(graph: Graph, numbered: bool) -> list[str]:
    """Kinds of nodes with or without a number in their layer, in the order of their columns."""
    kinds = {w.kind for w in graph.writers if (w.index is not None) == numbered} - {"input"}
    return [kind for kind in KINDS if kind in kinds]


def _label(kind: str) -> str:
    return KINDS[kind].words.replace("{n}", "").strip()


def _number(node: Part) -> str:
    """Layer and index: `3.1` of head 3.1; of what has no layer its words."""
    number = "" if node.index is None else f".{node.index}"
    return node.words if node.layer is None else f"{node.layer}{number}"


def _place(graph: Graph, node: Part, widest: int) -> tuple[float, float]:
    """(column, height): heads and experts in their own column, whole sublayers to the right of them."""
    if node.layer is None:
        return (widest - 1) / 2, 0.0
    column = (
        float(node.index) if node.index is not None else float(widest + _kinds(graph, False).index(node.kind))
    )
    return column, 1.0 + node.layer + (0.0 if node.kind in _LOWER else 0.45)


def lay_out(
    graph: Graph, membership: np.ndarray, scored: list[ScoredEdge], by_node: bool = False
) -> CircuitLayout:
    """A circuit on axes that are the network's: layer up, head across.

    membership: bool [writers readers]. scored: its edges as (writer, reader, score). by_node: draw one edge between two
    nodes that are both in, whatever their inputs.
    """
    numbered = [w.index for w in graph.writers if w.index is not None]
    widest = 1 + max(numbered, default=0)
    split = "/".join(map(_label, _kinds(graph, True)))
    columns = [f"{split} {number}" for number in range(widest)] if numbered else [""]
    columns += map(_label, _kinds(graph, False))
    roomy = len(columns) <= _ROOMY
    inside = nodes_of(graph, membership)
    top = 1.0 + graph.layers
    dots = [
        Dot(w.words if roomy else _number(w), w.words, *_place(graph, w, widest), bool(inside[i]))
        for i, w in enumerate(graph.writers)
    ]
    dots.append(Dot("logits", "logits", (widest - 1) / 2, top))
    edges = _merged(graph, inside, scored) if by_node else scored
    edges = sorted(edges, key=lambda e: -abs(e[2]) if e[2] == e[2] else 0.0)
    lines = [_line(graph, *edge) for edge in edges]
    rows = [(0.0, "input"), *((1.0 + i, f"layer {i}") for i in range(graph.layers)), (top, "logits")]
    return CircuitLayout(dots, lines, columns, rows)


def _line(graph: Graph, writer: int, reader: int, score: float) -> EdgeLine:
    owner, port = int(graph.owner[reader]), graph.readers[reader].port
    return EdgeLine(writer, len(graph.writers) if owner < 0 else owner, score, "" if port == "in" else port)


def _merged(graph: Graph, nodes: np.ndarray, edges: list[ScoredEdge]) -> list[ScoredEdge]:
    """Node circuits: only edges between nodes that are both in (or into the logits), one for q, k and v."""
    inside = [*nodes, True]
    seen: dict[tuple[int, int], ScoredEdge] = {}
    for w, r, score in edges:
        owner = int(graph.owner[r])
        if inside[owner]:
            seen.setdefault((w, owner), (w, r, score))
    return list(seen.values())
