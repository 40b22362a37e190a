"""How the parts are wired: the circuit of the behaviour by edges, traced on discovery and tested on held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.circuits import CircuitLimits, CircuitTest, test, trace
from cutaway.errors import CutawayError, Stopped
from cutaway.explanations.sizes import LARGE, Sizes
from cutaway.network.parts import parts_of
from cutaway.reports import Section
from cutaway.trials import percent
from cutaway.trials.spread import spread

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

#: Enough to draw and to judge; `cutaway test` does it at length, with the controls.
LIMITS = CircuitLimits(random=30, subsets=2, edges=0, bootstrap=5)
#: In a graph of more parts a run by edges takes ten times a forward: it is drawn, kept and removed, without random circuits.
OF_LARGE = CircuitLimits(random=0, subsets=0, edges=0, nodes=0, bootstrap=5)


def wire(
    net: Network, behaviour: Behaviour, sizes: Sizes, seed: int, work: Work
) -> tuple[CircuitTest | None, str]:
    """The tested circuit; or None with the reason, where this network's graph cannot be vouched for."""
    if net.anatomy.stack() is None:
        return None, f"Edges are told apart in a residual stream of layers, and {net.name} has none."
    if not sizes.wiring:
        return None, "The budget was kept for the tests."
    large = len(parts_of(net)) > LARGE
    discovery, held = behaviour.discovery, behaviour.held_out
    traced = discovery.take(spread(discovery.template, sizes.wiring // 2 if large else sizes.wiring))
    tested = held.take(spread(held.template, max(1, sizes.wiring // 2)))
    try:
        circuit = trace(net, traced, seed=seed, examples=False, work=work)
        if not circuit.n_edges:
            return None, "No connected set of edges was found."
        limits = OF_LARGE if large else LIMITS
        return test(net, circuit, tested, limits=limits, controls=False, seed=seed, work=work), ""
    except Stopped:
        raise
    except CutawayError as error:
        return None, error.problem


def section(result: CircuitTest | None) -> list[Section]:
    """The circuit drawn, its faithfulness over size, and what its nodes weigh; nothing where it was not looked for."""
    if result is None:
        return []
    circuit, trial = result.circuit, result.trial
    beside = "It was not set beside random circuits; the command cutaway test does that."
    if len(trial.random_kept):
        beside = trial.test("Sufficiency").sentence
    lead = (
        f"Scored edge by edge (integrated gradients), {circuit.n_edges} of {circuit.graph.n_edges} connections alone keep "
        f"{percent(trial.kept.value)} of the gap on held-out prompts, all others carrying what they carry on the corrupted "
        f"prompt; with these cut, {percent(trial.removed.value)} is left. {beside}"
    )
    return [Section("wiring", "How the parts are wired", result.blocks(10), lead)]
