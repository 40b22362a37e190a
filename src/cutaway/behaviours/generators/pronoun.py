"""Gendered pronoun: 'Lily was happy because' -> ' she'; the corrupted prompt names a person of the other gender.

After Mathwin et al. 2023, 'Identifying a preliminary circuit for predicting gendered pronouns in GPT-2 small'. Spans: name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, choose, collect
from cutaway.behaviours.tokenizing import KnownWords
from cutaway.errors import BadBehaviour

if TYPE_CHECKING:
    from cutaway.network import Network

FRAMES: Final = (
    "{A} went to the {place} because",
    "{A} walked to the {place} because",
    "{A} came to the {place} because",
    "{A} was {feeling}, so",
    "{A} felt {feeling} when",
    "When {A} came to the {place},",
    "{A} lost the {thing} at the {place}, so",
    "{A} was very happy. When",
    "{A} was happy because",
    "{A} was sad because",
    "{A} saw a big {thing}. One day,",
    "Once upon a time, there was a little {noun} named {A}. One day,",
    "Once upon a time, {A} was very sad because",
)
_LEAST_PAIRS = 12
NOUN = {"she": "girl", "he": "boy"}


def pronoun(
    net: Network,
    n: int = 128,
    seed: int = 0,
    female: Sequence[str] = W.FEMALE,
    male: Sequence[str] = W.MALE,
    frames: Sequence[str] = FRAMES,
) -> Behaviour:
    """Pairs of gendered pronoun: 'she' against 'he', decided by a name alone (and 'girl'/'boy' in some frames).

    Names are single tokens where there are a dozen such pairs, else plain ones of as many tokens as each other. Raises
    BadBehaviour when ' she' or ' he' is not one token, or no names of both genders are of equal length.
    """
    words = KnownWords(net, "pronoun")
    words.single(("she", "he"), 2, "pronouns")
    pairs = name_pairs(words, female, male)
    pools = {"place": W.PLACES, "thing": W.THINGS, "feeling": W.FEELINGS}
    fillings = {slot: words.even(pool, 2, f"{slot}s") for slot, pool in pools.items()}
    alike = words.size("girl") == words.size("boy")
    used = words.suited([f for f in frames if alike or "{noun}" not in f], keep=6)

    def draw(rng: np.random.Generator) -> DraftPair:
        frame = choose(rng, used)
        both = pairs[int(rng.integers(len(pairs)))]
        right, wrong = ("she", "he") if rng.integers(2) else ("he", "she")
        person = dict(zip(("she", "he"), both, strict=True))
        common = {slot: choose(rng, options) for slot, options in fillings.items()}
        clean = common | {"A": person[right], "noun": NOUN[right]}
        corrupted = common | {"A": person[wrong], "noun": NOUN[wrong]}
        return DraftPair(frame, clean, corrupted, (f" {right}",), (f" {wrong}",), {"A": "name"})

    return collect(net, "pronoun", draw, n, seed)


def name_pairs(words: KnownWords, female: Sequence[str], male: Sequence[str]) -> list[tuple[str, str]]:
    """(her, him) of as many tokens as each other: single tokens if there are a dozen such pairs, else plain names."""
    pairs = [(a, b) for a in female for b in male if words.size(a) == words.size(b)]
    single = [pair for pair in pairs if words.size(pair[0]) == 1]
    plain = [(a, b) for a, b in pairs if a in W.PLAIN_FEMALE and b in W.PLAIN_MALE]
    best = single if len(single) >= _LEAST_PAIRS else plain or pairs
    if not best:
        shown = ", ".join(f"{name} {words.size(name)}" for name in (*female[:6], *male[:6]))
        raise BadBehaviour(
            f"'pronoun' needs names of both genders of as many tokens, and this tokenizer gives {shown}.",
            "Give other names.",
        )
    return best
