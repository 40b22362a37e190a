"""Probes made of class means: difference of means, linear discriminant analysis, mass-mean.

All three move along `mean of class 1 - mean of class 0`; they differ in the metric in which examples are compared with it.
Difference of means takes the plain inner product; mass-mean divides by the within-class covariance (Marks and Tegmark
2023), as does linear discriminant analysis, which shrinks it (Ledoit and Wolf 2004) and puts the threshold where the
classes' shares say.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = 1e-8


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear map, with outputs `x @ weights + bias`.

    Attributes:
        weights: [d c].
        bias: [c].
    """

    weights: Tensor
    bias: Tensor


def class_means(features: Tensor, hot: Tensor) -> Tensor:
    """Mean of each class: features [n d], memberships hot [n c] -> [c d]; a class without members has the mean of all."""
    count = hot.sum(0)[:, None]
    return torch.where(count > 0, (hot.T @ features) / count.clamp(min=1), features.mean(0))


def within_covariance(features: Tensor, hot: Tensor) -> Tensor:
    """Covariance [d d] of features [n d] about their class means."""
    centred = features - hot @ class_means(features, hot)
    return centred.T @ centred / max(1, len(features) - hot.shape[1])


def shrinkage(features: Tensor, covariance: Tensor) -> float:
    """The weight of the scaled identity that minimises the expected squared error (Ledoit and Wolf 2004, eq. 14).

    features: [n d], centred (by class, where the covariance is). Gives a number between 0 and 1.
    """
    n, d = features.shape
    scale = covariance.trace() / d
    distance = ((covariance - scale * torch.eye(d, dtype=covariance.dtype)) ** 2).sum()
    squares = (features**2).sum(1)
    noise = (squares**2).sum() / n**2 - (covariance**2).sum() / n
    return float((noise / distance.clamp(min=1e-300)).clamp(0, 1))


def difference_of_means(features: Tensor, hot: Tensor) -> Linear:
    """Direction from the mean of class 0 to that of class 1, threshold half way. With more than two classes, each against
    the mean of all.

    features [n d], hot [n c] (c = 2: one output; otherwise one per class).
    """
    means = class_means(features, hot)
    if hot.shape[1] == 2:
        gap = means[1] - means[0]
        return Linear(gap[:, None], -(gap @ means.mean(0))[None])
    return Linear(means.T, -(means**2).sum(1) / 2)


def discriminant(features: Tensor, hot: Tensor, priors: bool = True, shrink: float | None = None) -> Linear:
    """Linear discriminant analysis; with `priors` off and no shrinking, the mass-mean probe.

    features [n d], hot [n c]. shrink: weight of the scaled identity, None for Ledoit and Wolf's.

    >>> x = torch.tensor([[0.0], [2.0], [4.0], [6.0]]).double(); hot = torch.eye(2).double()[[0, 0, 1, 1]]
    >>> round(discriminant(x, hot, shrink=0.0).weights.item(), 6)
    2.0
    """
    means = class_means(features, hot)
    covariance = within_covariance(features, hot)
    d = covariance.shape[0]
    amount = shrinkage(features - hot @ means, covariance) if shrink is None else shrink
    scale = covariance.trace() / d
    covariance = (1 - amount) * covariance + amount * scale * torch.eye(d, dtype=covariance.dtype)
    solved = _solve(covariance, means.T)
    log_shares = (hot.mean(0) if priors else torch.ones(hot.shape[1]).double()).clamp(min=1e-12).log()
    bias = -(means * solved.T).sum(1) / 2 + log_shares
    if hot.shape[1] == 2:
        return Linear((solved[:, 1] - solved[:, 0])[:, None], (bias[1] - bias[0])[None])
    return Linear(solved, bias)


def _solve(covariance: Tensor, right: Tensor) -> Tensor:
    """covariance^-1 right, by Cholesky; the pseudo-inverse where the covariance is singular."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    diagonal = factor.diagonal()
    if int(failed) == 0 and bool((diagonal.min() ** 2) > _FLOOR * diagonal.max() ** 2):
        return torch.cholesky_solve(right, factor)
    values, vectors = torch.linalg.eigh(covariance)
    solid = values > _FLOOR * values[-1].clamp(min=1e-300)
    return (vectors[:, solid] / values[solid]) @ (vectors[:, solid].T @ right)
