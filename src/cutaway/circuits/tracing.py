"""`cutaway.trace`: from a network and a behaviour to a circuit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.circuits import selection
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.evaluation.faithfulness import SHARES, curve, node_circuit, size_needed
from cutaway.circuits.methods import known_options, method_name, option_names, options_of, score
from cutaway.circuits.methods.options import MethodOptions
from cutaway.circuits.recipe import TraceRecipe
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput, NotFound
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

SELECTIONS = ("top", "greedy", "threshold", "optimum")
#: The faithfulness that the smallest circuit is grown to where no size is given.
REACH = 0.85
#: What `trace` takes beside the options of the method, to be offered for a misspelt name.
_OWN = ("method", "edges", "nodes", "select", "threshold", "force", "seed", "options", "work")


@strict
def trace(
    net: Network,
    behaviour: Behaviour | str,
    *,
    method: str = "eap-ig",
    edges: int | float | None = None,
    nodes: int | None = None,
    select: str = "top",
    threshold: float | None = None,
    force: bool = False,
    seed: int | None = None,
    options: MethodOptions | None = None,
    work: Work | None = None,
    **given: Any,
) -> Circuit:
    """Find the circuit of a behaviour: score every edge, then choose.

    Scores are taken on the behaviour's discovery examples alone, so that `cutaway.test` can judge on the others.

    Args:
        net: the network.
        behaviour: the behaviour, or the name of a built-in one, which is then made with `seed`.
        method: see `cutaway.circuits.METHODS`; the default is EAP-IG over inputs.
        edges: how many, or a share of all (0.02). None: the smallest of MIB's sizes whose circuit keeps 85 % of the gap on
            discovery examples.
        nodes: how many nodes, for methods that score nodes.
        select: "top" (largest |score|), "greedy" (from the logits), "threshold", or "optimum" (the connected subgraph
            with the largest sum, by integer programming).
        threshold: the least |score|, with select="threshold"; otherwise the method's own (ACDC).
        force: go on where the network does not perform the behaviour.
        seed: of everything random; left out, that of `options` (0).
        options: the method's options as one object, such as `EapIgOptions(steps=10)`.
        work: who hears of progress, may stop it, and what it may spend.
        given: the method's options by name: `steps=10`, `positions="span"`, `ablation="mean"`.

    Returns:
        A connected `Circuit` with its scores.

    Raises:
        UnknownOption for an option that the method does not have, with the nearest name or the methods that have it;
        BadInput for a wrong value; NotFound for an unknown method or selection; SiteUnavailable where the network's graph
        cannot be vouched for; BadBehaviour for pairs of unequal length, or where there is no gap; NotPerformed unless
        forced, for a name.
    """
    if select not in SELECTIONS:
        raise NotFound(f"There is no selection {select!r}.", f"Use one of {', '.join(SELECTIONS)}.")
    name = method_name(method)
    if threshold is not None and select != "threshold":
        if "threshold" not in option_names(name):
            raise BadInput(
                f"{name} has no threshold of its own, and select={select!r} needs none.",
                "Pass select='threshold'.",
            )
        given, threshold = given | {"threshold": threshold}, None
    chosen = options_of(name, options, given, _OWN)
    chosen = chosen if seed is None else replace(chosen, seed=seed)
    began = time.perf_counter()
    with working(work).interruptible() as work:
        if isinstance(behaviour, str):
            behaviour = make_behaviour(behaviour, net, seed=chosen.seed, force=force)
        pairs = behaviour if behaviour.part != "all" else behaviour.discovery
        scores = score(net, pairs, method=name, options=chosen, work=work)
        recipe = TraceRecipe(name, chosen, select)
        circuit = choose(net, pairs, scores, recipe, edges=edges, nodes=nodes, threshold=threshold, work=work)
        seconds = round(time.perf_counter() - began, 3)
        return replace(circuit, provenance=Provenance.of(net, pairs.hash, chosen.seed, seconds))


def retrace(
    net: Network, circuit: Circuit, behaviour: Behaviour, *, seed: int = 0, work: Work | None = None
) -> Circuit:
    """A circuit of the same size, found by the same method on another network or with other answers.

    A circuit that was not traced (read from a file, written by hand) is compared with EAP-IG.
    """
    recipe = circuit.recipe or TraceRecipe("eap-ig", options_of("eap-ig"))
    changes = {"seed": seed, "ablation": circuit.ablation, "examples": False, "positions": None}
    options = replace(recipe.options, **known_options(recipe.method, changes))
    recipe = replace(recipe, options=options, select=recipe.select if recipe.select != "threshold" else "top")
    pairs = behaviour if behaviour.part != "all" else behaviour.discovery
    scores = replace(score(net, pairs, method=recipe.method, options=options, work=work), kept=None)
    if scores.nodes is not None:
        count = int(circuit.node_membership.sum()) - int(circuit.node_membership[0])
        return choose(net, pairs, scores, recipe, nodes=max(1, count), work=work)
    return choose(net, pairs, scores, recipe, edges=max(1, circuit.n_edges), work=work)


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
    elif scores.nodes is not None:
        if nodes is None and edges is not None:
            raise BadInput(
                f"{scores.method} scores nodes, and a number of edges was given.", "Pass nodes=... instead."
            )
        count = nodes if nodes is not None else max(1, int(share() * (graph.shape[0] - 1)))
        membership, how = node_circuit(scores, count), f"{count} best nodes"
    else:
        n = selection.size(graph, edges) if edges is not None else int(share() * graph.n_edges)
        membership, how = _picked(scores, n, select, notes)
    connected = selection.prune(graph, membership)
    dropped = int(membership.sum() - connected.sum())
    if dropped:
        notes.append(f"{dropped} chosen edges lay on no path from input to logits and were left out.")
    by_position = _by_position(scores, connected) if scores.groups else None
    return Circuit(
        graph, connected, scores, scores.grain, recipe.options.ablation, behaviour.name, how, tuple(notes),
        scores.provenance, by_position, () if by_position is None else scores.groups, recipe,
    )  # fmt: skip


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
