"""The pipeline: performance, localise, identify, test, controls, verdict."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.behaviours import performance, require_several
from cutaway.claims import Claim, Control, judge
from cutaway.effects import Effects
from cutaway.errors import CutawayError, NotPerformed
from cutaway.explanations import controls as control_runs
from cutaway.explanations.bench import Bench, Report, silent
from cutaway.explanations.examples import example_pairs
from cutaway.explanations.explanation import Explanation
from cutaway.explanations.identify import Mechanism, identify
from cutaway.explanations.localise import localise, strength
from cutaway.explanations.reads_and_writes import ReadsAndWrites, reads_and_writes
from cutaway.explanations.thresholds import Thresholds
from cutaway.explanations.trial import Trial, put_to_test
from cutaway.explanations.unexplained import unexplained
from cutaway.explanations.verdict import breaks_anyway, evidence, headline, remarks, statement
from cutaway.explanations.wiring import wire
from cutaway.network.parts import parts_of, uncovered
from cutaway.results import Provenance

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour, Performance
    from cutaway.circuits import CircuitTest
    from cutaway.network import Network


@dataclass
class _Draft:
    """What has been found so far; what Ctrl-C leaves behind."""

    maps: dict[str, Effects] = field(default_factory=dict)
    mechanism: Mechanism | None = None
    trial: Trial | None = None
    tested: Performance | None = None
    described: ReadsAndWrites = field(default_factory=ReadsAndWrites)
    controls: list[Control] = field(default_factory=list)
    circuit: CircuitTest | None = None
    why_no_circuit: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    complete: bool = False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the stage and how long it takes."""
        self.stage = stage
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)


def explain(
    net: Network,
    behaviour: Behaviour | str,
    *,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    force: bool = False,
    controls: bool = True,
    report: Report | None = None,
    command: str = "",
) -> Explanation:
    """Find the components that carry a behaviour, and test them by intervening.

    1. The behaviour must be performed. 2. *Localise*, on discovery examples: activation patching of the residual stream
    (layer by position), the heads and the MLPs, restoring and corrupting, with intervals, corrected for many comparisons.
    3. *Identify*, on discovery examples: a small set of components that alone keeps the behaviour and without which it is
    lost. 4. *Test*, on held-out examples: keep only the set, remove the set, against random sets of the same size.
    5. *Controls*: the same with random weights and with shuffled answers must not be supported; a sham edit must change
    nothing.

    Args:
        net: the network.
        behaviour: the behaviour, or the name of a built-in one (128 examples are then made from `seed`).
        thresholds: what must be reached, fixed beforehand.
        seed: of everything random.
        force: go on although the network does not perform the behaviour; the claim can then not be supported.
        controls: run random weights and shuffled answers; without them no claim is supported.
        report: called with (what is being done, steps finished, steps in all).
        command: a command line that repeats this; kept in the result.

    Returns:
        An `Explanation`. After Ctrl-C: what was finished, with `complete` False and the verdict `inconclusive`.

    Raises:
        NotPerformed: with the figures.
        BadBehaviour: pairs of unequal length, no held-out examples, or no gap.
        NotFinite: NaN or infinity, located.
    """
    started = time.perf_counter()
    report, limits = report or silent, thresholds or Thresholds()
    if isinstance(behaviour, str):
        behaviour = make_behaviour(behaviour, net, seed=seed, force=True)
    behaviour.require_aligned("explain")
    whole = _performed(net, behaviour, force)
    draft = _Draft()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Stopped: .* cells are finished")
            _investigate(net, behaviour, limits, seed, report, draft)
            if controls:
                _control(net, behaviour, limits, seed, report, draft)
        draft.complete = True
    except KeyboardInterrupt:
        report("stopped", 1, 1)
    claim = _claim(net, behaviour, limits, draft, whole.does_it, controls)
    return Explanation(
        claim=claim,
        behaviour=_described(behaviour),
        performance=whole,
        pairs=example_pairs(net, behaviour),
        maps=draft.maps,
        mechanism=draft.mechanism,
        trial=draft.trial,
        unexplained=unexplained(net, behaviour, limits, draft.maps, draft.mechanism, draft.trial),
        thresholds=limits,
        certificate=net.certificate.to_dict(),
        seconds=draft.seconds,
        provenance=Provenance.of(net, behaviour.hash, seed, round(time.perf_counter() - started, 2)),
        complete=draft.complete,
        command=command,
        headline=headline(claim, draft.mechanism, draft.trial, net.name, behaviour.name),
        reads_and_writes=draft.described,
        circuit=draft.circuit,
    )


