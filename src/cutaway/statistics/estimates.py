"""Numbers with their uncertainty: bootstrap and Wilson intervals, sign-flip tests, corrected p-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cutaway.errors import BadInput, NotFinite

Floats = NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]
_CELLS_AT_ONCE = 4096
_MAX_EXACT_CLUSTERS = 14


@dataclass(frozen=True)
class Interval:
    """A confidence interval: `low` and `high`, at which level, by which method.

    >>> 0.5 in Interval(0.2, 0.7)
    True
    """

    low: float
    high: float
    level: float = 0.95
    method: str = "bootstrap"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        """`high - low`."""
        return self.high - self.low

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"low": self.low, "high": self.high, "level": self.level, "method": self.method}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Interval:
        """The inverse of `to_dict`."""
        return cls(float(data["low"]), float(data["high"]), float(data["level"]), str(data["method"]))


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval and the number of examples behind it; no interval where none can be given.

    >>> print(Estimate(0.9, Interval(0.85, 0.94), 100))
    0.900 [0.850, 0.940]
    """

    value: float
    interval: Interval | None
    n: int

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:z.3f} (n={self.n}, no interval)"
        return f"{self.value:z.3f} [{self.interval.low:z.3f}, {self.interval.high:z.3f}]"

    def above(self, threshold: float) -> bool | None:
        """Is the whole interval above the threshold (True), below it (False), or neither (None)?"""
        if self.interval is None:
            return None
        if self.interval.low > threshold:
            return True
        return False if self.interval.high < threshold else None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "value": self.value,
            "n": self.n,
            "interval": self.interval.to_dict() if self.interval else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `to_dict`."""
        interval = Interval.from_dict(data["interval"]) if data["interval"] else None
        return cls(float(data["value"]), interval, int(data["n"]))


@dataclass(frozen=True)
class Estimates:
    """Many estimates of one shape: `value`, `low`, `high` are arrays `[...]`; low and high are NaN without
    interval.
    """

    value: Floats
    low: Floats
    high: Floats
    n: int
    level: float = 0.95
    method: str = "bootstrap"

    def __getitem__(self, index: int | tuple[int, ...]) -> Estimate:
        low, high = float(self.low[index]), float(self.high[index])
        interval = None if math.isnan(low) else Interval(low, high, self.level, self.method)
        return Estimate(float(self.value[index]), interval, self.n)

    def __iter__(self) -> Iterator[Estimate]:
        return (self[index] for index in np.ndindex(self.value.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the estimated quantity."""
        return self.value.shape


def _finite(values: ArrayLike, what: str) -> Floats:
    """`values` as float64; NotFinite with the first bad place, BadInput when there are no examples."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[0] == 0:
        raise BadInput(f"There is no example in {what}.", "Pass an array whose first axis is the examples.")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        place = tuple(int(i) for i in bad[0])
        raise NotFinite(
            f"{len(bad)} of {array.size} entries of {what} are not finite, the first at {place}.",
            "Find the run that made them; they are not averaged away.",
        )
    return array


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise BadInput(f"The level {level} is not between 0 and 1.", "Use 0.95 for a 95 % interval.")
    return level


def _groups(n: int, clusters: Sequence[Any] | NDArray[Any] | None) -> NDArray[np.int64]:
    """Cluster number `[n]` of each example (each its own where no clusters are given)."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise BadInput(
            f"There are {n} examples but {len(clusters)} cluster labels.", "Give one label for each example."
        )
    number: dict[Any, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in clusters], dtype=np.int64)


