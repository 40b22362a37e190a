"""From the held-out test to a claim: what each test says against its threshold, and no more than was tested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cutaway.claims import Claim, Evidence
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.thresholds import Thresholds
from cutaway.explanations.trial import Trial
from cutaway.network.parts import count, listing
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    from cutaway.behaviours import Performance

_HALF = 0.5
PERFORMS = "Performs it"


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.914), percent(-0.02)
    ('91 %', '−2 %')
    """
    return f"{100 * share:.0f} %".replace("-0 %", "0 %").replace("-", "−")


def with_interval(estimate: Estimate) -> str:
    """A share and its interval as percentages."""
    if estimate.interval is None:
        return f"{percent(estimate.value)} (no interval)"
    low, high = percent(estimate.interval.low)[:-2], percent(estimate.interval.high)
    return f"{percent(estimate.value)} ({low} to {high})"


def short(network: str) -> str:
    """A network's name without the folders it lies in; Hub ids and `zoo:` names stay as they are.

    >>> short("/models/stories260K"), short("openai/gpt2"), short("zoo:tales")
    ('stories260K', 'openai/gpt2', 'zoo:tales')
    """
    path = Path(network)
    return path.name if path.is_absolute() or path.exists() else network


def evidence(
    performance: Performance, mechanism: Mechanism, trial: Trial, thresholds: Thresholds
) -> tuple[Evidence, ...]:
    """Every test of the claim with its figure, its threshold and whether it passed (None: it cannot tell)."""
    kept = _inside(trial.kept, thresholds.kept, thresholds.excess)
    left = _inside(trial.left, float("-inf"), thresholds.left)
    return (
        Evidence(
            PERFORMS, performance.accuracy, None, _HALF, performance.does_it,
            f"On held-out prompts: {performance.sentence}"
        ),
        Evidence(
            "Kept alone", trial.kept, None, thresholds.kept, kept,
            f"With every other component replaced, {with_interval(trial.kept)} of the gap is kept; "
            f"asked was {percent(thresholds.kept)} "
            f"to {percent(thresholds.excess)}.",
        ),
        Evidence(
            "Removed", trial.left, None, thresholds.left, left,
            f"With the set replaced and all else untouched, {with_interval(trial.left)} is left; asked was at most "
            f"{percent(thresholds.left)}.",
        ),
        _kept_beside_random(trial, thresholds),
        *(() if breaks_anyway(trial, thresholds) else (_removed_beside_random(trial),)),
        _size(mechanism, thresholds),
    )  # fmt: skip


def statement(network: str, behaviour: str, mechanism: Mechanism, anyway: bool = False) -> str:
    """What is claimed: the set, for this behaviour's prompts, with this kind of replacement.

    anyway: removing random sets of this size breaks the behaviour as well; then the statement says so.
    """
    also = ", as replacing most sets of this size does" if anyway else ""
    return (
        f"On “{behaviour}” prompts like those tested, {count(mechanism.members)} of {short(network)} "
        f"({listing(mechanism.members)}) carry what tells the clean prompt's answer from the "
        "corrupted one's: they are enough "
        "to keep it while all other components hold what they hold on the corrupted prompt, and "
        "replacing them alone takes it "
        f"away{also}."
    )


def breaks_anyway(trial: Trial, thresholds: Thresholds) -> bool:
    """Does removing random sets of this size break the behaviour too (on average no more is left than is asked of the set)?

    Then comparing removals cannot tell the set from another, and the comparison is a note instead of a test.
    """
    return bool(trial.left_random) and _mean(trial.left_random) <= thresholds.left


def remarks(trial: Trial, thresholds: Thresholds) -> list[str]:
    """What the held-out runs say beside the tests."""
    notes = []
    if breaks_anyway(trial, thresholds):
        notes.append(
            f"Removing random sets of this size breaks the behaviour, too: on average they leave "
            f"{percent(_mean(trial.left_random))}. So that the set is needed says little about it in "
            "particular; what tells it "
            "from others is that it is enough."
        )
    if trial.from_others is not None:
        notes.append(
            f"When the other components are taken from other prompts instead, the set keeps "
            f"{percent(trial.from_others)} of the "
            "distance from everything replaced so to nothing replaced (no threshold was set for this)."
        )
    return notes


