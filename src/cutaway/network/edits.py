"""What the network asks of an edit, and what it tells it: the seam between `network` and `interventions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from cutaway.network.inputs import Pos, Tokens
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.network.network import Network

Phase = Literal["all", "prompt", "new"]


@dataclass(frozen=True, eq=False)
class Here:
    """Where an edit finds itself: the site, the token rows, and which columns the tensor before it covers.

    In one forward over whole prompts the window is all columns. In generation it is what this step computes: `start` is
    the absolute column of the tensor's first position.
    """

    site: Site
    axes: tuple[str, ...]
    tokens: Tokens | None
    start: int = 0
    prompt_columns: int | None = None
    phase: Phase = "all"
    batch: int = 1
    notes: Mapping[str, object] = field(default_factory=dict)

    def index(self, pos: Pos, size: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """(rows, columns) of the window that positions stand for; None for everything.

        pos: row-relative positions; size: length of the window. Columns outside the window are left out.
        """
        everything = pos is None or (isinstance(pos, slice) and pos == slice(None))
        if everything and self.phase == "all":
            return None
        if everything:
            columns = torch.arange(self.start, self.start + size, device=device)[None].expand(self.batch, -1)
        elif self.tokens is None:
            raw = torch.as_tensor(
                list(range(*pos.indices(size))) if isinstance(pos, slice) else pos, device=device
            )
            raw = raw.reshape(1, -1).expand(self.batch, -1) if raw.ndim < 2 else raw
            columns = torch.where(raw < 0, raw + size, raw)
        else:
            columns = self.tokens.columns(pos).to(device)
        rows = torch.arange(columns.shape[0], device=device)[:, None].expand_as(columns)
        inside = (columns >= self.start) & (columns < self.start + size)
        if self.phase != "all" and self.prompt_columns is not None:
            inside &= (columns < self.prompt_columns) == (self.phase == "prompt")
        return rows[inside], columns[inside] - self.start


#: Takes a site's value and gives the value to use instead (the same object where nothing changes).
EditFunction = Callable[[Tensor, Here], Tensor]


class Edit(Protocol):
    """Anything that can be made into functions on sites; `cutaway.interventions` has the ones people use."""

    def bind(self, network: Network) -> Sequence[tuple[Site, EditFunction]]:
        """Check the edit against the network and give the sites it works on, each with its function."""
        ...
