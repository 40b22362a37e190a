"""Built-in behaviours, each for any tokenizer that knows the words it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators.agreement import agreement
from cutaway.behaviours.generators.cities import cities
from cutaway.behaviours.generators.docstring import docstring
from cutaway.behaviours.generators.facts import CAPITALS, Fact, FactTable, facts
from cutaway.behaviours.generators.greater_than import greater_than
from cutaway.behaviours.generators.indirect_object import indirect_object
from cutaway.behaviours.generators.induction import induction
from cutaway.behaviours.generators.list_copying import list_copying
from cutaway.behaviours.generators.pronoun import pronoun

GENERATORS: Final[dict[str, Callable[..., Behaviour]]] = {
    "ioi": indirect_object,
    "greater-than": greater_than,
    "agreement": agreement,
    "pronoun": pronoun,
    "induction": induction,
    "facts": facts,
    "docstring": docstring,
    "list-copying": list_copying,
    "cities": cities,
}

__all__ = [
    "CAPITALS", "GENERATORS", "Fact", "FactTable", "agreement", "cities", "docstring", "facts", "greater_than",
    "indirect_object", "induction", "list_copying", "pronoun",
]  # fmt: skip
