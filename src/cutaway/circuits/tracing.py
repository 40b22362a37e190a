"""`cutaway.trace`: from a network and a behaviour to a circuit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.behaviours.rounding import measure_rounding
from cutaway.circuits.choosing import SELECTIONS, choose, require_heard
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.methods import METHODS, known_options, method_name, option_names, options_of, score
from cutaway.circuits.methods.options import MethodOptions
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.pieces import Pieces
from cutaway.circuits.pricing import slopes_share, trace_price
from cutaway.circuits.recipe import TraceRecipe
from cutaway.errors import BadBehaviour, BadInput, NotFound
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

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
            with the largest sum, by integer programming). Where the strongest edges that were asked for form no path from
            the input to the logits, the optimum of that size is taken, and the circuit's notes say so.
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
    require_heard(name, METHODS[name].grain, select, edges, nodes)
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
        sized = edges is not None or nodes is not None or threshold is not None
        wiring_of(net)  # found once for each network, and not a part of the price
        price = trace_price(net, pairs.n, name, chosen, sized)
        # how much finding a size takes is not told from a few pairs
        pieces = Pieces.of(net, pairs, name, chosen, work) if work.priced and not price[1][1] else None
        announce(
            net, pairs.clean_ids, work, f"tracing by {name}", price, gradients=slopes_share(name, price),
            memory=pieces and pieces.memory, timed=pieces and pieces.seconds,
        )  # fmt: skip
        measure_rounding(net, pairs, work)
        scores = score(net, pairs, method=name, options=chosen, work=work)
        recipe = TraceRecipe(name, chosen, select)
        circuit = choose(net, pairs, scores, recipe, edges=edges, nodes=nodes, threshold=threshold, work=work)
        seconds = round(time.perf_counter() - began, 3)
        return replace(circuit, provenance=Provenance.of(net, pairs.hash, chosen.seed, seconds))


def retrace(
    net: Network, circuit: Circuit, behaviour: Behaviour, *, seed: int = 0, work: Work | None = None
) -> Circuit:
    """A circuit of the same size, found by the same method on another network or with other answers.

    A circuit that was not traced (read from a file, written by hand) is compared with EAP-IG. Raises BadBehaviour where no
    circuit of that size connects there.
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
    try:
        return choose(net, pairs, scores, recipe, edges=max(1, circuit.n_edges), work=work)
    except BadInput as error:
        raise BadBehaviour(error.problem, "There is nothing to compare with.") from error
