"""Subject-verb agreement: 'Today the keys near the cabinet' -> ' are'; the corrupted subject has the other number.

After Linzen et al. 2016 and Finlayson et al. 2021. Spans: subject, distractor (in frames that have one).
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
    "Here the {N}",
    "Today the {N} {near} the {D}",
    "Now the {N} {near} the {D}",
    "Today the {N} that the {D} saw",
    "Now the {N} that {A} liked",
    "This morning the {N}",
    "Yesterday the {N} {near} the {D}",
    "Last night the {N} {near} the {D}",
    "Yesterday the {N} that the {D} liked",
    "Last night the {N} that {A} saw",
)
PRONOUN_FRAMES: Final = (
    "One day, {N}",
    "{A} said that {N}",
    "{A} saw that {N}",
    "{A} was happy that {N}",
    "{A} was happy. One day, {N}",
    "{A} was sad because {N}",
    "The dog saw {A}. When {N}",
)
PRONOUNS: Final = (("he", "they"), ("she", "they"), ("it", "they"))
PAST = ("One day", "{A} ", "The dog", "This morning", "Yesterday", "Last night")


def agreement(
    net: Network,
    n: int = 128,
    seed: int = 0,
    nouns: Sequence[tuple[str, str]] = W.NUMBER_PAIRS,
    frames: Sequence[str] = FRAMES,
) -> Behaviour:
    """Pairs of subject-verb agreement with is/are (frames of today) or was/were (frames of the past).

    Where the tokenizer cuts plurals into more tokens than singulars, so that fewer than four noun pairs are of equal length,
    the subject is a pronoun (he, she, it / they). Verbs of several tokens are scored on their first token, with a note.
    Raises BadBehaviour when no pairs of equal length can be made.
    """
    words = KnownWords(net, "agreement")
    subjects, frames = subjects_of(words, nouns, frames)
    names = words.even(W.NAMES, 2, "names")
    used = words.suited(frames)

    def draw(rng: np.random.Generator) -> DraftPair:
        frame = choose(rng, used)
        plural = int(rng.integers(2))
        one = subjects[int(rng.integers(len(subjects)))]
        common = {"near": choose(rng, W.NEAR), "A": choose(rng, names)}
        if "{D}" in frame:
            other = rng.random() < 0.7  # a distractor of the other number is the hard case
            common["D"] = choose(rng, [p[plural != other] for p in subjects], one)
        verbs = ("was", "were") if frame.startswith(PAST) else ("is", "are")
        right, wrong = verbs[plural], verbs[1 - plural]
        clean, corrupted = common | {"N": one[plural]}, common | {"N": one[1 - plural]}
        spans = {"N": "subject", "D": "distractor", "near": "", "A": ""}
        return DraftPair(frame, clean, corrupted, (f" {right}",), (f" {wrong}",), spans)

    return collect(net, "agreement", draw, n, seed, first_token=True)


def subjects_of(
    words: KnownWords, nouns: Sequence[tuple[str, str]], frames: Sequence[str]
) -> tuple[Sequence[tuple[str, str]], Sequence[str]]:
    """Subjects of both numbers, and the frames for them: nouns, or pronouns where the tokenizer knows too few plurals.

    Raises `BadBehaviour` where there are no such pairs of equal length.
    """
    pairs = [p for p in nouns if words.size(p[0]) == words.size(p[1]) == 1]
    if len(pairs) >= 4:
        return pairs, frames
    subjects = [p for p in PRONOUNS if words.size(p[0]) == words.size(p[1])]
    if not subjects:
        shown = ", ".join(f"{a} {words.size(a)}/{b} {words.size(b)}" for a, b in (*nouns[:8], *PRONOUNS))
        raise BadBehaviour(
            f"'agreement' needs singular and plural of as many tokens, and this tokenizer gives {shown}.",
            "Use a tokenizer that knows the plurals, or give your own pairs.",
        )
    return subjects, PRONOUN_FRAMES
