"""Every specimen that has a recipe, by name."""

from __future__ import annotations

import importlib
from functools import cache

from cutaway.errors import NotFound, did_you_mean
from cutaway.zoo.known import KnownWays
from cutaway.zoo.specimens import Specimen

#: Modules that list specimens with `specimens() -> tuple[Specimen, ...]`. They lie on a higher floor, so they are named
#: here by strings and imported when a name is first asked for.
MODULES: tuple[str, ...] = (
    "cutaway.recipes.constructed.catalogue",
    "cutaway.recipes.interchange.catalogue",
    "cutaway.recipes.natural.catalogue",
    "cutaway.recipes.tales.specimen",
)


@cache
def all_specimens() -> dict[str, Specimen]:
    """Every specimen, in the order of the modules."""
    known: dict[str, Specimen] = {}
    for module in MODULES:
        for specimen in importlib.import_module(module).specimens():
            known[specimen.name] = specimen
    return known


def specimen(name: str) -> Specimen:
    """The specimen of that name; NotFound with the nearest names.

    >>> specimen("induction-gpt2").family
    'constructed'
    """
    known = all_specimens()
    name = name.removeprefix("zoo:")
    if name not in known:
        raise NotFound(f"There is no recipe for a specimen {name!r}.", did_you_mean(name, known, 3))
    return known[name]


def known(name: str) -> KnownWays:
    """What is known of the prompts of a specimen, or of the one that a twin belongs to.

    Raises NotFound for an unknown name, and for a specimen of which no cases are known.

    >>> [algorithm.name for algorithm in known("zoo:two-step-gpt2~free").algorithms]
    ['in two steps', 'in one step']
    """
    what = specimen(name.partition("~")[0].partition("@")[0])
    if what.known is None:
        having = [s.name for s in all_specimens().values() if s.known is not None]
        raise NotFound(
            f"There are no cases of {what.name!r} with known variables.",
            f"There are of: {', '.join(having)}.",
        )
    return what.known
