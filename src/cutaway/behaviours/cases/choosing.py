"""Prompts with chosen values: made from the frames of cases, so that some condition holds of their variables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.cases.case import Case, Frames, Value, make_cases
from cutaway.behaviours.cases.collection import Cases

if TYPE_CHECKING:
    from cutaway.network import Network

#: So many combinations of values are tried; where there are no more, each of them.
_TRIED = 20_000
#: So many at a time are made into prompts.
_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class ChosenCases:
    """Prompts with chosen values.

    Attributes:
        cases: new ones, of the same frames and the same half.
        tried: how many combinations of values were tried.
        every: were these all that there are?
    """

    cases: tuple[Case, ...] = ()
    tried: int = 0
    every: bool = False


def choose_cases(
    net: Network, cases: Cases, n: int, keep: Callable[[dict[str, Any]], bool], *, seed: int = 0
) -> ChosenCases:
    """At most n prompts that are not among these cases, made from their frames, whose values `keep` accepts.

    Of a half of cases they are of the same half. None where the cases came as they are, without frames.

    >>> import cutaway
    >>> from cutaway.behaviours.cases import cases_of
    >>> net = cutaway.open("zoo:tales")
    >>> made = choose_cases(net, cases_of("pronoun", net, 8), 4, lambda values: values["gender"] == "she")
    >>> {case.values["gender"] for case in made.cases}
    {'she'}
    """
    frames = cases.frames
    if frames is None:
        return ChosenCases()
    rng = np.random.default_rng([seed, 14])
    templates = list(dict.fromkeys(case.template for case in cases))
    known, found, waiting = {case.ids for case in cases}, dict[Any, Case](), list[dict[str, Value]]()
    tried, every = 0, math.prod(len(v) for v in frames.free.values()) <= _TRIED

    def drawn() -> str:
        return templates[int(rng.integers(len(templates)))]

    def make() -> None:
        asked = [(frame, chosen) for chosen in waiting for frame in (templates if every else [drawn()])]
        for case in make_cases(net, frames, asked):
            if case.ids not in known and cases.same_half(case):
                found.setdefault(case.ids, case)
        waiting.clear()

    for chosen in _combinations(frames, every, rng):
        tried += 1
        if frames.allowed(chosen) and keep(frames.filled(chosen)):
            waiting.append(chosen)
        if len(waiting) * (len(templates) if every else 1) >= _TOGETHER:
            make()
        if len(found) >= n:
            break
    make()
    return ChosenCases(tuple(found.values())[:n], tried, every)


def _combinations(frames: Frames, every: bool, rng: np.random.Generator) -> Iterator[dict[str, Value]]:
    """Values of the free variables: each combination once in random order, or so many draws."""
    names, options = list(frames.free), list(frames.free.values())
    if every:
        whole = list(itertools.product(*options))
        for i in rng.permutation(len(whole)):
            yield dict(zip(names, whole[int(i)], strict=True))
        return
    for _ in range(_TRIED):
        yield {
            name: values[int(rng.integers(len(values)))] for name, values in zip(names, options, strict=True)
        }
