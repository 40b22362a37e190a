"""What a probe must beat: label permutations, a control task, the tokens themselves, other known columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.data.examples import ProbeData
from cutaway.probes.reading.places import Places

if TYPE_CHECKING:
    from cutaway.network import Network

_MOST_TOKENS = 4000


def control_tasks(data: ProbeData, types: np.ndarray | None, k: int, seed: int) -> np.ndarray | None:
    """k control tasks [k n ...]: each type gets one label drawn from the real labels, whatever the text says.

    What a probe scores on it is what it can learn by heart (Hewitt and Liang 2019, section 2). None where there are no
    types that occur more than once, for then there is nothing to learn.
    """
    if types is None or k == 0:
        return None
    names, where = np.unique(types, return_inverse=True)
    if len(names) < 2 or len(names) > 0.5 * len(types):
        return None
    rng, tasks = np.random.default_rng(seed + 7), []
    for _ in range(k):
        for _ in range(20):
            drawn = data.labels[rng.integers(data.n, size=len(names))][where]
            if data.kind == "multilabel" or len(np.unique(drawn)) > 1:
                break
        tasks.append(drawn)
    labels = np.stack(tasks)
    return None if data.kind in ("binary", "multiclass") and len(np.unique(labels)) < 2 else labels


class ControlText:
    """The tokens of every example: what a probe could read off without any network.

    Made once for a data set; gives, for each read position, the token there and the counts of those before it.
    """

    def __init__(self, net: Network, data: ProbeData, places: Places) -> None:
        self.data, self.places = data, places
        self.causal = net.is_causal
        self.rows: list[list[int]] | None = None
        if data.of_tokens:
            tokens = net.encode(data.inputs)  # type: ignore[arg-type]
            self.rows = [tokens.row_ids(r) for r in range(tokens.n)]

    def at(self, position: int) -> np.ndarray | None:
        """Index of the token that each example reads: [n]."""
        if self.rows is None:
            return None
        size = np.array([len(self.rows[row]) for row in np.asarray(self.data.rows)])
        if self.data.spans is not None:
            return np.array([stop - 1 for _, stop in self.data.spans]) % size
        return self.places.positions[position] % size

    def types(self, position: int) -> np.ndarray | None:
        """What the control task labels: the data's types, or the token that is read."""
        if self.data.types is not None:
            return np.array([str(t) for t in self.data.types])
        where = self.at(position)
        if where is None or self.rows is None:
            return None
        pairs = zip(np.asarray(self.data.rows), where, strict=True)
        return np.array([str(self.rows[row][w]) for row, w in pairs])

    def counts(self, position: int) -> Tensor | None:
        """How often each token stands among those that the position can see, and which one stands there: [n 2v].

        With more than 4,000 different tokens only the most frequent are counted.
        """
        where = self.at(position)
        if where is None or self.rows is None:
            return None
        rows = np.asarray(self.data.rows)
        seen = [self.rows[r][: w + 1 if self.causal else None] for r, w in zip(rows, where, strict=True)]
        ids, frequency = np.unique(np.concatenate([np.array(s) for s in seen]), return_counts=True)
        ids = np.sort(ids[np.argsort(-frequency, kind="stable")[:_MOST_TOKENS]])
        number = {int(t): i for i, t in enumerate(ids)}
        table = torch.zeros(len(seen), 2 * len(ids))
        for e, tokens in enumerate(seen):
            for t in tokens:
                if (i := number.get(t)) is not None:
                    table[e, i] += 1
            if (i := number.get(self.rows[rows[e]][where[e]])) is not None:
                table[e, len(ids) + i] = 1
        return table[:, table.std(0) > 0] if bool((table.std(0) > 0).any()) else None

    def surroundings(self, position: int) -> dict[str, Tensor]:
        """Other things known of each example as features [n k]: length, place, and the data's own columns."""
        out: dict[str, Tensor] = {}
        where = self.at(position)
        if where is not None and self.rows is not None:
            size = np.array([len(self.rows[r]) for r in np.asarray(self.data.rows)])
            if len(np.unique(size)) > 1:
                out["the length of the input"] = _features(size)
            if len(np.unique(where)) > 1 and not np.array_equal(where, size - 1):
                out["the position in the input"] = _features(where)
        return out | {f"the column {name!r}": _features(np.asarray(v)) for name, v in self.data.also.items()}


def _features(values: np.ndarray) -> Tensor:
    """A column as features [n k]: numbers with their squares, anything else as one indicator per value."""
    if np.issubdtype(values.dtype, np.number) and len(np.unique(values)) > 2:
        x = torch.as_tensor(values.astype(float))
        x = (x - x.mean()) / x.std().clamp(min=1e-12)
        return torch.stack([x, x**2], 1)
    _, where = np.unique(values.astype(str), return_inverse=True)
    hot = torch.nn.functional.one_hot(torch.as_tensor(where)).double()
    return hot if hot.shape[1] > 1 else hot * 0
