"""In-context list copying: 'ball, hat, key, cup. ball, hat,' -> ' key', where the corrupted list held another word there.

Spans: before (the item before the answer, in the list), item (the answer in the list), last (the item before the answer,
when the list is said again).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, collect
from cutaway.behaviours.tokenizing import KnownWords

if TYPE_CHECKING:
    from cutaway.network import Network

STYLES: Final = (  # (before the list, between items, between the list and its repetition)
    ("The", " ", ""),
    ("The", ",", "."),
    ("The", " and", "."),
    ("The", ",", ". The"),
    ("List:", ",", ". List:"),
    ("Shopping list:", ",", ". Again:"),
)
_LENGTHS = (4, 5, 6)


def list_copying(net: Network, n: int = 128, seed: int = 0, words: Sequence[str] = W.LIST_WORDS) -> Behaviour:
    """Pairs of list copying in several styles; lists of 4 to 6 words, repeated up to a random place.

    Raises BadBehaviour naming the words that are not single tokens when fewer than eight are.
    """
    known = KnownWords(net, "list copying")
    items = known.single(words, 8, "words")
    suited = known.suited([" ".join(style) for style in STYLES])
    styles = [style for style in STYLES if " ".join(style) in suited]

    def draw(rng: np.random.Generator) -> DraftPair:
        opening, comma, turn = styles[int(rng.integers(len(styles)))]
        length = int(rng.choice(_LENGTHS))
        k = int(rng.integers(1, length - 1))  # this many items before the last one that is repeated
        drawn = [items[i] for i in rng.choice(len(items), size=length + 1, replace=False)]
        joint = comma if comma.strip() else ""
        frame = opening + joint.join(f" {{w{i}}}" for i in range(length)) + turn
        frame += joint.join(f" {{r{i}}}" for i in range(k + 1)) + joint
        clean = {f"w{i}": word for i, word in enumerate(drawn)} | {f"r{i}": drawn[i] for i in range(k + 1)}
        spans = dict.fromkeys(clean, "") | {f"w{k}": "before", f"w{k + 1}": "item", f"r{k}": "last"}
        right, wrong = drawn[k + 1], drawn[length]
        label = f"{opening} _{comma} _{turn}".strip()
        return DraftPair(
            frame, clean, clean | {f"w{k + 1}": wrong}, (f" {right}",), (f" {wrong}",), spans, label
        )

    return collect(net, "list copying", draw, n, seed)
