"""How alike two sets of directions are: cosines, the best one-to-one match, and what the match of random directions is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput

#: Two latents are the same where their cosine is at least this (Paulo and Belrose 2025, arXiv 2501.16615).
SAME = 0.7
#: Directions of one side that are matched at most; of more, so many are drawn.
MATCHED = 4096


@dataclass(frozen=True, eq=False)
class Match:
    """The one-to-one match of two sets of directions whose sum of cosines is largest (Hungarian).

    Attributes:
        left, right: [m] int64, which direction of either set; m is the smaller number of the two.
        cosines: [m], of each pair; without its sign where signs do not count.
    """

    left: Tensor
    right: Tensor
    cosines: Tensor

    @property
    def mean(self) -> float:
        """The mean cosine of the pairs; of absolute ones the mean correlation coefficient (MCC)."""
        return float(self.cosines.mean()) if len(self.cosines) else 0.0

    def partner(self, size: int) -> Tensor:
        """[size] of each direction of the left set its partner in the right one, -1 without one."""
        found = torch.full((size,), -1, dtype=torch.long)
        found[self.left] = self.right
        return found


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosines [a b] of directions [a d] with directions [b d]; zero with a direction of no length."""
    unit = [torch.nn.functional.normalize(t.detach().cpu().double(), dim=1, eps=1e-12) for t in (left, right)]
    return unit[0] @ unit[1].T


def match(left: Tensor, right: Tensor, signed: bool = False) -> Match:
    """The best one-to-one match of directions [a d] with directions [b d].

    signed: do opposite directions count as opposite? Without it, as alike.

    >>> match(torch.eye(3), -torch.eye(3)[[2, 0, 1]]).right.tolist()
    [1, 2, 0]
    """
    from scipy.optimize import linear_sum_assignment

    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise BadInput(
            f"Directions of shapes {tuple(left.shape)} and {tuple(right.shape)} cannot be matched.",
            "Both must be [F d], of one width.",
        )
    alike = cosines(left, right)
    alike = alike if signed else alike.abs()
    rows, columns = linear_sum_assignment(-alike.numpy())
    return Match(torch.from_numpy(rows), torch.from_numpy(columns), alike[rows, columns])


def mcc(left: Tensor, right: Tensor) -> float:
    """Mean |cosine| of the best one-to-one match, over as many pairs as the smaller set has directions."""
    return match(left, right).mean


def uniqueness(latents: Tensor, features: Tensor) -> float:
    """How many features are the nearest (by |cosine|) of some latent, over the number of latents."""
    return len(cosines(latents, features).abs().argmax(1).unique()) / len(latents)


def shared(left: Tensor, right: Tensor, seed: int = 0) -> tuple[int, int]:
    """How many directions of the left set have a partner of cosine `SAME` in the right one, and of how many.

    Of more than `MATCHED` directions so many are drawn, and matched with all of the other set.
    """
    if len(left) > MATCHED:
        left = left[torch.randperm(len(left), generator=torch.Generator().manual_seed(seed))[:MATCHED]]
    found = match(left, right, signed=True)
    return int((found.cosines >= SAME).sum()), len(left)


def drawn_like(directions: Tensor, seed: int) -> Tensor:
    """As many unit directions, drawn from the normal distribution with the second moments of these (each of length one)."""
    unit = torch.nn.functional.normalize(directions.detach().cpu().double(), dim=1, eps=1e-12)
    values, axes = torch.linalg.eigh(unit.T @ unit / len(unit))
    draw = torch.from_numpy(np.random.default_rng(seed).standard_normal((len(unit), len(values))))
    return torch.nn.functional.normalize(draw @ (axes * values.clamp(min=0).sqrt()).T, dim=1).to(directions)
