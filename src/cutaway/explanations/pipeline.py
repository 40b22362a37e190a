"""The pipeline: performance, localise, identify, test, controls, verdict."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.behaviours import performance, refusal
from cutaway.behaviours.decisions import held_fixed
from cutaway.behaviours.standing import FormPerformance, by_form, set_aside
from cutaway.claims import Claim, Control
from cutaway.effects import Effects
from cutaway.errors import BadBehaviour, CutawayError, Stopped
from cutaway.explanations.carriers import feature_effects, feature_sites, stages
from cutaway.explanations.carrying import CarriedBy
from cutaway.explanations.examples import example_pairs
from cutaway.explanations.explanation import Explanation
from cutaway.explanations.grain import FEW_PARTS, SearchGrain, finer, grain_of
from cutaway.explanations.identify import Mechanism, identify
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.localise import localise, strengths
from cutaway.explanations.reads_and_writes import ReadsAndWrites, reads_and_writes
from cutaway.explanations.singles import PartScreening, single_effects
from cutaway.explanations.sizes import EXPLAINING, WHOLE, Sizes, within
from cutaway.explanations.unexplained import unexplained
from cutaway.explanations.verdict import aside, evidence, headline, left_open, remarks, statement
from cutaway.explanations.wiring import wire
from cutaway.network.parts import uncovered
from cutaway.network.pricing import announce_price
from cutaway.network.sites import Site
from cutaway.results import Provenance, Work, strict, working
from cutaway.results.meter import spent
from cutaway.trials import (
    CONTROLS,
    Bench,
    Limits,
    Outcome,
    Trial,
    claim_of,
    ends_kept,
    percent,
    put_to_test,
    sham,
)
from cutaway.trials.spread import spread

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour, Performance
    from cutaway.circuits import CircuitTest
    from cutaway.network import Network


#: Pairs on which it is described what members write and read.
_DESCRIBED = 32
_STOPPED = "the work was stopped before that"


@dataclass
class _Draft:
    """What has been found so far; what is left when the work is stopped.

    Attributes:
        maps: effects on discovery data.
        mechanism: the set that was found.
        trial: its test on held-out data.
        tested: how well the network does the held-out examples.
        described: what the members write and read.
        controls: those that were run.
        circuit: the circuit by edges; where there is none, `why_no_circuit` says why.
        why_no_circuit: the reason, or "".
        seconds: time of each stage.
        stage: the one at work.
        judged: were the test and all controls run?
        complete: was everything done?
        grain: how finely the network was searched.
        screening: which parts a gradient let through to be patched; None where all were.
        forwards: forward-equivalents of each stage.
        features: those that carry the behaviour; None where they were not looked for.
        why_no_features: the reason, where they were asked for; or "".
    """

    maps: dict[str, Effects] = field(default_factory=dict)
    mechanism: Mechanism | None = None
    trial: Trial | None = None
    tested: Performance | None = None
    described: ReadsAndWrites = field(default_factory=ReadsAndWrites)
    controls: list[Control] = field(default_factory=list)
    circuit: CircuitTest | None = None
    why_no_circuit: str = f"{_STOPPED.capitalize()}."
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    judged: bool = False
    complete: bool = False
    grain: SearchGrain | None = None
    screening: PartScreening | None = None
    forwards: dict[str, float] = field(default_factory=dict)
    features: CarriedBy | None = None
    why_no_features: str = ""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the stage, how long it takes, and how many forward-equivalents."""
        self.stage = stage
        started, spent_before = time.perf_counter(), spent()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)
            self.forwards[stage] = round(self.forwards.get(stage, 0.0) + spent() - spent_before, 1)


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked of which network, and how.

    Attributes:
        net: the network.
        behaviour: the whole behaviour.
        limits: fixed beforehand.
        seed: of everything random.
        work: who hears of progress, and may stop it.
        sizes: on how much each stage works.
        forms: performance on each sentence frame, also on those that were set aside.
        features: sites among whose features those that carry it are looked for.
        labels: of features.
    """

    net: Network
    behaviour: Behaviour
    limits: SearchLimits
    seed: int
    work: Work
    sizes: Sizes = WHOLE
    forms: tuple[FormPerformance, ...] = ()
    features: tuple[Site, ...] = ()
    labels: Mapping[str, str] | None = None

    @property
    def gone(self) -> tuple[FormPerformance, ...]:
        """The sentence frames that were set aside."""
        kept = set(self.behaviour.template)
        return tuple(form for form in self.forms if form.form not in kept)


@strict
def explain(
    net: Network,
    behaviour: Behaviour | str,
    *,
    limits: Limits | None = None,
    seed: int = 0,
    force: bool = False,
    controls: bool = True,
    features: bool | str | None = None,
    labels: Mapping[str, str] | None = None,
    command: str = "",
    work: Work | None = None,
) -> Explanation:
    """Find the parts that carry a behaviour, and test them by intervening.

    1. The behaviour must be performed; sentence frames on which it is not are told and set aside.
    2. *Localise*, on discovery examples: activation patching of the residual stream (layer by position), the heads and the
    MLPs, restoring and corrupting, with intervals, corrected for many comparisons. Of many heads and MLPs those are patched
    that stand out by a gradient, and a random sample of the others. Of a network without a stream its maps are patched, and
    their channels as far as `limits.operations` allows.
    3. *Identify*, on discovery examples: a small set of parts that alone keeps the behaviour and without which it is
    lost. 4. *Test*, on held-out examples: keep only the set, remove the set, against random sets of the same size.
    5. *Controls*: the same with random weights and with shuffled answers must not be supported; a sham edit must change
    nothing. 6. Where a dictionary is attached, *name* the features that carry the behaviour (`feature_effects`); the claim
    does not rest on them.

    Args:
        net: the network.
        behaviour: the behaviour, or the name of a built-in one (128 examples are then made from `seed`).
        limits: what must be reached, fixed beforehand; `SearchLimits` also has the targets of the search.
        seed: of everything random.
        force: go on although the network does not perform the behaviour; the claim can then not be supported.
        controls: run random weights and shuffled answers; without them no claim is supported.
        features: look for the features that carry it; default where a dictionary is attached to the network. Without one,
            True looks among neurons. A kind of site (`sae.features`) says which, where there are several.
        labels: of features, by the name of the part.
        command: a command line that repeats this; kept in the result.
        work: who hears of the price and of progress, what may stop it, and what it may spend: with a budget, each stage
            works on as many prompts as fit, and what is then not decided is inconclusive.

    Returns:
        An `Explanation`. After Ctrl-C: what was finished, with `complete` False and the verdict `inconclusive`.

    Raises:
        NotPerformed: with the figures.
        BadBehaviour: pairs of unequal length, no held-out examples, or no gap.
        NotFinite: NaN or infinity, located.
    """
    started = time.perf_counter()
    with working(work).interruptible() as work:
        if isinstance(behaviour, str):
            behaviour = make_behaviour(behaviour, net, seed=seed, force=True)
        behaviour.require_aligned("explain")
        bounds = SearchLimits.of(limits)
        work = work.bound(
            "explain",
            lambda: {
                "network": net.hash,
                "behaviour": behaviour.hash,
                "limits": bounds.to_dict(),
                "seed": seed,
                "options": [force, controls] + ([features] if features is not None else []),
            },
        )
        wanted = bool(net.anatomy.dictionaries) if features is None else features
        sites = feature_sites(net, features if isinstance(features, str) else None) if wanted else []
        more = sum(stages(net, behaviour, sites, controls=controls).values()) if sites else 0.0
        sizes, price = within(net, behaviour, bounds, controls, work.budget, more)
        announce_price(net, work, f"explaining {behaviour.name}", price, EXPLAINING[controls])
        asked = _Question(net, behaviour, bounds, seed, work, sizes, features=tuple(sites), labels=labels)
        with ends_kept(net, behaviour, work):
            asked = _standing(asked)
            if asked.behaviour is behaviour:
                return _explained(asked, force, controls, command, started)
        with ends_kept(net, asked.behaviour, work):
            return _explained(asked, force, controls, command, started)


def _standing(asked: _Question) -> _Question:
    """The question without the sentence frames on which the network does not do the behaviour, where it does the rest."""
    forms = by_form(asked.net, asked.behaviour, work=asked.work)
    rest = set_aside(asked.behaviour, forms)
    if rest is not asked.behaviour and not performance(asked.net, rest, work=asked.work).does_it:
        rest = asked.behaviour
    return replace(asked, behaviour=rest, forms=forms)


def _explained(asked: _Question, force: bool, controls: bool, command: str, started: float) -> Explanation:
    net, behaviour, seed = asked.net, asked.behaviour, asked.seed
    whole = _performed(net, behaviour, force)
    not_yet = _STOPPED if asked.sizes.features else "the budget is too small"
    draft = _Draft(why_no_features=not_yet if asked.features else "")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Stopped: .* cells are finished")
            _investigate(asked, draft)
            if controls:
                _control(asked, draft)
            draft.judged = True
            with draft.timed("describe"):  # the claim rests neither on this nor on what follows
                asked.work.step("what each component writes and reads", 0, 1)
                if draft.mechanism and net.anatomy.stack() is not None and behaviour.items is None:
                    some = behaviour.take(spread(behaviour.template, _DESCRIBED))
                    parts = [member for member in draft.mechanism.members if member.kind != "neuron"]
                    draft.described = reads_and_writes(net, some, parts)
            if asked.features and asked.sizes.features:
                with draft.timed("features"):
                    first = asked.features[0]
                    at = f"{first.stack}.{first.name}" if first.stack else first.name
                    draft.features = feature_effects(
                        net, behaviour, at=at, labels=asked.labels, controls=controls, seed=seed, work=asked.work,
                    )  # fmt: skip
                    draft.why_no_features = ""
            with draft.timed("wire"):
                found = wire(net, behaviour, asked.sizes, seed, asked.work)
                draft.circuit, draft.why_no_circuit = found
        draft.complete = True
    except Stopped:
        pass
    claim = _claim(asked, draft, whole.does_it, controls)
    return Explanation(
        claim=claim,
        behaviour=_described(behaviour)
        | ({"searched": draft.grain.words} if draft.grain and draft.grain.words else {}),
        performance=whole,
        pairs=example_pairs(net, behaviour),
        maps=draft.maps,
        mechanism=draft.mechanism,
        trial=draft.trial,
        unexplained=unexplained(net, behaviour, asked.limits, draft),
        limits=asked.limits,
        certificate=net.certificate.to_dict(),
        seconds=draft.seconds,
        provenance=Provenance.of(net, behaviour.hash, seed, round(time.perf_counter() - started, 2)),
        complete=draft.complete,
        command=command,
        headline=headline(claim, draft.mechanism, draft.trial, net.name, behaviour.name),
        reads_and_writes=draft.described,
        circuit=draft.circuit,
        sizes=asked.sizes,
        screening=draft.screening,
        forwards=draft.forwards,
        forms=asked.forms,
        features=draft.features,
    )


def _performed(net: Network, behaviour: Behaviour, force: bool) -> Performance:
    done = performance(net, behaviour)
    if not done.does_it and not force:
        raise refusal(net, behaviour, done)
    return done


def _investigate(asked: _Question, draft: _Draft) -> None:
    """Localise, identify and test, each result noted in the draft as soon as it is there."""
    net, behaviour, seed, work = asked.net, asked.behaviour, asked.seed, asked.work
    with draft.timed("localise"):
        draft.grain = grain = _grain(asked)
        for name, effects in localise(net, behaviour.discovery, grain, asked.sizes, seed, work):
            draft.maps[name] = effects
    with draft.timed("identify"):
        found = _identified(asked, grain, draft.maps)
        draft.grain, draft.mechanism, draft.screening = found
        grain = draft.grain
    with draft.timed("test"):
        bench = Bench.of(net, behaviour.held_out, seed, work, grain.parts)
        draft.tested = performance(net, behaviour.held_out, work=work)
        limits = replace(asked.limits, random_on=min(asked.limits.random_on, asked.sizes.random))
        if asked.sizes.thin:  # a look at more is not in the budget
            bench = bench.first(asked.sizes.test)
        candidate = draft.mechanism.candidate(grain.parts)
        draft.trial = put_to_test(bench, candidate, limits, seed, asked.sizes.test)
        draft.controls.append(sham(draft.trial.sham or 0.0, asked.limits))


def _identified(
    asked: _Question, grain: SearchGrain, maps: dict[str, Effects], thorough: bool = True
) -> tuple[SearchGrain, Mechanism, PartScreening | None]:
    """The set found at this grain; where it is most of a small network, the one found among its neurons, if it is less.

    The maps of what single parts do are added to `maps`. thorough: look among neurons, and
    on all pairs where few have no gap that is told.
    """
    net, discovery, limits = asked.net, asked.behaviour.discovery, asked.limits
    found, screened = _searched(asked, grain, maps, thorough)
    if (
        not thorough
        or len(found.members) <= limits.largest * len(grain.parts)
        or len(grain.parts) >= FEW_PARTS
    ):
        return grain, found, screened
    neurons = finer(net, discovery)
    if neurons is None:
        return grain, found, screened
    among, screened_too = _searched(asked, neurons, maps)
    if len(among.members) <= limits.largest * len(neurons.parts):
        return neurons, among, screened_too
    return grain, found, screened


def _searched(
    asked: _Question, grain: SearchGrain, maps: dict[str, Effects], thorough: bool = True
) -> tuple[Mechanism, PartScreening | None]:
    """What single parts do, added to `maps`, and the set that a search from there finds."""
    bench = Bench.of(asked.net, grain.pairs, asked.seed, asked.work, grain.parts)
    screened = None
    if asked.net.anatomy.stack() is not None:
        screened = single_effects(bench, asked.sizes, asked.seed, maps)
    estimates = None if screened is None else screened.estimates
    scores, few = strengths(grain.parts, maps, estimates), asked.sizes.search
    if not thorough:
        return identify(bench.first(few), scores, asked.limits), screened
    return identify(bench, scores, asked.limits, few), screened


def _grain(asked: _Question) -> SearchGrain:
    """How finely the network is searched; where there is something to say of that, whoever listens hears it."""
    grain = grain_of(asked.net, asked.behaviour.discovery, asked.limits)
    if grain.words:
        asked.work.step(grain.words, 0, 1)
    return grain


def _control(asked: _Question, draft: _Draft) -> None:
    for stage, run in CONTROLS.items():
        with draft.timed(f"control: {stage}"):
            procedure = partial(examine, limits=asked.limits, seed=asked.seed, sizes=asked.sizes)
            draft.controls.append(run(asked.net, asked.behaviour, procedure, asked.seed, asked.work))


def examine(
    net: Network,
    behaviour: Behaviour,
    work: Work,
    limits: SearchLimits,
    seed: int,
    sizes: Sizes = WHOLE,
) -> Outcome:
    """The procedure of the controls: one pass of identification and test, without the maps of the stream.

    Where the behaviour is not performed, which decides the control by itself, it goes on with `sizes.controls` pairs, and
    not at all where the gap on held-out pairs may be zero: no share of it could then have an interval.

    Raises `BadBehaviour` where there is no gap to explain.
    """
    done = performance(net, behaviour, work=work)
    tested = performance(net, behaviour.held_out, work=work)
    if not done.does_it:
        if tested.contrast.above(0.0) is None:
            raise BadBehaviour(
                f"{percent(done.accuracy.value)} of its answers are right, and the gap between clean and corrupted held-out "
                f"prompts, {tested.contrast}, may be zero.",
                "There is nothing to explain.",
            )
        sizes = replace(
            sizes, single=sizes.controls, search=sizes.controls, test=sizes.controls, random=sizes.controls
        )
    asked = _Question(net, behaviour, limits, seed, work, replace(sizes, stream=0))
    grain = grain_of(net, behaviour.discovery, limits)
    maps = dict(localise(net, behaviour.discovery, grain, asked.sizes, seed, work))
    grain, mechanism, _ = _identified(asked, grain, maps, thorough=done.does_it)
    candidate = mechanism.candidate(grain.parts)
    bench = Bench.of(net, behaviour.held_out, seed, work, grain.parts).first(sizes.test)
    trial = put_to_test(bench, candidate, replace(limits, random_on=sizes.random), seed)
    tests = evidence(tested, candidate, trial, limits)
    picked = (
        f"{candidate.size} of {candidate.total} components: alone they keep {percent(trial.kept.value)}, without them "
        f"{percent(trial.left.value)} is left, of a gap of {trial.gap:.2g}"
    )
    return Outcome(tests, picked, trial.caps)


def _claim(asked: _Question, draft: _Draft, performed: bool, with_controls: bool) -> Claim:
    net, name = asked.net, asked.behaviour.name
    if draft.mechanism is None or draft.trial is None or draft.tested is None:
        text = (
            f"No claim: the explanation of {name!r} in {net.name} was stopped while it was to {draft.stage}."
        )
        return claim_of(text, (), draft.controls)
    caps = list(draft.trial.caps)
    if not draft.judged:
        caps.append("Stopped before all controls were run.")
    if not with_controls:
        caps.append("Random weights and shuffled answers were not run as controls.")
    if not performed:
        caps.append("Forced: the network does not perform this behaviour.")
    if left := uncovered(net):
        never = "never replaced, so nothing can be supported."
        caps.append(f"“All other components” leaves out {'; '.join(left)}: {never}")
    notes = remarks(draft.trial, draft.mechanism, asked.limits)
    if asked.gone:
        notes.insert(0, aside(asked.gone, asked.behaviour.n))
    if draft.why_no_circuit:
        notes.insert(0, f"The wiring by edges was not drawn: {draft.why_no_circuit}")
    assert draft.grain is not None
    candidate = draft.mechanism.candidate(draft.grain.parts)
    tests = evidence(draft.tested, candidate, draft.trial, asked.limits)
    if asked.sizes.thin:
        tests = left_open(tests)
    anyway, fixed = draft.trial.breaks_anyway(asked.limits), held_fixed(asked.behaviour)
    text = statement(net.name, name, draft.mechanism, anyway, fixed)
    return claim_of(text, tests, draft.controls, notes, caps)


def _described(behaviour: Behaviour) -> dict[str, Any]:
    def size(part: str) -> int:
        try:
            return getattr(behaviour, part).n
        except CutawayError:
            return 0

    metric = behaviour.metric
    return {
        "name": behaviour.name, "n": behaviour.n, "discovery": size("discovery"), "held_out": size("held_out"),
        "split_by": behaviour.split_by, "templates": len(set(behaviour.template)), "metric": metric.name,
        "metric_says": metric.says, "metric_unit": metric.unit, "hash": behaviour.hash, "seed": behaviour.seed,
        "notes": list(behaviour.notes),
    }  # fmt: skip
