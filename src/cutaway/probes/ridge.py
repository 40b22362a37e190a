"""Ridge regression: one factorisation of the features serves every penalty, every target and every left-out example.

With centred features X [n d] and the eigenvectors of their Gram matrix, the fit at penalty a is
`X V diag(1/(s² + a)) V' X' Y`: labels enter only as right-hand sides, so that a control task and a hundred permutations of
the labels cost one matrix product each. Leaving example i out changes its residual to `r_i / (1 - h_i)`, exactly (Allen
1974; Golub, Heath and Wahba 1979), with h the diagonal of the hat matrix, intercept included. With fewer examples than
features the n x n Gram matrix is factorised instead (the dual form).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Penalties per example, on features of unit variance: from almost none to almost everything.
PENALTIES: tuple[float, ...] = tuple(float(10 ** (-4 + 7 * i / 19)) for i in range(20))
_EPS = 1e-10


@dataclass(frozen=True, eq=False)
class Factorised:
    """The eigenvectors of the centred features' Gram matrix, and the features in their coordinates.

    scores: [n r], X V in primal and U in dual form. values: [r], the eigenvalues s². basis: [d r] with
    `weights = basis @ coefficients`. mean: [d]. dual: which form it is.
    """

    scores: Tensor
    values: Tensor
    basis: Tensor
    mean: Tensor
    dual: bool

    @property
    def n(self) -> int:
        """How many examples."""
        return self.scores.shape[0]

    def shrink(self, penalty: Tensor) -> Tensor:
        """What each coordinate of `scores' y` is multiplied with to give coefficients: [... r] for penalties [...]."""
        return 1 / (self.values + penalty[..., None]).clamp(min=_EPS)

    def leverage(self, penalty: Tensor) -> Tensor:
        """Diagonal of the hat matrix, intercept included: [a n] for penalties [a]."""
        weight = self.shrink(penalty) * (self.values if self.dual else 1.0)
        return weight @ (self.scores**2).T + 1 / self.n


def factorise(features: Tensor) -> Factorised:
    """Factorise features [n d] (standardise them before, where that is wanted), in primal or dual form, in float64."""
    x = features.double()
    mean = x.mean(0)
    x = x - mean
    n, d = x.shape
    if n > d:
        values, vectors = torch.linalg.eigh(x.T @ x)
        values = values.clamp(min=0)
        return Factorised(x @ vectors, values, vectors, mean, False)
    values, vectors = torch.linalg.eigh(x @ x.T)
    keep = values > values[-1].clamp(min=1e-300) * n * torch.finfo(torch.float64).eps
    return Factorised(vectors[:, keep], values[keep], x.T @ vectors[:, keep], mean, True)


@dataclass(frozen=True, eq=False)
class Path:
    """Ridge fits of several targets over a path of penalties.

    penalties: [a]. errors: [a t], mean squared leave-one-out error. best: [t], index of the best penalty of each target.
    weights: [d t] and bias: [t] at each target's best penalty. loo: [n t], its leave-one-out predictions (None unless
    asked for).
    """

    penalties: Tensor
    errors: Tensor
    best: Tensor
    weights: Tensor
    bias: Tensor
    loo: Tensor | None = None


def path(
    fact: Factorised, targets: Tensor, penalties: Tensor, groups: list[int] | None = None, loo: bool = False,
    fast: bool = False,
) -> Path:  # fmt: skip
    """Fit targets [n t] over penalties [a] (in units of squared features), and choose by exact leave-one-out error.

    groups: [t] labels of the targets that must share a penalty (the columns of one multi-class label); default each its
    own. fast: compute the errors, by which penalties are chosen, in float32; the fits themselves are always in float64.
    The intercept is not penalised.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    >>> done = path(factorise(x), x[:, :1], torch.tensor([1e-6, 1.0], dtype=torch.float64))
    >>> round(done.weights[0, 0].item(), 3), done.best.tolist()
    (1.0, [0])
    """
    y = targets.double()
    middle = y.mean(0)
    centred = y - middle
    projected = fact.scores.T @ centred
    leverage = fact.leverage(penalties)
    kind = torch.float32 if fast else torch.float64
    scores, residual_of, turned = fact.scores.to(kind), centred.to(kind), projected.to(kind)
    errors = torch.empty(len(penalties), y.shape[1], dtype=torch.float64)
    for i, penalty in enumerate(penalties):
        weight = _fitted(fact, penalty).to(kind)
        residual = torch.addmm(residual_of, scores, weight[:, None] * turned, alpha=-1)
        inverse = (1 / (1 - leverage[i]).clamp(min=1e-12)).to(kind)
        errors[i] = residual.mul_(inverse[:, None]).square_().mean(0)
    best = choose(errors, groups)
    shrink = fact.shrink(penalties[best]).T
    weights = fact.basis @ (shrink * projected)
    held = _left_out(fact, y, centred, projected, penalties, best, leverage) if loo else None
    return Path(penalties, errors, best, weights, middle - fact.mean @ weights, held)


def _fitted(fact: Factorised, penalty: Tensor) -> Tensor:
    """What the coordinates of `scores' y` are multiplied with to give fitted values: [r]."""
    return fact.shrink(penalty) * (fact.values if fact.dual else 1.0)


def _left_out(
    fact: Factorised,
    y: Tensor,
    centred: Tensor,
    projected: Tensor,
    penalties: Tensor,
    best: Tensor,
    leverage: Tensor,
) -> Tensor:
    """Leave-one-out predictions [n t] at each target's best penalty."""
    held = torch.empty_like(y)
    for i in best.unique():
        which = best == i
        fitted = fact.scores @ (_fitted(fact, penalties[i])[:, None] * projected[:, which])
        held[:, which] = y[:, which] - (centred[:, which] - fitted) / (1 - leverage[i])[:, None]
    return held


def shared(errors: Tensor, groups: list[int] | None) -> Tensor:
    """Errors [a t], of targets of one group the sum over the group."""
    if groups is None:
        return errors
    number, where = torch.as_tensor(groups).unique(return_inverse=True)
    summed = torch.zeros(errors.shape[0], len(number), dtype=errors.dtype).index_add(1, where, errors)
    return summed[:, where]


def choose(errors: Tensor, groups: list[int] | None) -> Tensor:
    """Index [t] of the best penalty; targets of one group share theirs."""
    return shared(errors, groups).argmin(0)
