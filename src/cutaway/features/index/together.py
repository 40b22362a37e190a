"""Which features are active on the same tokens: counts, Jaccard index and correlation of all pairs, by sparse products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutaway.features.index.entries import Entries, some_features
from cutaway.results import Work

Floats = NDArray[np.float64]
#: Pairs that are held at once.
_PAIRS = 4_000_000


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """What is known of every feature alone.

    Attributes:
        rows: how many tokens count.
        counts: [F] on how many it is active.
        total: [F] the sum of its activations.
        squares: [F] the sum of their squares.
        maxima: [F] the largest; 0 where it is never active.
        minima: [F] the smallest of those that are kept; 0 where it is never active.
    """

    rows: int
    counts: NDArray[np.int64]
    total: Floats
    squares: Floats
    maxima: Floats
    minima: Floats

    @property
    def mean(self) -> Floats:
        """[F] over all tokens."""
        return self.total / max(1, self.rows)

    @property
    def spread(self) -> Floats:
        """[F] the standard deviation over all tokens."""
        return np.sqrt(np.maximum(self.squares / max(1, self.rows) - self.mean**2, 0.0))


def sums_of(entries: Entries, rows: int) -> FeatureSums:
    """The sums of some features."""
    counts = np.diff(entries.starts)
    values = entries.values.astype(np.float64)
    owner = np.repeat(np.arange(len(counts)), counts)

    def sums(of: Floats) -> Floats:
        return np.bincount(owner, weights=of, minlength=len(counts)).astype(np.float64)

    maxima, minima = np.zeros(len(counts)), np.zeros(len(counts))
    alive = counts > 0
    if alive.any():
        begins = entries.starts[:-1][alive]
        maxima[alive] = np.maximum.reduceat(values, begins)
        minima[alive] = np.minimum.reduceat(values, begins)
    return FeatureSums(rows, counts, sums(values), sums(values**2), maxima, minima)


def joined_sums(parts: Sequence[FeatureSums]) -> FeatureSums:
    """Those of several runs of features, one after the other."""
    names = ("counts", "total", "squares", "maxima", "minima")
    return FeatureSums(parts[0].rows, *(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def jaccard(both: NDArray[Any], one: NDArray[Any], other: NDArray[Any]) -> Floats:
    """The share of the tokens where one of two is active at which both are; 0 where none ever is."""
    either = one + other - both
    return np.where(either > 0, both / np.maximum(either, 1), 0.0)


def correlation(
    products: NDArray[Any], rows: int, means: tuple[Floats, Floats], spreads: tuple[Floats, Floats]
) -> Floats:
    """Pearson's, over all tokens; 0 where one of two never changes. products: sums over tokens of one times the other."""
    scale = spreads[0] * spreads[1]
    covariance = products / max(1, rows) - means[0] * means[1]
    return np.where(scale > 0, covariance / np.where(scale > 0, scale, 1.0), 0.0)


@dataclass(frozen=True, eq=False)
class Nearest:
    """For every feature the others with which it is most correlated.

    Attributes:
        which: [F k] their numbers; -1 where there are fewer that are ever active together with it.
        correlation: [F k], the largest first.
        jaccard: [F k].
        both: [F k] on how many tokens both are active.
    """

    which: NDArray[np.int64]
    correlation: Floats
    jaccard: Floats
    both: NDArray[np.int64]


def nearest(
    read: Sequence[tuple[int, Callable[[], Entries]]], sums: FeatureSums, k: int, work: Work, label: str
) -> Nearest:
    """The nearest of all features, one block beside another, so that memory does not grow with their number.

    read: for each block of features the number of its first one, and what reads it.
    """
    size = len(sums.counts)
    k = min(k, max(0, size - 1))
    held = Nearest(
        np.full((size, k), -1),
        np.full((size, k), -np.inf),
        np.zeros((size, k)),
        np.zeros((size, k), np.int64),
    )
    done = 0
    for other, second in read if k else ():
        columns = _by_rows(second(), sums.rows)
        for first, block in read:
            entries = block()
            step = max(1, _PAIRS // max(1, columns.shape[1]))
            for begin in range(0, entries.size, step):
                end = min(begin + step, entries.size)
                tile = some_features(entries, begin, end)
                _take(held, _pairs(tile, columns, first + begin, other, sums), first + begin, other, k)
                work.check()
            done += 1
            work.step(label, done, len(read) ** 2)
    return Nearest(held.which, np.where(held.which < 0, 0.0, held.correlation), held.jaccard, held.both)


def _by_rows(entries: Entries, rows: int) -> Any:
    return entries.matrix(rows).astype(np.float64).tocsr()


def _pairs(
    tile: Entries, columns: Any, first: int, other: int, sums: FeatureSums
) -> tuple[Any, Floats, Floats]:
    """Of some features (first and on) with those of a block (other and on): counts, Jaccard index, correlation [t F]."""
    rows = tile.matrix(sums.rows).astype(np.float64).T
    products = (rows @ columns).toarray()
    ones, others = rows.copy(), columns.copy()
    ones.data[:], others.data[:] = 1.0, 1.0
    both = (ones @ others).toarray()
    mine, theirs = slice(first, first + len(both)), slice(other, other + both.shape[1])
    counts = sums.counts.astype(np.float64)
    close = jaccard(both, counts[mine, None], counts[None, theirs])
    r = correlation(
        products, sums.rows, (sums.mean[mine, None], sums.mean[None, theirs]),
        (sums.spread[mine, None], sums.spread[None, theirs]),
    )  # fmt: skip
    return both, close, r


def _take(held: Nearest, found: tuple[Any, Floats, Floats], first: int, other: int, k: int) -> None:
    """Take in what was found for some features, and keep the k nearest of each."""
    both, close, r = found
    own, theirs = np.arange(first, first + len(r)), np.arange(other, other + r.shape[1])
    rank = np.where((both > 0) & (own[:, None] != theirs), r, -np.inf)
    few = min(k, rank.shape[1])
    best = np.argpartition(-rank, few - 1, axis=1)[:, :few]
    mine = slice(first, first + len(r))
    taken = np.take_along_axis(rank, best, 1)
    every = (
        np.concatenate([held.which[mine], np.where(np.isfinite(taken), theirs[best], -1)], 1),
        np.concatenate([held.correlation[mine], taken], 1),
        np.concatenate([held.jaccard[mine], np.take_along_axis(close, best, 1)], 1),
        np.concatenate([held.both[mine], np.take_along_axis(both, best, 1).astype(np.int64)], 1),
    )
    order = np.argsort(-every[1], axis=1, kind="stable")[:, :k]
    chosen = [np.take_along_axis(values, order, 1) for values in every]
    gone = chosen[0] < 0
    held.which[mine], held.correlation[mine] = chosen[0], chosen[1]
    held.jaccard[mine], held.both[mine] = np.where(gone, 0.0, chosen[2]), np.where(gone, 0, chosen[3])
