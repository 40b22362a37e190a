"""`cutaway.test`: a circuit, tested on held-out examples beside its controls, as a claim."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.behaviours.decisions import held_fixed
from cutaway.circuits.blocks import blocks_of, curve_of
from cutaway.circuits.candidate import CircuitCandidate
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.hypotheses import Tested, require_enough
from cutaway.circuits.limits import CircuitLimits
from cutaway.circuits.passes.ablation import carried
from cutaway.circuits.pricing import test_price
from cutaway.circuits.tracing import retrace
from cutaway.circuits.trial import CircuitTrial, breaks_anyway, evidence, least_examples, measure_circuit
from cutaway.claims import Claim, Control, Verdict
from cutaway.errors import BadBehaviour, BadFormat, Stopped
from cutaway.network.pricing import announce
from cutaway.reports import Block, ClaimTests, Page, Section, display, result_page
from cutaway.results import (
    Provenance,
    Work,
    brief,
    finite,
    head,
    pack,
    read,
    save_folder,
    strict_as,
    unpack,
    working,
)
from cutaway.sweeps import keeping_base_runs
from cutaway.trials import (
    CONTROLS,
    Limits,
    Outcome,
    claim_of,
    inside,
    percent,
    verdict_of,
    with_interval,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class CircuitTest:
    """The result of a test: the claim, and everything that was measured.

    Attributes:
        claim: statement, verdict, evidence, controls.
        circuit: what was tested.
        trial: the figures.
        limits: what had to be reached, fixed beforehand.
        provenance: what is needed to repeat it.
        complete: False when it was stopped before all controls were run.
    """

    kind: ClassVar[str] = "circuit-test"

    claim: Claim
    circuit: Circuit
    trial: CircuitTrial
    limits: CircuitLimits
    provenance: Provenance
    complete: bool = True

    __repr__ = brief

    @property
    def verdict(self) -> Verdict:
        """`supported`, `refuted` or `inconclusive`."""
        return self.claim.verdict

    def to_pandas(self) -> pd.DataFrame:
        """One row for each node: what the circuit loses without it, in shares of the gap."""
        nodes = self.trial.nodes
        return pd.DataFrame({"part": list(nodes.names), "effect": nodes.effects, "signed": nodes.signed})

    def plot(self) -> Figure:
        """Faithfulness over size, with this circuit and random ones; of a circuit without scores the circuit drawn."""
        return curve_of(self.circuit, self.trial) or self.circuit.plot()

    def blocks(self, most: int = 16) -> list[Block]:
        """The circuit drawn, its faithfulness over size, and the `most` important nodes, for a page."""
        return blocks_of(self.circuit, self.trial, most)

    def page(self) -> Page:
        """The report as content."""
        sections = [
            Section("circuit", "The circuit", self.blocks()),
            Section("tests", "The tests", [ClaimTests(self.claim)]),  # with the notes: what else was measured
        ]
        return result_page(
            f"{self.circuit}.", "Cutaway · circuit test", f"{self.headline}.", sections, self.provenance,
            verdict=self.verdict,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Everything but the circuit's own arrays, as plain data."""
        circuit = {"edges": self.circuit.edges, "nodes": self.circuit.nodes, "of": self.circuit.graph.n_edges}
        return finite(self._head(trial=self.trial.to_dict(), circuit=circuit))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a folder: claim and figures, the nodes' effects as a table, and the circuit as a folder inside."""
        trial, tensors = pack(self.trial)
        tables, parts = {"nodes": self.to_pandas()}, {"circuit": self.circuit.save}
        return save_folder(path, self._head(trial=trial), tensors, tables, parts=parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CircuitTest:
        """Read what `save` wrote.

        Raises `BadFormat` where the folder holds no circuit test, or one of the version before, which did not keep the
        circuit; `CorruptFile` where a file was changed.
        """
        saved, version = read(path, cls.kind)
        data = saved.manifest
        if not version:
            raise BadFormat(
                f"{path} was written by an earlier version, which did not keep the circuit that was tested.",
                "Its claim and figures are in manifest.json; to have it again: cutaway.test(net, circuit, behaviour).",
            )
        try:
            claim, origin = Claim.from_dict(data["claim"]), Provenance.from_dict(data["provenance"])
            trial = unpack(CircuitTrial, data["trial"], saved.tensors)
            limits, complete = CircuitLimits(**data["limits"]), data["complete"]
            return cls(claim, Circuit.load(Path(path) / "circuit"), trial, limits, origin, complete)
        except (KeyError, TypeError) as error:
            raise BadFormat(
                f"The circuit test in {path} cannot be read: {error!r}.", "Make it again."
            ) from error

    def _head(self, **content: Any) -> dict[str, Any]:
        claim, limits = self.claim.to_dict(), self.limits.to_dict()
        return head(self.kind, self.provenance, claim=claim, limits=limits, complete=self.complete, **content)

    @property
    def headline(self) -> str:
        """Whether the circuit carries the behaviour, with the figures that say so, in a sentence."""
        circuit, trial = self.circuit, self.trial
        what = f"{circuit.n_edges} of {circuit.graph.n_edges} edges"
        what = f"{len(circuit.nodes)} of {circuit.graph.shape[0]} nodes" if circuit.grain == "node" else what
        figures = (
            f"alone they keep {percent(trial.kept.value)} of the gap on held-out prompts, and without them "
            f"{percent(trial.removed.value)} is left"
        )
        word = {"supported": "carry", "refuted": "do not carry"}.get(self.verdict, "are not shown to carry")
        return (
            f"{what} {word} “{circuit.name}”{'' if self.verdict == 'supported' else ' as claimed'}: {figures}"
        )

    def __str__(self) -> str:
        return str(self.claim)

    def __rich__(self):
        return self.claim.__rich__()

    def _repr_html_(self) -> str:
        picture = self.claim._repr_html_()
        return display(str(self.circuit), picture=picture, verdict=self.verdict, provenance=self.provenance)


@strict_as("test")
def examine(
    net: Network,
    circuit: Circuit,
    behaviour: Behaviour | str,
    *,
    limits: Limits | None = None,
    controls: bool = True,
    require: Sequence[str] = (),
    seed: int = 0,
    work: Work | None = None,
) -> CircuitTest:
    """Test a circuit on held-out examples, beside three controls, and judge.

    Measured: faithfulness of the circuit alone, what is left without it, both against random circuits of its size;
    completeness in three senses; each node's marginal effect; faithfulness over size (CPR, CMD); the hypothesis tests of
    Shi et al. 2024; stability over bootstrap samples. Controls: random circuits must not do as well; the same method on the
    network with random weights, and on the network with right and wrong answers exchanged on half of the examples, must not
    give a supported circuit.

    Args:
        net: the network that the circuit is of.
        circuit: what is tested.
        behaviour: a behaviour, or the name of a built-in one; of a whole one the held-out examples are taken.
        limits: what must be reached, fixed beforehand; `CircuitLimits` also has what only circuits are asked.
        controls: run random weights and shuffled answers; without them nothing is supported.
        require: names of tests that must be able to fail ("equivalence", ...); a behaviour with too few examples is refused.
        seed: of everything random.
        work: who hears of progress, what may stop it, what it may spend.

    Returns:
        A `CircuitTest`. After Ctrl-C during the controls: with those that were run, `complete` False.

    Raises:
        BadInput: the circuit is of another network, or empty.
        BadBehaviour: too few examples for a required test (the least number is named); no gap, with both values.
        Stopped: Ctrl-C before the circuit itself was measured.
    """
    started = time.perf_counter()
    with working(work).interruptible() as work:
        if isinstance(behaviour, str):
            behaviour = make_behaviour(behaviour, net, seed=seed)
        bounds = CircuitLimits.of(limits)
        held, caps = _held_out(behaviour)
        for name in require:
            require_enough(held.n, least_examples(name, bounds), name.capitalize())
        both = behaviour.n if behaviour.part == "all" else held.n
        price = test_price(net, circuit, bounds, held.n, both - held.n, controls)
        announce(net, held.clean_ids, work, "testing the circuit", price, least=price[0][1])
        with keeping_base_runs(net, work=work):
            trial = measure_circuit(net, circuit, held, bounds, seed, work)
            checks, complete = [_random_control(trial, bounds)], True
            if controls:
                procedure = partial(_again, circuit=circuit, limits=bounds, seed=seed)
                try:
                    for control in CONTROLS.values():
                        checks.append(control(net, behaviour, procedure, seed, work))
                except Stopped:
                    complete = False
                    caps.append("Stopped before all controls were run.")
            else:
                caps.append("Random weights and shuffled answers were not run as controls.")
        caps += trial.caps
        text, tests = _statement(net, circuit, held), evidence(circuit, trial, bounds)
        claim = claim_of(text, tests, checks, _remarks(trial, bounds), caps)
        origin = Provenance.of(net, held.hash, seed, round(time.perf_counter() - started, 2))
        return CircuitTest(claim, circuit, trial, bounds, origin, complete)


def _held_out(behaviour: Behaviour) -> tuple[Behaviour, list[str]]:
    """The examples to test on, and why nothing may be supported on them."""
    if behaviour.part in ("all", "held-out"):
        return behaviour.held_out if behaviour.part == "all" else behaviour, []
    why = "Tested on discovery examples, which the circuit may have been found on: nothing can be supported."
    return behaviour, [why]


def _statement(net: Network, circuit: Circuit, behaviour: Behaviour) -> str:
    edges = f"{circuit.n_edges} of {circuit.graph.n_edges} edges"
    what = f"{len(circuit.nodes)} nodes" if circuit.grain == "node" else edges
    return (
        f"On “{behaviour.name}” prompts like those tested, {what} of {Path(net.name).name} "
        f"({CircuitCandidate(circuit).words}) carry the difference between the answers to clean and corrupted prompts: it "
        f"is kept when every other edge carries {carried(circuit.ablation)}, and it is gone when only these do. "
        f"{held_fixed(behaviour)}"
    ).strip()


def _random_control(trial: CircuitTrial, limits: CircuitLimits) -> Control:
    """Random circuits of the same size must not be as faithful."""
    if not len(trial.random_kept):
        sentence = "There is no other circuit of this size: nothing to compare it with."
        if not limits.random:
            sentence = "Random circuits were not run."
        return Control("Random circuits", None, "not as faithful", None, sentence)
    as_good = int(((trial.random_kept >= limits.kept) & (trial.random_kept <= limits.excess)).sum())
    n = len(trial.random_kept)
    return Control(
        "Random circuits", None, "not as faithful", as_good <= (1 - limits.quantile) * n,
        f"{as_good} of {n} random circuits of the same size keep {percent(limits.kept)} to {percent(limits.excess)} of the "
        f"gap; their mean is {percent(float(np.mean(trial.random_kept)))}.",
    )  # fmt: skip


def _again(
    net: Network, behaviour: Behaviour, work: Work, circuit: Circuit, limits: CircuitLimits, seed: int
) -> Outcome:
    """The procedure of the controls: a circuit of the same size by the same method, measured on held-out examples."""
    other = retrace(net, circuit, behaviour, seed=seed, work=work)
    if not other.n_edges:
        raise BadBehaviour("The same method finds no connected circuit there.", "There is nothing to test.")
    held = behaviour.held_out if behaviour.part == "all" else behaviour
    trial = measure_circuit(net, other, held, limits, seed, work, full=False)
    picked = (
        f"{other.n_edges} edges by the same method: alone they keep {with_interval(trial.kept)}, without them "
        f"{with_interval(trial.removed)} is left"
    )
    return Outcome(evidence(other, trial, limits), picked, trial.caps, trial.kept)


def evidence_alone(
    net: Network, circuit: Circuit, behaviour: Behaviour, limits: CircuitLimits, seed: int
) -> Verdict:
    """The verdict that held-out evidence and random circuits alone would give, without the other two controls."""
    trial = measure_circuit(net, circuit, behaviour, limits, seed, Work(), full=False)
    return verdict_of(evidence(circuit, trial, limits), [_random_control(trial, limits)], trial.caps)


def _remarks(trial: CircuitTrial, limits: CircuitLimits) -> list[str]:
    ideal = [t for t in trial.tests if t.name in ("Equivalence", "Independence", "Minimality")]
    notes = [f"{t.name}: {t.sentence} {_reading(t)}" for t in ideal]
    complete, influence = trial.complete, ""
    if complete.influence is not None:
        influence = f"; its edges carry {percent(complete.influence)} of all |scores|"
    if complete.subsets:
        notes.append(
            f"Completeness: knocking out {complete.subsets} subset{'s' * (complete.subsets != 1)} of its nodes in "
            f"circuit and network leaves them {percent(complete.knockout)} of the gap apart on average "
            f"(Wang et al. 2023){influence}."
        )
    if (curve := trial.curve) is not None:
        notes.append(f"Over all sizes: CPR {curve.cpr:.3f}, CMD {curve.cmd:.3f} (Mueller et al. 2025).")
    if trial.stability is not None:
        alike = f"circuits of bootstrap samples share {trial.stability} of their edges with it (Jaccard)."
        notes.append(f"Stability: {alike}")
    if breaks_anyway(trial, limits):
        why = "Removing random circuits of this size breaks the behaviour, too"
        if not len(trial.random_removed):
            why = "The rest of the network is too small for random circuits of this size"
        notes.append(f"{why}, so it says little that this one is needed.")
    if inside(trial.complete.complement, float("-inf"), limits.left) is None:
        notes.append("What is left without it is not known well enough to tell.")
    return notes


#: What a test of Shi et al. (2024) says of a circuit: where nothing was found against it, and where something was.
_READINGS = {
    "Equivalence": (
        "No difference from the network was found.",
        "That is further from half than chance explains: circuit and network differ.",
    ),
    "Independence": (
        "No dependence was found between what the network does and what the rest does without the circuit.",
        "What the rest does without the circuit still goes with what the network does.",
    ),
    "Minimality": (
        "No edge of it was found to be superfluous.",
        "Some of its edges may be superfluous.",
    ),
}


def _reading(test: Tested) -> str:
    """What a test says, in words: that nothing was found does not show that there is nothing."""
    if test.passed is None:
        return f"It takes {test.least} to decide."
    stands, rejected = _READINGS[test.name]
    return stands if test.passed else rejected
