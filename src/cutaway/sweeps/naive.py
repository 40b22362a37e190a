"""The plain way to run a sweep: one full forward pass for every cell and example, many of them in one batch.

A *cell* is a set of writes that belong together (patch this head; replace all components but these). Its value is the
metric of every example with those writes made. Cells do not influence each other, so rows of different cells share a
batch; that changes nothing but the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import OutOfMemory
from cutaway.interventions import Apply
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens

#: Called with (cells finished, cells in all).
Progress = Callable[[int, int], None]
TOKENS_AT_ONCE = 8_192


class State(IntEnum):
    """What is known of one cell on one example."""

    NOT_RUN = 0
    RUN = 1
    KNOWN_ZERO = 2  # nothing can change here, so the base value stands
    NOT_FINITE = 3  # the metric came out as NaN or infinity
    ABSENT = 4  # there is no such position or head


@dataclass(frozen=True)
class Write:
    """One address that takes its value from the source: a site of a layer, perhaps one head, perhaps one position.

    `head` and `position` None mean all of them; `position` is row-relative (0 = first real token).
    """

    site: str
    layer: int | None
    head: int | None = None
    position: int | None = None

    @property
    def where(self) -> Site:
        """The site without head and position."""
        return Site(self.site, self.layer)


#: Writes that are made together.
Cell = tuple[Write, ...]


@dataclass(frozen=True)
class Work:
    """What all cells of a sweep share.

    Attributes:
        net: the network.
        tokens: the base prompts, n rows.
        positions: LongTensor [n], the row-relative position whose logits the metric reads.
        score: (logits [k v], row numbers [k]) -> metric [k].
        sources: site -> what is written, laid out like the base run's own tensor [n p ...].
    """

    net: Network
    tokens: Tokens
    positions: Tensor
    score: Callable[[Tensor, Tensor], Tensor]
    sources: Mapping[Site, Tensor]


@dataclass(frozen=True)
class CellValues:
    """Metric [cells n] of every cell and example (NaN where there is none), its `State`, and whether it was stopped."""

    values: np.ndarray
    states: np.ndarray
    interrupted: bool = False


def run_cells(
    work: Work,
    cells: Sequence[Cell],
    base: np.ndarray | None = None,
    states: np.ndarray | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
    progress: Progress | None = None,
) -> CellValues:
    """The metric of every example under every cell's writes.

    Args:
        work: network, prompts, metric and sources.
        cells: what is written in each.
        base: [n] metric without any write; stands where a state says `KNOWN_ZERO`.
        states: [cells n]; only entries that are `NOT_RUN` are run. Default: all.
        tokens_at_once: how many tokens go through the network in one batch; halved when memory runs out.
        progress: called after each batch.

    Returns:
        values [cells n]. Ctrl-C ends the sweep; what is finished is kept and `interrupted` is set.

    Raises `OutOfMemory` when not even one row fits.
    """
    n = work.tokens.n
    states = (
        np.full((len(cells), n), State.NOT_RUN, np.int8) if states is None else states.astype(np.int8).copy()
    )
    values = np.full((len(cells), n), np.nan)
    if base is not None:
        values = np.where(states == State.KNOWN_ZERO, base[None, :], values)
    todo = np.argwhere(states == State.NOT_RUN)
    rows_at_once = max(1, tokens_at_once // max(1, work.tokens.width))
    done, interrupted = 0, False
    try:
        while done < len(todo):
            part = todo[done : done + rows_at_once]
            try:
                scores = _batch(work, cells, part)
            except OutOfMemory:
                if len(part) == 1:
                    raise
                rows_at_once = max(1, len(part) // 2)
                continue
            finite = np.isfinite(scores)
            values[part[:, 0], part[:, 1]] = np.where(finite, scores, np.nan)
            states[part[:, 0], part[:, 1]] = np.where(finite, State.RUN, State.NOT_FINITE)
            done += len(part)
            if progress is not None:
                progress(int(part[-1, 0]) + 1, len(cells))
    except KeyboardInterrupt:
        interrupted = True
    return CellValues(values, states, interrupted)


def _batch(work: Work, cells: Sequence[Cell], part: np.ndarray) -> np.ndarray:
    """Metric of one batch of (cell, row) pairs `part [k 2]`."""
    rows = torch.as_tensor(part[:, 1].copy(), dtype=torch.long)
    tokens = work.tokens[rows.to(work.tokens.ids.device)]
    masks = _masks(work, cells, part, tokens)
    edits = [
        Apply(where, _Overwrite(mask, work.sources[where][rows.to(work.sources[where].device)]))
        for where, mask in masks.items()
    ]
    run = work.net.run(tokens, edits=edits, logits=work.positions[rows][:, None])
    assert run.logits is not None
    logits = run.logits[:, 0]
    usable = ~(torch.isnan(logits) | (logits == float("inf"))).any(1).cpu()
    scores = np.full(len(part), np.nan)
    if bool(usable.any()):
        chosen = usable.nonzero()[:, 0]
        scores[chosen.numpy()] = (
            work.score(logits[chosen.to(logits.device)], rows[chosen]).detach().double().cpu().numpy()
        )
    return scores


@dataclass(frozen=True)
class _Overwrite:
    """value -> source where the mask says so. mask: [k p] or [k p h] bool."""

    mask: Tensor
    source: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        mask = self.mask.to(value.device)
        mask = mask.reshape(*mask.shape, *([1] * (value.ndim - mask.ndim)))
        return torch.where(mask, self.source.to(device=value.device, dtype=value.dtype), value)


def _masks(work: Work, cells: Sequence[Cell], part: np.ndarray, tokens: Tokens) -> dict[Site, Tensor]:
    """For each site that any cell of this batch writes: which rows, positions (and heads) it takes from the source."""
    first = tokens.first.cpu().numpy()
    masks: dict[Site, np.ndarray] = {}
    starts = np.flatnonzero(np.r_[True, np.diff(part[:, 0]) != 0])
    for start, stop in zip(starts, [*starts[1:], len(part)], strict=True):
        here = np.arange(start, stop)
        for write in cells[part[start, 0]]:
            source = work.sources[write.where]
            shape = (len(part), tokens.width) + ((source.shape[2],) if source.ndim == 4 else ())
            mask = masks.setdefault(write.where, np.zeros(shape, dtype=bool))
            columns = slice(None) if write.position is None else first[here] + write.position
            heads = () if source.ndim < 4 else (slice(None) if write.head is None else write.head,)
            if write.position is None:
                mask[(slice(start, stop), columns, *heads)] = True
            else:
                mask[(here, columns, *heads)] = True
    return {where: torch.from_numpy(mask) for where, mask in masks.items()}
