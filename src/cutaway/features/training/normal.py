"""How rows of a place are brought to one scale, and which of them are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.lengths import Lengths
from cutaway.features.training.rows import Chunk


@dataclass(frozen=True, eq=False)
class Normal:
    """How rows of a place are brought to one scale: (x - mean) * scale, so that a row is about as long as sqrt(d).

    Attributes:
        lengths: of the first chunk: its mean, and which rows are too long.
        scale: the square root of d over the mean length of the rows that are kept, the mean taken off.
    """

    lengths: Lengths
    scale: float

    @classmethod
    def of(cls, rows: Tensor, place: str, longest: float | None) -> Normal:
        """As measured on rows [n d]. longest: in multiples of their median length.

        Raises `BadInput` where all rows are equal, or all that are short enough.
        """
        lengths = Lengths.of(rows, longest)
        if not lengths.typical > 1e-12 * (1 + float(lengths.mean.double().norm())):
            if lengths.share and lengths.most < float("inf"):
                raise BadInput(
                    f"No row is left at {place} that differs from the others.", "Give a larger longest=."
                )
            raise BadInput(
                f"All rows of {place} are the same, so there is nothing to explain.", "Choose another site."
            )
        return cls(lengths, float(rows.shape[1] ** 0.5 / lengths.typical))

    @property
    def mean(self) -> Tensor:
        """[d], of the rows that are kept."""
        return self.lengths.mean

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [n d] on that scale."""
        return (rows - self.mean) * self.scale

    def kept(self) -> list[float | None]:
        """Its numbers but for the mean, as a checkpoint keeps them."""
        held = self.lengths
        most = None if held.most == float("inf") else held.most
        return [self.scale, held.typical, most, held.share, held.weight, held.times]

    @classmethod
    def again(cls, mean: Tensor, numbers: list[float | None]) -> Normal:
        """From what `kept` gave."""
        scale, typical, most, share, weight, times = numbers
        assert scale is not None
        assert typical is not None
        assert share is not None
        assert weight is not None
        assert times is not None
        return cls(
            Lengths(mean, typical, float("inf") if most is None else most, share, weight, times), scale
        )


def short_enough(chunk: Chunk, normals: Mapping[str, Normal]) -> Chunk:
    """A chunk without rows that are too long at any place."""
    if all(normal.lengths.most == float("inf") for normal in normals.values()):
        return chunk
    kept = torch.ones(len(chunk), dtype=torch.bool)
    for place, normal in normals.items():
        kept &= normal.lengths(chunk.values[place])
    return replace(chunk, values={p: v[kept] for p, v in chunk.values.items()}, texts=chunk.texts[kept])
