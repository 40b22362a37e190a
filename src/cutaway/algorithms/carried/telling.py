"""What may be said of a place, and of a variable: this one alone, several, or that it is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cutaway.algorithms.carried.answering import answers_by
from cutaway.algorithms.carried.exchanging import At, in_words
from cutaway.algorithms.carried.limits import CarriedLimits
from cutaway.behaviours import Performance
from cutaway.claims import Claim, Control, Evidence
from cutaway.statistics import Estimate
from cutaway.trials import claim_of, inside, percent, with_interval

#: What a place is found to be, of one variable.
ALONE, SEVERAL, OPEN, ONLY, NOT_SHOWN = (
    "this variable alone", "several variables", "this variable, of others it is open", "this variable, no other to tell",
    "not shown",
)  # fmt: skip
#: So many places are named in a statement.
_NAMED = 3


@dataclass(frozen=True)
class TestedPlace:
    """A place that stood out, tested on held-out pairs.

    Attributes:
        at: the part and the span.
        held: its share of every variable, the one that it stood out for among them.
        q: its significance on held-out pairs, corrected for all places that were tested.
        verdict: what it is found to be.
    """

    at: At
    held: Mapping[str, Estimate]
    q: float
    verdict: str


def verdict_on(variable: str, held: Mapping[str, Estimate], q: float, limits: CarriedLimits) -> str:
    """What a place is found to be of a variable, by its shares of all variables on held-out pairs."""
    if not (held[variable].above(limits.carries) and q <= limits.alpha):
        return NOT_SHOWN
    others = [_nothing(estimate, limits) for name, estimate in held.items() if name != variable]
    if not others:
        return ONLY
    if any(one is False for one in others):
        return SEVERAL
    return ALONE if all(others) else OPEN


def _nothing(estimate: Estimate, limits: CarriedLimits) -> bool | None:
    """Does a place bring nothing of another variable? None where that is open."""
    return inside(estimate, -limits.nothing, limits.nothing)


def claim_about(
    net: str,
    variable: str,
    tested: Sequence[TestedPlace],
    answering: Evidence | None,
    controls: Sequence[Control],
    limits: CarriedLimits,
    caps: Sequence[str],
) -> Claim:
    """The claim about one variable: which places carry it, the ones that carry it alone first.

    tested: the places that stood out, the largest share on discovery pairs first. answering: does the network
    answer by it? None where that was not measured.
    """
    told = sorted(tested, key=lambda one: -one.held[variable].value)
    alone = [one for one in told if one.verdict in (ALONE, ONLY)]
    carrying = [one for one in told if one.verdict in (SEVERAL, OPEN)]
    named = (alone or carrying or told[:1])[:_NAMED]
    evidence = [] if answering is None else [answering]
    evidence += [_exchanged(variable, one, limits) for one in named]
    if not named:
        evidence.append(Evidence(
            "Exchanged", passed=None,
            sentence=f"No part at any of these spans is shown to bring {percent(limits.stands_out)} or more of what "
            f"exchanging {variable} does, told from zero among all that were tried.",
        ))  # fmt: skip
    elif one_else := _nothing_else(variable, named, limits):
        evidence.append(one_else)
    notes = [f"{in_words(one.at)}: {one.verdict}." for one in (*alone, *carrying) if one not in named]
    if alone and alone[0].verdict == ONLY:
        notes.append(
            "No other variable was exchanged: whether the place carries this variable or the answer, these prompts do not "
            "tell."
        )
    return claim_of(_statement(net, variable, named), evidence, controls, notes, caps)


def _statement(net: str, variable: str, named: Sequence[TestedPlace]) -> str:
    if not named:
        return f"In {net} {variable} is carried by a single part at one of these spans"
    places = [in_words(one.at) for one in named]
    listed = places[0] if len(places) == 1 else f"{', '.join(places[:-1])} and {places[-1]}"
    each = "each of " if len(places) > 1 else ""
    alone = " and no other variable" if all(one.verdict == ALONE for one in named) else ""
    return f"In {net} {variable}{alone} is carried by {each}{listed}"


def _exchanged(variable: str, one: TestedPlace, limits: CarriedLimits) -> Evidence:
    share = one.held[variable]
    passed = share.above(limits.carries)
    if passed and not one.q <= limits.alpha:
        passed = None
    sentence = (
        f"On {share.n} held-out pairs the value that {one.at[0].words} has there in the other prompt brings "
        f"{with_interval(share)} of what exchanging {variable} does (q = {one.q:.2g}; required: more than "
        f"{percent(limits.carries)})."
    )
    return Evidence(
        f"Exchanged: {in_words(one.at)}",
        share,
        None,
        limits.carries,
        passed,
        sentence,
        "of the variable's effect",
    )


def _nothing_else(variable: str, named: Sequence[TestedPlace], limits: CarriedLimits) -> Evidence | None:
    """Do the named places bring nothing of the other variables? None where there are no others."""
    others = [(one, name, share) for one in named for name, share in one.held.items() if name != variable]
    if not others:
        return None
    one, name, largest = max(others, key=lambda item: abs(item[2].value))
    passed = all(_nothing(share, limits) for *_, share in others) or None
    sentence = (
        f"Of the other variables they bring at most {with_interval(largest)} ({name}, {in_words(one.at)}); required: less "
        f"than {percent(limits.nothing)} either way."
    )
    if passed is None:
        sentence += " What brings several variables may carry the answer, or what they are joined to."
    return Evidence(
        "And nothing else", largest, None, limits.nothing, passed, sentence, "of another variable's effect"
    )


def shuffled_control(variable: str, found: Sequence[int], limits: CarriedLimits) -> Control:
    """The same search with the variable's two values exchanged on half of the pairs, in which no place may stand out."""
    turns = sum(count > 0 for count in found)
    sentence = (
        f"With the two values of {variable} exchanged on a random half of the pairs, some place stands out in {turns} of "
        f"{len(found)} draws (allowed: {limits.shuffled_found})."
    )
    passed = turns <= limits.shuffled_found if found else None
    return Control("Shuffled values", None, "no place stands out", passed, sentence)


def random_control(variable: str, performance: Performance, one_sided: bool) -> Control:
    """The same architecture with fresh weights must not answer by the variable: then it has nothing that could carry it."""
    does = answers_by(performance, one_sided)
    right = f"{percent(performance.accuracy.value)} right, contrast {performance.size} spreads of the logits"
    sentence = (
        f"The same architecture with fresh weights does not answer by {variable} ({right}): there is nothing to carry, and "
        "nothing was looked for."
        if not does
        else f"The same architecture with fresh weights answers by {variable}, too ({right}): a control that does is none."
    )
    return Control(
        "Random weights",
        performance.accuracy,
        "not performed",
        None if does else True,
        sentence,
        "answers right",
    )
