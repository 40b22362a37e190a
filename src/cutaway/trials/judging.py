"""Where evidence becomes a verdict. Nothing else in Cutaway decides between supported, refuted and inconclusive."""

from __future__ import annotations

from collections.abc import Sequence

from cutaway.claims import Claim, Control, Evidence, Verdict
from cutaway.statistics import Estimate


def verdict_of(
    evidence: Sequence[Evidence], controls: Sequence[Control] = (), caps: Sequence[str] = ()
) -> Verdict:
    """The verdict that the tests give: refuted by a failed test, supported only if all tests and controls passed.

    A control that did not come out as expected says that the test cannot tell: inconclusive. caps: reasons why nothing may
    be supported here (forced, stopped early, parts that were never replaced, too few prompts); one is enough.

    >>> verdict_of([Evidence("a", passed=True)], [Control("random", passed=False)])
    'inconclusive'
    >>> verdict_of([Evidence("a", passed=True)], caps=["Stopped before all controls were run."])
    'inconclusive'
    """
    if any(e.passed is False for e in evidence):
        return "refuted"
    if evidence and not caps and all(e.passed for e in evidence) and all(c.passed for c in controls):
        return "supported"
    return "inconclusive"


def any_of(
    evidence: Sequence[Evidence], controls: Sequence[Control] = (), caps: Sequence[str] = ()
) -> Verdict:
    """The verdict of tests of which one is enough: refuted where all failed, supported where one passed.

    >>> any_of([Evidence("flip", passed=None), Evidence("add", passed=True)])
    'supported'
    """
    if evidence and all(e.passed is False for e in evidence):
        return "inconclusive" if caps else "refuted"
    if any(e.passed for e in evidence) and not caps and all(c.passed is not False for c in controls):
        return "supported"
    return "inconclusive"


def claim_of(
    statement: str,
    evidence: Sequence[Evidence],
    controls: Sequence[Control] = (),
    notes: Sequence[str] = (),
    caps: Sequence[str] = (),
) -> Claim:
    """A claim with the verdict that its tests give; what caps it is said among the notes."""
    notes = [*caps, *(n for n in notes if n not in caps)]
    return Claim(
        statement, verdict_of(evidence, controls, caps), tuple(evidence), tuple(controls), tuple(notes)
    )


def inside(estimate: Estimate, low: float, high: float) -> bool | None:
    """Is the whole interval between two limits (True), outside them (False), or neither (None)?

    >>> from cutaway.statistics import Interval
    >>> inside(Estimate(0.9, Interval(0.8, 0.95), 30), 0.7, 1.3), inside(Estimate(0.5, Interval(0.3, 0.8), 9), 0.7, 1.3)
    (True, None)
    """
    interval = estimate.interval
    if interval is None:
        return None
    if low < interval.low and interval.high < high:
        return True
    return False if interval.high < low or interval.low > high else None


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
