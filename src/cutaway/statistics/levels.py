"""How sure an interval is to be, and how much wider few clusters make it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import BadInput


def checked_level(level: float) -> float:
    """The level of an interval; BadInput where it is not between 0 and 1."""
    if not 0 < level < 1:
        raise BadInput(f"The level {level} is not between 0 and 1.", "Use 0.95 for a 95 % interval.")
    return level


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t.

    >>> round(t_quantile(0.975, 10), 2)
    2.23
    """
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without half a second of import

    if not (df >= 1 and 0 < p < 1):
        raise BadInput(f"There is no t quantile for p={p}, df={df}.", "Use 0 < p < 1 and df >= 1.")
    return float(stdtrit(df, p))


def degrees(sizes: NDArray[Any]) -> float:
    """Degrees of freedom of the jackknifed variance of a mean over clusters of these sizes [g], at least 1.

    Satterthwaite's, as Bell and McCaffrey (2002) take them: those of the chi-squared distribution with the mean and the
    variance that the estimated variance has for independent examples. g - 1 where the clusters are equally large, fewer the
    more the largest outweigh the others.

    >>> degrees(np.full(5, 8)), round(degrees(np.array([2, 4, 16, 8])), 1)
    (4.0, 1.6)
    """
    c = np.asarray(sizes, dtype=np.float64)
    n = c.sum()
    w = (c / (n - c)) ** 2
    mean = (w * (1 / c - 1 / n)).sum()
    square = (w**2 * (1 / c**2 - 2 / (c * n))).sum() + w.sum() ** 2 / n**2
    return max(1.0, round(float(mean**2 / square), 9))


def critical(level: float, sizes: NDArray[Any]) -> float:
    """How many standard errors an interval of this level reaches, for clusters of these sizes [g].

    >>> round(critical(0.95, np.ones(2)), 1), round(critical(0.95, np.ones(1000)), 2)
    (12.7, 1.96)
    """
    return t_quantile((1 + checked_level(level)) / 2, degrees(sizes))
