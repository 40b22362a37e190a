"""Which entries of each site a batch of (cell, row) pairs overwrites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.network.sites import Site
from cutaway.sweeps.cells import AxisLayout, Cell, Experiment, Write, columns_of


@dataclass(frozen=True, eq=False)
class Overwrite:
    """What one source writes at one site, for k pairs.

    Attributes:
        site: where.
        mask: BoolTensor [k p h u], which entries (h, u may be 1).
        source: [n p ...], the values.
    """

    site: Site
    mask: Tensor
    source: Tensor

    def apply(self, value: Tensor, pairs: slice, rows: Tensor, first: int) -> Tensor:
        """A value [b w ...] of the pairs `pairs` with the source's entries where the mask says so.

        rows: LongTensor [b], the example of each pair; first: the column at which the value's positions begin.
        """
        layout, mask = AxisLayout.of(self.site, value.ndim), self.mask[pairs]
        axis = layout.position
        width = value.shape[axis] if axis is not None else mask.shape[1]
        mask = mask[:, first : first + width]
        if not bool(mask.any()):
            return value
        shape = [mask.shape[0], *[1] * (value.ndim - 1)]
        if axis is not None:
            shape[axis] = mask.shape[1]
        else:
            mask = mask.any(1, keepdim=True)
        for target, have in ((layout.head, mask.shape[2]), (layout.unit, mask.shape[3])):
            if target is not None:
                shape[target] = have
        if layout.head is not None and axis is not None and layout.head < axis:
            mask = mask.transpose(1, 2).contiguous()
        source = taken(self.source, rows, axis, first, width)
        if self.site.axes[-1:] == ("src",):
            window = slice(first + width - value.shape[-1], first + width)
            source = source[..., window] if source.shape[-1] > value.shape[-1] else source
            mask = mask[..., window] if mask.shape[-1] > value.shape[-1] else mask
            shape[-1] = mask.shape[-1]
        new = source.to(device=value.device, dtype=value.dtype)
        return torch.where(mask.reshape(shape).to(value.device), new, value)


def taken(source: Tensor, rows: Tensor, axis: int | None, first: int, width: int) -> Tensor:
    """Rows and columns of a source [n p ...] (n may be 1, and p where it is the same everywhere)."""
    if axis is not None and source.shape[axis] > 1:
        source = source.narrow(axis, first, width)
    return source if source.shape[0] == 1 else source[rows.to(source.device)]


def covered(value: Tensor, write: Write) -> Tensor:
    """What a write at every position covers of its site's value [b ...]: a view of its head or unit, or all of it."""
    layout = AxisLayout.of(write.where, value.ndim)
    if layout.head is not None and write.head is not None:
        value = value.narrow(layout.head, write.head, 1)
    return value if write.neuron is None else value.narrow(layout.unit, write.neuron, 1)


def mask_of(writes: Sequence[Write], like: Tensor) -> Tensor:
    """Which entries of a value [b ...] of one site writes at every position cover: broadcasts to it."""
    mask = torch.zeros((1, *like.shape[1:]), dtype=torch.bool, device=like.device)
    for write in writes:
        covered(mask, write).fill_(True)
    return mask


def overwrites(experiment: Experiment, cells: Sequence[Cell], pairs: np.ndarray) -> list[Overwrite]:
    """What (cell, row) pairs [k 2] overwrite, one entry for each site and source, in the order first met.

    Pairs of one cell must stand together.
    """
    grouped: dict[tuple[Site, str], list[tuple[int, int, Write]]] = {}
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[:, 0]) != 0]).tolist() if len(pairs) else []
    for start, stop in zip(starts, [*starts[1:], len(pairs)], strict=True):
        for write in cells[pairs[start, 0]]:
            grouped.setdefault((write.where, write.source), []).append((start, stop, write))
    columns: dict[tuple[int | None, str], np.ndarray] = {}
    written = []
    for (site, _), writes in grouped.items():
        source = experiment.source(writes[0][2])
        layout = AxisLayout.of(site, source.ndim)
        by_head = any(w.head is not None for *_, w in writes)
        heads = source.shape[layout.head] if layout.head and by_head else 1
        units = source.shape[layout.unit] if any(w.neuron is not None for *_, w in writes) else 1
        mask = np.zeros((len(pairs), experiment.tokens.width, heads, units), dtype=bool)
        for start, stop, write in writes:
            key = (write.position, write.span)
            if key not in columns:
                columns[key] = columns_of(experiment, write).numpy()
            covered = columns[key][pairs[start:stop, 1]]
            head = slice(None) if write.head is None else slice(write.head, write.head + 1)
            unit = slice(None) if write.neuron is None else slice(write.neuron, write.neuron + 1)
            mask[start:stop, :, head, unit] |= covered[:, :, None, None]
        written.append(Overwrite(site, torch.from_numpy(mask), source))
    return written
