"""Permutations of labels: exchanges under which the labels would be as likely if they meant nothing.

A null distribution must be made as the real figure was. Folds that spread the classes evenly would not do so for labels
exchanged across them: a fold that has more of a class than the rest leaves less of it to train on, and its outputs lean the
other way. So labels are exchanged inside the folds, which leaves every fold its classes, or, where that leaves too little to
exchange, the folds are made without looking at the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.probes.data.folds import Families

#: A family of which this share has one label counts as having that label.
_ALIKE = 0.8
#: So many families of equal size in each fold, on average, are enough to exchange inside the folds.
_INSIDE = 6
_WINDOW, _TRIES = 20, 20
#: With fewer different permutations nothing can be beyond one in twenty.
ENOUGH = 19


@dataclass(frozen=True)
class ExchangeRule:
    """How labels are exchanged so that they would be as likely if they meant nothing.

    Attributes:
        how: what is exchanged: examples, examples within groups, or groups.
        blind: must the folds be made without the labels, so that exchanging across them is fair?
    """

    how: str
    blind: bool

    @classmethod
    def of(cls, labels: np.ndarray, family: Families, folds: int) -> ExchangeRule:
        """What suits labels [n] (or [n l]): where they vary within families they are exchanged there (what differs between
        families stays as it is); where nearly all of each family has one label, families are exchanged."""
        size = np.bincount(family.of)
        if size.max() > 1 and _mixed(labels, family) >= 0.5:
            return cls("examples within groups", False)
        equal = bool((size == size[0]).all())
        blind = not equal or family.count < _INSIDE * folds
        return cls("examples" if size.max() == 1 else "groups", blind)


def _mixed(labels: np.ndarray, family: Families) -> float:
    """Share of the examples that stand in families without one label of their own; of values, the share of the variance
    that is within families."""
    if labels.ndim == 1 and not np.issubdtype(labels.dtype, np.integer):
        size = np.bincount(family.of)
        means = np.bincount(family.of, labels) / size
        whole = ((labels - labels.mean()) ** 2).sum()
        return float(((labels - means[family.of]) ** 2).sum() / max(whole, 1e-300))
    _, rows = np.unique(labels, axis=0, return_inverse=True)
    counts = np.zeros((family.count, int(rows.max()) + 1), dtype=int)
    np.add.at(counts, (family.of, rows.ravel()), 1)
    size = counts.sum(1)
    return float(size[counts.max(1) < _ALIKE * size].sum() / size.sum())


def permutations(
    labels: np.ndarray,
    family: Families,
    n: int,
    seed: int,
    rule: ExchangeRule,
    folds: np.ndarray | None = None,
) -> np.ndarray:
    """n random exchanges of examples [n_perm n], as the rule says; inside folds [n] unless it is blind or there are none.

    Families of equal size give each other their labels in random order; others, exchanged with families of similar size, as
    many of them as are needed (of any size, where size goes with the label). Exchanges that lose a class are drawn again.
    """
    members = [np.flatnonzero(family.of == f) for f in range(family.count)]
    inside = np.zeros(len(labels), dtype=int) if folds is None or rule.blind else folds
    exchanges = _draw(labels, members, inside, n, seed, rule.how, _WINDOW)
    if rule.how == "groups" and different(labels, exchanges) < min(n, ENOUGH):
        # size goes with the label
        exchanges = _draw(labels, members, inside, n, seed, rule.how, len(members))
    return exchanges


def different(labels: np.ndarray, permuted: np.ndarray) -> int:
    """How many different labellings the exchanges [b n] give, other than the real one."""
    real = labels.tobytes()
    return len({row.tobytes() for row in labels[permuted]} - {real})


def _draw(
    labels: np.ndarray, members: list[np.ndarray], inside: np.ndarray, n: int, seed: int, how: str, window: int
) -> np.ndarray:  # fmt: skip
    rng = np.random.default_rng(seed)
    out = np.empty((n, len(labels)), dtype=int)
    classes = len(np.unique(labels)) if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) else 0
    for b in range(n):
        for _ in range(_TRIES):
            out[b] = _one(members, inside, how, rng, window)
            if not classes or len(np.unique(labels[out[b]])) == classes:
                break
    return out


def _one(
    members: list[np.ndarray], inside: np.ndarray, how: str, rng: np.random.Generator, window: int
) -> np.ndarray:
    out = np.arange(len(inside))
    if how == "examples within groups":
        for m in members:
            out[m] = rng.permutation(m)
        return out
    if how == "examples":
        for part in np.unique(inside):
            examples = np.flatnonzero(inside == part)
            out[examples] = rng.permutation(examples)
        return out
    where = np.array([inside[m[0]] for m in members])
    for part in np.unique(where):
        groups = np.flatnonzero(where == part)
        size = np.array([len(members[f]) for f in groups])
        ranked = np.argsort(-size + rng.random(len(groups)) * 0.5, kind="stable")
        for a, z in zip(ranked, _alike(ranked, size, rng, window), strict=True):
            to, given = members[groups[a]], members[groups[z]]
            out[to] = rng.choice(given, len(to), replace=len(given) < len(to))
    return out


def _alike(ranked: np.ndarray, size: np.ndarray, rng: np.random.Generator, window: int) -> np.ndarray:
    """The families in an order that exchanges those of similar size (within windows of at least so many)."""
    out, start = ranked.copy(), 0
    while start < len(ranked):
        stop = start + window
        while stop < len(ranked) and size[ranked[stop]] == size[ranked[stop - 1]]:
            stop += 1
        if len(ranked) - stop < window:
            stop = len(ranked)
        out[start:stop] = rng.permutation(ranked[start:stop])
        start = stop
    return out
