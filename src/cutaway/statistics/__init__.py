"""Numbers with their uncertainty: intervals, tests, corrections for many comparisons, ranking."""

from cutaway.statistics.estimates import (
    Estimate,
    Estimates,
    Interval,
    benjamini_hochberg,
    bootstrap,
    bootstrap_many,
    bootstrap_ratio,
    bootstrap_statistic,
    proportion,
    sign_flip_p,
    t_quantile,
)

__all__ = [
    "Estimate",
    "Estimates",
    "Interval",
    "benjamini_hochberg",
    "bootstrap",
    "bootstrap_many",
    "bootstrap_ratio",
    "bootstrap_statistic",
    "proportion",
    "sign_flip_p",
    "t_quantile",
]
