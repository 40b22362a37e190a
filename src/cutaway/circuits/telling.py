"""A tested circuit as blocks of a report: drawing, curve, and what its parts weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.figures import faithfulness_curve

if TYPE_CHECKING:
    from cutaway.circuits.testing import CircuitTest


def curve_of(result: CircuitTest) -> Any:
    """Faithfulness over size with this circuit and random ones of its size; None for a circuit without scores."""
    found = result.trial.curve
    if found is None:
        return None
    return faithfulness_curve(
        found.shares,
        found.values,
        (result.circuit.share, result.trial.kept.value),
        result.trial.random_kept.tolist(),
    )


def node_rows(result: CircuitTest, most: int = 16) -> list[tuple[str, str, str]]:
    """(node, what the circuit loses without it, edges out) of the nodes that matter most."""
    nodes, graph = result.trial.nodes, result.circuit.graph
    order = sorted(range(len(nodes.names)), key=lambda i: -nodes.effects[i])[:most]
    out = {str(w): int(result.circuit.membership[i].sum()) for i, w in enumerate(graph.writers)}
    return [(nodes.names[i], f"{100 * nodes.signed[i]:+.0f} %", str(out[nodes.names[i]])) for i in order]
