"""Controls: the same pipeline where there is nothing to find. It must not find it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.behaviours import exchange_answers, performance
from cutaway.claims import Control, Evidence, judge
from cutaway.errors import BadBehaviour, CutawayError, NotPerformed
from cutaway.explanations.bench import Bench, Report
from cutaway.explanations.identify import Mechanism, identify
from cutaway.explanations.localise import localise, strength
from cutaway.explanations.thresholds import Thresholds
from cutaway.explanations.trial import Trial, put_to_test
from cutaway.explanations.verdict import evidence, percent
from cutaway.network.parts import parts_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(frozen=True)
class Examined:
    """One pass of identification and test, without the maps of the stream."""

    mechanism: Mechanism
    trial: Trial
    evidence: tuple[Evidence, ...]


def examine(
    net: Network, behaviour: Behaviour, thresholds: Thresholds, seed: int, report: Report
) -> Examined:
    """Localise components, identify a set on discovery data and test it on held-out data, whatever the performance."""
    maps = dict(localise(net, behaviour.discovery, seed, report, stream=False))
    if not all(effects.complete for effects in maps.values()):
        raise KeyboardInterrupt
    scores = {part: strength(maps, part) for part in parts_of(net)}
    mechanism = identify(Bench.of(net, behaviour.discovery, seed, report), scores, thresholds)
    trial = put_to_test(Bench.of(net, behaviour.held_out, seed, report), mechanism.members, thresholds, seed)
    return Examined(
        mechanism, trial, evidence(performance(net, behaviour.held_out), mechanism, trial, thresholds)
    )


def random_weights(
    net: Network, behaviour: Behaviour, thresholds: Thresholds, seed: int, report: Report
) -> Control:
    """The same architecture with fresh weights must not yield a supported mechanism, even when forced to look for one."""
    name, expected = "Random weights", "not supported"
    what = "The same architecture with fresh weights"
    try:
        untrained = net.randomized(seed)
    except CutawayError as error:
        return Control(name, None, expected, None, f"{what}: could not be made. {error.problem}")
    return _must_fail(
        name,
        expected,
        what,
        untrained,
        behaviour,
        thresholds,
        seed,
        report,
    )


def shuffled_answers(
    net: Network, behaviour: Behaviour, thresholds: Thresholds, seed: int, report: Report
) -> Control:
    """With right and wrong answers exchanged on a random half of the examples there is nothing to explain."""
    name, expected = "Shuffled answers", "not supported"
    if not all(behaviour.wrong):
        return Control(name, None, expected, None, "The behaviour has no wrong answers to exchange.")
    shuffled = exchange_answers(behaviour, seed)
    what = "The network itself, right and wrong exchanged on half of the examples"
    return _must_fail(name, expected, what, net, shuffled, thresholds, seed, report)


def sham(trial: Trial, thresholds: Thresholds) -> Control:
    """Writing the set's own values over themselves must change nothing."""
    return Control(
        "Sham edit",
        None,
        "no change",
        trial.sham <= thresholds.sham,
        f"The set's own values written over themselves change no example by more than {trial.sham:.1g} of the gap "
        f"(allowed: {thresholds.sham:g}).",
    )


def _must_fail(
    name: str,
    expected: str,
    what: str,
    net: Network,
    behaviour: Behaviour,
    thresholds: Thresholds,
    seed: int,
    report: Report,
) -> Control:
    """Performance, then the forced pipeline; passed when the whole procedure does not support a mechanism.

    The whole procedure includes the test of performance: a network that does not do the task still has parts that carry
    whatever gap it has. The sentence says what the interventions alone would have said, and when performance alone
    decided. An error decides only where it says that there is nothing to explain; any other leaves the control open.
    """

    def labelled(label: str, done: int, total: int) -> None:
        report(f"control ({name.lower()}): {label}", done, total)

    estimate = None
    try:
        done = performance(net, behaviour)
        estimate = done.accuracy
        if done.does_it:
            first = f"{what}: it does perform the behaviour ({done.sentence})"
        else:
            first = f"{what}: refused, the behaviour is not performed ({percent(done.accuracy.value)} right)."
        found = examine(net, behaviour, thresholds, seed, labelled)
    except (NotPerformed, BadBehaviour) as error:
        return Control(name, estimate, expected, True, f"{what}: the pipeline refused. {error.problem}")
    except CutawayError as error:
        return Control(name, estimate, expected, None, f"{what}: could not be run. {error.problem}")
    verdict, alone = judge(found.evidence), judge(found.evidence[1:])
    second = (
        f"Forced to go on, it picked {len(found.mechanism.members)} of {found.mechanism.total} "
        "components, which kept alone give "
        f"{percent(found.trial.kept.value)} and removed leave {percent(found.trial.left.value)} of a gap of "
        f"{_gap(net, behaviour):.2g}: {verdict} (by the interventions alone: {alone})."
    )
    if alone == "supported" and verdict != "supported":
        second += " The test of performance alone decided."
    return Control(name, estimate, expected, verdict != "supported", f"{first} {second}")


def _gap(net: Network, behaviour: Behaviour) -> float:
    from cutaway.effects.baselines import measure

    return measure(net, behaviour.held_out).gap
