"""Least-squares concept erasure (LEACE), from statistics that are summed as the data stream by.

After `x - L R (x - m)` no linear predictor of any convex loss does better than a constant, and no other affine map that
guarantees this changes x less, in any norm (Belrose et al. 2023, theorems 4.1 to 4.3). With W the whitening of x and U
the directions in which whitened x and concept covary, `L = W⁺ U` and `R = U' W`.

Tolerances are relative to the concept's own scale: covariances are divided by the deviation of each feature and of each
concept column, so that a concept that holds in one example of a hundred is erased as surely as a common one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import BadInput

#: Correlations of whitened features with the concept below this are rounding; eigenvalues of correlations likewise.
_CORRELATION = 1e-7
_EIGENVALUE = 1e-10


@dataclass(frozen=True, eq=False)
class Erasure:
    """The affine map x -> x - left @ right @ (x - mean), after which a concept cannot be read linearly.

    Attributes:
        left: [d k]; k is the concept's rank.
        right: [k d].
        mean: [d], that of the features.
    """

    left: Tensor
    right: Tensor
    mean: Tensor

    @property
    def rank(self) -> int:
        """How many directions are taken out."""
        return self.left.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """Erase from features [... d]; computed in float64, returned in x's own type."""
        wide = x.double()
        left, right, mean = (t.to(x.device) for t in (self.left, self.right, self.mean))
        return (wide - (wide - mean) @ right.T @ left.T).to(x.dtype)


class Leace:
    """Sums for the erasure of a concept: `update` as often as there are batches, then `eraser`.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)); z = (x[:, :1] > 0)
    >>> erased = Leace(3, 1).update(x[:90], z[:90]).update(x[90:], z[90:]).eraser(x)
    >>> bool(((erased - erased.mean(0)).T @ (z.float() - z.float().mean())).abs().max() < 1e-3)
    True
    """

    def __init__(self, width: int, concept: int) -> None:
        self.n = 0
        self.mean_x = torch.zeros(width, dtype=torch.float64)
        self.mean_z = torch.zeros(concept, dtype=torch.float64)
        self.xx = torch.zeros(width, width, dtype=torch.float64)
        self.xz = torch.zeros(width, concept, dtype=torch.float64)
        self.zz = torch.zeros(concept, dtype=torch.float64)
        self._erasure: Erasure | None = None

    def update(self, x: Tensor, z: Tensor) -> Leace:
        """Add a batch: features [b d] and concept [b k] (0 and 1 for each class, or values).

        Sums are kept about the running means (Chan, Golub and LeVeque 1983), in float64.
        """
        x, z = x.detach().double().cpu(), z.detach().double().cpu()
        if x.ndim != 2 or x.shape[1] != len(self.mean_x) or z.shape != (len(x), len(self.mean_z)):
            raise BadInput(
                f"Features {tuple(x.shape)} and concept {tuple(z.shape)} do not fit [b {len(self.mean_x)}] and "
                f"[b {len(self.mean_z)}].",
                "Give as many rows of each, of the widths that were named.",
            )
        if not bool(torch.isfinite(x).all() and torch.isfinite(z).all()):
            raise BadInput("Features or concept hold NaN or infinity.", "Leave such examples out.")
        if len(x) == 0:
            return self
        total = self.n + len(x)
        mean_x, mean_z = x.mean(0), z.mean(0)
        step_x, step_z = mean_x - self.mean_x, mean_z - self.mean_z
        weight = self.n * len(x) / total
        centred_x, centred_z = x - mean_x, z - mean_z
        self.xx += centred_x.T @ centred_x + weight * torch.outer(step_x, step_x)
        self.xz += centred_x.T @ centred_z + weight * torch.outer(step_x, step_z)
        self.zz += (centred_z**2).sum(0) + weight * step_z**2
        self.mean_x += step_x * len(x) / total
        self.mean_z += step_z * len(x) / total
        self.n, self._erasure = total, None
        return self

    @property
    def eraser(self) -> Erasure:
        """The erasure of what was summed so far; computed once. Raises `BadInput` where the concept does not vary."""
        if self._erasure is None:
            self._erasure = self._solve()
        return self._erasure

    def _solve(self) -> Erasure:
        alive = self.zz > 1e-12 * max(self.n, 1) * (self.mean_z**2 + 1e-300)
        if self.n < 2 or not bool(alive.any()):
            what = f"The concept does not vary in {self.n} examples, so there is nothing to erase."
            raise BadInput(what, "Give examples with it and without it.")
        spread = (self.xx.diagonal() / self.n).clamp(min=0).sqrt()
        scale = torch.where(spread > 0, spread, 1.0)
        correlation = self.xx / self.n / scale[:, None] / scale
        with_concept = self.xz[:, alive] / self.n / scale[:, None] / (self.zz[alive] / self.n).sqrt()
        values, vectors = torch.linalg.eigh(correlation)
        solid = values > _EIGENVALUE * values[-1].clamp(min=1e-300)
        values, vectors = values[solid], vectors[:, solid]
        # in the eigenvectors' coordinates: whitening is a division, and so is its inverse
        whitened = (vectors.T @ with_concept) / values.sqrt()[:, None]
        u, s, _ = torch.linalg.svd(whitened, full_matrices=False)
        u = u[:, s > _CORRELATION]
        left = scale[:, None] * (vectors @ (values.sqrt()[:, None] * u))
        right = ((u / values.sqrt()[:, None]).T @ vectors.T) / scale
        return Erasure(left, right, self.mean_x.clone())
