"""Text and token ids: how a network reads prompts and writes words."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput, TooLong
from cutaway.network.discovery.example import context
from cutaway.network.inputs import Tokens, pack
from cutaway.network.interface import text_part
from cutaway.results import listed

#: Everything that can be run: text, token ids, or a model's own keyword arguments.
InputLike = str | Sequence[str] | Sequence[Sequence[int]] | Tensor | Tokens | Mapping[str, Any]

_GIVE = "Give text, a list of texts, token ids, or a list of rows of token ids."


class Texts:
    """How one network's prompts become token ids and its token ids become words."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, tables: tuple[int | None, int | None] = (None, None)
    ) -> None:
        """Of a model with its tokenizer; `tables`: how many tokens and positions its embeddings were found to hold."""
        self.model = model
        self.tokenizer = tokenizer
        self.tables = tables

    @property
    def n_ctx(self) -> int | None:
        """Longest prompt: what the configuration names, else how many positions are embedded; None where neither tells."""
        return context(self.model) or self.tables[1]

    def encode(self, inputs: InputLike, add_special_tokens: bool = True) -> Tokens:
        """Text or token ids as rows of tokens, padded on the right.

        Raises `BadInput` for an empty prompt, text without a tokenizer or what is neither text nor token ids, `TooLong`
        for a prompt beyond the context.
        """
        if isinstance(inputs, Tokens):
            if inputs.values is None and inputs.n:
                self.check_length(int(inputs.lengths.max()))
            return inputs
        rows = self.tokens_of(inputs, add_special_tokens)
        self.check_length(max((len(r) for r in rows), default=0))
        size, ids = self.d_vocab_in, [t for row in rows for t in row]
        worst, least = max(ids, default=0), min(ids, default=0)
        if least < 0:
            raise BadInput(f"Token id {least} is negative.", "Token ids are counted from 0.")
        if size is not None and worst >= size:
            raise BadInput(
                f"Token id {worst} is outside the vocabulary of {size} tokens.", f"Use ids 0 to {size - 1}."
            )
        tokens = pack(rows, self.pad_id)
        names = tuple(tuple(self.token_strings(r)) for r in rows)
        return Tokens(tokens.ids, tokens.mask, names)

    def check_length(self, longest: int) -> None:
        """Raise `TooLong` where the longest of some prompts, of so many tokens, is beyond the context."""
        if self.n_ctx is not None and longest > self.n_ctx:
            raise TooLong(
                f"A prompt has {longest} tokens; the context of this network is {self.n_ctx}.",
                f"Shorten it to at most {self.n_ctx} tokens.",
            )

    @cached_property
    def d_vocab_in(self) -> int | None:
        """Number of token ids that can be given."""
        get = getattr(self.model, "get_input_embeddings", None)
        embed = get() if callable(get) else None
        weight = getattr(embed, "weight", None)
        return int(weight.shape[0]) if torch.is_tensor(weight) and weight.ndim == 2 else self.tables[0]

    def tokens_of(self, inputs: Any, add_special_tokens: bool = True) -> list[list[int]]:
        """The token ids of each prompt, of any length and without padding: what `encode` makes a batch of.

        Raises `BadInput` for text without a tokenizer and for what is neither text nor token ids.
        """
        if isinstance(inputs, str):
            inputs = [inputs]
        if torch.is_tensor(inputs):
            return _tensor_rows(inputs)
        if isinstance(inputs, bytes | Mapping) or not isinstance(inputs, Iterable):
            raise BadInput(f"{inputs!r:.80} is neither text nor token ids.", _GIVE)
        rows = listed(inputs, "The prompts")
        if not rows:
            raise BadInput("There are no prompts: the list is empty.", "Give at least one prompt.")
        texts = sum(isinstance(row, str) for row in rows)
        if "" in (row for row in rows if isinstance(row, str)):
            raise BadInput("A prompt is empty.", "Give at least one token in every row.")
        if texts == len(rows):
            tokenizer = self._tokenizer()
            for text in rows:
                require_characters(text)
            return [list(tokenizer(t, add_special_tokens=add_special_tokens)["input_ids"]) for t in rows]
        many = [_is_row(row) for row in rows]
        if texts or (any(many) and not all(many)):
            raise BadInput("The prompts mix text, token ids and rows of token ids.", _GIVE)
        return [[_token_id(t) for t in row] for row in (rows if many[0] else [rows])]

    @property
    def pad_id(self) -> int:
        """The token that stands where a row is padded: the tokenizer's, else the configuration's, else 0."""
        for source in (self.tokenizer, text_part(getattr(self.model, "config", None))):
            for key in ("pad_token_id", "eos_token_id"):
                value = getattr(source, key, None)
                if isinstance(value, int) and 0 <= value < (self.d_vocab_in or value + 1):
                    return value
        return 0

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Each token as text (its number where there is no tokenizer)."""
        return token_strings(self.tokenizer, ids)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Token ids as text."""
        if self.tokenizer is None:
            return " ".join(str(int(i)) for i in ids)
        return self.tokenizer.decode([int(i) for i in ids])

    def is_single_token(self, text: str) -> bool:
        """Whether a piece of text is one token of this network's tokenizer."""
        return len(self.continuation_ids(text)) == 1

    def to_single_token(self, text: str) -> int:
        """The token that a piece of text is.

        Raises `BadInput` naming the pieces when it is not one token.
        """
        ids = self.continuation_ids(text)
        if len(ids) != 1:
            instead = spaced(self, text)
            raise BadInput(
                f"{text!r} is {len(ids)} tokens here: {self.token_strings(ids)}.",
                (f"Did you mean {instead!r}, with its space? " if instead else "")
                + "Choose a word that is one token, or give the ids of several.",
            )
        return ids[0]

    def continuation_ids(self, text: str) -> list[int]:
        """Token ids of a piece of text as it continues other text.

        Raises `BadInput` without a tokenizer.
        """
        return continuation_ids(self._tokenizer(), text)

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise BadInput(
                "This network was opened without a tokenizer.",
                "Give token ids, or open it with tokenizer=...",
            )
        return self.tokenizer


