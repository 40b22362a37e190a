"""Evidence that passes at a bar: the two forms that every check uses."""

from __future__ import annotations

from cutaway.claims import Evidence
from cutaway.statistics import Estimate


def at_least(name: str, figure: Estimate | float, bar: float, sentence: str) -> Evidence:
    """Evidence that passes when the figure reaches the bar; NaN does not.

    >>> at_least("accuracy", 0.9, 0.95, "It is right in 90 % of cases.").passed
    False
    """
    estimate, value = (figure, figure.value) if isinstance(figure, Estimate) else (None, figure)
    said = f"{sentence} At least {bar:.3g} is asked."
    return Evidence(name, estimate, value, bar, bool(value >= bar), said)


def at_most(name: str, value: float, limit: float, sentence: str) -> Evidence:
    """Evidence that passes when the figure stays within the limit; NaN does not.

    >>> at_most("inert", 0.01, 0.02, "It moves the metric by 1 %.").passed
    True
    """
    said = f"{sentence} At most {limit:.3g} is allowed."
    return Evidence(name, None, value, limit, bool(value <= limit), said)
