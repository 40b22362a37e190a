"""Shares of a whole: Wilson's interval, and the tails of the binomial distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cutaway.errors import BadInput
from cutaway.statistics.estimate import Estimate, Floats, Interval
from cutaway.statistics.examples import cluster_numbers, finite_examples, influences
from cutaway.statistics.levels import checked_level, critical


def proportion(k: int, n: int, level: float = 0.95) -> Estimate:
    """The share `k / n` with its Wilson score interval (Wilson 1927).

    >>> print(proportion(9, 10))
    0.900 [0.596, 0.982]
    """
    from scipy.stats import binomtest  # half a second of import, for who asks for an interval

    if n < 1 or not 0 <= k <= n:
        raise BadInput(f"{k} of {n} is no proportion.", "Use 0 <= k <= n with n >= 1.")
    ends = binomtest(int(k), int(n)).proportion_ci(checked_level(level), "wilson")
    return Estimate(k / n, Interval(float(ends.low), float(ends.high), level, "wilson"), n)


def wilson(share: Floats, error: Floats, n: int, reach: float) -> tuple[Floats, Floats]:
    """Ends of Wilson's interval around shares with these standard errors, `reach` of them wide.

    As many examples are counted as would have that error if they were independent, at most n: where all are right and the
    error is zero, n.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.where(error > 0, share * (1 - share) / error**2, n)
    count = np.clip(count, 1.0, n)
    square = reach**2 / count
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    ends = np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)
    low, high = (np.where(np.isnan(error), np.nan, end) for end in ends)
    return low, high


def share_of(
    right: ArrayLike, clusters: Sequence[Any] | NDArray[Any] | None = None, level: float = 0.95
) -> Estimate:
    """The share of `right [n]` (of 0 and 1 or bool) with Wilson's interval; examples of one cluster count for fewer.

    None as interval with fewer than two clusters.

    >>> print(share_of([True] * 10)), print(share_of([1, 1, 0, 0, 1, 1], ["a", "a", "b", "b", "c", "c"]))
    1.000 [0.722, 1.000]
    0.667 [0.044, 0.989]
    (None, None)
    """
    values = finite_examples(right, "the answers")
    if values.ndim != 1 or not np.isin(values, (0.0, 1.0)).all():
        raise BadInput("These are no answers that are right or wrong.", "Pass an array [n] of 0 and 1.")
    n, k = len(values), int(values.sum())
    if clusters is None:
        return proportion(k, n, level)
    groups = cluster_numbers(n, clusters)
    if groups.max() < 1:
        return Estimate(k / n, None, n)
    moved, sizes = influences(values[:, None], groups)
    error = np.sqrt((len(sizes) - 1) / len(sizes) * (moved**2).sum(axis=0))
    low, high = wilson(np.array([k / n]), error, n, critical(level, sizes))
    return Estimate(k / n, Interval(float(low[0]), float(high[0]), level, "cluster wilson"), n)


def log_binomial_tail(n: int, k: float, p: float, side: Literal["upper", "lower"] = "upper") -> float:
    """log P(X >= k) (upper) or log P(X <= k) (lower) for X ~ Bin(n, p); minus infinity where that is impossible.

    Summed in log space, because the tails of scipy's distribution itself underflow to zero.

    >>> round(math.exp(log_binomial_tail(10, 8, 0.5)), 4), log_binomial_tail(100_000, 100_000, 0.5) < -69_000
    (0.0547, True)
    """
    from scipy.special import logsumexp
    from scipy.stats import binom  # half a second of import, for who asks only

    first, last = max(0, math.ceil(k - 1e-9)), min(n, math.floor(k + 1e-9))
    counts = np.arange(first, n + 1) if side == "upper" else np.arange(0, last + 1)
    return min(0.0, float(np.asarray(logsumexp(binom.logpmf(counts, n, p))))) if len(counts) else -math.inf
