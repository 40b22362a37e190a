"""Shares of a whole: Wilson's interval, and the tails of the binomial distribution."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from cutaway.errors import BadInput
from cutaway.statistics.estimate import Estimate, Interval
from cutaway.statistics.resampling import checked_level


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
