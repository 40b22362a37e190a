"""Controls: the same procedure where there is nothing to find. It must not find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cutaway.behaviours import answer_logits, exchange_answers, performance
from cutaway.behaviours.checks import spreads_apart
from cutaway.behaviours.decisions import independent
from cutaway.claims import Control, Evidence
from cutaway.errors import BadBehaviour, CutawayError, NotPerformed, Stopped
from cutaway.results import Work
from cutaway.statistics import Estimate, mean_of
from cutaway.trials.ends import ends_kept
from cutaway.trials.judging import percent, verdict_of
from cutaway.trials.limits import Limits

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

EXPECTED = "not supported"
_RIGHT = "answers right"
#: How many times the largest contrast of fresh weights the network's own must be, of how many draws, on how many pairs.
#: Of few independent decisions more is asked: the mean over pairs of random weights then varies as much as single ones.
_TIMES, _TIMES_OF_FEW, _MANY = 2.0, 4.0, 8
_DRAWS, _PAIRS = 10, 8
#: The draws have seeds of their own: the network in hand may itself have been drawn from a small one.
_FIRST_DRAW = 7_000


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


def beside_random_weights(
    net: Network, behaviour: Behaviour, procedure: Procedure, seed: int, work: Work
) -> Control:
    """The contrast must be larger than what the same architecture has with fresh weights, of several draws.

    Measured in spreads of the logits over the vocabulary, as a mean over pairs. By luck a network with fresh weights has
    one, too, in either direction: the more so, the fewer different decisions the pairs ask. Forwards only,
    those of the draws on at most `_PAIRS` of the pairs (fewer make their means larger, and the control stricter);
    `procedure` is not run.
    """
    del procedure
    name = "Contrast beside random weights"
    rows = np.unique(np.linspace(0, behaviour.n - 1, min(behaviour.n, _PAIRS)).round().astype(int)).tolist()
    pairs = behaviour.take(rows)
    times = _TIMES if independent(behaviour) >= _MANY else _TIMES_OF_FEW
    expected = f"at least {times:g} times as large"
    try:
        own = mean_of(_contrast(net, behaviour, work), behaviour.clusters)
        drawn = []
        for number in range(_DRAWS):
            work.step("contrast with random weights", number, _DRAWS)
            fresh = net.randomized(_FIRST_DRAW + _DRAWS * seed + number, examine=False)
            drawn.append(abs(float(_contrast(fresh, pairs, work).mean())))
    except Stopped:
        raise
    except CutawayError as error:
        return Control(name, None, expected, None, f"Fresh weights could not be tried. {error.problem}")
    largest = max(drawn)
    sentence = (
        f"Right and wrong answers are {own} spreads (standard deviations) of the logits further apart on clean prompts than "
        f"on corrupted ones; with fresh weights, in {_DRAWS} draws, at most {largest:.3f} in either direction (required: "
        f"{times:g} times as much)."
    )
    return Control(name, own, expected, own.value >= times * largest, sentence, "spreads of the logits")


def _contrast(net: Network, pairs: Behaviour, work: Work) -> np.ndarray:
    clean, corrupted = (answer_logits(net, pairs, which, work=work) for which in ("clean", "corrupted"))
    return spreads_apart(pairs, clean, corrupted)


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
    most = f"by more than {100 * change:.1g} % of the gap" if change else "at all"
    sentence = f"Writing the set's own values over themselves changes no example {most} (allowed: {percent(limits.sham)})."
    return Control("Sham edit", None, "no change", change <= limits.sham, sentence)


def must_fail(
    name: str, what: str, net: Network, behaviour: Behaviour, procedure: Procedure, work: Work
) -> Control:
    """Performance, then the procedure, forced; passed when the whole of it does not support what it picked.

    A control that does the behaviour is none (the answers are such that anything does it): it is left open.

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
                why = "the behaviour is not performed" if done.needed is None else "too few pairs to tell"
                first = f"{what}: refused, {why} ({right} right)."
            outcome = procedure(net, behaviour, work.within(f"control ({name.lower()})"))
    except Stopped:
        raise
    except (NotPerformed, BadBehaviour) as error:
        return Control(
            name, accuracy, EXPECTED, True, f"{what}: the procedure refused. {error.problem}", _RIGHT
        )
    except CutawayError as error:
        return Control(name, accuracy, EXPECTED, None, f"{what}: could not be run. {error.problem}", _RIGHT)
    verdict = verdict_of(outcome.evidence, caps=outcome.caps)
    alone = verdict_of(outcome.evidence[1:], caps=outcome.caps)
    second = f"Made to go on, the search picked {outcome.picked}. Verdict: {verdict} (by the interventions alone: {alone})."
    if alone == "supported" and verdict != "supported":
        second += " Only the test whether it does the behaviour stood in the way."
    figure = accuracy if outcome.figure is None else outcome.figure
    if done.does_it:
        second += " A control that does the behaviour is none."
    passed = False if verdict == "supported" else None if done.does_it else True
    of = _RIGHT if outcome.figure is None else "of the gap kept"
    return Control(name, figure, EXPECTED, passed, f"{first} {second}", of)


#: The controls that every claim of a mechanism has to pass, by the words for the stage.
CONTROLS = {
    "random weights": random_weights,
    "contrast with random weights": beside_random_weights,
    "shuffled answers": shuffled_answers,
}
