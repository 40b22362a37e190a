"""What a network trained to an algorithm is asked: held-out pairs, and interchanges with the answer that must follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cutaway.zoo.tasks import Label, Passage, Swap, TaskPair

from ..algorithms import CausalVariable, TaskAlgorithm
from .exam import pairs
from .plans import held_out

CHANGED = 0.75
"""The share of interchanges that change the answer; in the others the causal model says that it stays."""


@dataclass(frozen=True)
class Questions:
    """The task of a specimen, drawn from its algorithm. No pair of prompts was used in training.

    Attributes:
        algorithm: what the prompts follow.
    """

    algorithm: TaskAlgorithm

    @property
    def words(self) -> tuple[str, ...]:
        """The word of every token id."""
        return self.algorithm.vocabulary

    def pairs(self, n: int, seed: int = 0) -> list[TaskPair]:
        """n contrast pairs: two prompts, the second with a right answer that the first does not have."""
        rng, asked = np.random.default_rng([seed, 21]), []
        spans = {v.name: _span(v, self.algorithm.length) for v in self.algorithm.variables}
        while len(asked) < n:
            clean, other = pairs(self.algorithm, rng, n)
            of_clean, of_other = self.algorithm.answers(clean), self.algorithm.answers(other)
            for row in np.flatnonzero((of_other & ~of_clean).any(1)):
                right, wrong = np.flatnonzero(of_clean[row]), np.flatnonzero(of_other[row] & ~of_clean[row])
                asked.append(TaskPair(_ids(clean[row]), _ids(other[row]), _ids(right), _ids(wrong), spans))
        return asked[:n]

    def swaps(self, variable: str, n: int, seed: int = 0) -> list[Swap]:
        """n interchanges of a variable; three in four change the answer."""
        algorithm, rng = self.algorithm, np.random.default_rng([seed, 22])
        positions = algorithm.by_name[variable].columns(algorithm.length)
        wanted = {True: round(CHANGED * n), False: n - round(CHANGED * n)}
        swaps: list[Swap] = []
        while any(wanted.values()):
            base, source = algorithm.draw(rng, 4 * n), algorithm.draw(rng, 4 * n)
            every = np.ones(len(base), bool)
            right = algorithm.answers(base, {variable: (every, algorithm.values(source)[variable])})
            changed = (right != algorithm.answers(base)).any(1)
            for row in np.flatnonzero(held_out(base, source)):
                if wanted[bool(changed[row])]:
                    wanted[bool(changed[row])] -= 1
                    answers = _ids(np.flatnonzero(right[row]))
                    swaps.append(Swap(_ids(base[row]), _ids(source[row]), positions, answers))
        return swaps

    def labels(self, variable: str, n: int, seed: int = 0) -> list[Label]:
        """n prompts with the value of a variable that lives at one position; none for the others."""
        ids = self.algorithm.draw(np.random.default_rng([seed, 23]), n)
        values = self.algorithm.values(ids)[variable]
        where = self.algorithm.by_name[variable].positions or ()
        if len(where) != 1 or values.ndim > 1:
            return []
        many = self.algorithm.draw(np.random.default_rng(0), 4000)
        least = int(self.algorithm.values(many)[variable].min())
        return [Label(_ids(row), where[0], int(v) - least) for row, v in zip(ids, values, strict=True)]

    def passages(self, seed: int = 0) -> Iterator[Passage]:
        """Prompts, each followed by a right answer, without end; each variable's value where it lives."""
        algorithm, rng = self.algorithm, np.random.default_rng([seed, 24])
        while True:
            ids = algorithm.draw(rng, 1)
            answer = int(rng.choice(np.flatnonzero(algorithm.answers(ids)[0])))
            values = algorithm.values(ids)
            labels = {v.name: _shown(v, values[v.name][0], algorithm.length) for v in algorithm.variables}
            yield Passage(tuple(self.words[i] for i in (*ids[0], answer)), labels)


def _shown(variable: CausalVariable, value: np.ndarray, length: int) -> tuple[str | None, ...]:
    """A value at the positions where its variable lives; one with a number for each of them is spread over them."""
    positions = variable.columns(length)
    out: list[str | None] = [None] * (length + 1)
    spread = value.ndim == 1 and len(value) == len(positions)
    for i, at in enumerate(positions):
        out[at] = str(value[i]) if spread else " ".join(map(str, np.atleast_1d(value)))
    return tuple(out)


def _ids(row: np.ndarray) -> tuple[int, ...]:
    return tuple(int(token) for token in row)


def _span(variable: CausalVariable, length: int) -> tuple[int, int]:
    """Where a variable lives, as a half-open range."""
    positions = variable.columns(length)
    return positions[0], positions[-1] + 1
