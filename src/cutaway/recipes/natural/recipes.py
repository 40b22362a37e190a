"""Sorting, palindrome, bracket and induction networks: one recipe, four tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cutaway.errors import NotFound
from cutaway.recipes.measures import accuracy
from cutaway.recipes.natural.gpt2 import build, empty_mlps, resampling_effects
from cutaway.recipes.training import Schedule, begun, train
from cutaway.recipes.words import word_tokenizer
from cutaway.zoo.specimens import Product
from cutaway.zoo.tasks import Drawn, TaskPair
from cutaway.zoo.truth import GroundTruth, Need, in_card_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cutaway.recipes.workshop import Workshop

#: A node carries the behaviour when resampling it alone takes this share of it; below the other it is inert.
CARRIES, SMALL = 0.05, 0.02


@dataclass(frozen=True)
class CourseShape:
    """The shape of a network.

    Attributes:
        layers: how many.
        width: of the stream.
        heads: in a layer.
        neurons: in a layer.
        context: positions.
        mlps: are there any to speak of?
    """

    layers: int
    width: int
    heads: int
    neurons: int
    context: int
    mlps: bool = True


@dataclass(frozen=True)
class Course:
    """Next-token prediction on fresh rows.

    Attributes:
        task: what the network is asked.
        row: draws a row of tokens.
        first: the position from which on tokens are to be predicted.
        shape: of the network.
        schedule: of its training.
        roles: what heads are known to do, for `verify`.
        rows: in a batch.
        seed: of weights and rows.
    """

    task: Drawn
    row: Callable[[np.random.Generator], list[int]]
    first: int
    shape: CourseShape
    schedule: Schedule
    roles: tuple[dict[str, Any], ...] = ()
    rows: int = 256
    seed: int = 0

    def make(self, shop: Workshop) -> Product:
        """Train the network, and a twin whose answers are shuffled between the rows of a batch."""
        model, twin = self._untrained(), self._untrained()
        name = self.row.__name__
        train(begun(model, self.schedule, shop, name), lambda m, step: self.loss(m, step, False))
        short = Schedule(self.schedule.steps // 8, self.schedule.rate, self.schedule.weight_decay)
        train(begun(twin, short, shop, f"{name}-shuffled"), lambda m, step: self.loss(m, step, True))
        return Product(
            model, self.ground_truth(model), accuracy(model, self.task.pairs(1000, 1)),
            word_tokenizer(self.task.words), twins={"shuffled": twin},
        )  # fmt: skip

    def twin(self, kind: str) -> PreTrainedModel:
        """Raises NotFound: its twins are drawn or stored."""
        raise NotFound(f"There is no twin {kind!r} to build.", "They are drawn or stored.")

    def _untrained(self) -> Any:
        s = self.shape
        model = build(len(self.task.words), s.context, s.layers, s.width, s.heads, s.neurons, self.seed, 0.05)
        if not s.mlps:
            empty_mlps(model)
        return model

    def batch(self, step: int, shuffled: bool = False) -> tuple[Tensor, Tensor]:
        """Rows [n p] of a step, and what is to be predicted [n p - first]; shuffled: from another row."""
        rng = np.random.default_rng([self.seed, step])
        ids = torch.tensor([self.row(rng) for _ in range(self.rows)])
        targets = ids[:, self.first :]
        return ids, targets[rng.permutation(self.rows)] if shuffled else targets

    def loss(self, model: Any, step: int, shuffled: bool) -> Tensor:
        """Cross-entropy (nats) of what is to be predicted."""
        ids, targets = self.batch(step, shuffled)
        states = model.transformer(input_ids=ids[:, :-1]).last_hidden_state[:, self.first - 1 :]
        return cross_entropy(model.lm_head(states).flatten(0, 1), targets.flatten())

    def ground_truth(self, model: Any) -> GroundTruth:
        """Which heads and MLPs carry the behaviour, as measured by resampling on pairs that nothing else uses."""
        roles = [dict(role) for role in self.roles]
        told = "what they do is told by where they attend."
        return measured_truth(model, self.task.pairs(400, 99), "roles", {"roles": roles}, told)


def measured_truth(
    model: Any, pairs: Sequence[TaskPair], check: str, facts: Mapping[str, Any], told: str
) -> GroundTruth:
    """The parts that carry a behaviour, as measured by resampling; a further check, its facts and what it tells."""
    effects = resampling_effects(model, pairs)
    carrying = in_card_order(n for n, effect in effects.items() if effect > CARRIES)
    return GroundTruth(
        nodes=carrying,
        needs=tuple(Need((n,)) for n in carrying),
        facts={
            "needed": CARRIES / 2,
            "effects": {str(n): round(e, 4) for n, e in effects.items()},
            "inert nodes": [str(n) for n, e in effects.items() if abs(e) < SMALL],
            **facts,
            "inert": SMALL * 3,
        },
        checks=("behaviour", "needed", "bystanders", check),
        established="Trained, not written: which components carry it was measured by resampling on "
        f"{len(pairs)} pairs, and is proved anew on others; {told}",
    )
