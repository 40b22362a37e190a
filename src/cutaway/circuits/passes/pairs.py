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
from cutaway.network.memory import MOST_ROWS, budget_bytes
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

#: Bytes of one batch's differences beyond which it is not faster: they have long left the processor's cache.
_MOST_BYTES = 160 * 2**20
#: Share of the memory budget that one batch's differences may take; gradients and streams of readers take the rest.
_SHARE = 4


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Some pairs of a behaviour, of one length.

    Attributes:
        rows: numbers of the examples.
        clean: the clean prompts.
        corrupted: the corrupted ones.
        positions: [b], where the metric reads.
        answers: right and wrong ones.
        metric: the behaviour's.
    """

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

    def repeat(self, times: int) -> PairBatch:
        """The same pairs, `times` over, one run after the other."""
        index = torch.arange(self.n).repeat(times)
        return PairBatch(
            tuple(self.rows[int(i)] for i in index), self.clean[index], self.corrupted[index],
            self.positions[index], self.answers[index.to(self.answers.right.device)], self.metric,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """A behaviour on a network, in batches of prompts of one length.

    Attributes:
        net: the network.
        behaviour: the behaviour.
        batches: its pairs; the size of a batch keeps the differences of all writers within the memory budget.
    """

    net: Network
    behaviour: Behaviour
    batches: tuple[PairBatch, ...]

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, writers: int, work: Work | None = None, aligned: bool = True
    ) -> PromptPairs:
        """Cut a behaviour into batches that suit a graph of so many writers.

        Raises `BadBehaviour` where pairs differ in length and `aligned` is asked for.
        """
        if aligned:
            behaviour.require_aligned("Exchanging activations between the prompts of a pair")
        budget = min(_MOST_BYTES, budget_bytes(net, work) // _SHARE)
        width = net.d_model or 1
        size = torch.tensor([], dtype=net.dtype).element_size()
        order = sorted(range(behaviour.n), key=lambda i: (len(behaviour.clean_ids[i]), i))
        batches: list[PairBatch] = []
        while order:
            length = len(behaviour.clean_ids[order[0]])
            most = max(1, min(MOST_ROWS, budget // max(1, writers * length * width * size)))
            same = [i for i in order[:most] if len(behaviour.clean_ids[i]) == length]
            rows, order = same, order[len(same) :]
            batches.append(cls._batch(net, behaviour, rows))
        return cls(net, behaviour, tuple(batches))

    @staticmethod
    def _batch(net: Network, behaviour: Behaviour, rows: Sequence[int]) -> PairBatch:
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
        return PairBatch(tuple(rows), clean, corrupted, positions, answers, behaviour.metric)

    @property
    def n(self) -> int:
        """How many pairs."""
        return self.behaviour.n

    def __iter__(self) -> Iterator[PairBatch]:
        return iter(self.batches)

    def gather(self, parts: Sequence[np.ndarray], axis: int = -1) -> np.ndarray:
        """Values of the batches, in their order, as values of the examples, in theirs.

        axis: along which the examples lie: [... b] to [... n], or with 0 [b ...] to [n ...].
        """
        rows = np.concatenate([np.asarray(b.rows) for b in self.batches])
        return np.take(np.concatenate(parts, axis), np.argsort(rows), axis)
