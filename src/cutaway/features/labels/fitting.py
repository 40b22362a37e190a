"""Labels fitted on training texts: for every feature and trait the set of values that predicts its activation best.

Sets that are best by F1 are found exactly: they hold the values at which the feature is active most often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutaway.features.labels.traits import FORMS, TokenTrait
from cutaway.results import Work

Floats = NDArray[np.float64]
#: A value must have been seen so often where the feature is active; a set holds so many at most.
_SEEN, _LARGEST = 2, 64
#: What doubling a set costs, in F1.
_DOUBLING = 0.01


@dataclass(frozen=True, eq=False)
class ActiveRows:
    """Where features are active, by columns.

    Attributes:
        starts: [G + 1] where the rows of each feature begin.
        rows: [n] ascending within a feature.
        values: [n] above zero.
        n: how many rows there are.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    n: int

    @classmethod
    def of(cls, matrix: Any) -> ActiveRows:
        """Of a sparse matrix [rows features] by columns; only what is above zero."""
        positive = matrix.data > 0
        before = np.concatenate([[0], np.cumsum(positive)])
        return cls(
            before[matrix.indptr],
            matrix.indices[positive].astype(np.int64),
            matrix.data[positive],
            matrix.shape[0],
        )

    @property
    def size(self) -> int:
        """How many features."""
        return len(self.starts) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """[G] on how many rows each is active."""
        return np.diff(self.starts)

    @property
    def owner(self) -> NDArray[np.int64]:
        """[n] the feature of each entry."""
        return np.repeat(np.arange(self.size), self.counts)

    def of_feature(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and activations of one feature."""
        part = slice(int(self.starts[i]), int(self.starts[i + 1]))
        return self.rows[part], self.values[part]

    def among(self, wanted: NDArray[np.bool_]) -> ActiveRows:
        """Only the rows that are wanted [N]; their numbers stay."""
        kept = wanted[self.rows]
        before = np.concatenate([[0], np.cumsum(kept)])
        return ActiveRows(before[self.starts], self.rows[kept], self.values[kept], self.n)


@dataclass(frozen=True, eq=False)
class TraitSets:
    """For each feature the best set of values of one trait.

    Attributes:
        trait: whose values they are.
        starts: [G + 1] where the set of each feature begins.
        values: [n] ascending within a feature.
        weights: [n] the mean activation at each value.
        order: [n] the rank of each value in its set, the surest first.
        f1: [G] on the training texts.
        score: [G] F1 less what form and size cost; minus infinity where there is no set.
    """

    trait: TokenTrait
    starts: NDArray[np.int64]
    values: NDArray[np.int64]
    weights: Floats
    order: NDArray[np.int64]
    f1: Floats
    score: Floats

    def of(self, i: int) -> NDArray[np.int64]:
        """The values of one feature's set, the surest first."""
        part = slice(int(self.starts[i]), int(self.starts[i + 1]))
        return self.values[part][np.argsort(self.order[part])]

    def text(self, i: int) -> str:
        """The label of one feature."""
        return self.trait.said(self.of(i).tolist())

    def predict(self, i: int, rows: NDArray[np.int64]) -> Floats:
        """The activation of one feature that its set predicts at rows [...]; 0 where it predicts none."""
        part = slice(int(self.starts[i]), int(self.starts[i + 1]))
        mine, weights = self.values[part], self.weights[part]
        if not len(mine):
            return np.zeros(rows.shape)
        here = self.trait.values[rows]
        at = np.minimum(np.searchsorted(mine, here), len(mine) - 1)
        return np.where(mine[at] == here, weights[at], 0.0)


def fitted(
    active: ActiveRows,
    train: NDArray[np.bool_],
    traits: Sequence[TokenTrait],
    allowed: NDArray[np.bool_] | None,
    work: Work,
) -> list[TraitSets]:
    """The best sets of every trait, from the rows that are for training [N].

    allowed: [G values of the trait "say"] the tokens that each feature may be said to say.
    """
    known = active.among(train)
    found = []
    for i, trait in enumerate(traits):
        may = allowed if trait.form == "say" else None
        found.append(_sets(known, train, trait, may))
        work.step("fitting labels", i + 1, len(traits))
    return found


def _sets(
    known: ActiveRows, train: NDArray[np.bool_], trait: TokenTrait, allowed: NDArray[np.bool_] | None
) -> TraitSets:
    from scipy.sparse import csr_array  # half a second of import, for who asks only

    here = trait.values[known.rows]
    has = here >= 0
    table: Any = csr_array(
        (np.ones(int(has.sum())) + 1j * known.values[has], (known.owner[has], here[has])),
        shape=(known.size, trait.size),
    )
    table.sum_duplicates()
    owner, value = np.repeat(np.arange(known.size), np.diff(table.indptr)), table.indices.astype(np.int64)
    hits, sums = np.rint(table.data.real), table.data.imag
    total = np.bincount(trait.values[train & (trait.values >= 0)], minlength=trait.size).astype(np.float64)
    kept = hits >= _SEEN
    if allowed is not None:
        kept &= allowed[owner, value]
    owner, value, hits, sums = owner[kept], value[kept], hits[kept], sums[kept]
    seen = total[value]
    order = np.lexsort((value, -hits / (seen + 1), owner))
    owner, value, hits, sums, seen = owner[order], value[order], hits[order], sums[order], seen[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=known.size))]).astype(np.int64)
    rank = np.arange(len(owner)) - starts[owner]
    f1 = 2 * _running(hits, starts, owner) / (_running(seen, starts, owner) + known.counts[owner])
    score = f1 - FORMS[trait.form] - _DOUBLING * np.log2(rank + 1)
    score[rank >= _LARGEST] = -np.inf
    best, top = np.full(known.size, -np.inf), np.zeros(known.size, np.int64)
    there = np.diff(starts) > 0
    if there.any():
        best[there] = np.maximum.reduceat(score, starts[:-1][there])
        first = np.nonzero(score == best[owner])[0][::-1]
        top[owner[first]] = rank[first]  # of equal ones the smallest set
    chosen = rank <= top[owner]
    quality = np.zeros(known.size)
    quality[there] = f1[(starts[:-1] + top)[there]]
    owner, value, rank = owner[chosen], value[chosen], rank[chosen]
    weights = sums[chosen] / np.maximum(seen[chosen], 1)
    by_value = np.lexsort((value, owner))
    ends = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=known.size))]).astype(np.int64)
    return TraitSets(trait, ends, value[by_value], weights[by_value], rank[by_value], quality, best)


def _running(values: Floats, starts: NDArray[np.int64], owner: NDArray[np.int64]) -> Floats:
    """Running sums within each feature."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[1:] - total[starts[owner]]
