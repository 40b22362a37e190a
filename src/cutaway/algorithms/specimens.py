"""Algorithms that are known of the zoo's networks: the one that each runs, and others that it does not."""

from __future__ import annotations

import torch

from cutaway.algorithms.model import Algorithm, algorithm
from cutaway.algorithms.places import Places, VariablePlace, places_of
from cutaway.results import strict
from cutaway.zoo.registry import known
from cutaway.zoo.truth import Variable


@strict
def algorithms_of(name: str) -> dict[str, tuple[Algorithm, dict[str, Places]]]:
    """The algorithms for a specimen's task, each with its places, as `test_algorithm` takes them and their rivals.

    The first is the one that the specimen runs; how that is known its card says. Those behind it solve the same task another
    way, at the places where it would have to be. `cases_of` makes the cases.

    Args:
        name: of the specimen, `zoo:two-step-gpt2`; a twin has those of its specimen, and runs none of them at their places.

    Raises `NotFound` for an unknown name, and for a specimen of which none is known.

    >>> list(algorithms_of("zoo:one-step-gpt2"))
    ['in one step', 'in two steps']
    """
    found = {}
    for way in known(name).algorithms:
        made = algorithm(way.name, answer=way.answer, **way.steps)
        found[way.name] = (made, {variable: _place(place) for variable, place in way.places.items()})
    return found


def _place(place: str | Variable) -> Places:
    if isinstance(place, str):
        return places_of(place)
    return (VariablePlace(place.site, place.pos, None if place.basis is None else torch.tensor(place.basis)),)
