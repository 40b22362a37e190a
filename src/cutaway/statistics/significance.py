"""Tests by flipping signs, and p-values adjusted for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cutaway.errors import BadInput
from cutaway.statistics.estimate import Floats
from cutaway.statistics.examples import CELLS_AT_ONCE, cluster_numbers, cluster_sums, finite_examples

Alternative = Literal["two-sided", "greater", "less"]
_MAX_EXACT_CLUSTERS = 14


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Adjusted p-values of the same shape: rejecting `q <= a` keeps the false discovery rate at `a` (1995).

    Raises BadInput where a p-value is NaN or not between 0 and 1.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    from scipy.stats import false_discovery_control  # half a second of import, for who asks only

    array = np.asarray(p, dtype=np.float64)
    if not np.isfinite(array).all() or (array < 0).any() or (array > 1).any():
        raise BadInput("A p-value is not between 0 and 1.", "Pass p-values as they come from a test.")
    return false_discovery_control(array.ravel()).reshape(array.shape) if array.size else array.copy()


def least_p(clusters: int, n: int = 10_000) -> float:
    """The smallest two-sided p-value that `sign_flip_p` can give with so many examples (or clusters).

    >>> least_p(5), round(least_p(64), 6)
    (0.0625, 0.0001)
    """
    exact = clusters <= _MAX_EXACT_CLUSTERS and 2**clusters <= max(n, 2)
    return min(1.0, 2.0 ** (1 - clusters)) if exact else 1 / (n + 1)


def flips_needed(level: float = 0.05) -> int:
    """The fewest examples (or clusters) of which a two-sided sign-flip test can give a p-value of at most `level`.

    Of n there are 2^n patterns of signs, and the observed one and its mirror image are always counted: p is at least 2/2^n.

    >>> flips_needed(0.05)
    6
    """
    n = 1
    while 2.0 ** (1 - n) > level:
        n += 1
    return n


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
    array = finite_examples(values, "the values")
    total, _ = cluster_sums(array, cluster_numbers(len(array), clusters))
    signs, exact = _signs(len(total), n, seed)
    count = np.zeros(total.shape[1])
    for start in range(0, total.shape[1], CELLS_AT_ONCE):
        chunk = slice(start, start + CELLS_AT_ONCE)
        flipped, seen = signs @ total[:, chunk], total[:, chunk].sum(axis=0)
        slack = 1e-9 * np.abs(total[:, chunk]).sum(axis=0)
        if alternative == "two-sided":
            count[chunk] = (np.abs(flipped) >= np.abs(seen) - slack).sum(axis=0)
        else:
            side = 1.0 if alternative == "greater" else -1.0
            count[chunk] = (side * flipped >= side * seen - slack).sum(axis=0)
    p = count / len(signs) if exact else (count + 1) / (len(signs) + 1)
    return p.reshape(array.shape[1:])