def _sums(values: Floats, groups: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Sum of the examples `[g cells]` and their count `[g]`, of each cluster."""
    count = int(groups.max()) + 1
    flat = values.reshape(len(values), -1)
    total = np.zeros((count, flat.shape[1]))
    np.add.at(total, groups, flat)
    return total, np.bincount(groups, minlength=count).astype(np.float64)


#: Below so many degrees of freedom the exact distribution is bisected.
_EXACT_BELOW = 30


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t: exact below 30 degrees of freedom (bisection of its distribution, AS 26.7.3-4),
    else by Cornish-Fisher (AS 26.7.5), to three digits for 0.0005 <= p <= 0.9995.

    >>> round(t_quantile(0.975, 10), 2)
    2.23
    """
    if df < 1 or not 0 < p < 1:
        raise BadInput(f"There is no t quantile for p={p}, df={df}.", "Use 0 < p < 1 and df >= 1.")
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    if df < _EXACT_BELOW:
        return _bisected_t(p, df)
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df ** (i + 1) for i, term in enumerate(terms))


def _central_t(angle: float, df: int) -> float:
    """P(|T| < t) for t = sqrt(df) tan(angle): the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    odd = df % 2 == 1
    total, term = 0.0, math.cos(angle) if odd else 1.0
    for k in range(3 if odd else 2, df + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def _bisected_t(p: float, df: int) -> float:
    """The t with that share below it, to the last digits."""
    low, high, wanted = 0.0, math.pi / 2, abs(2 * p - 1)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_t(middle, df) < wanted else (low, middle)
    return math.copysign(math.sqrt(df) * math.tan((low + high) / 2), p - 0.5)


def _tail(level: float, clusters: int) -> float:
    """The tail to cut at, widened for few clusters ('expanded percentile interval', Hesterberg 2015, section
    3.3).
    """
    t = t_quantile((1 - level) / 2, clusters - 1)
    return NormalDist().cdf(math.sqrt(clusters / (clusters - 1)) * t)


def _draws(n_boot: int, groups: int, seed: int) -> Floats:
    """How often each cluster is drawn in each resample: counts `[n_boot g]`, rows sum to g."""
    return (
        np.random.default_rng(seed)
        .multinomial(groups, np.full(groups, 1 / groups), size=n_boot)
        .astype(np.float64)
    )


def _intervals(
    groups: int, resample: Callable[[Floats, slice], Floats], cells: int, n_boot: int, seed: int, level: float
) -> tuple[Floats, Floats]:
    """Ends `[cells]` of the percentile intervals of a resampled statistic `[n_boot cells]`, in chunks."""
    low, high = np.full(cells, np.nan), np.full(cells, np.nan)
    if groups < 2:
        return low, high
    draws = _draws(n_boot, groups, seed)
    tail = _tail(_level(level), groups)
    for start in range(0, cells, _CELLS_AT_ONCE):
        chunk = slice(start, min(start + _CELLS_AT_ONCE, cells))
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
    array = _finite(values, "the values")
    groups = _groups(len(array), clusters)
    total, count = _sums(array, groups)

    def resample(draws: Floats, chunk: slice) -> Floats:
        return (draws @ total[:, chunk]) / (draws @ count)[:, None]

    low, high = _intervals(len(count), resample, total.shape[1], n_boot, seed, level)
    shape = array.shape[1:]
    method = "bootstrap" if clusters is None else "cluster bootstrap"
    return Estimates(array.mean(axis=0), low.reshape(shape), high.reshape(shape), len(array), level, method)


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
        raise BadInput(
            f"bootstrap takes values [n], not of shape {list(array.shape)}.", "Use bootstrap_many."
        )
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
    groups = _groups(n, clusters)
    count = int(groups.max()) + 1
    value = np.asarray(statistic(np.ones((1, n))), dtype=np.float64)[0]
    low, high = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    if count >= 2:
        drawn = statistic(_draws(n_boot, count, seed)[:, groups])
        tail = _tail(_level(level), count)
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    method = "bootstrap" if clusters is None else "cluster bootstrap"
    return Estimates(value, low, high, n, level, method)


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
    above, below = _finite(numerator, "the numerator"), _finite(denominator, "the denominator")
    if above.shape != below.shape or above.ndim != 1:
        raise BadInput(
            f"The shapes {above.shape} and {below.shape} do not make a ratio.", "Pass two arrays [n]."
        )
    if below.mean() == 0:
        raise BadInput(
            "The denominator's mean is zero.", "There is no share of nothing; look at the numerator alone."
        )
    groups = _groups(len(above), clusters)
    total, _ = _sums(np.stack([above, below], axis=1), groups)
    value = float(above.mean() / below.mean())
    size = len(total)
    if size < 2:
        return Estimate(value, None, len(above))
    means = _draws(n_boot, size, seed) @ total
    tail = _tail(_level(level), size)
    if np.quantile(means[:, 1], tail) <= 0 <= np.quantile(means[:, 1], 1 - tail):
        return Estimate(value, None, len(above))
    low, high = np.quantile(means[:, 0] / means[:, 1], [tail, 1 - tail])
    method = "bootstrap" if clusters is None else "cluster bootstrap"
    return Estimate(value, Interval(float(low), float(high), level, method), len(above))


def proportion(k: int, n: int, level: float = 0.95) -> Estimate:
    """The share `k / n` with its Wilson score interval (Wilson 1927).

    >>> print(proportion(9, 10))
    0.900 [0.596, 0.982]
    """
    if n < 1 or not 0 <= k <= n:
        raise BadInput(f"{k} of {n} is no proportion.", "Use 0 <= k <= n with n >= 1.")
    z = NormalDist().inv_cdf(0.5 + _level(level) / 2)
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Estimate(share, Interval(low, high, level, "wilson"), n)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Adjusted p-values of the same shape: rejecting `q <= a` keeps the false discovery rate at `a` (1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    array = np.asarray(p, dtype=np.float64)
    flat = array.ravel()
    if not np.isfinite(flat).all() or (flat < 0).any() or (flat > 1).any():
        raise BadInput("A p-value is not between 0 and 1.", "Pass p-values as they come from a test.")
    if flat.size == 0:
        return array.copy()
    order = np.argsort(flat)
    scaled = flat[order] * flat.size / np.arange(1, flat.size + 1)
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted.reshape(array.shape)


def _signs(clusters: int, n: int, seed: int) -> tuple[Floats, bool]:
    """Rows of signs `[r g]`: all of them for few clusters, else `n` random ones; and whether all."""
    if clusters <= _MAX_EXACT_CLUSTERS and 2**clusters <= max(n, 2):
        bits = (np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1
        return 1.0 - 2.0 * bits, True
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, clusters)), False


def sign_flip_p(
    values: ArrayLike,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    n: int = 10_000,
    seed: int = 0,
    alternative: Alternative = "two-sided",
) -> Floats:
    """P-value `[...]` that the mean of `values [n ...]` is zero, by flipping the signs of whole clusters.

    Exact (all sign patterns) when there are no more than `n` of them and at most 14 clusters; else `n` random
    patterns with the observed one counted, so that no p-value is zero (Phipson and Smyth 2010).

    >>> float(sign_flip_p([1.0, 2.0, 1.5, 0.5]))
    0.125
    """
    array = _finite(values, "the values")
    total, _ = _sums(array, _groups(len(array), clusters))
    signs, exact = _signs(len(total), n, seed)
    count = np.zeros(total.shape[1])
    for start in range(0, total.shape[1], _CELLS_AT_ONCE):
        chunk = slice(start, start + _CELLS_AT_ONCE)
        flipped, seen = signs @ total[:, chunk], total[:, chunk].sum(axis=0)
        slack = 1e-9 * np.abs(total[:, chunk]).sum(axis=0)
        if alternative == "two-sided":
            count[chunk] = (np.abs(flipped) >= np.abs(seen) - slack).sum(axis=0)
        else:
            side = 1.0 if alternative == "greater" else -1.0
            count[chunk] = (side * flipped >= side * seen - slack).sum(axis=0)
    p = count / len(signs) if exact else (count + 1) / (len(signs) + 1)
    return p.reshape(array.shape[1:])
