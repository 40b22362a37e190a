"""What a specimen's prompts vary in, and the algorithms that its task is solved by, as plain data and plain functions.

`cutaway.behaviours.cases.cases_of("zoo:NAME", net)` makes cases of it, `cutaway.algorithms.algorithms_of("zoo:NAME")`
algorithms with their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import NotFound, did_you_mean
from cutaway.zoo.truth import Variable


@dataclass(frozen=True)
class CaseRecipe:
    """What `cases` makes cases from.

    Attributes:
        frames: with slots.
        variables: values, or functions of other variables.
        answer: a function of variables.
        differ: variables that never have the same value in a prompt.
    """

    frames: tuple[str, ...]
    variables: Mapping[str, Sequence[Any] | Callable[..., Any]]
    answer: Callable[..., Any]
    differ: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownAlgorithm:
    """A way to solve a specimen's task, over the variables of its cases.

    Attributes:
        name: what it does, in a few words.
        steps: each variable that it computes: a function of others, and what it means.
        answer: a function of variables that gives the text that follows the prompt.
        places: where the network holds its variables, or would if it ran it: `a1.h0@last`, or a variable of the truth where
            it is a subspace.
        runs: does the network run it? KnownWays by how it was made, or measured where the card says so.
    """

    name: str
    steps: Mapping[str, tuple[Callable[..., Any], str]]
    answer: Callable[..., Any]
    places: Mapping[str, str | Variable]
    runs: bool


@dataclass(frozen=True)
class KnownWays:
    """What is known of a specimen's prompts and of how they can be answered.

    Attributes:
        cases: by kind; the first is what is meant where none is named.
        algorithms: those that the network runs first.
    """

    cases: Mapping[str, CaseRecipe]
    algorithms: tuple[KnownAlgorithm, ...] = field(default=())

    def __post_init__(self) -> None:
        ordered = sorted(self.algorithms, key=lambda a: not a.runs)
        object.__setattr__(self, "algorithms", tuple(ordered))

    def recipe(self, kind: str = "") -> CaseRecipe:
        """The cases of that kind. Raises `NotFound`, with the kinds that there are."""
        if not kind:
            return next(iter(self.cases.values()))
        if kind not in self.cases:
            raise NotFound(f"There are no cases of the kind {kind!r:.60}.", did_you_mean(kind, self.cases))
        return self.cases[kind]
