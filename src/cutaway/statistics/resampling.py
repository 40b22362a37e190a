"""Bootstrap intervals of means, ratios and any statistic; whole clusters are drawn, and few of them are allowed for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cutaway.errors import BadInput
from cutaway.statistics.estimate import Estimate, Estimates, Floats, Interval
from cutaway.statistics.examples import CELLS_AT_ONCE, cluster_numbers, cluster_sums, finite_examples


def checked_level(level: float) -> float:
    """The level of an interval; BadInput where it is not between 0 and 1."""
    if not 0 < level < 1:
        raise BadInput(f"The level {level} is not between 0 and 1.", "Use 0.95 for a 95 % interval.")
    return level


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t.

    >>> round(t_quantile(0.975, 10), 2)
    2.23
    """
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without half a second of import

    if df < 1 or not 0 < p < 1:
        raise BadInput(f"There is no t quantile for p={p}, df={df}.", "Use 0 < p < 1 and df >= 1.")
    return float(stdtrit(df, p))


def _tail(level: float, clusters: int) -> float:
    """The tail to cut at, widened for few clusters ('expanded percentile interval', Hesterberg 2015, section
    3.3).
    """
    t = t_quantile((1 - level) / 2, clusters - 1)
    return NormalDist().cdf(math.sqrt(clusters / (clusters - 1)) * t)


def _draws(n_boot: int, groups: int, seed: int) -> Floats:
    """How often each cluster is drawn in each resample: counts `[n_boot g]`, rows sum to g."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=n_boot).astype(np.float64)


def _method(clusters: object) -> str:
    return "bootstrap" if clusters is None else "cluster bootstrap"


def _intervals(
    groups: int, resample: Callable[[Floats, slice], Floats], cells: int, n_boot: int, seed: int, level: float
) -> tuple[Floats, Floats]:
    """Ends `[cells]` of the percentile intervals of a resampled statistic `[n_boot cells]`, in chunks."""
    low, high = np.full(cells, np.nan), np.full(cells, np.nan)
    if groups < 2:
        return low, high
    draws = _draws(n_boot, groups, seed)
    tail = _tail(checked_level(level), groups)
    for start in range(0, cells, CELLS_AT_ONCE):
        chunk = slice(start, min(start + CELLS_AT_ONCE, cells))
        low[chunk], high[chunk] = np.quantile(resample(draws, chunk), [tail, 1 - tail], axis=0)
    return low, high


def bootstrap_many(
    values: ArrayLike,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimates:
    """Mean over the examples of `values [n ...]`, with a bootstrap interval for each cell `[...]`.

    Examples of one cluster are drawn together. The percentile interval is widened for few clusters
    (Hesterberg 2015). With fewer than two clusters there is no interval: `low` and `high` are NaN. Raises
    NotFinite (with the place) on NaN or infinity, BadInput on no examples.
    """
    array = finite_examples(values, "the values")
    groups = cluster_numbers(len(array), clusters)
    total, count = cluster_sums(array, groups)

    def resample(draws: Floats, chunk: slice) -> Floats:
        return (draws @ total[:, chunk]) / (draws @ count)[:, None]

    low, high = _intervals(len(count), resample, total.shape[1], n_boot, seed, level)
    shape = array.shape[1:]
    ends = low.reshape(shape), high.reshape(shape)
    return Estimates(array.mean(axis=0), *ends, len(array), level, _method(clusters))


def bootstrap(
    values: ArrayLike,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean of `values [n]` with a bootstrap interval; see `bootstrap_many`.

    >>> print(bootstrap([1.0, 2.0, 3.0, 4.0] * 25))
    2.500 [2.280, 2.729]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        remedy = "Use bootstrap_many."
        raise BadInput(f"bootstrap takes values [n], not of shape {list(array.shape)}.", remedy)
    return bootstrap_many(array, clusters, n_boot, seed, level)[()]


def bootstrap_statistic(
    statistic: Callable[[Floats], Floats],
    n: int,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimates:
    """Any statistic of weighted examples, with a bootstrap interval for each of its cells.

    statistic: how often each example counts `[b n]` -> values `[b cells]` (NaN where a resample has none). Whole
    clusters are drawn; the percentile interval is widened for few clusters (Hesterberg 2015).

    >>> x = np.arange(100.0)
    >>> float(bootstrap_statistic(lambda w: (w @ x[:, None]) / w.sum(1, keepdims=True), 100).value[0])
    49.5
    """
    groups = cluster_numbers(n, clusters)
    count = int(groups.max()) + 1
    value = np.asarray(statistic(np.ones((1, n))), dtype=np.float64)[0]
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    if count >= 2:
        drawn = statistic(_draws(n_boot, count, seed)[:, groups])
        tail = _tail(checked_level(level), count)
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    return Estimates(value, low, high, n, level, _method(clusters))


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """`mean(numerator [n]) / mean(denominator [n])` with a bootstrap interval, both resampled together.

    For shares such as faithfulness: what is restored, of what there was to restore. The interval is None when
    the denominator's own interval spans zero: the share means nothing then. Raises BadInput when its mean is
    zero.
    """
    above = finite_examples(numerator, "the numerator")
    below = finite_examples(denominator, "the denominator")
    if above.shape != below.shape or above.ndim != 1:
        remedy = "Pass two arrays [n]."
        raise BadInput(f"The shapes {above.shape} and {below.shape} do not make a ratio.", remedy)
    if below.mean() == 0:
        remedy = "There is no share of nothing; look at the numerator alone."
        raise BadInput("The denominator's mean is zero.", remedy)
    groups = cluster_numbers(len(above), clusters)
    total, _ = cluster_sums(np.stack([above, below], axis=1), groups)
    value = float(above.mean() / below.mean())
    size = len(total)
    if size < 2:
        return Estimate(value, None, len(above))
    means = _draws(n_boot, size, seed) @ total
    tail = _tail(checked_level(level), size)
    if np.quantile(means[:, 1], tail) <= 0 <= np.quantile(means[:, 1], 1 - tail):
        return Estimate(value, None, len(above))
    low, high = np.quantile(means[:, 0] / means[:, 1], [tail, 1 - tail])
    return Estimate(value, Interval(float(low), float(high), level, _method(clusters)), len(above))
