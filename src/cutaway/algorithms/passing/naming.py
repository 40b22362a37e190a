"""Which places of which variable are looked at: those that a result of `carried` found, or that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.algorithms.carried import CarriedVariables
from cutaway.algorithms.passing.routes import in_order
from cutaway.algorithms.places import ALL, VariablePlace, shams
from cutaway.behaviours.cases import Case, Cases
from cutaway.errors import BadBehaviour, BadInput
from cutaway.network.parts import parts_of

if TYPE_CHECKING:
    from cutaway.network import Network

#: A smaller span that brings this share of what a larger one brings stands for it.
_NEARLY = 0.9
#: Pairs by which it is found out what a variable changes.
_SOME = 12
#: Of each variable its places.
PlacesOf = dict[str, tuple[VariablePlace, ...]]


def carrying(found: CarriedVariables, cases: Cases, most: int) -> tuple[dict[str, list[str]], list[str]]:
    """Of every variable the places that carry it, alone or joined to others, the strongest first; and what was left out.

    Of two spans of a part of which the one lies within the other the smaller one is taken, where it brings nearly as much.
    """
    places, notes = {}, []
    frame = found.to_pandas()
    for variable in found.variables:
        rows = frame.loc[frame["variable"] == variable].to_dict("records")
        share = {f"{row['part']}@{row['span']}": float(row["held"]) for row in rows}
        there = found.carriers(variable, alone=False)
        there = [name for name in there if not _contained(name, there, share, cases)]
        places[variable] = there[:most]
        if len(there) > most:
            notes.append(
                f"{len(there) - most} more places carry {variable!r} than the {most} that are looked at."
            )
        if not there:
            notes.append(f"No place is shown to carry {variable!r}.")
    return {name: some for name, some in places.items() if some}, notes


def _contained(name: str, there: Sequence[str], share: Mapping[str, float], cases: Cases) -> bool:
    """Is there another span of the same part that says the same, or more, of where the variable is?"""
    place, here = VariablePlace.parse(name), list(cases)
    for other in there:
        beside = VariablePlace.parse(other)
        if other == name or beside.part != place.part:
            continue
        mine, its = ([set(one.tokens(case)) for case in here] for one in (place, beside))
        if all(b < a for a, b in zip(mine, its, strict=True)) and share[other] >= _NEARLY * share[name]:
            return True
        if all(a < b for a, b in zip(mine, its, strict=True)) and share[name] < _NEARLY * share[other]:
            return True
    return False


def named_places(net: Network, cases: Cases, given: Any, most: int) -> tuple[PlacesOf, list[str]]:
    """Places by variable, checked against the network and the prompts; those of derived variables with what they follow.

    given: places for all free variables that change the answer, or by variable; a derived variable's places are looked at
    for every free one by which it changes.

    Raises `BadInput` for what names no place, or fewer than one, and what the network raises for a part that it lacks.
    """
    notes: list[str] = []
    if isinstance(given, str | VariablePlace):
        given = [given]
    if isinstance(given, Mapping):
        wanted: dict[str, list[Any]] = {}
        for variable, some in given.items():
            cases.require(variable)
            listed = [some] if isinstance(some, str | VariablePlace) else some
            if not isinstance(listed, Sequence) or not listed:
                raise BadInput(
                    f"The places of {variable!r} are {some!r:.60}.", 'Write e.g. ["m0@name", "a1.h0@last"].'
                )
            for free in _followed(net, cases, variable):
                wanted.setdefault(free, []).extend(listed)
    elif isinstance(given, Sequence) and not isinstance(given, bytes) and given:
        wanted = {variable: list(given) for variable in cases.free if _changing(net, cases, variable)}
        if not wanted:
            raise BadBehaviour(
                f"No variable of {cases.name!r} changes the answer by itself.",
                "Give prompts in which one varies while the others stay, and the answer with it.",
            )
    else:
        raise BadInput(f"The places {given!r:.60} are none.", 'Write places=["m0@name", "a1.h0@last"].')
    found: PlacesOf = {}
    if not wanted:
        raise BadInput(
            "There is no variable with places.", 'Write places={"gender": ["m0@name", "a1.h0@last"]}.'
        )
    for variable, some in wanted.items():
        read = [one if isinstance(one, VariablePlace) else VariablePlace.parse(one) for one in some]
        for place in (unique := list(dict.fromkeys(read))):
            if place.basis is not None:
                raise BadInput(f"{place} is a subspace.", "Name whole parts, or sites, at spans.")
            place.require(net, list(cases))
        if len(unique) > most:
            notes.append(f"Of {variable!r} the first {most} of {len(unique)} places are looked at.")
        found[variable] = in_order(net, unique[:most])
    return found, notes


def _followed(net: Network, cases: Cases, variable: str) -> list[str]:
    """The free variables by which a variable changes: itself, where it is free."""
    if variable in cases.free:
        return [variable]
    following = []
    for free in cases.free:
        pairs = _changing(net, cases, free)
        if any(one.values[variable] != other.values[variable] for one, other in pairs):
            following.append(free)
    if not following:
        raise BadInput(
            f"No free variable changes the derived one {variable!r} and the answer.", "Name a free variable."
        )
    return following


def _changing(net: Network, cases: Cases, variable: str) -> list[tuple[Case, Case]]:
    """Some pairs that differ in a free variable and in the answer; none where a half has none."""
    if variable in cases.steady:
        return []
    try:
        return [pair for half in cases.halves() for pair in half.telling(net, variable, n=_SOME)]
    except BadBehaviour:
        return []


def other_receivers(
    net: Network, cases: Cases, taken: Sequence[VariablePlace], receiver: VariablePlace, count: int, seed: int
) -> tuple[list[VariablePlace], list[VariablePlace]]:
    """For controls: the same part at other spans, and other parts of its kind at its span, at most `count` of each.

    None is one of the named places, or shares a token with one of the same part.
    """
    rng = np.random.default_rng([seed, 41])
    here = list(cases)
    spans: list[VariablePlace] = []
    if receiver.span != ALL:
        named = [place for place in taken if place.part == receiver.part]
        covered = [{token for place in named for token in place.tokens(case)} for case in here]
        for span in cases.spans:
            place = VariablePlace(receiver.part, span)
            free = all(not set(place.tokens(case)) & used for case, used in zip(here, covered, strict=True))
            if span != receiver.span and free:
                spans.append(place)
    order = rng.permutation(len(spans))
    elsewhere = [spans[int(i)] for i in order[:count]]
    part = receiver.named
    if part is None or part not in parts_of(net):
        return elsewhere, []
    alike = [
        found[0]
        for found in shams(net, (receiver,), taken, here, count, seed)
        if found[0].span == receiver.span
    ]
    return elsewhere, alike
