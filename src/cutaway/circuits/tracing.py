"""`cutaway.trace`: from a network and a behaviour to a circuit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.circuits import selection
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.evaluation.faithfulness import SHARES, curve, node_circuit, size_needed
from cutaway.circuits.methods import METHODS, Options
from cutaway.circuits.methods import method as find_method
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput, NotFound

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

SELECTIONS = ("top", "greedy", "threshold", "optimum")
#: The faithfulness that the smallest circuit is grown to where no size is given.
REACH = 0.85


def trace(
    net: Network,
    behaviour: Behaviour | str,
    method: str = "eap-ig",
    edges: int | float | None = None,
    *,
    nodes: int | None = None,
    select: str = "top",
    threshold: float | None = None,
    force: bool = False,
    **options: Any,
) -> Circuit:
    """Find the circuit of a behaviour: score every edge, then choose.

    Scores are taken on the behaviour's discovery examples alone, so that `cutaway.test` can judge on the others.

    Args:
        net: the network.
        behaviour: the behaviour, or the name of a built-in one.
        method: see `cutaway.circuits.METHODS`; the default is EAP-IG over inputs.
        edges: how many, or a share of all (0.02). None: the smallest of MIB's sizes whose circuit keeps 85 % of the gap on
            discovery examples.
        nodes: how many nodes, for methods that score nodes.
        select: "top" (largest |score|), "greedy" (from the logits), "threshold", or "optimum" (the connected subgraph
            with the largest sum, by integer programming).
        threshold: the least |score|, with select="threshold".
        force: go on where the network does not perform the behaviour.
        options: fields of `cutaway.circuits.Options` (steps, positions, ablation, seed, report); others go to the method.

    Returns:
        A connected `Circuit` with its scores.

    Raises:
        NotFound for an unknown method or selection; SiteUnavailable where the network's graph cannot be vouched for;
        BadBehaviour for pairs of unequal length, or where there is no gap; NotPerformed unless forced, for a name.
    """
    if select not in SELECTIONS:
        raise NotFound(f"There is no selection {select!r}.", f"Use one of {', '.join(SELECTIONS)}.")
    if isinstance(behaviour, str):
        behaviour = make_behaviour(behaviour, net, force=force)
    chosen = _options(options)
    part = behaviour if behaviour.part != "all" else behaviour.discovery
    scores = find_method(method)(net, part, chosen)
    found = choose(net, part, scores, chosen, edges=edges, nodes=nodes, select=select, threshold=threshold)
    found.extra["trace"]["method"] = method
    return found


def _options(given: dict[str, Any]) -> Options:
    known = {f.name for f in fields(Options)} - {"more"}
    mine = {k: v for k, v in given.items() if k in known and v is not None}
    return Options(**mine, more={k: v for k, v in given.items() if k not in known and v is not None})


def choose(
    net: Network,
    behaviour: Behaviour,
    scores: Scores,
    options: Options,
    *,
    edges: int | float | None = None,
    nodes: int | None = None,
    select: str = "top",
    threshold: float | None = None,
) -> Circuit:
    """The circuit that these scores give, by one of the selections; `behaviour` is needed where no size is given."""
    graph = scores.graph
    notes = list(scores.notes)
    if scores.kept is not None and edges is None and nodes is None and threshold is None:
        membership, how = scores.kept, f"chosen by {scores.method}"
    elif select == "threshold":
        if threshold is None:
            raise BadInput("No threshold was given.", "Pass threshold=..., or select='top' with edges=....")
        membership, how = selection.threshold(graph, scores.values, threshold), f"|score| >= {threshold:g}"
    elif scores.nodes is not None:
        count = nodes if nodes is not None else _node_count(net, behaviour, scores, options, edges)
        membership, how = node_circuit(scores, count), f"{count} best nodes"
    else:
        n = (
            selection.size(graph, edges)
            if edges is not None
            else _edge_count(net, behaviour, scores, options)
        )
        membership, how = _picked(scores, n, select, notes)
    connected = selection.prune(graph, membership)
    dropped = int(membership.sum() - connected.sum())
    if dropped:
        notes.append(f"{dropped} chosen edges lay on no path from input to logits and were left out.")
    recipe = {
        "method": scores.method if scores.method in METHODS else options.more.get("method", "eap-ig"),
        "steps": options.steps, "select": select, "threshold": options.removal_threshold,
        "more": {k: v for k, v in options.more.items() if isinstance(v, str | int | float | bool)},
    }  # fmt: skip
    made = Circuit(
        graph, connected, scores, scores.grain, options.ablation, behaviour.name, how, tuple(notes), scores.provenance,
        extra={"trace": recipe},
    )  # fmt: skip
    if scores.positions is not None and scores.groups:
        made = replace(made, positions=_by_position(scores, connected, how), groups=scores.groups)
    return made


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


def _edge_count(net: Network, behaviour: Behaviour, scores: Scores, options: Options) -> int:
    return int((_share(net, behaviour, scores, options)) * scores.graph.n_edges)


def _node_count(
    net: Network, behaviour: Behaviour, scores: Scores, options: Options, edges: int | float | None
) -> int:
    if edges is not None:
        raise BadInput(
            f"{scores.method} scores nodes, and a number of edges was given.", "Pass nodes=... instead."
        )
    return max(1, int(_share(net, behaviour, scores, options) * (scores.graph.shape[0] - 1)))


def _share(net: Network, behaviour: Behaviour, scores: Scores, options: Options) -> float:
    """The smallest of MIB's sizes at which the circuit keeps what is asked, on the examples that it was traced on."""
    bench = EdgeBench.of(net, behaviour, options.ablation, options.seed, options.budget)
    return size_needed(curve(bench, scores), REACH) or SHARES[-1]


def _by_position(scores: Scores, membership: np.ndarray, how: str) -> np.ndarray:
    """For each group of positions the circuit's edges that count there: |score| at least a thousandth of the largest."""
    assert scores.positions is not None
    strength = np.abs(scores.positions)
    return (strength >= 1e-3 * strength.max()) & membership[None]
