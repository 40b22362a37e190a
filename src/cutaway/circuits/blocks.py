"""A circuit, and a tested one, as blocks of a report: drawing, curve, and what its parts weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.figures import faithfulness_curve
from cutaway.reports import Block, Figure, Table

if TYPE_CHECKING:
    from cutaway.circuits.circuit import Circuit
    from cutaway.circuits.testing import CircuitTest

DRAWN = "Layers upwards, heads across. Hover over an edge's middle or a node to see what and how much."


def drawing(circuit: Circuit) -> Figure:
    """The circuit drawn, with the sentence that says how to read it."""
    return Figure(circuit.figure(), DRAWN)


def blocks_of(result: CircuitTest, most: int = 16) -> list[Block]:
    """The circuit drawn, its faithfulness over size, and what its nodes weigh, the `most` important ones."""
    blocks: list[Block] = [drawing(result.circuit)]
    if (curve := curve_of(result)) is not None:
        caption = "Faithfulness on held-out prompts of circuits of growing size, by the same scores."
        blocks.append(Figure(curve, caption))
    if rows := tuple(_node_rows(result, most)):
        names = ("node", "the circuit loses without it", "edges out")
        caption = "Each node taken out of the circuit alone, in shares of the gap."
        blocks.append(Table(names, rows, caption, frozenset({1, 2})))
    return blocks


def curve_of(result: CircuitTest) -> Any:
    """Faithfulness over size with this circuit and random ones of its size; None for a circuit without scores."""
    curve = result.trial.curve
    if curve is None:
        return None
    tested = (result.circuit.share, result.trial.kept.value)
    return faithfulness_curve(curve.shares, curve.values, tested, result.trial.random_kept.tolist())


def _node_rows(result: CircuitTest, most: int) -> list[tuple[str, str, str]]:
    """(node, what the circuit loses without it, edges out) of the nodes that matter most."""
    nodes, graph = result.trial.nodes, result.circuit.graph
    order = sorted(range(len(nodes.names)), key=lambda i: -nodes.effects[i])[:most]
    writers = {
        str(w): (w.words, int(result.circuit.membership[i].sum())) for i, w in enumerate(graph.writers)
    }
    rows = []
    for i in order:
        words, out = writers[nodes.names[i]]
        rows.append((words, f"{100 * nodes.signed[i]:+.0f} %", str(out)))
    return rows
