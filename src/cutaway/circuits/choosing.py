"""From the scores of a method to a circuit: how large, by which rule, and what is said where nothing connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cutaway.circuits import selection
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.evaluation.faithfulness import SHARES, curve, node_circuit, size_needed
from cutaway.circuits.recipe import TraceRecipe
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

SELECTIONS = ("top", "greedy", "threshold", "optimum")
#: The faithfulness that the smallest circuit is grown to where no size is given.
REACH = 0.85
#: Methods that choose edges by themselves, so that a selection has no say unless a size or a threshold is given.
_CHOOSE = ("acdc", "mask-edges", "mask-nodes")


def require_heard(method: str, grain: str, select: str, edges: int | float | None, nodes: int | None) -> None:
    """Raise `BadInput` where a size or a selection was asked for that this method and selection would not look at."""
    if grain == "node" and edges is not None:
        raise BadInput(f"{method} scores nodes, and a number of edges was given.", "Pass nodes=... instead.")
    if grain == "edge" and nodes is not None:
        raise BadInput(f"{method} scores edges, and a number of nodes was given.", "Pass edges=... instead.")
    if select == "threshold" and (edges is not None or nodes is not None):
        raise BadInput(
            f"select='threshold' takes every {grain} above the threshold, and a number of {grain}s was given, too.",
            f"Leave {grain}s out, or pass select='top'.",
        )
    if grain == "node" and select in ("greedy", "optimum"):
        raise BadInput(
            f"{method} scores nodes, and select={select!r} chooses edges.",
            "Leave select out: the best nodes are taken.",
        )
    if method in _CHOOSE and select in ("greedy", "optimum") and edges is None:
        raise BadInput(
            f"{method} chooses its edges by itself, so that select={select!r} has no say.",
            "Pass edges=..., too, or leave select out.",
        )


def choose(
    net: Network,
    behaviour: Behaviour,
    scores: Scores,
    recipe: TraceRecipe,
    *,
    edges: int | float | None = None,
    nodes: int | None = None,
    threshold: float | None = None,
    work: Work | None = None,
) -> Circuit:
    """The circuit that these scores give by the recipe's selection; `behaviour` is needed where no size is given."""
    graph, select = scores.graph, recipe.select
    notes = list(scores.notes)

    def share() -> float:
        """The smallest of MIB's sizes that keeps what is asked, on the examples that it was traced on."""
        bench = EdgeBench.of(net, behaviour, recipe.options.ablation, recipe.options.seed, work=work)
        return size_needed(curve(bench, scores), REACH) or SHARES[-1]

    if scores.kept is not None and edges is None and nodes is None and threshold is None:
        membership, how = scores.kept, f"chosen by {scores.method}"
    elif select == "threshold":
        if threshold is None:
            raise BadInput("No threshold was given.", "Pass threshold=..., or select='top' with edges=....")
        membership, how = selection.threshold(graph, scores.values, threshold), f"|score| >= {threshold:g}"
        if not selection.prune(graph, membership).any():
            least = selection.connecting(graph, scores.values)[1]
            raise BadInput(
                f"No path from the input to the logits has edges of |score| >= {threshold:g} throughout.",
                f"Pass a threshold of at most {least:.3g}.",
            )
    elif scores.nodes is not None:
        if edges is not None:
            require_heard(scores.method, "node", select, edges, None)
        count = nodes if nodes is not None else max(1, int(share() * (graph.shape[0] - 1)))
        membership, how = node_circuit(scores, count), f"{count} best nodes"
    else:
        n = selection.size(graph, edges) if edges is not None else int(share() * graph.n_edges)
        if n < 1:
            raise BadInput(
                f"{edges} of {graph.n_edges} edges is less than one.",
                "Ask for more: edges=0.02, edges=20, ...",
            )
        membership, how = _connecting(scores, n, select, notes)
    connected = selection.prune(graph, membership)
    dropped = int(membership.sum() - connected.sum())
    if dropped:
        notes.append(
            f"{dropped} chosen {'edge' if dropped == 1 else 'edges'} lay on no path from input to logits, and "
            f"{'was' if dropped == 1 else 'were'} left out."
        )
    if not connected.any():
        notes.append(
            f"Nothing is left: {scores.method} kept no path from the input to the logits. Ask for a size: edges=...."
        )
    by_position = _by_position(scores, connected) if scores.groups else None
    return Circuit(
        graph, connected, scores, scores.grain, recipe.options.ablation, behaviour.name, how, tuple(notes),
        scores.provenance, by_position, () if by_position is None else scores.groups, recipe,
    )  # fmt: skip


def _connecting(scores: Scores, n: int, select: str, notes: list[str]) -> tuple[np.ndarray, str]:
    """The n edges that were asked for; where no path runs through them, the best of at most n that one does run through.

    Raises `BadInput` with the least number of edges that connect where no n edges do.
    """
    graph = scores.graph
    picked, how = _picked(scores, n, select, notes)
    if selection.prune(graph, picked).any():
        return picked, how
    least = selection.connecting(graph, scores.values)[0]
    if select != "optimum":
        best, told = _picked(scores, n, "optimum", notes)
        if best.any():
            first = "the strongest" if select == "top" else "those that greedy selection takes"
            notes.append(
                f"No path from the input to the logits runs through {first} {n} edges (it takes the {least} strongest), so "
                f"the connected circuit of at most {n} edges with the largest sum of scores was taken (select='optimum')."
            )
            return best, f"{told}, as {how} do not connect"
    raise BadInput(
        f"No circuit of {n} edges connects the input to the logits.",
        f"Ask for more: the {least} strongest edges connect.",
    )


def _picked(scores: Scores, n: int, select: str, notes: list[str]) -> tuple[np.ndarray, str]:
    graph = scores.graph
    if select == "optimum":
        best = selection.optimum(graph, scores.values, n)
        if not best.proven:
            notes.append(
                f"The best subgraph was not proven: its sum is {best.value:.4g}, at most {best.bound:.4g}."
            )
        elif best.considered < graph.n_edges:
            notes.append(f"The optimum is that of the {best.considered} strongest edges.")
        return best.membership, f"optimum of at most {n} edges"
    picked = (selection.greedy if select == "greedy" else selection.top_n)(graph, scores.values, n)
    return picked, f"{select} {n} edges"


def _by_position(scores: Scores, membership: np.ndarray) -> np.ndarray | None:
    """For each group of positions the circuit's edges that count there: |score| at least a thousandth of the largest."""
    if scores.positions is None:
        return None
    strength = np.abs(scores.positions)
    return (strength >= 1e-3 * strength.max()) & membership[None]
