"""From differences of writers and gradients at readers to edge scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class Tally:
    """Edge scores of one batch while they are added up.

    Attributes:
        examples: [b w r], per example.
        positions: [g w r], summed by group of positions; None where positions are not told apart.
        groups: LongTensor [b p], the group of each position; -1 is left out.
    """

    examples: Tensor
    positions: Tensor | None = None
    groups: Tensor | None = None

    @classmethod
    def of(
        cls, batch: int, shape: tuple[int, int], like: Tensor, groups: Tensor | None, n_groups: int
    ) -> Tally:
        """An empty one."""
        kind = torch.float64 if like.dtype == torch.float64 else torch.float32
        examples = torch.zeros(batch, *shape, device=like.device, dtype=kind)
        positions = None if groups is None else torch.zeros(n_groups, *shape, device=like.device, dtype=kind)
        return cls(examples, positions, groups)

    def add(
        self,
        before: int,
        readers: slice,
        differences: Tensor,
        slopes: Tensor,
        weight: float = 1.0,
        writers: slice | None = None,
    ) -> None:
        """Add weight * <difference of writer, gradient at reader> for a stage.

        differences: [w b p d], of which the first `before` writers count, or those of them in `writers`; slopes: [r b p d].
        """
        rows = slice(0, before) if writers is None else slice(writers.start, min(writers.stop, before))
        if rows.start >= rows.stop:
            return
        mine = differences[rows]
        if self.positions is None or self.groups is None:
            got = torch.bmm(mine.flatten(2).transpose(0, 1), slopes.flatten(2).permute(1, 2, 0))
            self.examples[:, rows, readers] += weight * got.to(self.examples.dtype)
            return
        got = mine.permute(1, 2, 0, 3) @ slopes.permute(1, 2, 3, 0)
        got = weight * got.to(self.examples.dtype)
        self.examples[:, rows, readers] += got.sum(1)
        counted = self.groups.to(got.device) >= 0
        index = self.groups.to(got.device)[counted]
        part = torch.zeros_like(self.positions[:, rows, readers])
        self.positions[:, rows, readers] += part.index_add_(0, index, got[counted])
