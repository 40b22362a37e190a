"""Text of the grammar as tokens, each with the variables that determine it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice

from transformers import PreTrainedTokenizerFast

from cutaway.errors import BadInput

from .grammar import Split, Word
from .scenes import stories
from .tokenizer import StoryEncoder

Label = str | int | bool | None

CAUSES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("he", "him", "his", "girl", "boy"), ("gender",)),
    **dict.fromkeys(("is", "was"), ("number",)),
    **dict.fromkeys(("city", "job", "colour", "pet"), ("E",)),
    "IO": ("A", "B", "S"),
    "CC": ("CC",),
    "ZZ": ("YY",),
    "Q": ("q",),
    **{f"k{i}": ("start",) for i in range(1, 6)},
    "n": ("a1", "a2", "a3", "a4", "a5"),
    "z": ("x", "y"),
}
"""A slot that words before it determine -> the variables that do; a slot that is not here is determined by itself."""


@dataclass(frozen=True)
class LabelledToken:
    """A token of a story with its labels. Every token of a word has the word's labels.

    Attributes:
        text: of the token.
        id: in the vocabulary.
        story: its number.
        piece: which token of its word, from 0.
        scene: that its sentence tells.
        slot: what it fills in its sentence; None for words of the frame.
        determined: do the words before it fix it (for a later year: bound it)?
        quote: the quotation mark that is open before it.
        by: the variables that determine it, with their values.
        variables: all variables of its scene.
    """

    text: str
    id: int
    story: int
    piece: int
    scene: str
    slot: str | None
    determined: bool
    quote: str
    by: dict[str, Label]
    variables: dict[str, Label]

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)


def tokens(
    tokenizer: PreTrainedTokenizerFast, n: int, seed: int | str = 0, split: Split = "train"
) -> Iterator[LabelledToken]:
    """The first `n` tokens of the stories of a seed, with their labels, without the marks of beginning and end.

    Raises BadInput when n is negative.
    """
    if n < 0:
        raise BadInput(f"There are no {n} tokens.", "Ask for a number from 0.")
    return islice(chain.from_iterable(told(tokenizer, seed, split)), n)


def told(
    tokenizer: PreTrainedTokenizerFast, seed: int | str = 0, split: Split = "train"
) -> Iterator[tuple[LabelledToken, ...]]:
    """The stories of a seed, without end, as labelled tokens."""
    encode = StoryEncoder(tokenizer)
    for number, story in enumerate(stories(seed, split)):
        yield tuple(token for word in story.words for token in _labelled(tokenizer, encode, word, number))


def _labelled(
    tokenizer: PreTrainedTokenizerFast, encode: StoryEncoder, word: Word, number: int
) -> Iterator[LabelledToken]:
    labels = dict(word.labels)
    scene, slot, determined, quote = (labels.pop(key) for key in ("scene", "slot", "determined", "quote"))
    causes = CAUSES.get(str(slot), (str(slot),)) if determined else ()
    if slot == "verse":
        causes = ("beat",) if determined else ()
    by = {name: labels[name] for name in causes if labels.get(name) is not None}
    for piece, token in enumerate(encode.word(word.text)):
        text, slot_name = str(tokenizer.decode([token])), None if slot is None else str(slot)
        told_of = (str(scene), slot_name, bool(determined), str(quote), by, labels)
        yield LabelledToken(text, token, number, piece, *told_of)
