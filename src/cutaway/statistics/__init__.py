"""Numbers with their uncertainty: intervals, tests, corrections for many comparisons, ranking."""

from cutaway.statistics.estimate import Estimate, Estimates, Interval
from cutaway.statistics.proportions import log_binomial_tail, proportion
from cutaway.statistics.ranking import auroc, average_precision
from cutaway.statistics.resampling import (
    bootstrap,
    bootstrap_many,
    bootstrap_ratio,
    bootstrap_statistic,
    t_quantile,
)
from cutaway.statistics.significance import benjamini_hochberg, sign_flip_p

__all__ = [
    "Estimate", "Estimates", "Interval", "auroc", "average_precision", "benjamini_hochberg", "bootstrap",
    "bootstrap_many", "bootstrap_ratio", "bootstrap_statistic", "log_binomial_tail", "proportion",
    "sign_flip_p", "t_quantile",
]  # fmt: skip
