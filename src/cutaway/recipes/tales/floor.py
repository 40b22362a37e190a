"""The grammar's own entropy: how well a reader who knew the grammar could foretell a story.

The probability of a story is computed from the grammar's choices, with what cannot be seen summed out: which two people
stay through the story, who is a stranger, and every slot that the sentence does not use. Slots that hang together are
counted together. The mean of minus the log probability, over stories drawn from the grammar, is the floor under any
network's loss on them.

One thing is left out of the sum: the grammar keeps a stranger whom the sentence does not name from coming again, and
here nobody knows. What is computed is still a distribution over stories, so its mean minus log probability is an upper
bound of the entropy; the names of at most a few of 64 people are concerned, which is a thousandth of a nat a token.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from . import prompts as P
from .grammar import PEOPLE, Slots, pieces, reserved
from .scenes import (
    CHANT_WORDS,
    PLURAL,
    SCENES,
    SINGULAR,
    SONGS,
    STORY_LENGTHS,
    STRANGERS,
    SceneLine,
    Script,
    other_number,
)

_NAMES = {person.name: index for index, person in enumerate(PEOPLE)}
_FEMALE = np.array([person.gender == "f" for person in PEOPLE])
_UNIFORM = {
    "place": P.PLACES, "place2": P.PLACES, "thing": P.THINGS, "adj": P.ADJECTIVES, "near": P.NEAR, "noun": SINGULAR,
    "nouns": PLURAL, "moved": P.MOVED, "moved2": P.MOVED, "gave": P.GAVE, "went": P.WENT, "said": P.SAID,
    "event": P.EVENTS, "city": P.CITIES, "q": P.QUOTES,
}  # fmt: skip
"""Slots filled at random, each by itself, wherever no rule below counts them with another."""


def log_probability(script: Script) -> float:
    """Log probability (nats) of a story's text under the grammar; at most that, see above.

    >>> from cutaway.recipes.tales.scenes import scripts
    >>> log_probability(next(scripts(0))) < 0
    True
    """
    if script.verse:
        length = len(script.verse)
        times = 1.0 if length > 12 else 1 / 3
        return math.log(SONGS * times / 20) - length * math.log(len(CHANT_WORDS))
    total = math.log((1 - SONGS) * STORY_LENGTHS.count(len(script.lines)) / len(STORY_LENGTHS))
    weights = sum(scene.weight for scene in SCENES)
    people = _People()
    for line in script.lines:
        shown = {slot for slot, is_slot, _, _ in pieces(line.frame) if is_slot}
        total += math.log(line.scene.weight / weights / len(line.scene.frames))
        total += people.log_probability(line, shown) + _slots(line, shown)
    return total


@cache
def _couples(mixed: bool) -> np.ndarray:
    """Who may stand beside whom in training, bool `[people people]`."""
    names = [person.name for person in PEOPLE]
    allowed = np.array([[a != b and not reserved(a, b) for b in names] for a in names])
    return allowed & (_FEMALE[:, None] != _FEMALE[None]) if mixed else allowed


class _People:
    """Who the two that stay may be, given the names seen so far: a weight for every couple."""

    def __init__(self) -> None:
        self.first, self.second = np.nonzero(_couples(False))
        self.weight = np.full(len(self.first), 1 / len(self.first))
        self.seen = np.zeros(len(PEOPLE), bool)

    def log_probability(self, line: SceneLine, shown: set[str]) -> float:
        """Log probability of the names in a line; what they say of the couple is taken up."""
        if "A" not in shown:
            return 0.0
        a = _NAMES[line.slots["A"]]
        b = _NAMES[line.slots["B"]] if "B" in shown else None
        strange = self._stranger_share(line)
        straight, turned = self.first == a, self.second == a
        if b is not None:
            straight, turned = straight & (self.second == b), turned & (self.first == b)
        acquainted = (1 - strange) * 0.5 * (straight.astype(float) + turned)
        likelihood = acquainted + strange * self._strangers(line.scene.mixed, a, b)
        joint = self.weight * likelihood
        total = float(joint.sum())
        if total == 0.0:
            return -math.inf
        self.weight = joint / total
        self.seen[[a] if b is None else [a, b]] = True
        return math.log(total)

    def _stranger_share(self, line: SceneLine) -> np.ndarray:
        if line.scene.strangers:
            return np.ones(len(self.first))
        alike = _FEMALE[self.first] == _FEMALE[self.second]
        return np.where(alike & line.scene.mixed, 1.0, STRANGERS)

    def _strangers(self, mixed: bool, a: int, b: int | None) -> np.ndarray:
        """Probability that two strangers are a and b (or a and anybody), for each couple that may stay."""
        may = _couples(mixed)
        free = ~self.seen
        beside = may @ free.astype(int)
        p, q = self.first, self.second
        p_free, q_free = free[p].astype(int), free[q].astype(int)
        count = free.astype(int) @ beside - 2 * p_free * beside[p] - 2 * q_free * beside[q]
        count = count + 2 * p_free * q_free * may[p, q]
        fits = free[a] & (p != a) & (q != a)
        if b is None:
            ways = beside[a] - p_free * may[a, p] - q_free * may[a, q]
        else:
            ways = (free[b] & may[a, b]) * ((p != b) & (q != b)).astype(int)
        return fits * ways / np.maximum(count, 1)


def _slots(line: SceneLine, shown: set[str]) -> float:
    """Log probability of what fills the shown slots, the people aside."""
    total, rest = _coupled(line.scene.name, line.slots, shown)
    if {"adj", "adj2"} <= rest:
        total -= math.log(len(P.ADJECTIVES) - 1)
    elif "adj2" in rest:
        total -= math.log(len(P.ADJECTIVES))
    return total - sum(math.log(len(words)) for slot, words in _UNIFORM.items() if slot in rest)


def _coupled(scene: str, slots: Slots, shown: set[str]) -> tuple[float, set[str]]:
    """Log probability of the slots that a scene fills by a rule of its own, and the slots that remain."""
    if scene == "ioi":
        return -math.log(2), shown
    if scene == "name_induction":
        return _pair_share(P.SURNAMES, P.SURNAMES, slots["SA"], slots["SB"] if "SB" in shown else None), shown
    if scene == "agreement":
        return math.log(_nouns(slots["N"], slots["D"] if "D" in shown else None)), shown
    if scene == "greater_than":
        start = _pair_share(P.CENTURIES, P.YEARS[2:98], slots["CC"], slots["YY"])
        return start - math.log(99 - int(slots["YY"])), shown
    if scene == "facts":
        return -math.log(P.ENTITY_COUNT), set()
    if scene == "quotation":
        return (-math.log(2 * len(P.NOUNS)) if "N" in shown else 0.0), shown
    if scene == "counting":
        return math.log(1 / 2 if slots["start"] == P.NUMBERS[0] else 1 / 6), shown
    if scene == "tally":
        return _tally(slots, shown), shown
    if scene == "adding":
        return -math.log(4 * 5), shown
    if scene == "possession" and "thing2" in shown:
        return -math.log(len(P.THINGS) - 1), shown
    if scene == "location":
        return _pair_share(P.PLACES, P.PLACES, slots["place"], slots["place2"]), shown - {"place", "place2"}
    return 0.0, shown


@cache
def _pair_share(first: tuple[str, ...], second: tuple[str, ...], a: str, b: str | None) -> float:
    """Log share of the allowed pairs that are (a, b), or that begin with a."""
    every = [(x, y) for x in first for y in second if x != y and not reserved(x, y)]
    return math.log(sum(x == a and b in (None, y) for x, y in every) / len(every))


@cache
def _nouns(noun: str, distractor: str | None) -> float:
    """Share of a subject and a distractor (or of a subject alone) in the scenes of agreement."""
    share = 0.0
    for opposite, weight in ((True, 0.7), (False, 0.3)):
        mine, other = (PLURAL, SINGULAR) if noun in PLURAL else (SINGULAR, PLURAL)
        theirs = other if opposite else mine
        every = [(x, y) for x in mine for y in theirs if y not in (x, other_number(x)) and not reserved(x, y)]
        share += 0.5 * weight * sum(x == noun and distractor in (None, y) for x, y in every) / len(every)
    return share


def _tally(slots: Slots, shown: set[str]) -> float:
    count = sum(f"t{i}" in shown for i in range(1, 6))
    things = sum(math.log(len(P.THINGS) - i) for i in range(count))
    there = sum(math.log(0.7 if slots[f"a{i}"] == "a" else 0.3) for i in range(2, count + 1))
    return there - things
