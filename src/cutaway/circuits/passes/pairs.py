"""A behaviour cut into batches: prompts of like length together, padded no further than they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.metrics import Answers, Metric
from cutaway.errors import BadInput
from cutaway.network.inputs import Tokens

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: Bytes that the differences of all writers of one batch may take.
BUDGET = 160 * 2**20
_LARGEST = 256


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pairs of a behaviour: numbers of the examples, both prompts, where the metric reads, the answers."""

    rows: tuple[int, ...]
    clean: Tokens
    corrupted: Tokens
    positions: Tensor
    answers: Answers
    metric: Metric

    @property
    def n(self) -> int:
        """How many pairs."""
        return len(self.rows)

    @property
    def real(self) -> Tensor:
        """Bool [b p]: which columns hold tokens of the clean prompts."""
        return self.clean.mask

    @property
    def sign(self) -> float:
        """1 where more of the metric is better, else -1."""
        return 1.0 if self.metric.higher else -1.0

    def score(self, logits: Tensor) -> Tensor:
        """The metric [b] of logits [b v] at the answer position."""
        return self.metric(logits, self.answers)

    def repeat(self, times: int) -> Batch:
        """The same pairs, `times` over, one run after the other."""
        index = torch.arange(self.n).repeat(times)
        return Batch(
            tuple(self.rows[int(i)] for i in index), self.clean[index], self.corrupted[index],
            self.positions[index], self.answers[index.to(self.answers.right.device)], self.metric,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pairs:
    """A behaviour on a network, in batches. `budget` bounds the memory that one batch's differences take, in bytes."""

    net: Network
    behaviour: Behaviour
    batches: tuple[Batch, ...]

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, writers: int, budget: int = BUDGET, aligned: bool = True
    ) -> Pairs:
        """Cut a behaviour into batches that suit a graph of so many writers.

        Raises `BadBehaviour` where pairs differ in length and `aligned` is asked for.
        """
        if aligned:
            behaviour.require_aligned("Exchanging activations between the prompts of a pair")
        width = net.d_model or 1
        size = torch.tensor([], dtype=net.dtype).element_size()
        order = sorted(range(behaviour.n), key=lambda i: (len(behaviour.clean_ids[i]), i))
        batches: list[Batch] = []
        while order:
            length = len(behaviour.clean_ids[order[0]])
            most = max(1, min(_LARGEST, budget // max(1, writers * length * width * size)))
            same = [i for i in order[:most] if len(behaviour.clean_ids[i]) == length]
            rows, order = same, order[len(same) :]
            batches.append(cls._batch(net, behaviour, rows))
        return cls(net, behaviour, tuple(batches))

    @staticmethod
    def _batch(net: Network, behaviour: Behaviour, rows: Sequence[int]) -> Batch:
        part = behaviour.take(rows)
        clean, corrupted = part.clean_tokens(net), part.corrupted_tokens(net)
        positions = torch.as_tensor(list(part.answer_pos), dtype=torch.long)
        answers = part.answers
        if behaviour.metric.needs == "reference":
            run = net.run(clean, logits=positions[:, None])
            if run.logits is None:
                raise BadInput(
                    f"{net.name} gives no logits.", "Behaviours need a network with an output over tokens."
                )
            answers = answers.with_reference(run.logits[:, 0])
        return Batch(tuple(rows), clean, corrupted, positions, answers, behaviour.metric)

    @property
    def n(self) -> int:
        """How many pairs."""
        return self.behaviour.n

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def gather(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Values of the batches [... b], in their order, as values of the examples [... n], in theirs."""
        order = np.concatenate([np.asarray(b.rows) for b in self.batches])
        joined = np.concatenate(parts, axis=-1)
        out = np.empty_like(joined)
        out[..., order] = joined
        return out
