"""The network under test with its ground truth: prompts, baselines, and the effect of edits in shares of the range."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import Behaviour
from cutaway.effects.baselines import require_gap
from cutaway.errors import BadBehaviour
from cutaway.interventions import Ablate, Intervention, Patch
from cutaway.network import Network, Run, Tokens
from cutaway.network.parts import Part
from cutaway.statistics import Estimate, proportion
from cutaway.trials import other_rows
from cutaway.zoo.specimens import Specimen
from cutaway.zoo.truth import GroundTruth, How


@dataclass(frozen=True, eq=False)
class Subject:
    """The network under test, what is said to be true of it, and pairs to ask it with.

    Attributes:
        net: the network: the specimen's, or a twin's.
        specimen: whose ground truth it is held against.
        truth: what is said to be true of the specimen.
        behaviour: the pairs.
        n: how many pairs and interchanges are asked.
        seed: of the pairs.
    """

    net: Network
    specimen: Specimen
    truth: GroundTruth
    behaviour: Behaviour
    n: int
    seed: int

    def first(self, n: int) -> Subject:
        """The same with the first n pairs."""
        return replace(self, behaviour=self.behaviour[:n], n=n)

    def repeated(self, times: int) -> Subject:
        """The same with all pairs `times` over, one round after the other."""
        rows = list(range(self.behaviour.n)) * times
        return replace(self, behaviour=self.behaviour.take(rows))

    def turned(self) -> Subject:
        """The same with clean and corrupted prompts exchanged, and right and wrong answers with them."""
        b = self.behaviour
        turned = replace(
            b, clean=b.corrupted, corrupted=b.clean, clean_ids=b.corrupted_ids, corrupted_ids=b.clean_ids,
            right=b.wrong, wrong=b.right, right_full=b.wrong_full, wrong_full=b.right_full,
            right_text=b.wrong_text, wrong_text=b.right_text,
        )  # fmt: skip
        return replace(self, behaviour=turned)

    def shares_keys(self, layer: int) -> bool:
        """Do several heads of a layer read the same keys and values?"""
        return self.heads_of_keys[layer] != self.net.heads(layer)

    @cached_property
    def heads_of_keys(self) -> tuple[int, ...]:
        """Key/value heads of each layer; 0 where it has none."""
        sites = [f"k.{i}" for i in range(self.net.n_layers)]
        run = self.net.run(self.clean[[0]], keep=[s for s in sites if self.net.has(s)], logits=False)
        return tuple(run[s].shape[2] if self.net.has(s) else 0 for s in sites)

    @cached_property
    def clean(self) -> Tokens:
        """The clean prompts."""
        return self.behaviour.clean_tokens(self.net)

    @cached_property
    def corrupted(self) -> Tokens:
        """The corrupted prompts."""
        return self.behaviour.corrupted_tokens(self.net)

    @cached_property
    def positions(self) -> Tensor:
        """[n 1] where logits are read."""
        return torch.tensor(self.behaviour.answer_pos)[:, None]

    @cached_property
    def nodes(self) -> tuple[Part, ...]:
        """Every head and MLP of the network."""
        parts: list[Part] = []
        for layer in range(self.net.n_layers):
            parts += [Part("head", layer, h) for h in range(self.net.heads(layer) or 0)]
            parts += [Part("mlp", layer)] if self.net.has(f"mlp_write.{layer}") else []
        return tuple(parts)

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites at which all nodes can be exchanged."""
        return tuple(dict.fromkeys(str(node.site) for node in self.nodes))

    @cached_property
    def kept(self) -> list[str]:
        """What runs keep to take values from: the sites of all nodes, of the stated variables, and the input."""
        stated = [variable.site for variable in self.truth.variables if self.net.has(variable.site)]
        return list(dict.fromkeys([*self.sites, *stated, "resid_pre.0"]))

    def answers(self, tokens: Tokens, edits: Sequence[Intervention] = ()) -> Tensor:
        """[n v] logits at the answer positions."""
        return answers_of(self.net.run(tokens, edits=list(edits), logits=self.positions))

    def accuracy(self) -> tuple[Estimate, int]:
        """The share of the clean prompts whose likeliest token is a right answer, and how many these are."""
        right = told_right(self.answers(self.clean), self.behaviour.right)
        return proportion(right, self.behaviour.n), right

    def metric(self, edits: Sequence[Intervention] = ()) -> np.ndarray:
        """[n] the behaviour's metric on the clean prompts under edits."""
        return self.score(self.answers(self.clean, edits))

    def score(self, logits: Tensor) -> np.ndarray:
        """[n] the behaviour's metric of logits [n v]."""
        answers = self.behaviour.answers
        if self.behaviour.metric.needs == "reference":
            answers = answers.with_reference(self.answers(self.clean))
        return self.behaviour.metric(logits, answers).double().cpu().numpy()

    @cached_property
    def base(self) -> np.ndarray:
        """[n] the metric on the clean prompts."""
        return self.metric()

    @cached_property
    def range(self) -> float:
        """The effect range: the mean metric on clean prompts minus that on corrupted ones; 0 where it is not above."""
        try:
            gap = require_gap(self.base, self.score(self.answers(self.corrupted)), self.behaviour.metric.name)
        except BadBehaviour:
            return 0.0
        return max(gap, 0.0)

    def effect(self, edits: Sequence[Intervention]) -> np.ndarray:
        """[n] how much of the effect range edits of the clean prompts take away."""
        return self.change(self.metric(edits))

    def change(self, metric: np.ndarray) -> np.ndarray:
        """[n] how much of the effect range is gone where this is the metric."""
        return (self.base - metric) / self.range if self.range else np.full_like(self.base, np.nan)

    @cached_property
    def from_corrupted(self) -> Run:
        """The nodes' values on the corrupted prompts."""
        return self.net.run(self.corrupted, keep=self.kept, logits=False)

    @cached_property
    def from_clean(self) -> Run:
        """The nodes' values on the clean prompts."""
        return self.net.run(self.clean, keep=self.kept, logits=False)

    @cached_property
    def from_others(self) -> Run:
        """The nodes' values on other clean prompts of the same length, which have nothing to do with the pair."""
        rows = self.clean.ids.new_tensor(other_rows(self.behaviour.lengths))
        return self.net.run(self.clean[rows], keep=self.kept, logits=False)


def answers_of(run: Run) -> Tensor:
    """[n v] the logits of a run that was asked for those at one position of each prompt."""
    assert run.logits is not None
    return run.logits[:, 0]


def told_right(logits: Tensor, right: Sequence[Collection[int]]) -> int:
    """For how many rows the likeliest token of logits [n v] is one of the right answers."""
    return sum(token in answers for token, answers in zip(logits.argmax(-1).tolist(), right, strict=True))


def patched(nodes: Sequence[Part], source: Run) -> list[Intervention]:
    """The edits that give these nodes their values of another run."""
    return [Patch(str(n.site), source, head=n.index if n.kind == "head" else None) for n in nodes]


def removed(nodes: Sequence[Part], how: How, subject: Subject) -> list[Intervention]:
    """The edits that take from these nodes what they carry."""
    if how == "resample":
        return patched(nodes, subject.from_corrupted)
    return [Ablate(str(n.site), how, head=n.index if n.kind == "head" else None) for n in nodes]
