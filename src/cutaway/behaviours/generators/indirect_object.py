"""Indirect object identification: 'When Mary and John went to the store, John gave a drink to' -> ' Mary'.

After Wang et al. 2023, 'Interpretability in the Wild'. Spans: IO, S1, S2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, choose, collect
from cutaway.behaviours.tokenizing import KnownWords
from cutaway.errors import BadInput

if TYPE_CHECKING:
    from cutaway.network import Network

FRAMES: Final = (
    "When {A} and {B} went to the {place}, {S} gave the {thing} to",
    "After {A} and {B} walked to the {place}, {S} gave a {thing} to",
    "While {A} and {B} were at the {place}, {S} handed the {thing} to",
    "Then {A} and {B} went to the {place}. {S} gave a {thing} to",
    "{A} and {B} went to the {place}. Later {S} gave the {thing} to",
    "One day {A} and {B} came to the {place}, and {S} gave the {thing} to",
    "{A} and {B} had a {thing} at the {place}. {S} gave it to",
    "When {A} and {B} found a {thing} at the {place}, {S} wanted to give it to",
    "{A} saw {B} at the {place}. Then {S} gave the {thing} to",
)
Corruption = Literal["swap", "abc"]


def indirect_object(
    net: Network,
    n: int = 128,
    seed: int = 0,
    corruption: Corruption = "swap",
    names: Sequence[str] = W.NAMES,
    frames: Sequence[str] = FRAMES,
) -> Behaviour:
    """Pairs of indirect object identification, in both orders of the names.

    Args:
        corruption: "swap": the second mention names the other person, which turns the answer round; "abc": all three
            mentions are three other names (as in the paper), which leaves no answer.

    Raises BadBehaviour naming the names that are not single tokens when fewer than three (six for "abc") are.
    """
    if corruption not in ("swap", "abc"):
        raise BadInput(f"There is no corruption {corruption!r}.", "Use 'swap' or 'abc'.")
    words = KnownWords(net, "indirect object")
    people = words.single(names, 6 if corruption == "abc" else 3, "names")
    places, things = words.even(W.PLACES, 2, "places"), words.even(W.THINGS, 2, "things")
    used = words.suited(frames)

    def draw(rng: np.random.Generator) -> DraftPair:
        frame = choose(rng, used)
        io, s, *others = (people[i] for i in rng.choice(len(people), size=min(len(people), 5), replace=False))
        first = bool(rng.integers(2))
        clean = {"place": choose(rng, places), "thing": choose(rng, things), "S": s}
        clean |= {"A": io, "B": s} if first else {"A": s, "B": io}
        corrupted = clean | ({"S": io} if corruption == "swap" else dict(zip("ABS", others, strict=False)))
        spans = {"A": "IO", "B": "S1"} if first else {"A": "S1", "B": "IO"}
        return DraftPair(frame, clean, corrupted, (f" {io}",), (f" {s}",), spans | {"S": "S2"})

    return collect(net, "ioi", draw, n, seed)
