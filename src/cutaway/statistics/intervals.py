"""Intervals of means, of ratios of means, and of any statistic; whole clusters count, and few of them are allowed for.

Which method stands where was chosen by how often its intervals hold the true value, and then by their width, in simulations
that `benchmarks/intervals.py` repeats (docs/benchmarks/intervals.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cutaway.errors import BadInput
from cutaway.statistics.estimate import Estimate, Estimates, Floats, Interval
from cutaway.statistics.examples import cluster_numbers, finite_examples, influences
from cutaway.statistics.levels import critical
from cutaway.statistics.proportions import wilson

#: Below this, as a share of the values, the spread of examples is rounding.
_ROUNDING = 1e-13


def means_of(
    values: ArrayLike, clusters: Sequence[Any] | NDArray[Any] | None = None, level: float = 0.95
) -> Estimates:
    """Mean over the examples of `values [n ...]`, with an interval for each cell `[...]`.

    Single examples: Student's t after Hall's transformation, which removes the skewness (Hall 1992). Clusters: t with the
    jackknife over clusters and Bell and McCaffrey's degrees of freedom. With fewer than two clusters there is no interval:
    `low` and `high` are NaN. Raises NotFinite (with the place) on NaN or infinity, BadInput on no examples.
    """
    array = finite_examples(values, "the values")
    groups, n = cluster_numbers(len(array), clusters), len(array)
    mean = array.mean(axis=0)
    method = "skew-corrected t" if clusters is None else "cluster t"
    if groups.max() < 1:
        none = np.full(mean.shape, np.nan)
        return Estimates(mean, none, none, n, level, method)
    moved, sizes = influences(array.reshape(n, -1), groups)
    reach, count = critical(level, sizes), len(sizes)
    error = np.sqrt((count - 1) / count * (moved**2).sum(axis=0))
    error[error < _ROUNDING * np.abs(array).max(initial=0.0)] = 0.0
    skew = _skewness(moved) if clusters is None else np.zeros_like(error)
    ends = (mean.ravel() - _unskewed(side * reach, skew, count) * error for side in (1, -1))
    low, high = (end.reshape(mean.shape) for end in ends)
    return Estimates(mean, low, high, n, level, method)


def _skewness(residuals: Floats) -> Floats:
    """Of the examples that these are the residuals of `[n cells]`; 0 where they do not differ."""
    n = len(residuals)
    spread = np.sqrt((residuals**2).sum(axis=0) / (n - 1))
    scaled = residuals / np.where(spread > 0, spread, 1.0)
    return (scaled**3).mean(axis=0)


def _unskewed(reach: float, skew: Floats, n: int) -> Floats:
    """The t statistic that Hall's transformation takes to `reach`.

    The transformation is `s + g s^2 / 3 + g^2 s^3 / 27 + g / 6n` of `s = t / sqrt(n)`, a cube, which is inverted by a root.
    """
    none = np.abs(skew) < 1e-6
    g = np.where(none, 1.0, skew)
    root = np.cbrt(1 + g * (reach / math.sqrt(n) - g / (6 * n)))
    return np.where(none, reach, math.sqrt(n) * 3 / g * (root - 1))


def mean_of(
    values: ArrayLike, clusters: Sequence[Any] | NDArray[Any] | None = None, level: float = 0.95
) -> Estimate:
    """Mean of `values [n]` with its interval; see `means_of`.

    >>> print(mean_of([1.0, 2.0, 3.0, 4.0] * 25))
    2.500 [2.277, 2.723]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise BadInput(f"mean_of takes values [n], not of shape {list(array.shape)}.", "Use means_of.")
    return means_of(array, clusters, level)[()]


