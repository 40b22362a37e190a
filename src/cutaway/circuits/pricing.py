"""What tracing and testing a circuit take, in forward-equivalents, worked out from what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.circuits.evaluation.faithfulness import SHARES
from cutaway.circuits.methods import known_options, option_names, options_of
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.results.meter import BACKWARD

if TYPE_CHECKING:
    from cutaway.circuits.circuit import Circuit
    from cutaway.circuits.limits import CircuitLimits
    from cutaway.network import Network

#: A forward pass whose gradient is taken.
_BOTH = 1 + BACKWARD
#: Where parts in all layers are cut, one by one, a run goes through about so much of layers and columns; ACDC, which leaves
#: out what hangs on a part that is gone, of what there is.
_SHARE = {"node-patching": 0.37, "path-patching": 0.37, "acdc": 0.3}


def scores_price(net: Network, n: int, method: str, options: Any) -> float:
    """What the scores of a method take on n pairs."""
    steps, stages = getattr(options, "steps", 1), 2 * max(1, net.n_layers)
    if method == "ensemble":
        wanted = {"steps": options.steps}
        return sum(
            scores_price(net, n, m, options_of(m, None, known_options(m, wanted))) for m in options.methods
        )
    if method in _SHARE:
        graph = wiring_of(net).graph
        runs = len(graph.writers) if method == "node-patching" else graph.n_edges
        return n * (3 + _SHARE[method] * runs)
    each: dict[str, float] = {
        "eap-ig": 1 + _BOTH * steps,
        "node-ig": 1 + _BOTH * steps,
        "eap-ig-activations": 1 + _BOTH + _BOTH * (steps - 1) * (stages + 1),
        "clean-corrupted": 2 * _BOTH,
        "neurons": 2 + _BOTH,
        "atp-star": 1 + _BOTH * (1 + max(1, net.n_layers)),
        "flow": 1,
        "random": 0,
    }
    if method.startswith("mask"):
        warm = n * (1 + _BOTH) if "warm" in option_names(method) and options.warm is not None else 0.0
        return warm + n * (3 + _BOTH * options.rounds)
    return n * each.get(method, 1 + _BOTH)


def slopes_share(method: str, price: list[tuple[str, float]]) -> float:
    """The share of what tracing takes that is in passes whose gradient is taken; price: what `trace_price` gives.

    >>> slopes_share("eap", [("scores by eap", 30.0), ("finding the size", 10.0)])
    0.75
    """
    without = method in _SHARE or method in ("flow", "random")
    total = sum(forwards for _, forwards in price)
    return 0.0 if without or not total else price[0][1] / total


def trace_price(net: Network, n: int, method: str, options: Any, sized: bool) -> list[tuple[str, float]]:
    """What tracing takes on n pairs. sized: how large the circuit is to be is given, so that no size is searched for."""
    found = getattr(options, "ablation", "") and method in ("acdc", "mask-edges", "mask-nodes")
    search = 0.0 if sized or found else n * (3.0 + len(SHARES))
    return [(f"scores by {method}", scores_price(net, n, method, options)), ("finding the size", search)]


def measure_price(circuit: Circuit, limits: CircuitLimits, n: int, full: bool) -> float:
    """What measuring a circuit on n pairs takes: one run for every circuit that is looked at."""
    runs = 3.0 + 2 * (
        1 + limits.random
    )  # both ends, the rest, and what is kept and removed beside random circuits
    if full:
        nodes = int(circuit.node_membership.sum()) - 1
        subsets = min(limits.subsets, nodes) if nodes <= 1 else limits.subsets
        runs += 2 * subsets + nodes - min(nodes, (subsets + 1) // 2)  # single nodes are looked at once
        if circuit.grain == "edge":
            runs += min(limits.edges, circuit.n_edges) + 2 * limits.random
        if circuit.scores is not None:
            runs += len(SHARES) - 1
    return n * runs


def test_price(
    net: Network, circuit: Circuit, limits: CircuitLimits, n: int, discovery: int, controls: bool
) -> list[tuple[str, float]]:
    """What a test on n held-out pairs takes; discovery: pairs that controls trace a circuit on."""
    parts = [("the circuit, beside random ones", measure_price(circuit, limits, n, full=True))]
    if controls:
        recipe = circuit.recipe
        method = "eap-ig" if recipe is None else recipe.method
        options = options_of("eap-ig") if recipe is None else recipe.options
        again = scores_price(net, discovery, method, options) + measure_price(circuit, limits, n, full=False)
        each = again + 2 * (n + discovery)
        parts += [("random weights", each), ("contrast with random weights", 12.0 * (n + discovery)),
                  ("shuffled answers", each)]  # fmt: skip
    return parts
