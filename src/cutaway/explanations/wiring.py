"""How the parts are wired: the circuit of the behaviour by edges, traced on discovery and tested on held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.circuits import CircuitTest, Limits, test, trace
from cutaway.circuits.telling import curve_of, node_rows
from cutaway.errors import CutawayError
from cutaway.explanations.bench import Report
from cutaway.explanations.verdict import percent
from cutaway.reports import Block, Figure, Section, Table
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: Enough to draw and to judge; `cutaway test` does it at length, with the controls.
LIMITS = Limits(random=30, subsets=2, edges=6, bootstrap=5)


def wire(net: Network, behaviour: Behaviour, seed: int, report: Report) -> tuple[CircuitTest | None, str]:
    """The tested circuit; or None with the reason, where this network's graph cannot be vouched for."""
    work = Work(lambda p: report(p.label, p.done, p.total))
    try:
        circuit = trace(net, behaviour.discovery, seed=seed, examples=False, work=work)
        if not circuit.n_edges:
            return None, "No connected set of edges was found."
        return test(circuit, behaviour.held_out, net, limits=LIMITS, controls=False, seed=seed, work=work), ""
    except CutawayError as error:
        return None, error.problem


def section(found: CircuitTest | None) -> list[Section]:
    """The circuit drawn, its faithfulness over size, and what its nodes weigh; nothing where it was not looked for."""
    if found is None:
        return []
    circuit, trial = found.circuit, found.trial
    lead = (
        f"Scored edge by edge (integrated gradients), {circuit.n_edges} of {circuit.graph.n_edges} connections alone keep "
        f"{percent(trial.kept.value)} of the gap on held-out prompts, all others carrying what they carry on the corrupted "
        f"prompt; with these cut, {percent(trial.removed.value)} is left. {trial.test('Sufficiency').sentence}"
    )
    drawn = "Layers upwards, heads across. Hover over an edge's middle or a node to see what and how much."
    blocks: list[Block] = [Figure(circuit.plot(), drawn)]
    if (curve := curve_of(found)) is not None:
        blocks.append(
            Figure(curve, "Faithfulness on held-out prompts of circuits of growing size, by the same scores.")
        )
    if rows := tuple(node_rows(found, 10)):
        head = ("node", "the circuit loses without it", "edges out")
        caption = "Each node taken out of the circuit alone, in shares of the gap."
        blocks.append(Table(head, rows, caption, frozenset({1, 2})))
    return [Section("wiring", "How the parts are wired", blocks, lead)]