def ratio_of(
    numerator: ArrayLike,
    denominator: ArrayLike,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    level: float = 0.95,
) -> Estimate:
    """`mean(numerator [n]) / mean(denominator [n])` with Fieller's interval (1954), in which both are uncertain.

    For shares such as faithfulness: what is restored, of what there was to restore. The interval is None when the
    denominator's own interval spans zero: the share means nothing then. Raises BadInput when its mean is zero.

    >>> print(ratio_of([1.0, 2.0, 3.0, 2.0], [2.0, 4.1, 5.9, 4.0]))
    0.500 [0.470, 0.515]
    """
    above = finite_examples(numerator, "the numerator")
    below = finite_examples(denominator, "the denominator")
    if above.shape != below.shape or above.ndim != 1:
        remedy = "Pass two arrays [n]."
        raise BadInput(f"The shapes {above.shape} and {below.shape} do not make a ratio.", remedy)
    a, b = float(above.mean()), float(below.mean())
    if b == 0:
        remedy = "There is no share of nothing; look at the numerator alone."
        raise BadInput("The denominator's mean is zero.", remedy)
    groups = cluster_numbers(len(above), clusters)
    ends = _fieller(a, b, np.stack([above, below], axis=1), groups, level)
    method = "Fieller" if clusters is None else "cluster Fieller"
    return Estimate(a / b, Interval(*ends, level, method) if ends else None, len(above))


def _fieller(
    a: float, b: float, both: Floats, groups: NDArray[np.int64], level: float
) -> tuple[float, float] | None:
    """The shares s at which `mean(a - s b)` is not told from zero: the roots of `A s^2 - 2 B s + C`; None where A <= 0."""
    if groups.max() < 1:
        return None
    moved, sizes = influences(both, groups)
    spread = (len(sizes) - 1) / len(sizes) * (moved.T @ moved) * critical(level, sizes) ** 2
    square, cross, rest = b * b - spread[1, 1], a * b - spread[0, 1], a * a - spread[0, 0]
    if square <= 0:
        return None
    half = math.sqrt(max(0.0, cross * cross - square * rest))
    return (cross - half) / square, (cross + half) / square


def statistic_of(
    statistic: Callable[[Floats], Floats],
    n: int,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    scale: Literal["share", "correlation", "any"] = "any",
) -> Estimates:
    """Any statistic of weighted examples, with an interval from its bootstrap standard error for each of its cells.

    Args:
        statistic: how often each example counts `[b n]` -> values `[b cells]` (NaN where a resample has none).
        n: examples.
        clusters: [n] labels; whole clusters are drawn. There is no interval with fewer than two.
        n_boot: resamples.
        seed: of the resamples.
        level: of the intervals.
        scale: "share" for what lies between 0 and 1 (an accuracy, an AUROC): Wilson's interval for as many examples as have
            that standard error, which does not vanish where all are right; "correlation" for what lies between -1 and 1: t
            of the standard error on Fisher's z scale, and where no resample differs (all on one line) Wilson's interval of
            its share of the way from -1 to 1; "any": t of the standard error.

    >>> x = np.arange(100.0)
    >>> float(statistic_of(lambda w: (w @ x[:, None]) / w.sum(1, keepdims=True), 100).value[0])
    49.5
    """
    groups = cluster_numbers(n, clusters)
    sizes = np.bincount(groups)
    value = np.asarray(statistic(np.ones((1, n))), dtype=np.float64)[0]
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    if (count := len(sizes)) >= 2:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(count, np.full(count, 1 / count), size=n_boot).astype(np.float64)
        drawn = statistic(draws[:, groups])
        told = np.isfinite(drawn).sum(axis=0) > 1
        error = np.full(value.shape, np.nan)
        error[told] = np.nanstd(drawn[:, told], axis=0) * math.sqrt(count / (count - 1))
        reach = critical(level, sizes)
        if scale == "share":
            low, high = wilson(value, error, n, reach)
        elif scale == "correlation":
            low, high = _fisher(value, error, n, reach)
        else:
            low, high = value - reach * error, value + reach * error
    return Estimates(value, low, high, n, level, "bootstrap" if clusters is None else "cluster bootstrap")


def _fisher(value: Floats, error: Floats, n: int, reach: float) -> tuple[Floats, Floats]:
    """Ends of intervals around correlations with these standard errors, which z = artanh divides by 1 - r^2."""
    left = 1 - value**2
    none = (error < _ROUNDING) | (left < 1e-9)
    z = np.arctanh(np.where(none, 0.0, value))
    half = reach * error / np.where(none, 1.0, left)
    flat = wilson(np.clip((1 + value) / 2, 0.0, 1.0), np.where(np.isnan(error), np.nan, 0.0), n, reach)
    low, high = (
        np.where(none, 2 * end - 1, np.tanh(z + side * half)) for side, end in zip((-1, 1), flat, strict=True)
    )
    return low, high
