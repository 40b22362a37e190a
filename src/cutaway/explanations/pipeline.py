"""The pipeline: performance, localise, identify, test, controls, verdict."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.behaviours import performance, refusal
from cutaway.behaviours.decisions import held_fixed
from cutaway.behaviours.standing import by_form, set_aside
from cutaway.claims import Claim
from cutaway.effects import Effects
from cutaway.errors import BadBehaviour, BadInput, CutawayError, Stopped
from cutaway.explanations.carriers import feature_effects, feature_sites, stages
from cutaway.explanations.computation import (
    NOTHING_STATED,
    cases_for,
    check_depth,
    priced_computation,
    stated,
    tell,
)
from cutaway.explanations.draft import STOPPED, ExplanationDraft, ExplanationQuestion
from cutaway.explanations.examples import example_pairs
from cutaway.explanations.explanation import Explanation
from cutaway.explanations.grain import FEW_PARTS, SearchGrain, finer, grain_of
from cutaway.explanations.identify import Mechanism, identify
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.localise import localise, strengths
from cutaway.explanations.reads_and_writes import reads_and_writes
from cutaway.explanations.singles import PartScreening, single_effects
from cutaway.explanations.sizes import EXPLAINING, WHOLE, Sizes, within
from cutaway.explanations.unexplained import unexplained
from cutaway.explanations.verdict import aside, evidence, headline, left_open, remarks, statement
from cutaway.explanations.wiring import wire
from cutaway.network.parts import uncovered
from cutaway.network.pricing import announce_price
from cutaway.results import Provenance, Work, strict, working
from cutaway.trials import (
    CONTROLS,
    Bench,
    Limits,
    Outcome,
    claim_of,
    ends_kept,
    percent,
    put_to_test,
    sham,
)
from cutaway.trials.spread import spread

if TYPE_CHECKING:
    from cutaway.algorithms import Algorithm
    from cutaway.behaviours import Behaviour, Performance
    from cutaway.behaviours.cases import Cases
    from cutaway.network import Network


#: Pairs on which it is described what members write and read.
_DESCRIBED = 32


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
    depth: str = "where",
    cases: Cases | None = None,
    intended: Algorithm | None = None,
    feared: Sequence[Algorithm | str] = (),
    shifted: Cases | None = None,
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
    does not rest on them. 7. With `depth`, tell what is computed there (`computation`), with claims of its own.

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
        depth: "where" the behaviour is; "what" is computed there; as which "algorithm".
        cases: prompts whose variables are known, of which that is asked; default those of a built-in behaviour, else its
            pairs, of which only what differs is known.
        intended: the algorithm that the network ought to compute; default what the cases call right.
        feared: those that it ought not to, or `number=other_number`: the right answer of one variable taken for another.
        shifted: cases of another distribution, on which the intended computation is asked for again.
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
            lambda: (
                {
                    "network": net.hash,
                    "behaviour": behaviour.hash,
                    "limits": bounds.to_dict(),
                    "seed": seed,
                    "options": [force, controls] + ([features] if features is not None else []),
                }
                | ({"depth": [depth, "" if cases is None else cases.hash]} if depth != "where" else {})
            ),
        )
        looked = bool(net.anatomy.dictionaries) if features is None else features
        sites = feature_sites(net, features if isinstance(features, str) else None) if looked else []
        more = sum(stages(net, behaviour, sites, controls=controls).values()) if sites else 0.0
        asks = _asks(net, behaviour, check_depth(depth), cases, bool(intended or feared or shifted))
        wanted = NOTHING_STATED if asks is None else stated(asks, intended, feared, shifted)
        deeper = 0.0 if asks is None else priced_computation(net, asks, depth, wanted)
        sizes, price = within(net, behaviour, bounds, controls, work.budget, more, deeper)
        announce_price(net, work, f"explaining {behaviour.name}", price, EXPLAINING[controls])
        asked = ExplanationQuestion(
            net, behaviour, bounds, seed, work, sizes, (), tuple(sites), labels, depth, asks, wanted
        )
        with ends_kept(net, behaviour, work):
            asked = _standing(asked)
            if asked.behaviour is behaviour:
                return _explained(asked, force, controls, command, started)
        with ends_kept(net, asked.behaviour, work):
            return _explained(asked, force, controls, command, started)


def _asks(net: Network, behaviour: Behaviour, depth: str, cases: Cases | None, more: bool) -> Cases | None:
    """The prompts of which it is asked what is computed; None where it is not."""
    if depth != "where":
        return cases or cases_for(net, behaviour)
    if cases is not None or more:
        raise BadInput(
            "cases=, intended=, feared= and shifted= say what is asked of the computation, and depth is “where”.",
            'Add depth="what" or depth="algorithm".',
        )
    return None


def _standing(asked: ExplanationQuestion) -> ExplanationQuestion:
    """The question without the sentence frames on which the network does not do the behaviour, where it does the rest."""
    forms = by_form(asked.net, asked.behaviour, work=asked.work)
    rest = set_aside(asked.behaviour, forms)
    if rest is not asked.behaviour and not performance(asked.net, rest, work=asked.work).does_it:
        rest = asked.behaviour
    return replace(asked, behaviour=rest, forms=forms)


def _explained(
    asked: ExplanationQuestion, force: bool, controls: bool, command: str, started: float
) -> Explanation:
    net, behaviour, seed = asked.net, asked.behaviour, asked.seed
    whole = _performed(net, behaviour, force)
    not_yet = STOPPED if asked.sizes.features else "the budget is too small"
    draft = ExplanationDraft(
        why_no_features=not_yet if asked.features else "", why_no_computation=STOPPED if asked.cases else ""
    )
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
            _told(asked, draft, force, controls)
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
        computation=draft.computation,
    )


def _told(asked: ExplanationQuestion, draft: ExplanationDraft, force: bool, controls: bool) -> None:
    """What is computed, where that is asked; what keeps it from being told is said."""
    if asked.cases is None:
        return
    members = (
        () if draft.mechanism is None else tuple(m for m in draft.mechanism.members if m.kind != "neuron")
    )
    with draft.timed("tell what is computed"):
        try:
            draft.computation = tell(
                asked.net, asked.cases, depth=asked.depth, first=members, wanted=asked.stated, controls=controls,
                force=force, seed=asked.seed, work=asked.work,
            )  # fmt: skip
            draft.why_no_computation = ""
        except Stopped:
            raise
        except CutawayError as error:
            draft.why_no_computation = error.problem
    if draft.computation is not None and not draft.computation.complete:
        asked.work.check()


def _performed(net: Network, behaviour: Behaviour, force: bool) -> Performance:
    done = performance(net, behaviour)
    if not done.does_it and not force:
        raise refusal(net, behaviour, done)
    return done


def _investigate(asked: ExplanationQuestion, draft: ExplanationDraft) -> None:
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
    asked: ExplanationQuestion, grain: SearchGrain, maps: dict[str, Effects], thorough: bool = True
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
    asked: ExplanationQuestion, grain: SearchGrain, maps: dict[str, Effects], thorough: bool = True
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


def _grain(asked: ExplanationQuestion) -> SearchGrain:
    """How finely the network is searched; where there is something to say of that, whoever listens hears it."""
    grain = grain_of(asked.net, asked.behaviour.discovery, asked.limits)
    if grain.words:
        asked.work.step(grain.words, 0, 1)
    return grain


def _control(asked: ExplanationQuestion, draft: ExplanationDraft) -> None:
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
    asked = ExplanationQuestion(net, behaviour, limits, seed, work, replace(sizes, stream=0))
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


def _claim(
    asked: ExplanationQuestion, draft: ExplanationDraft, performed: bool, with_controls: bool
) -> Claim:
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
