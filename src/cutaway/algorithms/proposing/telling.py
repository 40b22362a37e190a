"""Which prompts would tell two algorithms apart, and what may be said of a proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.model import Algorithm
from cutaway.algorithms.places import Places
from cutaway.algorithms.proposing.rules import UNKNOWN, KnownRow
from cutaway.behaviours.cases import Cases
from cutaway.behaviours.generators.engine import fill
from cutaway.claims import Claim, Evidence
from cutaway.errors import CutawayError
from cutaway.trials import claim_of

if TYPE_CHECKING:
    from cutaway.algorithms.proposing.result import TriedPlace

#: Pairs of values that are looked through for one that tells.
_LOOKED = 2000


def telling_prompts(
    cases: Cases, one: Algorithm, where: Mapping[str, Places], other: Algorithm, there: Mapping[str, Places],
    rows: Sequence[KnownRow], seed: int = 0,
) -> str:  # fmt: skip
    """Two prompts of which an exchange would tell two algorithms apart, in a sentence; or that none would.

    Looked for among the values that the frames allow, or where there are none among those of the cases.
    """
    rng = np.random.default_rng([seed, 52])
    steps = [(mine, its) for mine, at in where.items() for its, other_at in there.items() if at == other_at]
    for _ in range(_LOOKED if len(rows) > 1 else 0):
        base, source = (rows[int(i)] for i in rng.choice(len(rows), 2, replace=False))
        plain = _answers(one, base, {}, base), _answers(other, base, {}, base)
        if None not in plain and plain[0] != plain[1]:
            return (
                f"{_prompt(cases, base)} would: {_said(plain[0])} by the one, {_said(plain[1])} by the other."
            )
        for mine, its in steps:
            told = _answers(one, base, {mine: ""}, source), _answers(other, base, {its: ""}, source)
            if None not in told and told[0] != told[1]:
                return (
                    f"{_prompt(cases, base)} with {mine} from {_prompt(cases, source)} would: {_said(told[0])} by the one, "
                    f"{_said(told[1])} by the other."
                )
    return "No prompt with these values would: give a variable values, or a frame, in which they come apart."


def _answers(
    algorithm: Algorithm, base: KnownRow, step: Mapping[str, str], source: KnownRow
) -> tuple[str, ...] | None:
    """What is predicted; None where that is not known."""
    try:
        there = algorithm.run(source.values)
        found = algorithm.answers(base.values, {name: there[name] for name in step})
    except CutawayError:
        return None
    return None if UNKNOWN in found else tuple(sorted(found))


def _said(answers: tuple[str, ...] | None) -> str:
    some = [repr(answer.strip()) for answer in (answers or ())[:3]]
    return " or ".join(some)


def _prompt(cases: Cases, row: KnownRow) -> str:
    """A prompt of these values: made from the first frame, found among the cases, or told by its values."""
    if cases.frames is not None:
        text, _ = fill(cases.frames.frames[0], {name: str(value) for name, value in row.values.items()})
        return f"“{text}”"
    text = next((case.text for case in cases if case.values is row.values), "")
    return f"“{text}”" if text else ", ".join(f"{name}={value!r}" for name, value in row.values.items())


def none_shown(net: str, tried: Sequence[TriedPlace], limit: float, caps: Sequence[str]) -> Claim:
    """The claim where no algorithm came as far as a test: nothing is supported, and what came closest is told."""
    best: dict[str, TriedPlace] = {}
    for one in tried:
        if one.variable not in best or one.accuracy.value > best[one.variable].accuracy.value:
            best[one.variable] = one
    evidence = [
        Evidence(
            f"Places for {name}", one.accuracy, None, limit, None,
            f"Of the places that were tried for {name} on discovery prompts, {one.place} comes closest.", "of exchanges",
        )
        for name, one in best.items()
    ]  # fmt: skip
    why = "None of the algorithms that were considered came as far as a test on held-out prompts."
    return claim_of(f"{net} computes one of the algorithms that were considered", evidence, caps=[why, *caps])
