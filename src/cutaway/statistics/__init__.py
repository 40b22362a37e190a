"""Numbers with their uncertainty: intervals, tests, corrections for many comparisons, ranking."""

from cutaway.statistics.estimate import Estimate, Estimates, Interval
from cutaway.statistics.intervals import mean_of, means_of, ratio_of, statistic_of
from cutaway.statistics.levels import t_quantile
from cutaway.statistics.proportions import log_binomial_tail, proportion, share_of
from cutaway.statistics.ranking import auroc, average_precision
from cutaway.statistics.significance import benjamini_hochberg, flips_needed, least_p, sign_flip_p

__all__ = [
    "Estimate", "Estimates", "Interval", "auroc", "average_precision", "benjamini_hochberg", "flips_needed",
    "least_p", "log_binomial_tail", "mean_of", "means_of", "proportion", "ratio_of", "share_of", "sign_flip_p",
    "statistic_of", "t_quantile",
]  # fmt: skip
