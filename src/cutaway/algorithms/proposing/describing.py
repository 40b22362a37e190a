"""Steps, and the algorithms beside them, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cutaway.algorithms.model import Step
from cutaway.algorithms.places import Places, said
from cutaway.algorithms.proposing.assembling import AssembledAlgorithm
from cutaway.algorithms.proposing.limits import ProposalLimits
from cutaway.algorithms.proposing.result import (
    NOT_DECIDED,
    NOT_TESTED,
    NOT_TOLD_APART,
    RULED_OUT,
    ConsideredAlgorithm,
    ProposedStep,
    TriedPlace,
)
from cutaway.algorithms.proposing.rivals import ConsideredRival
from cutaway.algorithms.proposing.rules import KnownRow
from cutaway.algorithms.proposing.telling import telling_prompts
from cutaway.algorithms.result import AlgorithmTest, RivalTest
from cutaway.behaviours.cases import Cases
from cutaway.trials import percent


def steps_of(
    made: AssembledAlgorithm | None, figures: Mapping[str, TriedPlace], test: AlgorithmTest | None
) -> tuple[ProposedStep, ...]:
    """Every step with its place and its figures."""
    if made is None:
        return ()
    held = {} if test is None else {v.name: v.accuracy for v in test.variables}
    found = []
    for step in made.algorithm.steps:
        places = made.where.get(step.name, ())
        words = " and ".join(place.words for place in places)
        figure = figures.get(step.name)
        says = _sentence(made, step, words)
        if step.name in held:
            says += f": with it from another prompt the answer follows in {percent(held[step.name].value)} of exchanges"
        found.append(
            ProposedStep(
                step.name, made.variable[step.name], step.reads, said(places) if places else "", words, f"{says}.",
                None if figure is None else figure.accuracy, held.get(step.name),
            )
        )  # fmt: skip
    return tuple(found)


def _sentence(made: AssembledAlgorithm, step: Step, words: str) -> str:
    """What a step does, without its figures."""
    variable, outcome = made.variable[step.name], made.task.outcome
    reads = _listed([made.variable.get(read, read) for read in step.reads])
    if outcome is not None and variable == outcome.name and step.name == variable:
        by = f" ({made.task.says})" if made.task.says else ""
        hold = "hold" if len(made.where.get(step.name, ())) > 1 else "holds"
        return f"{words[:1].upper()}{words[1:]} {hold} the answer itself, from {reads}{by}"
    if step.name == variable:
        where = f" in {words}" if words else ", at no place that was found"
        return f"{variable} is computed from {reads}{where}"
    before = step.reads[0]
    again = "on " if before in made.where else ""
    return f"{variable} is carried {again}by {words}"


def _listed(names: Sequence[str]) -> str:
    some = list(dict.fromkeys(names))
    return some[0] if len(some) == 1 else f"{', '.join(some[:-1])} and {some[-1]}"


def considered_of(
    cases: Cases, made: AssembledAlgorithm | None, rivals: Sequence[ConsideredRival], test: AlgorithmTest | None,
    limits: ProposalLimits, rows: Sequence[KnownRow],
) -> tuple[ConsideredAlgorithm, ...]:  # fmt: skip
    """What the evidence says of each other algorithm."""
    tested = {} if test is None else {rival.name: rival for rival in test.rivals}
    found = []
    for one in rivals:
        rival = tested.get(one.algorithm.name)
        outcome, would = _outcome(rival, limits), ""
        if made is not None and outcome in (NOT_TOLD_APART, NOT_DECIDED):
            would = telling_prompts(cases, made.algorithm, made.where, one.algorithm, one.where, rows)
        lowest = None if rival is None else min(rival.variables.values(), key=lambda e: e.value)
        found.append(
            ConsideredAlgorithm(
                one.algorithm.name, one.kind, str(one.algorithm), _where(one.where), outcome, lowest,
                _why(rival, outcome, limits), would, None if rival is None else rival.claim,
            )
        )  # fmt: skip
    return tuple(found)


def _where(where: Mapping[str, Places]) -> dict[str, str]:
    return {name: said(at) for name, at in where.items()}


def _outcome(rival: RivalTest | None, limits: ProposalLimits) -> str:
    if rival is None:
        return NOT_TESTED
    if rival.claim.verdict == "refuted":
        return RULED_OUT
    return NOT_TOLD_APART if rival.apart.n < limits.differ else NOT_DECIDED


def _why(rival: RivalTest | None, outcome: str, limits: ProposalLimits) -> str:
    if rival is None:
        return "It was not tested."
    low = min(rival.variables.values(), key=lambda e: e.value)
    said_so = f"Its exchanges give what it predicts in {percent(low.value)}."
    if outcome == NOT_TOLD_APART:
        return (
            f"It predicts something else than the proposed one on {rival.apart.n} held-out prompts and exchanges, fewer "
            f"than {limits.differ}."
        )
    if rival.apart.own is not None and rival.apart.other is not None:
        said_so += (
            f" Where the two predict something else, the network does what the proposed one says in "
            f"{percent(rival.apart.own.value)}, and what this one says in {percent(rival.apart.other.value)}."
        )
    return said_so


def alike_note(one: str, other: str) -> str:
    """That two variables cannot be told apart by answers, and why."""
    return (
        f"{one!r} and {other!r} cannot be told apart: exchanging either always gives the same answers. Only prompts in "
        f"which the answer depends on {one!r} beyond {other!r} would tell."
    )
