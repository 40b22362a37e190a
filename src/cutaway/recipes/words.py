"""A tokenizer with one token for each word, for specimens whose language is a list of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def word_tokenizer(words: Sequence[str], start: bool = True) -> PreTrainedTokenizerFast:
    """Words between blanks; the first one is set before every text, and stands for padding, the end and the unknown.

    Without `start` nothing is set before a text.

    >>> word_tokenizer(["BOS", "a", "b"])("b a")["input_ids"]
    [0, 2, 1]
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    first = words[0]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=first))
    backend.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    if start:
        backend.post_processor = TemplateProcessing(  # type: ignore[assignment]
            single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=first, eos_token=first, pad_token=first, unk_token=first,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
