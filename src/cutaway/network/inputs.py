"""What a network is run on: rows of items (tokens, patches of an image, frames), or a model's own keyword arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput
from cutaway.network.indices import position_table
from cutaway.network.interface import Interface
from cutaway.results import brief

#: Positions as a user writes them, counted from a row's first real token, or from its last when negative: an integer,
#: several, a slice, a boolean mask as long as the rows, or one list per row; see `indices`. None means all.
Pos = int | slice | Sequence[int] | Sequence[Sequence[int]] | Tensor | None


#: Numbers of an image that take about as much memory on their way through a network as one token.
_NUMBERS_A_TOKEN = 32


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of rows of items. Positions are row-relative: 0 is a row's first real item, -1 its last.

    Items are tokens, or, where `values` says what the network is given, the parts that it cuts an input into: patches of an
    image, frames of a sound. Made by `net.encode`.

    Attributes:
        ids: LongTensor [b p], token ids; zeros where items are no tokens.
        mask: BoolTensor [b p], true at real items (contiguous in each row).
        names: the items' names, row by row; None where there is no tokenizer.
        values: what the network is given instead of ids, one entry for each row: images [b c y x], for example.
    """

    ids: Tensor
    mask: Tensor
    names: tuple[tuple[str, ...], ...] | None = field(default=None, repr=False)
    values: Tensor | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        first = self.strings(0) if self.n else []
        more = ", ..." if len(first) > 12 else ""
        return f"Tokens({self.n} x {self.width}: {', '.join(map(repr, first[:12]))}{more})"

    @classmethod
    def of_values(cls, values: Tensor, items: int = 1, name: str = "item") -> Tokens:
        """Rows whose items are no tokens: each row of `values` [b ...] is cut into so many items.

        >>> Tokens.of_values(torch.zeros(2, 3, 8, 8), 4, "patch").strings()
        ['patch 0', 'patch 1', 'patch 2', 'patch 3']
        """
        n = int(values.shape[0])
        names = (tuple(f"{name} {i}" if items > 1 else name for i in range(items)),) * n
        return cls(
            torch.zeros(n, items, dtype=torch.long), torch.ones(n, items, dtype=torch.bool), names, values
        )

    @classmethod
    def of_ids(cls, ids: Tensor, mask: Tensor | None = None) -> Tokens:
        """Rows of token ids [b p] that are real where the mask says so; without one, everywhere."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        return cls(ids.cpu(), real.cpu())

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """Number of columns, padding included."""
        return self.ids.shape[1]

    @property
    def size(self) -> int:
        """How many tokens a row counts as where batches are sized: its columns, or what an image's numbers come to."""
        numbers = 0 if self.values is None else self.values[0].numel()
        return max(self.width, numbers // _NUMBERS_A_TOKEN)

    @property
    def lengths(self) -> Tensor:
        """Real tokens in each row: LongTensor [b]."""
        return self.mask.sum(1)

    @property
    def first(self) -> Tensor:
        """Column of each row's first real token: LongTensor [b]."""
        return self.mask.long().argmax(1)

    @property
    def padded(self) -> bool:
        """Whether any column of any row is padding."""
        return not bool(self.mask.all())

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Tokens:
        index = [rows] if isinstance(rows, int) else rows
        names = None
        if self.names is not None:
            picked = torch.arange(self.n)[index].tolist()
            names = tuple(self.names[i] for i in picked)
        values = None if self.values is None else self.values[index]
        return Tokens(self.ids[index], self.mask[index], names, values)

    def __iter__(self) -> Iterator[Tokens]:
        return (self[i] for i in range(self.n))

    def columns(self, pos: Pos) -> Tensor:
        """The columns that row-relative positions stand for: LongTensor [b k].

        Raises `BadAddress` when a position is outside a row, and for what is no position (see `indices`).
        """
        lengths, first = self.lengths, self.first
        pos = slice(None) if pos is None else position_table(pos)
        if isinstance(pos, slice):
            spans = [range(*pos.indices(int(n))) for n in lengths]
            sizes = sorted({len(span) for span in spans})
            if len(sizes) != 1:
                raise BadAddress(
                    f"The slice {pos.start}:{pos.stop} covers {sizes} positions in rows of unequal length.",
                    "Give positions as a list, or one row at a time.",
                )
            relative = torch.tensor([list(s) for s in spans], dtype=torch.long).reshape(self.n, -1)
        elif pos.dtype == torch.bool:
            relative = self._masked(pos)
        else:
            relative = pos.reshape(1, -1).expand(self.n, -1) if pos.ndim < 2 else pos
        if relative.shape[0] != self.n:
            raise BadAddress(
                f"Positions were given for {relative.shape[0]} rows, and there are {self.n}.",
                "Give an integer, a list of integers, or one list per row.",
            )
        if not relative.shape[1]:
            raise BadInput(f"{pos} is empty: it covers no position.", "Leave pos out for all of them.")
        size = lengths.to(relative.device)[:, None]
        absolute = torch.where(relative < 0, relative + size, relative)
        bad = (absolute < 0) | (absolute >= size)
        if bool(bad.any()):
            row, col = (int(i) for i in bad.nonzero()[0])
            raise BadAddress(
                f"Position {int(relative[row, col])} is outside row {row}, which has {int(lengths[row])} tokens.",
                f"Use positions 0 to {int(lengths.min()) - 1}, or -1 for the last one.",
            )
        return absolute + first.to(absolute.device)[:, None]

    def _masked(self, mask: Tensor) -> Tensor:
        """Positions that a boolean mask [p] or [b p] stands for: LongTensor [b k]."""
        rows = mask.cpu().expand(self.n, -1) if mask.ndim < 2 else mask.cpu()
        lengths = sorted(set(self.lengths.tolist()))
        if lengths != [rows.shape[1]] or rows.shape[0] != self.n:
            raise BadAddress(
                f"A mask of shape {tuple(mask.shape)} does not fit {self.n} rows of {_ranged(lengths)} tokens.",
                "Give a boolean mask as long as the rows are, or positions as integers.",
            )
        counts = rows.sum(1)
        if bool((counts != counts[0]).any()):
            raise BadAddress(
                "The mask selects more positions in some rows than in others.", "Select as many in every row."
            )
        return rows.nonzero()[:, 1].reshape(self.n, -1)

    def strings(self, row: int = 0) -> list[str]:
        """The token strings of one row, padding left out (token numbers where there is no tokenizer)."""
        if self.names is not None:
            return list(self.names[row])
        return [str(int(t)) for t in self.ids[row][self.mask[row]]]

    def row_ids(self, row: int) -> list[int]:
        """The token ids of one row, padding left out."""
        return [int(t) for t in self.ids[row][self.mask[row]]]

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on another device."""
        values = None if self.values is None else self.values.to(device)
        return Tokens(self.ids.to(device), self.mask.to(device), self.names, values)

    def padded_left(self) -> Tokens:
        """The same rows with padding moved to the left, as generation needs it."""
        rows = [self.row_ids(i) for i in range(self.n)]
        return pack(rows, side="left", names=self.names).to(self.ids.device)


def _ranged(lengths: Sequence[int]) -> str:
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def pack(
    rows: Sequence[Sequence[int]],
    pad_id: int = 0,
    side: str = "right",
    names: tuple[tuple[str, ...], ...] | None = None,
    columns: int | None = None,
) -> Tokens:
    """Rows of token ids as one padded batch.

    Raises `BadInput` for an empty batch or an empty row.

    >>> pack([[5, 6, 7], [8]]).ids.tolist()
    [[5, 6, 7], [8, 0, 0]]
    """
    if len(rows) == 0 or any(len(r) == 0 for r in rows):
        raise BadInput("A prompt is empty.", "Give at least one token in every row.")
    width = max(max(len(r) for r in rows), columns or 0)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, at] = torch.as_tensor(list(row), dtype=torch.long)
        mask[i, at] = True
    return Tokens(ids, mask, names)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Keyword arguments of one forward pass, with the token rows that its positions refer to (if it has any).

    Attributes:
        kwargs: by name.
        tokens: the rows; None where there are none.
        batch: how many rows.
    """

    kwargs: Mapping[str, Any]
    tokens: Tokens | None
    batch: int

    __repr__ = brief

    def select(self, rows: Tensor) -> Inputs:
        """The same inputs for some rows only."""
        picked = {
            k: v[rows] if torch.is_tensor(v) and v.shape[:1] == (self.batch,) else v
            for k, v in self.kwargs.items()
        }
        return Inputs(picked, None if self.tokens is None else self.tokens[rows], int(rows.numel()))


def token_kwargs(tokens: Tokens, interface: Interface, device: torch.device) -> dict[str, Any]:
    """The keyword arguments by which a model is given token rows.

    Without padding only the ids are passed, so that the call is the bare model's own. With padding on the left, position
    ids are passed where the model takes them, because few models derive them from the mask. A model that takes no mask is
    given none.

    Raises `BadInput` where the model takes no token ids.
    """
    if interface.ids is None:
        raise BadInput(
            "This network takes no token ids.", f"Give what it takes: net.run({{{interface.main!r}: ...}})."
        )
    kwargs: dict[str, Any] = {interface.ids: tokens.ids.to(device)}
    if not tokens.padded or not interface.masks:
        return kwargs
    kwargs["attention_mask"] = tokens.mask.to(device=device, dtype=torch.long)
    if bool((tokens.first > 0).any()) and interface.position_ids:
        kwargs["position_ids"] = (kwargs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return kwargs
