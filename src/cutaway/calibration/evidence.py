"""Evidence that passes at a bar: the two forms that every check uses."""

from __future__ import annotations

from cutaway.claims import Evidence
from cutaway.statistics import Estimate


def at_least(name: str, figure: Estimate | float, bar: float, sentence: str) -> Evidence:
    """Evidence that passes when the figure reaches the bar; NaN does not.

    >>> at_least("accuracy", 0.9, 0.95, "It is right in 90 % of cases.").passed
    False
    """
    value = figure.value if isinstance(figure, Estimate) else figure
    estimate = figure if isinstance(figure, Estimate) else None
    return Evidence(
        name, estimate, value, bar, bool(value >= bar), f"{sentence} At least {bar:.3g} is asked."
    )


def at_most(name: str, value: float, limit: float, sentence: str) -> Evidence:
    """Evidence that passes when the figure stays within the limit; NaN does not.

    >>> at_most("inert", 0.01, 0.02, "It moves the metric by 1 %.").passed
    True
    """
    return Evidence(
        name, None, value, limit, bool(value <= limit), f"{sentence} At most {limit:.3g} is allowed."
    )
