"""`cutaway.test`: a circuit, tested on held-out examples beside its controls, as a claim."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cutaway.behaviours import exchange_answers
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.hypotheses import require_enough
from cutaway.circuits.limits import Limits
from cutaway.circuits.tracing import retrace
from cutaway.circuits.trial import (
    Trial,
    breaks_anyway,
    evidence,
    inside,
    least_examples,
    percent,
    put_to_test,
)
from cutaway.claims import Claim, Control, judge
from cutaway.errors import BadBehaviour, BadInput, CutawayError, NotPerformed
from cutaway.results import Provenance, Work, save_folder, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

KIND = "cutaway circuit test"


@dataclass(frozen=True, eq=False)
class CircuitTest:
    """The result of a test: the claim, and everything that was measured.

    claim: statement, verdict, evidence, controls. circuit: what was tested. trial: the figures. limits: fixed beforehand.
    """

    claim: Claim
    circuit: Circuit
    trial: Trial
    limits: Limits
    provenance: Provenance
    complete: bool = True

    @property
    def verdict(self) -> str:
        """`supported`, `refuted` or `inconclusive`."""
        return self.claim.verdict

    def to_dict(self) -> dict[str, Any]:
        """Everything but the circuit's own arrays, as plain data."""
        return {
            "kind": KIND, "claim": self.claim.to_dict(), "trial": self.trial.to_dict(), "limits": self.limits.to_dict(),
            "circuit": {"edges": self.circuit.edges, "nodes": self.circuit.nodes, "of": self.circuit.graph.n_edges},
            "provenance": self.provenance.to_dict(), "complete": self.complete,
        }  # fmt: skip

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it to a folder: the claim and figures as JSON, metrics as tensors, the nodes' effects as a table."""
        import pandas as pd

        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in self.trial.metrics.items()}
        nodes = pd.DataFrame({"node": list(self.trial.nodes.names), "effect": self.trial.nodes.effects})
        return save_folder(path, self.to_dict(), tensors, {"nodes": nodes})

    def __str__(self) -> str:
        return str(self.claim)

    def __rich__(self):
        return self.claim.__rich__()

    def _repr_html_(self) -> str:
        return self.claim._repr_html_()


def examine(
    circuit: Circuit,
    behaviour: Behaviour,
    net: Network | None = None,
    *,
    limits: Limits | None = None,
    controls: bool = True,
    require: Sequence[str] = (),
    seed: int = 0,
    work: Work | None = None,
) -> CircuitTest:
    """Test a circuit on held-out examples, beside three controls, and judge.

    Measured: faithfulness of the circuit alone, what is left without it, both against random circuits of its size;
    completeness in three senses; each node's marginal effect; faithfulness over size (CPR, CMD); the hypothesis
    tests of Shi et
    al. 2024; stability over bootstrap samples. Controls: random circuits must not do as well; the same method on the network
    with random weights, and on the network with right and wrong answers exchanged on half of the examples, must not give a
    supported circuit.

    Args:
        circuit: what is tested.
        behaviour: a behaviour; of a whole one the held-out examples are taken.
        net: the network; left out, the one that the circuit was traced on in this session.
        limits: what must be reached, fixed beforehand.
        controls: run random weights and shuffled answers; without them nothing is supported.
        require: names of tests that must be able to fail ("equivalence", ...); a behaviour with too few examples is refused.
        seed: of everything random.
        report: called with (what is being done, steps finished, steps in all).

    Raises:
        BadInput: the circuit is of another network, or empty; no network is known.
        BadBehaviour: too few examples for a required test (the least number is named); no gap, with both values.
    """
    started = time.perf_counter()
    say, bounds = working(work), limits or Limits()
    owner = net
    if owner is None:
        raise BadInput(
            "It is not known which network the circuit is of.",
            "Pass it: cutaway.test(circuit, behaviour, net).",
        )
    held, notes = _held_out(behaviour)
    for name in require:
        require_enough(held.n, least_examples(name, bounds), name.capitalize())
    trial = put_to_test(owner, circuit, held, bounds, seed, say)
    found = evidence(circuit, trial, bounds)
    checks, complete = [_random_control(trial, bounds)], True
    if controls:
        try:
            checks += [
                _random_weights(owner, circuit, behaviour, bounds, seed, say),
                _shuffled(owner, circuit, behaviour, bounds, seed, say),
            ]
        except KeyboardInterrupt:
            complete = False
            notes.append("Stopped before all controls were run.")
    else:
        notes.append("Random weights and shuffled answers were not run as controls.")
    verdict = judge(found, checks)
    if verdict == "supported" and (notes or not complete):
        verdict = "inconclusive"
    notes += _remarks(circuit, trial, bounds)
    claim = Claim(_statement(owner, circuit, held), verdict, found, tuple(checks), tuple(notes))
    seconds = round(time.perf_counter() - started, 2)
    return CircuitTest(
        claim, circuit, trial, bounds, Provenance.of(owner, held.hash, seed, seconds), complete
    )


def _held_out(behaviour: Behaviour) -> tuple[Behaviour, list[str]]:
    if behaviour.part == "all":
        return behaviour.held_out, []
    if behaviour.part == "held-out":
        return behaviour, []
    return behaviour, [
        "Tested on discovery examples, which the circuit may have been found on: nothing can be supported."
    ]


