"""What the network asks of an edit, and what it tells it: the seam between `network` and `interventions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput
from cutaway.network.indices import position_table
from cutaway.network.inputs import Pos, Tokens
from cutaway.network.sites import Site

Phase = Literal["all", "prompt", "new"]


@dataclass(frozen=True, eq=False)
class Here:
    """Where an edit finds itself: the site, the token rows, and which columns the tensor before it covers.

    In one forward over whole prompts an axis of positions covers all columns. In generation it covers the last ones of
    the `end` columns that there are so far: the queries only the new ones, the keys all. `src_tokens` are the rows of
    the other stack, at a cross-attention.

    Attributes:
        site: where the edit is made.
        axes: of the tensor, by name.
        tokens: the rows; None where there are none.
        end: how many columns there are so far; None for all.
        prompt_columns: how many of them are prompt.
        phase: prompt, new, or all.
        batch: how many rows.
        src_tokens: see above.
    """

    site: Site
    axes: tuple[str, ...]
    tokens: Tokens | None
    end: int | None = None
    prompt_columns: int | None = None
    phase: Phase = "all"
    batch: int = 1
    src_tokens: Tokens | None = None

    @property
    def pos_axis(self) -> int | None:
        """Which axis counts the positions that edits name; None where there is none."""
        return next((i for i, axis in enumerate(self.axes) if axis in ("pos", "dest")), None)

    def start(self, size: int, axis: str = "pos") -> int:
        """Absolute column at which an axis of this size begins."""
        if self.end is None or (axis == "src" and self.src_tokens is not None):
            return 0
        return max(self.end - size, 0)

    def rows_of(self, axis: str) -> Tokens | None:
        """The token rows that an axis of positions is about."""
        return self.src_tokens if axis == "src" and self.src_tokens is not None else self.tokens

    def columns(self, size: int, axis: str, device: torch.device) -> Tensor:
        """Absolute columns of an axis: LongTensor [b size]."""
        start = self.start(size, axis)
        return torch.arange(start, start + size, device=device)[None].expand(self.batch, -1)

    def _all_real(self, size: int) -> Tokens:
        """Rows whose tokens are not known: all columns of the prompt, or of an axis of this size, are real."""
        width = self.prompt_columns or self.end or size
        return Tokens.of_ids(torch.zeros(self.batch, width, dtype=torch.long))

    def index(
        self, pos: Pos, size: int, device: torch.device, axis: str = "pos", rows: list[int] | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """(rows, entries) of an axis that positions stand for; None for everything.

        pos: row-relative positions; size: length of the axis; rows: the batch rows that are meant (None: all). Columns
        that the axis does not cover are left out.
        """
        table = None if pos is None else position_table(pos)
        everything = table is None or (isinstance(table, slice) and table == slice(None))
        phased = self.phase != "all" and self.prompt_columns is not None and axis != "src"
        if everything and not phased:
            return None
        tokens = self.rows_of(axis)
        chosen = torch.arange(self.batch) if rows is None else torch.as_tensor(rows)
        if table is None or everything:
            columns = self.columns(size, axis, device)[chosen.to(device)]
        else:
            per_row = torch.is_tensor(table) and table.ndim == 2
            if per_row and len(table) != self.batch:  # type: ignore[arg-type]
                raise BadAddress(
                    f"Positions were given for {len(table)} rows, and the run has {self.batch}.",  # type: ignore[arg-type]
                    "Give an integer, a list of integers, or one list per row.",
                )
            wanted = table[chosen.to(table.device)] if per_row else table  # type: ignore[index,union-attr]
            columns = (tokens or self._all_real(size))[chosen].columns(wanted).to(device)
        start = self.start(size, axis)
        at = chosen.to(device)[:, None].expand_as(columns)
        inside = (columns >= start) & (columns < start + size)
        if phased:
            inside &= (columns < (self.prompt_columns or 0)) == (self.phase == "prompt")
        return at[inside], columns[inside] - start


#: Takes a site's value and gives the value to use instead (the same object where nothing changes).
EditFunction = Callable[[Tensor, Here], Tensor]
#: One function of an edit and the site that it works on.
Bound = tuple[Site, EditFunction]


class Edit(Protocol):
    """Anything that can be made into functions on sites; `cutaway.interventions` has the ones people use."""

    def bind(self, network: Any) -> Sequence[Bound]:
        """Check the edit against the network (a `Network`) and give the sites it works on, each with its function."""
        ...


def bind(network: Any, edits: Sequence[Edit]) -> list[Bound]:
    """The functions of several edits on one network, in the order of the edits.

    Raises `BadInput` for what is not an edit.
    """
    for edit in edits:
        if not hasattr(edit, "bind"):
            raise BadInput(f"{edit!r} is not an edit.", "Give interventions, such as cutaway.Ablate(...).")
    return [bound for edit in edits for bound in edit.bind(network)]
