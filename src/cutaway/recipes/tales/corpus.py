"""Rows of tokens for training: stories, and random sequences said again, packed side by side."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from .grammar import Story
from .scenes import stories
from .tokenizer import BOS, EOS, SPECIAL, StoryEncoder


@dataclass(frozen=True)
class CorpusBatch:
    """Packed rows. Tokens see only their own story.

    Attributes:
        ids: int64 [b p].
        target: int64 [b p], the next token.
        weight: float32 [b p], 0 where there is nothing to learn.
        position: int64 [b p], restarts with each story.
        mask: bool [b 1 p p], causal within a story.
    """

    ids: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    position: torch.Tensor
    mask: torch.Tensor


class Corpus:
    """Batches by number: batch `step` is always the same, so a resumed run sees what it would have seen.

    Args:
        tokenizer: of the network that is trained.
        rows: in a batch.
        context: tokens in a row.
        seed: of the stories.
        emphasis: the weight of a token that the words before it determine.
        echo: the share of texts that are random sequences of any tokens, said again.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, rows: int, context: int, seed: int, emphasis: float, echo: float
    ) -> None:  # fmt: skip
        self.encode = StoryEncoder(tokenizer)
        self.vocabulary = range(len(SPECIAL), len(tokenizer))
        self.rows, self.context, self.seed, self.emphasis, self.echo = rows, context, seed, emphasis, echo

    def batch(self, step: int) -> CorpusBatch:
        """The rows of one training step."""
        rng = random.Random(f"rows:{self.seed}:{step}")
        stream = stories(f"{self.seed}:{step}")
        size = self.context + 1
        table: list[list[tuple[int, float, int, int]]] = []
        for _ in range(self.rows):
            row: list[tuple[int, float, int, int]] = []
            for number in range(size):
                tokens, weights = self._echo(rng) if rng.random() < self.echo else self._story(next(stream))
                row += [(t, w, number, i) for i, (t, w) in enumerate(zip(tokens, weights, strict=True))]
                if len(row) >= size:
                    break
            table.append(row[:size])
        ids, weight, document, position = (
            torch.tensor([[cell[i] for cell in row] for row in table]) for i in range(4)
        )
        story = document[:, :-1]
        causal = torch.ones(self.context, self.context, dtype=torch.bool).tril()
        mask = (story[:, :, None] == story[:, None, :]) & causal
        return CorpusBatch(ids[:, :-1], ids[:, 1:], weight[:, 1:], position[:, :-1], mask[:, None])

    def _story(self, story: Story) -> tuple[list[int], list[float]]:
        ids, owner = self.encode(story)
        marks = [self.emphasis if word.labels["determined"] else 1.0 for word in story.words]
        weights = [0.0, *(marks[index] for index in owner[1:-1]), 1.0]  # nothing foretells a beginning
        return ids, weights

    def _echo(self, rng: random.Random) -> tuple[list[int], list[float]]:
        length = rng.randrange(3, self.context // 2 - 1)
        verse = rng.sample(self.vocabulary, length)
        times = max(2, min(4, (self.context - 2) // length))
        # What is said first cannot be foretold: it has no weight. From then on every token is determined, but
        # for the first: that the verse begins again.
        weights = [0.0] * (length + 1) + [self.emphasis] * (length * (times - 1))
        return [BOS, *verse * times, EOS], [0.0, *weights]
