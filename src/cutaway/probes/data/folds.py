"""Which examples belong together, and splits that do not part them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.errors import BadInput
from cutaway.probes.data.examples import ProbeData
from cutaway.results import brief

_DRAWS = 50


@dataclass(frozen=True, eq=False)
class Families:
    """Which examples belong together.

    Attributes:
        of: cluster number of each example [n].
        notes: what was found on the way.
    """

    of: np.ndarray
    notes: tuple[str, ...] = ()

    __repr__ = brief

    @classmethod
    def single(cls, n: int) -> Families:
        """n examples, each by itself."""
        return cls(np.arange(n))

    @property
    def count(self) -> int:
        """How many clusters."""
        return int(self.of.max()) + 1


def families(data: ProbeData) -> Families:
    """Join examples that share a group or stand in equal inputs.

    Equal texts are found and put together, so that none is in training and test at once; so are all tokens of one text.
    """
    keys = _input_keys(data)
    rows = np.asarray(data.rows)
    merged = [keys[r] for r in rows]
    parent = list(range(data.n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[Any, int] = {}
    for i in range(data.n):
        marks = [("input", merged[i])] + ([("group", data.groups[i])] if data.groups is not None else [])
        for mark in marks:
            parent[root(i)] = root(seen.setdefault(mark, i))
    number: dict[int, int] = {}
    of = np.array([number.setdefault(root(i), len(number)) for i in range(data.n)])
    notes = []
    used = np.unique(rows)
    repeats = len(used) - len({keys[r] for r in used})
    if repeats:
        notes.append(f"{repeats} inputs repeat others; equal inputs are kept in the same fold.")
        places = [(merged[i], None if data.spans is None else data.spans[i]) for i in range(data.n)]
        labels: dict[Any, set[Any]] = {}
        for place, label in zip(places, data.labels.tolist(), strict=True):
            labels.setdefault(place, set()).add(str(label))
        torn = sum(len(v) > 1 for v in labels.values())
        if torn and data.kind != "continuous":
            notes.append(f"{torn} of the repeated inputs carry different labels.")
    return Families(of, tuple(notes))


def _input_keys(data: ProbeData) -> list[Any]:
    if not data.of_tokens:
        tensors = list(data.inputs.values())  # type: ignore[union-attr]
        return [b"".join(t[i].cpu().numpy().tobytes() for t in tensors) for i in range(data.n_inputs)]
    return [x if isinstance(x, str) else tuple(int(t) for t in x) for x in data.inputs]


def _rough(data: ProbeData) -> np.ndarray:
    """A class number [n] for balancing folds: the class, a quarter of the values, or the rarest label there is."""
    labels = data.labels
    if data.kind == "continuous":
        return np.searchsorted(np.quantile(labels, [0.25, 0.5, 0.75]), labels)
    if data.kind == "multilabel":
        rarity = labels.sum(0)
        return np.where(labels > 0, rarity, np.inf).argmin(1)
    return labels.astype(int)


def assign_folds(data: ProbeData, family: Families, k: int, seed: int, blind: bool = False) -> np.ndarray:
    """Fold number [n] of each example: families stay whole, classes are spread evenly.

    blind: spread examples evenly without looking at the labels, but for drawing again where a training part would lack a
    class. Then labels may be exchanged across folds (`exchange`).

    Raises `BadInput` where there are fewer families than folds, or a class so rare that a training part would lack it.
    """
    if k < 2:
        raise BadInput(f"{k} folds leave nothing to test on.", "Use at least 2.")
    if family.count < k:
        raise BadInput(
            f"{data.n} examples in {family.count} groups cannot be split into {k} folds.",
            f"Use folds={max(2, family.count)}, or give more groups."
            if family.count > 1
            else "Give examples of at least two groups (or texts): a probe must be tested on others than it was fitted on.",
        )
    rng = np.random.default_rng(seed)
    rough = np.zeros(data.n, dtype=int) if blind else _rough(data)
    for last in range(_DRAWS - 1, -1, -1) if blind else (0,):
        folds = _spread(rough, family, k, rng)
        try:
            _check_training(data, folds, k)
        except BadInput:
            if last == 0:
                raise
        else:
            return folds
    raise AssertionError("unreachable")


def _spread(rough: np.ndarray, family: Families, k: int, rng: np.random.Generator) -> np.ndarray:
    """Fold number [n]: families whole, each class number in `rough` [n] spread evenly, ties broken at random."""
    table = np.zeros((family.count, int(rough.max()) + 1))
    np.add.at(table, (family.of, rough), 1)
    order = rng.permutation(family.count)
    order = order[np.argsort(-table[order].max(1), kind="stable")]
    wanted = table.sum(0) / k
    load, of = np.zeros((k, table.shape[1])), np.zeros(family.count, dtype=int)
    for f in order:
        size = wanted.clip(min=1)
        cost = (((load + table[f]) / size) ** 2).sum(1) - ((load / size) ** 2).sum(1)
        cost = cost + 1e-6 * load.sum(1)
        best = np.flatnonzero(cost <= cost.min() + 1e-9)
        of[f] = best[rng.integers(len(best))]
        load[of[f]] += table[f]
    return of[family.of]


def _check_training(data: ProbeData, folds: np.ndarray, k: int) -> None:
    if data.kind == "continuous":
        return
    tables = data.labels
    if data.kind != "multilabel":
        tables = np.eye(len(data.classes), dtype=int)[data.labels.astype(int)]
    for fold in range(k):
        lacking = np.flatnonzero(tables[folds != fold].sum(0) == 0)
        if len(lacking):
            name = data.classes[int(lacking[0])]
            raise BadInput(
                f"All {int(tables[:, lacking[0]].sum())} examples of {name!r} fall into one fold, so that no probe could "
                "be fitted and tested on it.",
                "Give examples of that class in at least two groups, or leave the class out.",
            )


def source_folds(sources: Sequence[Any], most: int) -> tuple[np.ndarray, tuple[str, ...], str | None]:
    """Fold number [n] for leaving one source out, names of the folds, and a note where sources had to share one."""
    names = sorted({str(s) for s in sources})
    number = {s: i % most for i, s in enumerate(names)}
    folds = np.array([number[str(s)] for s in sources])
    if len(names) <= most:
        return folds, tuple(names), None
    held = tuple(", ".join(n for n in names if number[n] == i)[:40] for i in range(most))
    return folds, held, f"{len(names)} sources are left out in {most} batches."
