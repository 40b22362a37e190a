"""Leaving out groups: what the fit without a whole group predicts for it, exactly, from the fit to all.

With the hat matrix H and residuals r, the residuals of group g by the fit without it are `(I - H_gg)^-1 r_g`; with groups of
one this is the leave-one-out of `choice`. Groups wider than the features are solved through the features instead (Woodbury).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cutaway.statistics.fits.choice import LeftOut


def parted(groups: Tensor | None) -> bool:
    """Can groups [n] be left out, and are they more than examples? Else examples are left out."""
    if groups is None:
        return False
    count = len(groups.unique())
    return 1 < count < len(groups)


def left_out(scores: Tensor, weights: Tensor, turned: Tensor, y: Tensor, groups: Tensor) -> LeftOut:
    """Sums over left-out groups for every penalty and target.

    scores: [n r]. weights: [a r], what the coordinates of `turned` = scores' y [r t] are multiplied with to give fitted
    values (float64; the hat matrix is `scores diag(weights) scores' + 1/n`). y: [n t], centred targets. groups: [n].
    """
    n, kind = len(y), scores.dtype
    y, turned = y.to(kind), turned.to(kind)
    sizes = list(_by_size(groups))
    apart = [(rows, y[rows] + y[rows].sum(1, keepdim=True) / (n - rows.shape[1])) for rows in sizes]
    total = sum(c.double().square().sum((0, 1)) for _, c in apart)
    with_label = torch.zeros(len(weights), y.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(with_label)
    for a, weight in enumerate(weights):
        residuals = y - scores @ (weight.to(kind)[:, None] * turned)
        for rows, c in apart:
            missed = _without(scores[rows], weight, residuals[rows], n)
            q = c.double() - missed
            with_label[a] += (c * q).sum((0, 1))
            squares[a] += q.square_().sum((0, 1))
    assert isinstance(total, Tensor)
    return LeftOut(with_label, squares, total, n)


def _by_size(groups: Tensor) -> Iterator[Tensor]:
    """Row numbers [g m] of all groups of each size m."""
    order = groups.argsort(stable=True)
    counts = groups[order].unique_consecutive(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    for size in counts.unique().tolist():
        yield order[starts[counts == size][:, None] + torch.arange(size)]


def _without(scores: Tensor, weight: Tensor, residuals: Tensor, n: int) -> Tensor:
    """Residuals [g m t] of groups by the fits without them, in float64; scores [g m r], residuals of the fit to all."""
    wide = scores.double() * weight.sqrt()
    half = torch.cat([wide, wide.new_full((*wide.shape[:2], 1), n**-0.5)], 2)
    r = residuals.double()
    if half.shape[1] <= half.shape[2]:
        return torch.linalg.solve(_less(half @ half.mT), r)
    return r + half @ torch.linalg.solve(_less(half.mT @ half), half.mT @ r)


def _less(product: Tensor) -> Tensor:
    """The identity less a product [... k k]."""
    return torch.eye(product.shape[-1], dtype=product.dtype) - product
