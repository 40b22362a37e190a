"""A circuit, and a tested one, as blocks of a report: drawing, curve, and what its parts weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.circuits.circuit import CAPTION, Circuit
from cutaway.figures import faithfulness_curve
from cutaway.reports import Block, Figure, Table

if TYPE_CHECKING:
    from cutaway.circuits.trial import CircuitTrial


def drawing(circuit: Circuit) -> Figure:
    """The circuit drawn, with the sentence that says how to read it."""
    return Figure(circuit.plot(), CAPTION)


def blocks_of(circuit: Circuit, trial: CircuitTrial, most: int = 16) -> list[Block]:
    """The circuit drawn, its faithfulness over size, and what its nodes weigh, the `most` important ones."""
    blocks: list[Block] = [drawing(circuit)]
    if (curve := curve_of(circuit, trial)) is not None:
        caption = "Faithfulness on held-out prompts of circuits of growing size, by the same scores."
        blocks.append(Figure(curve, caption))
    if rows := tuple(_node_rows(circuit, trial, most)):
        names = ("node", "the circuit loses without it", "edges out")
        caption = "Each node taken out of the circuit alone, in shares of the gap."
        blocks.append(Table(names, rows, caption, frozenset({1, 2})))
    return blocks


def curve_of(circuit: Circuit, trial: CircuitTrial) -> Any:
    """Faithfulness over size with this circuit and random ones of its size; None for a circuit without scores."""
    if trial.curve is None:
        return None
    tested = (circuit.share, trial.kept.value)
    return faithfulness_curve(trial.curve.shares, trial.curve.values, tested, trial.random_kept.tolist())


def _node_rows(circuit: Circuit, trial: CircuitTrial, most: int) -> list[tuple[str, str, str]]:
    """(node, what the circuit loses without it, edges out) of the nodes that matter most."""
    nodes, graph = trial.nodes, circuit.graph
    order = sorted(range(len(nodes.names)), key=lambda i: -nodes.effects[i])[:most]
    rows = []
    for i in order:
        w = graph.writer(nodes.names[i])
        edges = str(circuit.membership[w].sum())
        rows.append((graph.writers[w].words, f"{100 * nodes.signed[i]:+.0f} %", edges))
    return rows
