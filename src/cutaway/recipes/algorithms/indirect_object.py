"""Indirect object on a templated language: When Mary and John went to the park , John gave the ball to -> Mary.

The giver's name is found among the first two (a duplicate), its place is carried to the end, and the name in the other
place is moved there: the algorithm that Wang et al. 2023 found in GPT-2, one head for each step.
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, WordIds, one_of, shuffled_rows

NAMES = ("Mary", "John", "Anna", "Tom", "Lucy", "James", "Emma", "Peter", "Rose", "Paul", "Jane", "Mark")
PLACES = ("park", "shop", "school", "garden", "house", "market")
THINGS = ("ball", "book", "cup", "key", "ring", "letter")
OPENINGS, VERBS = ("When", "After", "While", "Then"), ("gave", "handed", "passed", "sold")
VOCABULARY = ("<bos>", *OPENINGS, *NAMES, "and", "went", "to", "the", *PLACES, ",", *VERBS, *THINGS)
_ID = WordIds(VOCABULARY)
FIRST, SECOND, GIVER, END = 2, 4, 9, 13
"""Positions of the two people, of the giver, and of the last token."""


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> When A and B went to the PLACE , S gave the THING to`, S one of A and B, `[n 14]`."""
    names = shuffled_rows(rng, n, range(_ID[NAMES[0]], _ID[NAMES[-1]] + 1), 2)
    giver = names[np.arange(n), rng.integers(0, 2, n)]
    opening, place = _ID.some(rng, OPENINGS, n), _ID.some(rng, PLACES, n)
    verb, thing = _ID.some(rng, VERBS, n), _ID.some(rng, THINGS, n)
    head = ("<bos>", opening, names[:, 0], "and", names[:, 1], "went", "to", place, ",")
    return _ID.rows(n, *head, giver, verb, "the", thing, "to")


def giver_place(ids: Array) -> Array:
    """0 where the giver is the first of the two, 1 where the second."""
    return (ids[:, GIVER] == ids[:, SECOND]).astype(int)


def other_name(ids: Array, place: Array) -> Array:
    """The name that stands in the place where the giver's does not."""
    return np.where(place == 0, ids[:, SECOND], ids[:, FIRST])


ALGORITHM = TaskAlgorithm(
    name="indirect-object",
    summary="What is given goes to the one of two people who does not give.",
    vocabulary=VOCABULARY,
    layers=3,
    draw=draw,
    variables=(
        CausalVariable("duplicate", (INPUT,), giver_place, Part("head", 0, 0), "which of the two names comes again"),
        CausalVariable("inhibited", ("duplicate",), lambda place: place, Part("head", 1, 0), "the same, carried to the end"),
        CausalVariable("receiver", (INPUT, "inhibited"), other_name, Part("head", 2, 0), "the name in the other place"),
    ),
    answer_reads=("receiver",),
    answer=lambda name: one_of(name, len(VOCABULARY)),
)  # fmt: skip
