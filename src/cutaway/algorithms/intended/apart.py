"""Prompts on which two computations give other answers: found among the cases, made from their frames, or said which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.algorithms.model import Algorithm
from cutaway.behaviours.cases import Case, Cases, choose_cases
from cutaway.errors import BadInput

if TYPE_CHECKING:
    from cutaway.network import Network

#: So many mixtures of values of different prompts are looked at, for one on which two computations come apart.
_MIXTURES = 2000


@dataclass(frozen=True, eq=False)
class ApartPrompts:
    """The prompts on which what is intended and what is feared give other answers.

    Attributes:
        feared: the algorithm.
        at_hand: those among the cases.
        made: those that were made.
        all_agree: of how many prompts at hand both give the same answers.
        would: which prompts would tell them apart, where none could be found or made; else "".
    """

    feared: Algorithm
    at_hand: tuple[Case, ...]
    made: tuple[Case, ...]
    all_agree: int
    would: str = ""

    @property
    def cases(self) -> tuple[Case, ...]:
        """All of them."""
        return (*self.at_hand, *self.made)


@dataclass(frozen=True, eq=False)
class SettingPrompts:
    """All prompts of one setting.

    Attributes:
        cases: those at hand, on which it is tested.
        together: on which all computations give the same answers.
        apart: for each feared one the prompts on which it comes apart from the intended one.
    """

    cases: Cases
    together: tuple[Case, ...]
    apart: tuple[ApartPrompts, ...]

    @cached_property
    def everything(self) -> Cases:
        """The cases at hand with those that were made."""
        made = {case.ids: case for one in self.apart for case in one.made}
        made |= {case.ids: case for case in self.together}
        known = {case.ids for case in self.cases}
        return replace(
            self.cases, cases=(*self.cases.cases, *(c for ids, c in made.items() if ids not in known))
        )

    @cached_property
    def run(self) -> tuple[Case, ...]:
        """Each prompt that is run, once."""
        return tuple(
            {id(c): c for c in (*self.together, *(c for one in self.apart for c in one.cases))}.values()
        )


def setting_prompts(
    net: Network, cases: Cases, intended: Algorithm, feared: Sequence[Algorithm], n: int, seed: int
) -> SettingPrompts:
    """At most n prompts for each feared computation on which it comes apart from the intended one, and n on which all agree.

    Raises `BadInput` where an algorithm reads what is not there or fails.
    """
    rng = np.random.default_rng([seed, 61])
    found = tuple(_apart(net, cases, intended, other, n, seed + i, rng) for i, other in enumerate(feared))

    def agree(values: Mapping[str, Any]) -> bool:
        right = set(intended.answers(values))
        return all(set(other.answers(values)) == right for other in feared)

    same = [case for case in cases if agree(case.values)]
    together = [same[int(i)] for i in rng.permutation(len(same))[:n]]
    if len(together) < n and feared:
        together += choose_cases(net, cases, n - len(together), agree, seed=seed + 97).cases
    return SettingPrompts(cases, tuple(together), found)


def come_apart(one: Algorithm, other: Algorithm, values: Mapping[str, Any]) -> bool:
    """Do two computations have no right answer in common?

    >>> from cutaway.algorithms import algorithm
    >>> first, last = algorithm("first", answer=lambda a: a), algorithm("last", answer=lambda b: b)
    >>> come_apart(first, last, {"a": "x", "b": "y"}), come_apart(first, last, {"a": "x", "b": "x"})
    (True, False)
    """
    return not set(one.answers(values)) & set(other.answers(values))


def _apart(
    net: Network,
    cases: Cases,
    intended: Algorithm,
    feared: Algorithm,
    n: int,
    seed: int,
    rng: np.random.Generator,
) -> ApartPrompts:
    there = [case for case in cases if come_apart(intended, feared, case.values)]
    same = sum(set(intended.answers(case.values)) == set(feared.answers(case.values)) for case in cases)
    at_hand = tuple(there[int(i)] for i in rng.permutation(len(there))[:n])
    if len(at_hand) >= n:
        return ApartPrompts(feared, at_hand, (), same)
    made = choose_cases(net, cases, n - len(at_hand), lambda v: come_apart(intended, feared, v), seed=seed)
    would = "" if at_hand or made.cases else _would(cases, intended, feared, made.tried, made.every, rng)
    return ApartPrompts(feared, at_hand, made.cases, same, would)


def _would(
    cases: Cases, intended: Algorithm, feared: Algorithm, tried: int, every: bool, rng: np.random.Generator
) -> str:
    """Why no prompt tells two computations apart, and which would."""
    both = f"{intended.name!r} and {feared.name!r}"
    if cases.frames is None:
        why = f"On all {len(cases)} prompts {both} give the same answer, and none can be made: they came without frames."
    elif every:
        why = (
            f"On every one of the {tried} combinations of the variables' values {both} give the same answer."
        )
    else:
        why = f"On all prompts, and on {tried} combinations of the variables' values, {both} give the same answer."
    names = list(dict.fromkeys((*intended.inputs, *feared.inputs)))
    options = {name: cases.values(name) for name in names}
    for _ in range(_MIXTURES):
        values = {name: some[int(rng.integers(len(some)))] for name, some in options.items()}
        try:
            if come_apart(intended, feared, values):
                told = ", ".join(f"{name}={value!r}" for name, value in values.items())
                derived = [name for name in names if name not in cases.free]
                free = (
                    f" Here {', '.join(derived)} follow from the other variables; let them vary freely."
                    if derived
                    else ""
                )
                return f"{why} Prompts would tell them apart in which, for example, {told}.{free}"
        except BadInput:  # values that never stand together may be none that an algorithm can take
            continue
    return f"{why} They do so for all values that their variables have here, however mixed: they are one computation."
