"""Controls: the same procedure where there is nothing to find. It must not find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.behaviours import exchange_answers, performance
from cutaway.claims import Control, Evidence
from cutaway.errors import BadBehaviour, CutawayError, NotPerformed, Stopped
from cutaway.results import Work
from cutaway.statistics import Estimate
from cutaway.trials.ends import ends_kept
from cutaway.trials.judging import percent, verdict_of
from cutaway.trials.limits import Limits

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

EXPECTED = "not supported"


@dataclass(frozen=True)
class Outcome:
    """What a procedure came to.

    Attributes:
        evidence: its tests; the first says whether the behaviour is performed.
        picked: what it picked and how that did, in words that go on after "it picked".
        caps: why nothing may be supported.
        figure: the figure that a control shows for it; None for the accuracy.
    """

    evidence: tuple[Evidence, ...]
    picked: str
    caps: tuple[str, ...] = ()
    figure: Estimate | None = None


#: Looks for a candidate on discovery data and tests it on held-out data, whatever the performance.
Procedure = Callable[["Network", "Behaviour", Work], Outcome]


def random_weights(
    net: Network, behaviour: Behaviour, procedure: Procedure, seed: int, work: Work
) -> Control:
    """The same architecture with fresh weights must not yield anything supported, even when forced to look for it."""
    name, what = "Random weights", "The same architecture with fresh weights"
    try:
        untrained = net.randomized(seed)
    except Stopped:
        raise
    except CutawayError as error:
        return Control(name, None, EXPECTED, None, f"{what}: could not be made. {error.problem}")
    return must_fail(name, what, untrained, behaviour, procedure, work)


def shuffled_answers(
    net: Network, behaviour: Behaviour, procedure: Procedure, seed: int, work: Work
) -> Control:
    """With right and wrong answers exchanged on a random half of the examples there is nothing to explain."""
    name = "Shuffled answers"
    if not all(behaviour.wrong):
        return Control(name, None, EXPECTED, None, "The behaviour has no wrong answers to exchange.")
    what = "The network itself, right and wrong exchanged on half of the examples"
    return must_fail(name, what, net, exchange_answers(behaviour, seed), procedure, work)


def sham(change: float, limits: Limits) -> Control:
    """Writing a candidate's own values over themselves must change nothing. change: the largest, in shares of the gap."""
    sentence = (
        f"The set's own values written over themselves change no example by more than {change:.1g} of the gap "
        f"(allowed: {limits.sham:g})."
    )
    return Control("Sham edit", None, "no change", change <= limits.sham, sentence)


def must_fail(
    name: str, what: str, net: Network, behaviour: Behaviour, procedure: Procedure, work: Work
) -> Control:
    """Performance, then the procedure, forced; passed when the whole of it does not support what it picked.

    The whole includes the test of performance: a network that does not do the task still has parts that carry whatever gap
    it has. The sentence says what the interventions alone would have said, and when performance alone decided. An error
    decides only where it says that there is nothing to explain; any other leaves the control open.
    """
    accuracy = None
    try:
        with ends_kept(net, behaviour, work):
            done = performance(net, behaviour, work=work)
            accuracy = done.accuracy
            first = f"{what}: it does perform the behaviour ({done.sentence})"
            if not done.does_it:
                right = percent(done.accuracy.value)
                first = f"{what}: refused, the behaviour is not performed ({right} right)."
            outcome = procedure(net, behaviour, work.within(f"control ({name.lower()})"))
    except Stopped:
        raise
    except (NotPerformed, BadBehaviour) as error:
        return Control(name, accuracy, EXPECTED, True, f"{what}: the procedure refused. {error.problem}")
    except CutawayError as error:
        return Control(name, accuracy, EXPECTED, None, f"{what}: could not be run. {error.problem}")
    verdict = verdict_of(outcome.evidence, caps=outcome.caps)
    alone = verdict_of(outcome.evidence[1:], caps=outcome.caps)
    second = f"Forced to go on, it picked {outcome.picked}: {verdict} (by the interventions alone: {alone})."
    if alone == "supported" and verdict != "supported":
        second += " The test of performance alone decided."
    figure = accuracy if outcome.figure is None else outcome.figure
    return Control(name, figure, EXPECTED, verdict != "supported", f"{first} {second}")
