"""The built-in behaviours told: what each asks of a network, with a pair of prompts as an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class BuiltIn:
    """A built-in behaviour in words.

    Attributes:
        says: what the network has to do, in one line.
        clean, corrupted: a pair of prompts.
        right, wrong: what follows the clean prompt, and what follows the corrupted one.
    """

    says: str
    clean: str
    corrupted: str
    right: str
    wrong: str


#: By the names of `GENERATORS`, in their order.
TOLD: Final[dict[str, BuiltIn]] = {
    "ioi": BuiltIn(
        "Indirect object: name the one who was given something, not the giver.",
        "When Mary and John went to the park, John gave the ball to",
        "When Mary and John went to the park, Mary gave the ball to",
        " Mary", " John",
    ),
    "greater-than": BuiltIn(
        "A war ends after it began: any later year of the century.",
        "The war lasted from the year 1732 to the year 17",
        "The war lasted from the year 1701 to the year 17",
        "33 ... 99", "02 ... 32",
    ),
    "agreement": BuiltIn(
        "The verb agrees with its subject, whatever noun stands between.",
        "Today the keys near the cabinet", "Today the key near the cabinet", " are", " is",
    ),
    "pronoun": BuiltIn(
        "The pronoun agrees with the name before it.",
        "Mary was happy because", "John was happy because", " she", " he",
    ),
    "induction": BuiltIn(
        "A sequence of random words begins again: go on as it went the first time.",
        "book tree lamp book tree", "book tree milk book tree", " lamp", " milk",
    ),
    "facts": BuiltIn(
        "Recall a fact: the capital of a country (or your own table of facts).",
        "The capital of France is", "The capital of Italy is", " Paris", " Rome",
    ),
    "docstring": BuiltIn(
        "In a docstring, name the next argument of the function.",
        "def f(self, a, b, c): ... :param a: ... :param b: ... :param",
        "def f(self, a, b, d): ... :param a: ... :param b: ... :param",
        " c", " d",
    ),
    "list-copying": BuiltIn(
        "A list is repeated: name its next item.",
        "The ball, hat, key. The ball, hat,", "The ball, hat, cup. The ball, hat,", " key", " cup",
    ),
    "cities": BuiltIn(
        "A question in two steps: the capital or language of the country of a city.",
        "The city of Milan is in a country. Its language is",
        "The city of Lyon is in a country. Its language is",
        " Italian", " French",
    ),
}  # fmt: skip
