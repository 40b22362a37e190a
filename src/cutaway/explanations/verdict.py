"""From the held-out test to a claim, in words: what was claimed, and what the tests said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cutaway.claims import Claim, Evidence
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.network.listing import count, listing
from cutaway.trials import PartSet, Trial, evidence_of, percent, performs
from cutaway.trials.trial import PERFORMS, mean

if TYPE_CHECKING:
    from cutaway.behaviours import Performance
    from cutaway.behaviours.standing import FormPerformance


def short(network: str) -> str:
    """A network's name without the folders it lies in; Hub ids and `zoo:` names stay as they are.

    >>> short("/models/stories260K"), short("openai/gpt2"), short("zoo:tales")
    ('stories260K', 'openai/gpt2', 'zoo:tales')
    """
    path = Path(network)
    return path.name if path.is_absolute() or path.exists() else network


def evidence(
    performance: Performance, candidate: PartSet, trial: Trial, limits: SearchLimits
) -> tuple[Evidence, ...]:
    """Every test of the claim: whether the behaviour is performed, then what the trial says."""
    return performs(performance), *evidence_of(trial, candidate, limits)


def statement(
    network: str, behaviour: str, mechanism: Mechanism, anyway: bool = False, fixed: str = ""
) -> str:
    """What is claimed: the set, for this behaviour's prompts, with this kind of replacement.

    anyway: removing random sets of this size breaks the behaviour as well; then the statement says so. fixed: a sentence on
    what the pairs hold fixed.
    """
    also = " (as it is when most sets of this size are replaced)" if anyway else ""
    return (
        f"On “{behaviour}” prompts like those tested, {count(mechanism.members)} of {short(network)} "
        f"({listing(mechanism.members)}) carry the difference between the answers to clean and corrupted prompts: it is "
        "kept when all other components are given the values that they have on the corrupted prompt, and it is gone when "
        f"only these are{also}.{' ' + fixed if fixed else ''}"
    )


def left_open(tests: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The same tests of a set that was searched on fewer prompts than by default: what it fails, another set may pass.

    Whether the behaviour is performed does not depend on the search, and is judged as ever.
    """
    why = "The budget left few prompts for the search: another set may do better, so this refutes nothing."
    return tuple(
        replace(test, passed=None, sentence=f"{test.sentence} {why}")
        if test.passed is False and test.name != PERFORMS
        else test
        for test in tests
    )


def aside(gone: Sequence[FormPerformance], left: int) -> str:
    """That sentence frames were set aside, and why, in words. left: pairs that are left."""
    named = "; ".join(
        f"“{form.form}” ({form.n} pairs, {percent(form.accuracy.value)} right)" for form in gone
    )
    frames = "1 sentence frame was" if len(gone) == 1 else f"{len(gone)} sentence frames were"
    return (
        f"Before anything was measured, {frames} set aside because the network does not do the behaviour there: {named}. "
        f"The claim is about the other {left} pairs."
    )


def remarks(trial: Trial, mechanism: Mechanism, limits: SearchLimits) -> list[str]:
    """What the held-out runs say beside the tests."""
    notes = []
    if any(part.kind == "channel" for part in mechanism.members):
        notes.append("Random sets hold as many channels of each map as the set does.")
    if trial.breaks_anyway(limits):
        notes.append(
            f"Removing random sets of this size breaks the behaviour, too: on average they leave "
            f"{percent(mean(trial.left_random))}. So it says little that this set is needed; what "
            "sets it apart is that it is enough by itself."
        )
    if trial.from_others is None:
        notes.append(
            "No two prompts have the same length and template: what the set keeps with other prompts’ values was not tried."
        )
    return notes


def headline(
    claim: Claim, mechanism: Mechanism | None, trial: Trial | None, network: str, behaviour: str
) -> str:
    """The result in one or two plain sentences."""
    if mechanism is None or trial is None:
        return f"Stopped before a mechanism for “{behaviour}” was tested; what was finished is below."
    size = f"{len(mechanism.members)} of {mechanism.total} components of {short(network)} ({listing(mechanism.members)})"
    figures = (
        f"kept alone they keep {percent(trial.kept.value)} of it on held-out prompts, and without them "
        f"{percent(trial.left.value)} is left"
    )
    if claim.verdict == "supported":
        return f"{size} carry “{behaviour}”: {figures}."
    done = next((e for e in claim.evidence if e.name == PERFORMS), None)
    if done is not None and done.passed is False and done.estimate is not None:
        return (
            f"{short(network)} does not perform “{behaviour}” ({percent(done.estimate.value)} of the held-out prompts "
            f"right), so there is nothing to explain. The search was forced to go on, and picked {size}; {figures}."
        )
    missed = [e.name.lower() for e in claim.evidence if e.passed is not True]
    missed += [f"control {c.name.lower()}" for c in claim.controls if c.passed is not True]
    reason = f"; not passed: {'; '.join(missed)}" if missed else ""
    word = "do not carry" if claim.verdict == "refuted" else "are not shown to carry"
    return f"{size} {word} “{behaviour}” as claimed: {figures}{reason}."
