"""Factual recall from a table: 'The capital of France is' -> ' Paris'; the corrupted prompt asks of another subject.

After Meng et al. 2022 (ROME) and Hernandez et al. 2024 (linear relational embeddings). Spans: subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, choose, collect
from cutaway.behaviours.tokenizing import KnownWords
from cutaway.errors import BadBehaviour

if TYPE_CHECKING:
    from cutaway.network import Network

CAPITAL_FRAMES: Final = (
    "The capital of {subject} is",
    "The capital of {subject} is the city of",
    "The capital city of {subject} is",
    "{subject} has its capital in",
)


@dataclass(frozen=True)
class Fact:
    """A subject, and the object that a relation gives it.

    Attributes:
        subject: of which something is asked.
        object: as it follows the prompt, with its leading space.
        relation: facts of one relation are rivals of each other.
        frames: that ask for it, with a slot `{subject}`.
    """

    subject: str
    object: str
    relation: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class FactTable:
    """A named table of facts.

    Attributes:
        name: of the behaviour that it makes.
        facts: of one or more relations.

    >>> FactTable.of("capital", [("France", "Paris")], ["The capital of {subject} is"]).facts[0].object
    ' Paris'
    """

    name: str
    facts: tuple[Fact, ...]

    @classmethod
    def of(cls, name: str, rows: Iterable[tuple[str, str]], frames: Sequence[str]) -> FactTable:
        """One relation: (subject, object) rows and frames; a space is put before each object."""
        spaced = ((s, o if o[:1].isspace() else f" {o}") for s, o in rows)
        return cls(name, tuple(Fact(s, o, name, tuple(frames)) for s, o in spaced))


CAPITALS: Final = FactTable.of("facts", W.CAPITALS, CAPITAL_FRAMES)


def facts(
    net: Network, n: int = 128, seed: int = 0, table: FactTable = CAPITALS, first_token: bool = False
) -> Behaviour:
    """Pairs of factual recall: two subjects of one relation, of as many tokens, with different objects.

    Only facts whose object is one token are used, unless `first_token`: then longer ones count by their first token. Raises
    BadBehaviour naming the objects when too few remain.
    """
    words = KnownWords(net, table.name)
    if not table.facts:
        raise BadBehaviour(f"The table {table.name!r} is empty.", "Give at least two facts of one relation.")
    rivals = _rivals(words, list(table.facts) if first_token else known_facts(words, table))
    if not rivals:
        raise BadBehaviour(
            f"No two subjects of a relation of {table.name!r} have as many tokens and different objects.",
            "Give more facts.",
        )

    def draw(rng: np.random.Generator) -> DraftPair:
        fact, others = rivals[int(rng.integers(len(rivals)))]
        other = others[int(rng.integers(len(others)))]
        frame = choose(rng, fact.frames)
        slots = {"subject": fact.subject}, {"subject": other.subject}
        return DraftPair(frame, *slots, (fact.object,), (other.object,))

    return collect(net, table.name, draw, n, seed, first_token=first_token)


def known_facts(words: KnownWords, table: FactTable) -> list[Fact]:
    """The facts whose object is one token. Raises `BadBehaviour` naming the objects where these are too few."""
    bare = {o: o.removeprefix(" ") for o in dict.fromkeys(f.object for f in table.facts)}
    known = set(words.single(bare.values(), min(4, len(bare)), "objects"))
    return [f for f in table.facts if bare[f.object] in known]


def _rivals(words: KnownWords, table: Sequence[Fact]) -> list[tuple[Fact, tuple[Fact, ...]]]:
    """Each fact with the facts of its relation that can stand against it."""
    groups: dict[tuple[str, int], list[Fact]] = {}
    for fact in table:
        groups.setdefault((fact.relation, words.size(fact.subject)), []).append(fact)
    answers: dict[tuple[str, str], set[str]] = {}
    for fact in table:
        answers.setdefault((fact.relation, fact.subject), set()).add(fact.object)
    rivals = []
    for group in groups.values():
        for fact in group:
            mine = answers[fact.relation, fact.subject]
            others = tuple(f for f in group if not mine & answers[f.relation, f.subject])
            if others:
                rivals.append((fact, others))
    return rivals