def _inside(estimate: Estimate, low: float, high: float) -> bool | None:
    interval = estimate.interval
    if interval is None:
        return None
    if low < interval.low and interval.high < high:
        return True
    return False if interval.high < low or interval.low > high else None


def _kept_beside_random(trial: Trial, thresholds: Thresholds) -> Evidence:
    """Few random sets may keep as much, and on average they keep less."""
    name = "Kept alone, beside random sets"
    if trial.kept_gain is None or trial.kept_p is None:
        return Evidence(name, sentence="There is no other set of this size to compare with.")
    above = trial.kept_gain.above(0.0)
    passed = (
        True
        if above and trial.kept_p <= thresholds.random_p
        else False
        if above is False or trial.kept_p > _HALF
        else None
    )
    sentence = (
        f"{with_interval(trial.kept_gain)} of the gap more than random sets of the same size and kinds keep (their mean: "
        f"{percent(_mean(trial.kept_random))}); {_as_good(trial.kept_p, trial.kept_random)} do as "
        f"well (p = {trial.kept_p:.3f}; asked "
        f"was at most {thresholds.random_p:g})."
    )
    return Evidence(name, trial.kept_gain, None, 0.0, passed, sentence)


def _removed_beside_random(trial: Trial) -> Evidence:
    """On average random sets leave more. No rank is asked: a random set may break the behaviour by hitting a part of it."""
    name = "Removed, beside random sets"
    if trial.left_gain is None or trial.left_p is None:
        return Evidence(name, sentence="There is no other set of this size to compare with.")
    sentence = (
        f"{with_interval(trial.left_gain)} of the gap less than random sets of the same size and kinds leave (their mean: "
        f"{percent(_mean(trial.left_random))}); {_as_good(trial.left_p, trial.left_random)} leave as little."
    )
    return Evidence(name, trial.left_gain, None, 0.0, trial.left_gain.above(0.0), sentence)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _as_good(p: float, random: tuple[float, ...]) -> str:
    return f"{round(p * (len(random) + 1)) - 1} of {len(random)}"


def _size(mechanism: Mechanism, thresholds: Thresholds) -> Evidence:
    share = len(mechanism.members) / mechanism.total
    passed = True if share <= thresholds.largest else None
    sentence = (
        f"{len(mechanism.members)} of {mechanism.total} components; a set with more than "
        f"{percent(thresholds.largest)} of them "
        "would explain nothing."
    )
    return Evidence("Small", None, share, thresholds.largest, passed, sentence)


def headline(
    claim: Claim, mechanism: Mechanism | None, trial: Trial | None, network: str, behaviour: str
) -> str:
    """The result in one or two plain sentences."""
    if mechanism is None or trial is None:
        return f"Stopped before a mechanism for “{behaviour}” was tested; what was finished is below."
    size = f"{len(mechanism.members)} of {mechanism.total} components of {short(network)} ({listing(mechanism.members)})"
    figures = (
        f"kept alone they keep {percent(trial.kept.value)} of it on held-out prompts, and without "
        f"them {percent(trial.left.value)} is left"
    )
    if claim.verdict == "supported":
        return f"{size} carry “{behaviour}”: {figures}."
    performs = next((e for e in claim.evidence if e.name == PERFORMS), None)
    if performs is not None and performs.passed is False and performs.estimate is not None:
        return (
            f"{short(network)} does not perform “{behaviour}” ({percent(performs.estimate.value)} of the held-out prompts "
            f"right), so there is nothing to explain. Forced to go on: {size} were picked; {figures}."
        )
    missed = [e.name.lower() for e in claim.evidence if e.passed is not True]
    missed += [f"control {c.name.lower()}" for c in claim.controls if c.passed is not True]
    reason = f"; not passed: {'; '.join(missed)}" if missed else ""
    word = "do not carry" if claim.verdict == "refuted" else "may carry"
    return f"{size} {word} “{behaviour}” as claimed: {figures}{reason}."
