"""The pairs of each variable: prompts that differ in it alone, of both halves, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.behaviours.cases import Case, Cases
from cutaway.errors import BadBehaviour, BadInput, did_you_mean

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class VariablePairs:
    """The pairs that differ in one variable alone.

    Attributes:
        variable: its name.
        discovery: pairs of the half that places are looked for on.
        held: pairs of the half that they are tested on.
        one_sided: is in some pairs whatever is right in the first prompt right in the second, too?
    """

    variable: str
    discovery: Behaviour
    held: Behaviour
    one_sided: bool = False


def pairs_of(
    net: Network, cases: Cases, variables: Sequence[str] | None, n: int, seed: int
) -> tuple[list[VariablePairs], list[str]]:
    """The pairs of every variable, at most n of each half, and why some have none.

    variables: those that are asked for, of which each must have pairs; None for all free ones.

    Raises `BadInput` for a variable that is not there or is derived, `BadBehaviour` where one that is asked for has no
    pairs, or none has.
    """
    asked = cases.free if variables is None else _named(cases, variables)
    first, second = cases.halves()
    found: list[VariablePairs] = []
    notes: list[str] = []
    for variable in asked:
        if variables is None and variable in cases.steady:
            continue  # the cases say so themselves
        try:
            halves = [half.behaviour(net, variable, n=n, seed=seed) for half in (first, second)]
        except BadBehaviour as error:
            if variables is not None:
                raise
            notes.append(f"{error.problem} It is left out.")
            continue
        pairs = [pair for half in (first, second) for pair in half.telling(net, variable, n=n, seed=seed)]
        found.append(VariablePairs(variable, *halves, one_sided=any(_holds(b, a) for a, b in pairs)))
        if (few := min(half.n for half in halves)) < n:
            notes.append(f"Only {few} pairs of a half differ in {variable!r} alone; {n} were asked for.")
    if not found:
        raise BadBehaviour(
            f"No variable of {cases.name!r} changes the answer by itself. {' '.join(notes)}".strip(),
            "Give prompts in which one varies while the others stay, and the answer with it.",
        )
    return found, notes


def _holds(one: Case, other: Case) -> bool:
    """Is whatever is right in the other right in the one, too?"""
    return {ids[0] for _, ids in other.answers} <= {ids[0] for _, ids in one.answers}


def _named(cases: Cases, variables: Sequence[str]) -> tuple[str, ...]:
    if isinstance(variables, str):
        variables = (variables,)
    if not isinstance(variables, Sequence) or not variables:
        raise BadInput(
            f"The variables {variables!r:.60} are no list.", f"Write variables={list(cases.free[:2])!r}."
        )
    for variable in variables:
        if not isinstance(variable, str):
            raise BadInput(f"{variable!r:.60} is no variable.", did_you_mean(variable, cases.free))
        cases.require_free(variable)
    return tuple(dict.fromkeys(variables))


def spans_of(cases: Cases, spans: Sequence[str] | None) -> tuple[str, ...]:
    """Named spans that every prompt has; `BadInput` for one that is not there.

    By default each of them; of spans that cover the same tokens in every prompt the last one.
    """
    if spans is None:
        return tuple({tuple(case.spans[span] for case in cases): span for span in cases.spans}.values())
    given = (spans,) if isinstance(spans, str) else spans
    if not isinstance(given, Sequence) or not given:
        raise BadInput(f"The spans {spans!r:.60} are no list.", f"Write spans={list(cases.spans)!r}.")
    for span in given:
        if span not in cases.spans:
            raise BadInput(
                f"Not every prompt of {cases.name!r} has a span {span!r:.60}.",
                did_you_mean(span, cases.spans),
            )
    return tuple(dict.fromkeys(given))
