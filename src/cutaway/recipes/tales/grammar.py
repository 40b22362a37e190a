"""The grammar of `tales`: frames filled with words, each word with the variables that determine it.

`stories(seed)` streams stories without end. A story is a list of words; a word carries its text (with its
leading space, if it has one) and its labels. Some pairs of words are *reserved*: the training split never
puts them together, and the test split uses nothing else, so a test prompt was never seen in training.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from . import prompts as P

Split = Literal["train", "test"]
Slots = dict[str, str]

_PIECE = re.compile(r"\{(\w+)(!?)\}|([A-Za-z]+|[0-9]{1,2}|[^\sA-Za-z0-9{}])|( )")
_WORD = re.compile(r" ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]")


@dataclass(frozen=True)
class Word:
    """One word of a story.

    Attributes:
        text: with its leading space, if it has one.
        labels: the variables of the scene (who, where, number, ...) and four of the word itself: `scene`, `slot` (the
            frame's slot it fills, or None), `determined` (do the words before it fix it?) and `quote` (the quotation mark
            that is open just before it, or "").
    """

    text: str
    labels: Mapping[str, str | int | bool | None]


@dataclass(frozen=True)
class Story:
    """A small text and its words; `text` is the words joined.

    Attributes:
        words: in order.
    """

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """What the story reads."""
        return "".join(word.text for word in self.words)


@dataclass(frozen=True)
class Person:
    """Somebody in a story.

    Attributes:
        name: one word.
        gender: "f" or "m".
    """

    name: str
    gender: str

    @property
    def pronouns(self) -> tuple[str, str, str]:
        """As subject, as object, as owner."""
        return ("she", "her", "her") if self.gender == "f" else ("he", "him", "his")

    @property
    def noun(self) -> str:
        """Girl or boy."""
        return "girl" if self.gender == "f" else "boy"


PEOPLE = tuple(Person(n, "f") for n in P.FEMALE) + tuple(Person(n, "m") for n in P.MALE)
GENDER = {person.name: person.gender for person in PEOPLE}


def reserved(*words: str) -> bool:
    """Is this combination of words kept out of training? About one in eight is; order does not matter."""
    return zlib.crc32("|".join(sorted(words)).encode()) % 8 == 0


@cache
def entities() -> dict[str, dict[str, str]]:
    """The invented beings and their facts: name -> {"city", "job", "colour", "pet"}. Always the same 200."""
    rng = random.Random("the beings of tales")
    every = [f"{head} {tail}" for head in P.ENTITY_HEADS for tail in P.ENTITY_TAILS]
    names = rng.sample(every, P.ENTITY_COUNT)
    tables = {"city": P.CITIES, "job": P.JOBS, "colour": P.COLOURS, "pet": P.PETS}
    return {name: {fact: rng.choice(words) for fact, words in tables.items()} for name in names}


def person(name: str) -> Person:
    """The person of this name; KeyError if the grammar has none."""
    return Person(name, GENDER[name])


class Draw:
    """Random choices for one split: a seeded generator that keeps reserved pairs in or out."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng = rng
        self.split = split

    def pick(self, words: tuple[str, ...], *but: str) -> str:
        """A word of the table, none of `but`."""
        while (word := words[int(self.rng.random() * len(words))]) in but:
            pass
        return word

    def allowed(self, *words: str) -> bool:
        """May these words stand together in this split?"""
        return reserved(*words) == (self.split == "test")

    def pair(self, first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, str]:
        """A word of each table, different, together allowed in this split."""
        while True:
            a, b = self.pick(first), self.pick(second)
            if a != b and self.allowed(a, b):
                return a, b

    def couple(self, mixed: bool = False, but: frozenset[str] = frozenset()) -> tuple[Person, Person]:
        """Two people allowed together; `mixed`: of different gender; none of the names in `but`."""
        while True:
            a, b = (PEOPLE[int(self.rng.random() * len(PEOPLE))] for _ in range(2))
            apart = a.name != b.name and not (mixed and a.gender == b.gender)
            if apart and not but & {a.name, b.name} and self.allowed(a.name, b.name):
                return a, b


@cache
def pieces(frame: str) -> tuple[tuple[str, bool, bool, bool], ...]:
    """A frame cut up: (text or slot, is it a slot, is it marked, does a space come before it)."""
    out, space = [], False
    for match in _PIECE.finditer(frame):
        slot, mark, text, blank = match.groups()
        if blank:
            space = True
            continue
        out.append((slot or text, bool(slot), bool(mark), space))
        space = False
    return tuple(out)


def question(frame: str) -> str:
    """The slot a frame asks for: its last marked one; "" if it has none."""
    return next((text for text, _, mark, _ in reversed(pieces(frame)) if mark), "")


def render(frame: str, slots: Slots, scene: str, space: bool = False) -> list[Word]:
    """Fill a frame. Slots that the frame does not use become labels only. `space`: begin with a space."""
    words: list[Word] = []
    quote = ""
    for index, (piece, is_slot, mark, blank) in enumerate(pieces(frame)):
        filled = slots[piece] if is_slot else piece
        lead = " " if (blank or (index == 0 and space)) else ""
        for part in _WORD.findall(lead + filled):
            slot = piece if is_slot else None
            labels = slots | {"scene": scene, "slot": slot, "determined": mark, "quote": quote}
            words.append(Word(part, labels))
        if piece == "q":
            quote = filled
        elif piece == "Q":
            quote = ""
    return words


def prompt_text(frame: str, slots: Slots) -> str:
    """The frame's text up to its question, without a trailing space."""
    every = pieces(frame)
    cut = max(i for i, (_, _, mark, _) in enumerate(every) if mark)
    filled = ((slots[piece] if is_slot else piece, blank) for piece, is_slot, _, blank in every[:cut])
    return "".join((" " if blank else "") + text for text, blank in filled)


def answer_text(frame: str, slot_value: str) -> str:
    """The frame's answer as it follows the prompt: with a leading space where the frame has one."""
    blank = next(b for _, _, mark, b in reversed(pieces(frame)) if mark)
    return (" " if blank else "") + slot_value