def token_strings(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token of a tokenizer as text; its number where there is none."""
    return [str(int(i)) if tokenizer is None else _token_text(tokenizer, int(i)) for i in ids]


def _token_text(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(piece, str) and piece.startswith("\u2581") and not text.startswith(" "):
        text = " " + text
    return text or str(piece)


def _is_row(item: Any) -> bool:
    """Whether one item of a list is a row of token ids, not a single one."""
    if torch.is_tensor(item):
        return item.ndim > 0
    return isinstance(item, Iterable) and getattr(item, "ndim", 1) > 0


def _tensor_rows(ids: Tensor) -> list[list[int]]:
    """A tensor of token ids as rows."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise BadInput(f"A tensor of {str(ids.dtype).removeprefix('torch.')} holds no token ids.", _GIVE)
    if ids.ndim not in (1, 2):
        raise BadInput(
            f"A tensor of shape {tuple(ids.shape)} is not rows of token ids.",
            "Give one row [p], or rows of equal length [b p].",
        )
    return [ids.tolist()] if ids.ndim == 1 else ids.tolist()


def _token_id(value: Any) -> int:
    """One token id as an integer."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise BadInput(f"{value!r:.80} is not a token id.", "Give token ids as integers.") from error


class Speller(Protocol):
    """What tells the tokens of a piece of text: a network, or its texts."""

    def continuation_ids(self, text: str) -> list[int]:
        """Token ids of a piece of text as it continues other text."""
        ...


def spaced(texts: Speller, word: str) -> str:
    """The word with a space before it, where that is one token and the word as it is written is another or several; else "".

    Most tokenizers write the space before a word into its token, so that "she" in the middle of a sentence is " she".
    """
    if not word or not word[0].isalnum():
        return ""
    with_space = texts.continuation_ids(f" {word}")
    return f" {word}" if len(with_space) == 1 and with_space != texts.continuation_ids(word) else ""


def continuation_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of text as it continues other text.

    Tokenizers that put a space before everything (sentencepiece) are asked about the text behind a known token, so that
    " Mary" is one token there as well.
    """

    def ids(piece: str) -> list[int]:
        return list(tokenizer(piece, add_special_tokens=False)["input_ids"])

    if text.startswith(" "):
        anchor, whole = ids("a"), ids("a" + text)
        if len(anchor) == 1 and whole[:1] == anchor:
            return whole[1:]
    return ids(text)


def require_characters(text: str) -> None:
    """Raise `BadInput` for half a surrogate pair, which is no character and which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(
            f"The text {text!r:.80} holds {text[error.start]!r}, which is no character.",
            "Read it with the right encoding.",
        ) from error
