"""Rows of tokens from a stream of text: cut to one length, each beginning as the network's texts begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.results import brief
from cutaway.stream.shared import require_count

if TYPE_CHECKING:
    from cutaway.network import Network

#: Text as a user gives it: one string, many, or rows of token ids.
Texts = str | Iterable[str] | Iterable[list[int]] | Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Token rows of one length.

    Attributes:
        ids: LongTensor [n p].
        special: so many columns at the front are no text.
    """

    ids: Tensor
    special: int = 0

    __repr__ = brief

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.ids.shape[0])

    def split(self, share: float = 0.2, seed: int = 0) -> tuple[Rows, Rows]:
        """Two disjoint parts, drawn at random: one to fit on, and a share of the rows held out."""
        if self.n < 2:
            raise BadInput(f"{self.n} row of text cannot be split in two.", "Give more text.")
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(seed))
        held = max(1, round(self.n * share))
        return Rows(self.ids[order[held:]], self.special), Rows(self.ids[order[:held]], self.special)

    def first(self, most: int) -> Rows:
        """At most so many of the rows."""
        return Rows(self.ids[:most], self.special)

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Batches [size p] without end, each pass over the rows in an order of its own; the same for the same seed."""
        size, number = min(size, self.n), 0
        while True:
            order = torch.randperm(self.n, generator=torch.Generator().manual_seed(seed * 1_000_003 + number))
            for start in range(0, self.n - size + 1, size):
                yield self.ids[order[start : start + size]]
            number += 1


def rows_of(net: Network, texts: Texts | Rows, *, length: int = 64, most: int | None = None) -> Rows:
    """Cut text into rows of `length` tokens, packed one after the other; what is left over at the end is dropped.

    Where the tokenizer begins every text with a special token, every row begins with it. `most` rows at most. What is cut
    into rows already stays as it is.

    Raises `BadInput` where the text is shorter than one row, or the rows do not fit the context.
    """
    if isinstance(texts, Rows):
        return texts
    require_count("length", length, 3)
    if net.n_ctx is not None and length > net.n_ctx:
        raise BadInput(
            f"Rows of {length} tokens are longer than the context of {net.n_ctx}.",
            f"Use length={net.n_ctx} or less.",
        )
    if torch.is_tensor(texts):
        ids = net.encode(texts).ids
        if ids.shape[1] > length:
            ids = ids[:, :length]
        return Rows(ids[:most])
    given = [texts] if isinstance(texts, str) else texts
    start: list[int] | None = None
    stream: list[int] = []
    enough = None if most is None else most * length
    for text in given:
        if isinstance(text, str):
            whole, plain = (net.tokens_of([text], add_special_tokens=special)[0] for special in (True, False))
            if start is None:
                n = len(whole) - len(plain)
                start = whole[:n] if whole[n:] == plain else []
            stream += plain
        else:
            stream += [int(t) for t in text]
        if enough is not None and len(stream) >= enough:
            break
    start = start or []
    body = length - len(start)
    whole_rows = [start + stream[i : i + body] for i in range(0, len(stream) - body + 1, body)][:most]
    if not whole_rows:
        raise BadInput(
            f"The text has {len(stream)} tokens, fewer than one row of {length}.",
            "Give more text, or shorter rows.",
        )
    return Rows(net.encode(whole_rows).ids, len(start))