def _statement(net: Network, circuit: Circuit, behaviour: Behaviour) -> str:
    what = (
        f"{len(circuit.nodes)} nodes"
        if circuit.grain == "node"
        else f"{circuit.n_edges} of {circuit.graph.n_edges} edges"
    )
    return (
        f"On “{behaviour.name}” prompts like those tested, {what} of {Path(net.name).name} ({_listing(circuit)}) carry what "
        "tells the clean prompt's answer apart: alone, with every other edge ablated "
        f"({circuit.ablation}), they are enough, and "
        "without them it is gone."
    )


def _listing(circuit: Circuit, most: int = 8) -> str:
    nodes = circuit.nodes
    return ", ".join(nodes[:most]) + (f" and {len(nodes) - most} more" if len(nodes) > most else "")


def _random_control(trial: Trial, limits: Limits) -> Control:
    """Random circuits of the same size must not be as faithful."""
    as_good = int(((trial.random_kept >= limits.kept) & (trial.random_kept <= limits.excess)).sum())
    n = len(trial.random_kept)
    return Control(
        "Random circuits", None, "not as faithful", as_good <= (1 - limits.quantile) * n,
        f"{as_good} of {n} random circuits of the same size keep {100 * limits.kept:g} to "
        f"{100 * limits.excess:g} % of the gap; "
        f"their mean is {100 * float(np.mean(trial.random_kept)):.0f} %.",
    )  # fmt: skip


def _random_weights(
    net: Network, circuit: Circuit, behaviour: Behaviour, limits: Limits, seed: int, work: Work
) -> Control:
    """The same method on the same architecture with fresh weights must not give a supported circuit."""
    name, expected = "Random weights", "not supported"
    try:
        untrained = net.randomized(seed)
    except CutawayError as error:
        return Control(name, None, expected, None, f"Fresh weights could not be made. {error.problem}")
    return _must_fail(
        name, "The same architecture with fresh weights", untrained, circuit, behaviour, limits, seed, work
    )


def _shuffled(
    net: Network, circuit: Circuit, behaviour: Behaviour, limits: Limits, seed: int, work: Work
) -> Control:
    """With right and wrong answers exchanged on half of the examples there is nothing to find."""
    name, expected = "Shuffled answers", "not supported"
    if not all(behaviour.wrong):
        return Control(name, None, expected, None, "The behaviour has no wrong answers to exchange.")
    what = "The network itself, right and wrong exchanged on half of the examples"
    return _must_fail(name, what, net, circuit, exchange_answers(behaviour, seed), limits, seed, work)


def _must_fail(
    name: str, what: str, net: Network, circuit: Circuit, behaviour: Behaviour, limits: Limits, seed: int, work: Work
) -> Control:  # fmt: skip
    """Trace a circuit of the same size by the same method, test it, and expect that it is not supported."""
    labelled = work.within(f"control ({name.lower()})")
    expected = "not supported"
    try:
        again = retrace(net, circuit, behaviour, seed=seed, work=labelled)
        held = behaviour.held_out if behaviour.part == "all" else behaviour
        trial = put_to_test(net, again, held, limits, seed, labelled, full=False)
    except (BadBehaviour, NotPerformed) as error:
        return Control(name, None, expected, True, f"{what}: refused. {error.problem}")
    except CutawayError as error:
        return Control(name, None, expected, None, f"{what}: could not be run. {error.problem}")
    found = evidence(again, trial, limits)
    verdict, alone = judge(found), judge(found[1:])
    sentence = (
        f"{what}: it is {'' if trial.performance.does_it else 'not '}performed; {again.n_edges} edges "
        "found by the same method "
        f"keep {percent(trial.kept)} and without them {percent(trial.removed)} is left: {verdict} (by interventions alone: "
        f"{alone})."
    )
    return Control(name, trial.kept, expected, verdict != "supported", sentence)


def evidence_alone(net: Network, circuit: Circuit, behaviour: Behaviour, limits: Limits, seed: int) -> str:
    """The verdict that held-out evidence and random circuits alone would give, without the other two controls."""
    trial = put_to_test(net, circuit, behaviour, limits, seed, Work(), full=False)
    return judge(evidence(circuit, trial, limits), [_random_control(trial, limits)])


def _remarks(circuit: Circuit, trial: Trial, limits: Limits) -> list[str]:
    notes = [
        f"{t.name}: {t.sentence} {_read(t)}"
        for t in trial.tests
        if t.name in ("Equivalence", "Independence", "Minimality")
    ]
    complete = trial.complete
    notes.append(
        f"Completeness: knocking out {complete.subsets} subsets of its nodes in circuit and network leaves them "
        f"{100 * complete.knockout:.0f} % of the gap apart on average (Wang et al. 2023)"
        + (
            ""
            if complete.influence is None
            else f"; its edges carry {100 * complete.influence:.0f} % of all |scores|"
        )
        + "."
    )
    if trial.curve is not None:
        notes.append(
            f"Over all sizes: CPR {trial.curve.cpr:.3f}, CMD {trial.curve.cmd:.3f} (Mueller et al. 2025)."
        )
    if trial.stability is not None:
        notes.append(
            f"Stability: circuits of bootstrap samples share {trial.stability} of their edges with it (Jaccard)."
        )
    if breaks_anyway(trial, limits):
        why = (
            "Removing random circuits of this size breaks the behaviour, too"
            if len(trial.random_removed)
            else ("The rest of the network is too small for random circuits of this size")
        )
        notes.append(f"{why}, so that it is needed says little about it in particular.")
    if inside(trial.complete.complement, float("-inf"), limits.left) is None:
        notes.append("What is left without it is not known well enough to tell.")
    return notes


def _read(test_: Any) -> str:
    if test_.passed is None:
        return f"It takes {test_.least} to decide."
    return "The null hypothesis stands." if test_.passed else "The null hypothesis is rejected."
