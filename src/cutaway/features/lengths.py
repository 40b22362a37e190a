"""Rows of a site that are many times longer than the others, and speak for all of them in every sum of squares.

Networks park attention on tokens whose stream is a hundred times as long as that of others ("massive activations", Sun et
al. 2024). Most are the first of a text, which are apart anyway; the few others may hold most of the variance, and a
dictionary that has hardly seen any errs on them by more than their length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.errors import BadInput

#: Rows so many times longer than the median are left out, where nobody says otherwise.
LONGEST = 5.0
#: From this share of the sum of squares on, rows that are kept although they are long are spoken of.
_MUCH = 0.5


@dataclass(frozen=True, eq=False)
class Lengths:
    """How long rows of a site are, and which of them are too long to stand among the others.

    Attributes:
        mean: [d], of the rows that are kept.
        typical: the mean length of these, the mean taken off.
        most: rows that are longer, the mean taken off, are left out; infinity for none.
        share: of all rows, those that are longer than `LONGEST` or the multiple that was asked for.
        weight: what these hold of the sum of squares about the mean of all rows.
        times: the multiple of the median length.
    """

    mean: Tensor
    typical: float
    most: float = field(default=float("inf"))
    share: float = 0.0
    weight: float = 0.0
    times: float = LONGEST

    @classmethod
    def of(cls, rows: Tensor, longest: float | None) -> Lengths:
        """As measured on rows [n d].

        longest: rows so many times longer than the median are left out; None to keep all.

        >>> rows = torch.cat([torch.eye(4).repeat(50, 1), 100 * torch.ones(1, 4)])
        >>> found = Lengths.of(rows, 10.0)
        >>> int((~found(rows)).sum()), round(found.weight, 2), round(float(found.mean.sum()), 2)
        (1, 0.99, 1.0)
        """
        times = LONGEST if longest is None else longest
        rows = rows.double()
        sizes = rows.norm(dim=1)
        # long rows pull the mean towards them, so that a first centre is made without them
        centre = rows[sizes <= max(times, LONGEST) * sizes.median()].mean(0)
        sizes = (rows - centre).norm(dim=1)
        kept = sizes <= times * sizes.median()
        share = 1 - float(kept.double().mean())
        about = (rows - rows.mean(0)).square().sum(1)
        weight = float(about[~kept].sum() / about.sum().clamp_min(1e-300))
        if longest is None:
            kept = torch.ones_like(kept)
        mean = rows[kept].mean(0)
        typical = float((rows[kept] - mean).norm(dim=1).mean())
        most = float("inf") if longest is None else times * float(sizes.median())
        return cls(mean.float(), typical, most, share, weight, times)

    def __call__(self, rows: Tensor) -> Tensor:
        """Which rows [... d] are kept: bool [...]."""
        if self.most == float("inf"):
            return torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        return (rows - self.mean.to(rows)).norm(dim=-1) <= self.most

    def said(self, site: str) -> str:
        """What a reader should know of it; "" where there is nothing."""
        if not self.share or (self.most == float("inf") and self.weight < _MUCH):
            return ""
        what = (
            f"{100 * self.share:.2g} % of the rows of {site} are more than {self.times:g} times as long as the median and "
            f"hold {100 * self.weight:.3g} % of the variance"
        )
        if self.most == float("inf"):
            return f"{what}: figures speak mostly of these. Leave them out with longest={self.times:g}."
        return f"{what}: they are left out (longest=None keeps them)."


def check_longest(longest: float | None) -> None:
    """Raises `BadInput` where it is no multiple that leaves the median row in."""
    if longest is not None and not 1 <= longest < float("inf"):
        raise BadInput(
            f"longest={longest} is out of range: it is a multiple of the median length, from 1 on.",
            "Give e.g. 5, or None to keep all rows.",
        )
