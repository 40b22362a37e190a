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
from collections.abc import Callable
from functools import cache

import numpy as np

from . import prompts as P
from . import scenes as S
from .grammar import PEOPLE, Slots, pieces, reserved

_NAMES = {person.name: index for index, person in enumerate(PEOPLE)}
_FEMALE = np.array([person.gender == "f" for person in PEOPLE])
_UNIFORM = {
    "place": P.PLACES, "place2": P.PLACES, "thing": P.THINGS, "adj": P.ADJECTIVES, "near": P.NEAR, "noun": S.SINGULAR,
    "nouns": S.PLURAL, "moved": P.MOVED, "moved2": P.MOVED, "gave": P.GAVE, "went": P.WENT, "said": P.SAID,
    "event": P.EVENTS, "city": P.CITIES, "q": P.QUOTES,
}  # fmt: skip
"""Slots filled at random, each by itself, wherever no rule below counts them with another."""


def log_probability(script: S.Script) -> float:
    """Log probability (nats) of a story's text under the grammar; at most that, see above.

    >>> from cutaway.recipes.tales.scenes import scripts
    >>> log_probability(next(scripts(0))) < 0
    True
    """
    if script.verse:
        length = len(script.verse)
        times = 1.0 if length > 12 else 1 / 3
        return math.log(S.SONGS * times / 20) - length * math.log(len(S.CHANT_WORDS))
    total = math.log((1 - S.SONGS) * S.STORY_LENGTHS.count(len(script.lines)) / len(S.STORY_LENGTHS))
    weights = sum(scene.weight for scene in S.SCENES)
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

    def log_probability(self, line: S.SceneLine, shown: set[str]) -> float:
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

    def _stranger_share(self, line: S.SceneLine) -> np.ndarray:
        if line.scene.strangers:
            return np.ones(len(self.first))
        alike = _FEMALE[self.first] == _FEMALE[self.second]
        return np.where(alike & line.scene.mixed, 1.0, S.STRANGERS)

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


def _slots(line: S.SceneLine, shown: set[str]) -> float:
    """Log probability of what fills the shown slots, the people aside."""
    scene = line.scene.name
    total = RULES[scene](line.slots, shown) if scene in RULES else 0.0
    rest = shown - _COUNTED.get(scene, set())
    if {"adj", "adj2"} <= rest:
        total -= math.log(len(P.ADJECTIVES) - 1)
    elif "adj2" in rest:
        total -= math.log(len(P.ADJECTIVES))
    return total - sum(math.log(len(words)) for slot, words in _UNIFORM.items() if slot in rest)


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
        mine, other = (S.PLURAL, S.SINGULAR) if noun in S.PLURAL else (S.SINGULAR, S.PLURAL)
        theirs = other if opposite else mine
        every = [
            (x, y) for x in mine for y in theirs if y not in (x, S.other_number(x)) and not reserved(x, y)
        ]
        share += 0.5 * weight * sum(x == noun and distractor in (None, y) for x, y in every) / len(every)
    return share


def _tally(slots: Slots, shown: set[str]) -> float:
    count = sum(f"t{i}" in shown for i in range(1, 6))
    things = sum(math.log(len(P.THINGS) - i) for i in range(count))
    there = sum(math.log(0.7 if slots[f"a{i}"] == "a" else 0.3) for i in range(2, count + 1))
    return there - things


#: Log probability of what a scene fills by a rule of its own, given its slots and which of them are shown.
RULES: dict[str, Callable[[Slots, set[str]], float]] = {
    "ioi": lambda _, __: -math.log(2),
    "name_induction": lambda s, shown: _pair_share(P.SURNAMES, P.SURNAMES, s["SA"], s["SB"] if "SB" in shown else None),
    "agreement": lambda s, shown: math.log(_nouns(s["N"], s["D"] if "D" in shown else None)),
    "greater_than": lambda s, _: _pair_share(P.CENTURIES, P.YEARS[2:98], s["CC"], s["YY"]) - math.log(99 - int(s["YY"])),
    "facts": lambda _, __: -math.log(P.ENTITY_COUNT),
    "quotation": lambda _, shown: -math.log(2 * len(P.NOUNS)) if "N" in shown else 0.0,
    "counting": lambda s, _: math.log(1 / 2 if s["start"] == P.NUMBERS[0] else 1 / 6),
    "tally": _tally,
    "adding": lambda _, __: -math.log(4 * 5),
    "possession": lambda _, shown: -math.log(len(P.THINGS) - 1) if "thing2" in shown else 0.0,
    "location": lambda s, _: _pair_share(P.PLACES, P.PLACES, s["place"], s["place2"]),
}  # fmt: skip
#: Slots that such a rule has counted, and that would else count as filled at random.
_COUNTED = {"facts": {"city"}, "location": {"place", "place2"}}
