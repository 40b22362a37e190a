"""The tokenizer of `tales`: byte-pair merges learned from the grammar's words, one token for each of them."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from . import prompts as P
from .grammar import Story
from .scenes import CHANT_WORDS, stories

SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
PAD, BOS, EOS, UNK = range(len(SPECIAL))  # the trainer gives them the first ids, in this order
# Printable ASCII and the newline, as the byte-level step spells them. Anything else is <unk>.
ALPHABET = sorted({chr(code) for code in range(33, 127)} | {"Ġ", "Ċ"})
# A word, two digits, or one other sign, each with the space before it: the year "1732" is "17" "32".
PATTERN = r" ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]|\s"


def _wholes() -> list[str]:
    """All that shall be one token: words with and without a space, pieces of invented names, numbers."""
    seen = {word.text for story in islice(stories("tokenizer"), 20_000) for word in story.words}
    spaced = {" " + word for word in (*CHANT_WORDS, *P.ENTITY_TAILS)}
    both = {space + word for word in (*P.ENTITY_HEADS, *P.FEMALE, *P.MALE) for space in ("", " ")}
    return sorted(seen | spaced | set(P.YEARS) | both)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Learn the merges. The vocabulary is the least (in steps of 8) in which each word is one token."""
    wholes = _wholes()
    size = len(SPECIAL) + len(ALPHABET) + len(wholes)
    while True:
        tokenizer = _trained(wholes, size)
        if all(len(tokenizer.encode(whole, add_special_tokens=False).ids) == 1 for whole in wholes):
            return PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, padding_side="right", **SPECIAL
            )  # fmt: skip
        size += 8


def _trained(wholes: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"], fuse_unk=True))
    words = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    special = list(SPECIAL.values())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=1,
        initial_alphabet=ALPHABET,
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(wholes, trainer)
    bos = SPECIAL["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


class StoryEncoder:
    """Stories to token ids, word by word. Words never share a token: this equals encoding the whole text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.word = cache(lambda text: tuple(tokenizer.encode(text, add_special_tokens=False)))

    def __call__(self, story: Story) -> tuple[list[int], list[int]]:
        """Token ids with <bos> and <eos>; for each token the index of its word (-1 for the two specials)."""
        ids, owner = [BOS], [-1]
        for index, word in enumerate(story.words):
            pieces = self.word(word.text)
            ids += pieces
            owner += [index] * len(pieces)
        return [*ids, EOS], [*owner, -1]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in a folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
