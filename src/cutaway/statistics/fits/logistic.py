"""Logistic regression by L-BFGS, for many sites and many targets at once.

Every (site, target) is a problem of its own with its own step length and its own curvature history; they share the matrix
products. The objective is scikit-learn's: `sum of losses + penalty/2 |w|²`, the intercept free (their C is 1/penalty).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

_MEMORY = 12
_ARMIJO = 1e-4


@dataclass(frozen=True, eq=False)
class Logistic:
    """Fitted logistic regressions of t targets on s sites.

    Attributes:
        weights: [s t d]; multinomial [s t d c].
        bias: [s t]; multinomial [s t c].
        converged: whether each problem converged [s t].
    """

    weights: Tensor
    bias: Tensor
    converged: Tensor


def fit(
    features: Tensor, labels: Tensor, penalty: float | Tensor, classes: int = 2,
    tolerance: float = 1e-6, most: int = 500,
) -> Logistic:  # fmt: skip
    """Fit every target on every site.

    features: [s n d] (standardise them before, where that is wanted). labels: [t n] or [s t n], 0/1, or class numbers
    where classes > 2 (then a multinomial fit). penalty: a number, or [t]. tolerance: on the largest entry of the mean
    loss's gradient.

    >>> x = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]); y = torch.tensor([[0, 1, 0, 1]])
    >>> round(fit(x, y, 1.0).weights.item(), 3)
    0.453
    """
    x = features.double()
    s, n, d = x.shape
    y = labels if labels.ndim == 3 else labels[None].expand(s, -1, -1)
    t, c = y.shape[1], 1 if classes == 2 else classes
    hot = y.double()[..., None] if c == 1 else torch.nn.functional.one_hot(y.long(), c).double()
    weight = torch.as_tensor(penalty, dtype=torch.float64).expand(t) / n
    problem = _LogisticProblem(x, hot.reshape(s, t, n, c), weight[None, :, None, None].expand(s, t, 1, 1))
    point, done = _minimise(problem, torch.zeros(s, t, d + 1, c, dtype=torch.float64), tolerance, most)
    point = point[..., 0] if c == 1 else point
    return Logistic(point[:, :, :d], point[:, :, d], done)


@dataclass(frozen=True, eq=False)
class _LogisticProblem:
    x: Tensor
    y: Tensor
    penalty: Tensor

    def logits(self, point: Tensor) -> Tensor:
        """[s t n c] of parameters [s t d+1 c] (the last row is the intercept)."""
        s, t, rows, c = point.shape
        flat = point[..., :-1, :].permute(0, 2, 1, 3).reshape(s, rows - 1, t * c)
        return (self.x @ flat).reshape(s, -1, t, c).permute(0, 2, 1, 3) + point[..., -1:, :]

    def value(self, point: Tensor, logits: Tensor) -> Tensor:
        """Mean loss and penalty of each problem: [s t]."""
        size = 0.5 * (self.penalty * point[..., :-1, :] ** 2).sum((-1, -2))
        if self.y.shape[-1] == 1:
            return (softplus(logits) - self.y * logits).mean(-2).sum(-1) + size
        return (logits.logsumexp(-1) - (self.y * logits).sum(-1)).mean(-1) + size

    def gradient(self, point: Tensor, logits: Tensor) -> Tensor:
        """[s t d+1 c]."""
        guess = logits.sigmoid() if self.y.shape[-1] == 1 else logits.softmax(-1)
        wrong = (guess - self.y) / self.x.shape[1]
        s, t, n, c = wrong.shape
        flat = wrong.permute(0, 2, 1, 3).reshape(s, n, t * c)
        slope = (self.x.mT @ flat).reshape(s, -1, t, c).permute(0, 2, 1, 3)
        return torch.cat([slope + self.penalty * point[..., :-1, :], wrong.sum(-2, keepdim=True)], -2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-1, -2), keepdim=True)


def _direction(gradient: Tensor, steps: list[Tensor], changes: list[Tensor]) -> Tensor:
    """Minus the inverse-Hessian estimate times the gradient (two-loop recursion), problem by problem."""
    q, kept = gradient.clone(), []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        curve = _dot(step, change)
        a = torch.where(curve > 0, _dot(step, q) / curve.clamp(min=1e-300), 0.0)
        q -= a * change
        kept.append(a)
    if steps:
        size = _dot(changes[-1], changes[-1])
        q *= torch.where(size > 0, _dot(steps[-1], changes[-1]) / size.clamp(min=1e-300), 1.0)
    for step, change, a in zip(steps, changes, reversed(kept), strict=True):
        curve = _dot(step, change)
        b = torch.where(curve > 0, _dot(change, q) / curve.clamp(min=1e-300), 0.0)
        q += step * (a - b)
    return -q


def _minimise(problem: _LogisticProblem, point: Tensor, tolerance: float, most: int) -> tuple[Tensor, Tensor]:
    """L-BFGS with a backtracking line search; a problem that is done no longer moves. Logits are linear in the point, so
    a step along a direction costs no matrix product."""
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    logits = problem.logits(point)
    value, gradient = problem.value(point, logits), problem.gradient(point, logits)
    done = torch.zeros(value.shape, dtype=torch.bool)
    for _ in range(most):
        done = gradient.abs().amax((-1, -2)) <= tolerance
        if bool(done.all()):
            break
        direction = _direction(gradient, steps, changes)
        slope = _dot(direction, gradient)
        uphill = slope >= 0
        direction = torch.where(uphill, -gradient, direction)
        slope = torch.where(uphill, -_dot(gradient, gradient), slope)[..., 0, 0]
        along = problem.logits(direction)
        length = torch.where(done, 0.0, 1.0).double()
        if not steps:
            length = length / gradient.abs().sum((-1, -2)).clamp(min=1.0)
        for _ in range(40):
            scale = length[..., None, None]
            trial = problem.value(point + scale * direction, logits + scale * along)
            low = trial <= value + _ARMIJO * length * slope + 1e-14 * value.abs()
            if bool((low | done).all()):
                break
            length = torch.where(low | done, length, length / 2)
        scale = length[..., None, None]
        new, logits = point + scale * direction, logits + scale * along
        after = problem.gradient(new, logits)
        steps.append(new - point)
        changes.append(after - gradient)
        if len(steps) > _MEMORY:
            del steps[0], changes[0]
        point, gradient, value = new, after, problem.value(new, logits)
    return point, done
