"""Examples, as every statistic here takes them: finite numbers, each in a cluster of its own or of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cutaway.errors import BadInput, NotFinite
from cutaway.statistics.estimate import Floats

#: Cells of a table that are worked on together: their resamples stay in the processor's cache.
CELLS_AT_ONCE = 4096


def finite_examples(values: ArrayLike, what: str) -> Floats:
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


def cluster_numbers(n: int, clusters: Sequence[Any] | NDArray[Any] | None) -> NDArray[np.int64]:
    """Cluster number `[n]` of each example (each its own where no clusters are given)."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        remedy = "Give one label for each example."
        raise BadInput(f"There are {n} examples but {len(clusters)} cluster labels.", remedy)
    number: dict[Any, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in clusters], dtype=np.int64)


def cluster_sums(values: Floats, groups: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Sum of the examples `[g cells]` and their count `[g]`, of each cluster."""
    count = int(groups.max()) + 1
    flat = values.reshape(len(values), -1)
    total = np.zeros((count, flat.shape[1]))
    np.add.at(total, groups, flat)
    return total, np.bincount(groups, minlength=count).astype(np.float64)


def influences(values: Floats, groups: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """How far the mean moves by leaving out each cluster `[g cells]`, up to its sign, and the clusters' sizes `[g]`.

    `(g - 1) / g` times the sum of their products is the jackknife's (co)variance of the mean of `values [n cells]`; clusters
    are at least two.
    """
    total, count = cluster_sums(values, groups)
    n = count.sum()
    residual = total - count[:, None] * (total.sum(axis=0) / n)
    return residual / (n - count)[:, None], count