def _performed(net: Network, behaviour: Behaviour, force: bool) -> Performance:
    done = performance(net, behaviour)
    if not done.does_it and not force:
        require_several(net, behaviour)
        raise NotPerformed(
            f"{net.name} does not perform {behaviour.name!r}: {done.sentence}",
            "Choose a behaviour that it performs, or force the explanation (force=True, --force) to see why it is not one.",
        )
    return done


def _investigate(
    net: Network, behaviour: Behaviour, limits: Thresholds, seed: int, report: Report, draft: _Draft
) -> None:
    """Localise, identify and test, each result noted in the draft as soon as it is there."""
    with draft.timed("localise"):
        for name, effects in localise(net, behaviour.discovery, seed, report):
            draft.maps[name] = effects
            if not effects.complete:
                raise KeyboardInterrupt
    with draft.timed("identify"):
        scores = {part: strength(draft.maps, part) for part in parts_of(net)}
        draft.mechanism = identify(Bench.of(net, behaviour.discovery, seed, report), scores, limits)
    with draft.timed("describe"):
        report("what each component writes and reads", 0, 1)
        draft.described = reads_and_writes(net, behaviour, draft.mechanism.members)
    with draft.timed("test"):
        bench = Bench.of(net, behaviour.held_out, seed, report)
        draft.tested = performance(net, behaviour.held_out)
        draft.trial = put_to_test(bench, draft.mechanism.members, limits, seed)
        draft.controls.append(control_runs.sham(draft.trial, limits))
    with draft.timed("wire"):
        draft.circuit, draft.why_no_circuit = wire(net, behaviour, seed, report)


def _control(
    net: Network, behaviour: Behaviour, limits: Thresholds, seed: int, report: Report, draft: _Draft
) -> None:
    runs: dict[str, Callable[..., Control]] = {
        "control: random weights": control_runs.random_weights,
        "control: shuffled answers": control_runs.shuffled_answers,
    }
    for stage, run in runs.items():
        with draft.timed(stage):
            draft.controls.append(run(net, behaviour, limits, seed, report))


def _claim(
    net: Network,
    behaviour: Behaviour,
    limits: Thresholds,
    draft: _Draft,
    performed: bool,
    with_controls: bool,
) -> Claim:
    if draft.mechanism is None or draft.trial is None or draft.tested is None:
        text = f"No claim: the explanation of {behaviour.name!r} in {net.name} was stopped while it was to {draft.stage}."
        return Claim(text, "inconclusive", (), tuple(draft.controls))
    tests = evidence(draft.tested, draft.mechanism, draft.trial, limits)
    verdict, notes = judge(tests, draft.controls), []
    if not draft.complete:
        notes.append("Stopped before all controls were run.")
    if not with_controls:
        notes.append("Random weights and shuffled answers were not run as controls.")
    if not performed:
        notes.append("Forced: the network does not perform this behaviour.")
    left = uncovered(net)
    if draft.why_no_circuit:
        notes.append(f"The wiring by edges was not drawn: {draft.why_no_circuit}")
    if left:
        notes.append(
            f"“All other components” leaves out {'; '.join(left)}: never replaced, so nothing can be supported."
        )
    if verdict == "supported" and (left or not draft.complete or not with_controls):
        verdict = "inconclusive"
    notes += remarks(draft.trial, limits)
    text = statement(net.name, behaviour.name, draft.mechanism, breaks_anyway(draft.trial, limits))
    return Claim(text, verdict, tests, tuple(draft.controls), tuple(notes))


def _described(behaviour: Behaviour) -> dict[str, Any]:
    def size(part: str) -> int:
        try:
            return getattr(behaviour, part).n
        except CutawayError:
            return 0

    return {
        "name": behaviour.name,
        "n": behaviour.n,
        "discovery": size("discovery"),
        "held_out": size("held_out"),
        "split_by": behaviour.split_by,
        "templates": len(set(behaviour.template)),
        "metric": behaviour.metric.name,
        "metric_says": behaviour.metric.says,
        "metric_unit": behaviour.metric.unit,
        "hash": behaviour.hash,
        "seed": behaviour.seed,
        "notes": list(behaviour.notes),
    }
