"""What a specimen is asked: contrast pairs, interchanges with the result that the causal model predicts, and labels.

All of it is token ids made fresh from a seed, so that nothing depends on a fixed list of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

Ids = tuple[int, ...]


@dataclass(frozen=True)
class TaskPair:
    """A contrast pair of a specimen's task, as token ids; behaviours are made of these.

    Attributes:
        clean: the prompt.
        corrupted: its twin.
        right: the answers that are right after `clean`.
        wrong: the answers that are right after `corrupted`.
        spans: for each name a half-open range of token positions, the same in both.
        template: pairs of one template have their intervals drawn together.
        answer_pos: whose logits are read.
    """

    clean: Ids
    corrupted: Ids
    right: Ids
    wrong: Ids
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    template: str = ""
    answer_pos: int = -1


def spans_at(places: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Spans of one token each, by where they stand.

    >>> spans_at({"first": 1, "last": 4})
    {'first': (1, 2), 'last': (4, 5)}
    """
    return {name: (at, at + 1) for name, at in places.items()}


@dataclass(frozen=True)
class Swap:
    """An interchange: the variable's value in `source`, put into `base` at `pos`, should give one of `right`.

    Attributes:
        base: the prompt that is run.
        source: the prompt that the value comes from.
        pos: row-relative positions, the same in base and source.
        right: the prediction of the causal model.
        answer_pos: whose logits are read.
    """

    base: Ids
    source: Ids
    pos: tuple[int, ...]
    right: Ids
    answer_pos: int = -1


@dataclass(frozen=True)
class Label:
    """The value of a variable at one position of a prompt; probes are fitted to these.

    Attributes:
        ids: the prompt.
        pos: the position.
        value: a class from 0.
    """

    ids: Ids
    pos: int
    value: int


@dataclass(frozen=True)
class Passage:
    """A piece of a specimen's text, as `cutaway zoo text` shows it.

    Attributes:
        tokens: as words.
        labels: for each variable its value at each token, None where it has none.
    """

    tokens: tuple[str, ...]
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)


@runtime_checkable
class Speaks(Protocol):
    """A task whose language can be streamed: what `cutaway zoo text` asks for."""

    def passages(self, seed: int) -> Iterator[Passage]:
        """Text without end."""
        ...


@runtime_checkable
class Task(Protocol):
    """The questions that belong to a specimen. Everything is drawn from the seed."""

    @property
    def words(self) -> tuple[str, ...]:
        """The word of every token id; empty where the specimen has a tokenizer of its own."""
        ...

    def pairs(self, n: int, seed: int) -> list[TaskPair]:
        """n contrast pairs."""
        ...

    def swaps(self, variable: str, n: int, seed: int) -> list[Swap]:
        """n interchanges of a variable with their predicted results."""
        ...

    def labels(self, variable: str, n: int, seed: int) -> list[Label]:
        """n prompts with the value of a variable and where it is held."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A task made of three functions that draw one pair, one interchange and one label.

    Attributes:
        words: the word of every token id.
        pair: given a generator.
        swap: given the name of the variable and a generator.
        label: the same.
    """

    words: tuple[str, ...]
    pair: Callable[[np.random.Generator], TaskPair]
    swap: Callable[[str, np.random.Generator], Swap] | None = None
    label: Callable[[str, np.random.Generator], Label] | None = None

    def pairs(self, n: int, seed: int = 0) -> list[TaskPair]:
        """n contrast pairs."""
        rng = np.random.default_rng([seed, 1])
        return [self.pair(rng) for _ in range(n)]

    def swaps(self, variable: str, n: int, seed: int = 0) -> list[Swap]:
        """n interchanges."""
        rng = np.random.default_rng([seed, 2])
        return [] if self.swap is None else [self.swap(variable, rng) for _ in range(n)]

    def labels(self, variable: str, n: int, seed: int = 0) -> list[Label]:
        """n labelled prompts."""
        rng = np.random.default_rng([seed, 3])
        return [] if self.label is None else [self.label(variable, rng) for _ in range(n)]

    def passages(self, seed: int = 0) -> Iterator[Passage]:
        """Clean prompts, each followed by its answer, without end; labels: the spans of the pair, and the answer."""
        rng = np.random.default_rng([seed, 4])
        while True:
            pair = self.pair(rng)
            ids = (*pair.clean, pair.right[0])
            roles: list[str | None] = [None] * len(ids)
            for name, (start, end) in pair.spans.items():
                roles[start:end] = [name] * (end - start)
            roles[-1] = "answer"
            yield Passage(tuple(self.words[i] for i in ids), {"role": tuple(roles)})
