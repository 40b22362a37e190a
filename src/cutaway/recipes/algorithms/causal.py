"""A causal model as data: variables, what each is computed from, and the parts of a network where each shall live.

Everything is computed for many prompts at once: a variable's values are an integer array `[n]` or `[n k]`.
Intervening is giving values: `TaskAlgorithm.answers(ids, given={"number": values})` are the answers of a world in which
`number` was set, whatever the prompt says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cutaway.network.parts import Part

Array = np.ndarray
Values = Mapping[str, Array]
INPUT = "ids"
"""The name under which a variable reads the prompt itself, `[n p]`."""


@dataclass(frozen=True)
class CausalVariable:
    """A step of the algorithm: what it reads, how it is computed, and where in the network it shall live.

    Attributes:
        name: of the variable.
        reads: other variables, or `ids` for the prompt.
        function: takes one array for each name in `reads`, in that order.
        part: a head or an MLP.
        meaning: in words.
        positions: where it lives in the part; None is everywhere.
    """

    name: str
    reads: tuple[str, ...]
    function: Callable[..., Array]
    part: Part
    meaning: str
    positions: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """Where it lives, in words.

        >>> CausalVariable("v", (INPUT,), len, Part("head", 1, 2), "", (7,)).place
        'head 1.2 at 7'
        """
        if self.positions is None:
            return self.part.words
        return f"{self.part.words} at {', '.join(map(str, self.positions))}"

    def columns(self, length: int) -> tuple[int, ...]:
        """The positions where it lives in prompts of a length."""
        return self.positions or tuple(range(length))


@dataclass(frozen=True)
class TaskAlgorithm:
    """A task and the algorithm that a network is to run on it.

    Attributes:
        name: of the task.
        summary: what is asked, in a sentence.
        vocabulary: the word of every token id.
        layers: of the network that is to run it.
        draw: `draw(rng, n)` gives prompts, int64 `[n p]`, all of one length.
        variables: each after those that it reads.
        answer_reads: the variables that the answer reads.
        answer: takes one array for each of these and gives the tokens that are right next, as bool `[n v]`.
    """

    name: str
    summary: str
    vocabulary: tuple[str, ...]
    layers: int
    draw: Callable[[np.random.Generator, int], Array]
    variables: tuple[CausalVariable, ...]
    answer_reads: tuple[str, ...]
    answer: Callable[..., Array]

    @cached_property
    def length(self) -> int:
        """Tokens in a prompt."""
        return self.draw(np.random.default_rng(0), 1).shape[1]

    @cached_property
    def by_name(self) -> dict[str, CausalVariable]:
        """The variables, by name."""
        return {variable.name: variable for variable in self.variables}

    def values(self, ids: Array, given: Mapping[str, tuple[Array, Array]] | None = None) -> dict[str, Array]:
        """Every variable's value for each prompt.

        `given` sets variables: name -> (bool `[n]`, in which prompts; the values to set there).
        """
        known: dict[str, Array] = {INPUT: ids}
        for variable in self.variables:
            value = variable.function(*(known[name] for name in variable.reads))
            if given and variable.name in given:
                where, other = given[variable.name]
                value = np.where(where.reshape(-1, *[1] * (value.ndim - 1)), other, value)
            known[variable.name] = value
        return known

    def answers(self, ids: Array, given: Mapping[str, tuple[Array, Array]] | None = None) -> Array:
        """The right next tokens, bool `[n v]`, of each prompt, under an intervention if one is given."""
        known = self.values(ids, given)
        return self.answer(*(known[name] for name in self.answer_reads))

    def children(self, name: str) -> tuple[str, ...]:
        """The variables that read a variable; `answer` is one of them where the answer reads it.

        >>> from cutaway.recipes.algorithms import algorithm
        >>> algorithm("agreement").children("number")
        ('verb',)
        """
        readers = tuple(v.name for v in self.variables if name in v.reads)
        return (*readers, "answer") if name in self.answer_reads else readers

    def edges(self) -> tuple[tuple[str, str], ...]:
        """Who reads whom, between variables and to the answer: (written, reader)."""
        return tuple((v.name, reader) for v in self.variables for reader in self.children(v.name))

    def seated(self, seed: int, heads: int) -> TaskAlgorithm:
        """The same with heads renamed by the seed, so that no number is always the one that counts."""
        rng = np.random.default_rng([seed, 7])
        seats = [rng.permutation(heads) for _ in range(self.layers)]

        def move(part: Part) -> Part:
            if part.layer is None or part.index is None:
                return part
            return replace(part, index=int(seats[part.layer][part.index]))

        return replace(self, variables=tuple(replace(v, part=move(v.part)) for v in self.variables))


class WordIds:
    """The ids of a vocabulary's words, and prompts made of them.

    >>> words = WordIds(("a", "b", "c"))
    >>> words["b"], words.rows(2, "c", np.array([0, 1])).tolist()
    (1, [[2, 0], [2, 1]])
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.ids = {word: index for index, word in enumerate(vocabulary)}

    def __getitem__(self, word: str) -> int:
        return self.ids[word]

    def rows(self, n: int, *columns: str | Array) -> Array:
        """n prompts side by side from columns, each of ids `[n]` or one word for all: `[n columns]`."""
        return np.stack([np.full(n, self[c]) if isinstance(c, str) else c for c in columns], 1)

    def some(self, rng: np.random.Generator, words: Sequence[str], n: int) -> Array:
        """n words drawn evenly from some that follow each other in the vocabulary."""
        return rng.integers(self.ids[words[0]], self.ids[words[-1]] + 1, n)


def one_of(tokens: Array, size: int) -> Array:
    """Answers of one right token each: `[n]` -> bool `[n size]`.

    >>> one_of(np.array([1, 0]), 3).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    return np.arange(size)[None] == np.asarray(tokens)[:, None]


def shuffled_rows(rng: np.random.Generator, n: int, items: Sequence[int], count: int) -> Array:
    """For each of n rows, `count` different items in random order: `[n count]`."""
    order = rng.random((n, len(items))).argsort(1)[:, :count]
    return np.asarray(items)[order]
