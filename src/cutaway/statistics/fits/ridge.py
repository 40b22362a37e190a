"""Ridge regression: one factorisation of the features serves every penalty, every target and every left-out example.

With centred features X [n d] and the eigenvectors of their Gram matrix, the fit at penalty a is
`X V diag(1/(s² + a)) V' X' Y`: labels enter only as right-hand sides, so that a control task and a hundred permutations of
the labels cost one matrix product each. Leaving example i out changes its residual to `r_i / (1 - h_i)`, exactly (Allen
1974; Golub, Heath and Wahba 1979), with h the diagonal of the hat matrix. With fewer examples than
features the n x n Gram matrix is factorised instead (the dual form).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.statistics.fits.choice import By, LeftOut, choose
from cutaway.statistics.fits.grouped import left_out, parted

#: Penalties per example, on features of unit variance: from almost none to almost everything.
PENALTIES: tuple[float, ...] = tuple(float(10 ** (-4 + 7 * i / 19)) for i in range(20))
_EPS = 1e-10


@dataclass(frozen=True, eq=False)
class Factorised:
    """The eigenvectors of the centred features' Gram matrix, and the features in their coordinates.

    Attributes:
        scores: X V in primal and U in dual form [n r].
        values: the eigenvalues s² [r].
        basis: [d r] with `weights = basis @ coefficients`.
        mean: of the features [d].
        dual: which form it is.
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
        """Diagonal of the hat matrix, without the intercept's 1/n: [a n] for penalties [a]."""
        weight = self.shrink(penalty) * (self.values if self.dual else 1.0)
        return weight @ (self.scores**2).T


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
class PenaltyPath:
    """Ridge fits of several targets over a path of penalties.

    Attributes:
        penalties: [a].
        left_out: sums over left-out examples, with errors and correlations [a t].
        best: index of the best penalty of each target [t].
        weights, bias: at each target's best penalty, [d t] and [t].
        loo: its leave-one-out predictions [n t]; None unless asked for.
    """

    penalties: Tensor
    left_out: LeftOut
    best: Tensor
    weights: Tensor
    bias: Tensor
    loo: Tensor | None = None

    @property
    def errors(self) -> Tensor:
        """Mean squared leave-one-out error [a t]; NaN where it was not computed."""
        return self.left_out.errors


def path(
    fact: Factorised, targets: Tensor, penalties: Tensor, groups: list[int] | None = None, loo: bool = False,
    fast: bool = False, by: By = "error", clusters: Tensor | None = None,
) -> PenaltyPath:  # fmt: skip
    """Fit targets [n t] over penalties [a] (in units of squared features), and choose by exact leave-one-out.

    The intercept is not penalised.

    Args:
        fact: the features, factorised.
        targets, penalties: what is fitted, and under what.
        groups: labels of the targets that must share a penalty [t] (the columns of one multi-class label); default each
            its own.
        loo: give the leave-one-out predictions, too.
        fast: compute the sums by which penalties are chosen in float32; the fits themselves are always in float64.
        by: what the best penalty is best at (`choice`).
        clusters: examples that are left out together [n] (`grouped`; default each by itself).

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    >>> done = path(factorise(x), x[:, :1], torch.tensor([1e-6, 1.0], dtype=torch.float64))
    >>> round(done.weights[0, 0].item(), 3), done.best.tolist()
    (1.0, [0])
    """
    y = targets.double()
    middle = y.mean(0)
    centred = y - middle
    projected = fact.scores.T @ centred
    kind = torch.float32 if fast else torch.float64
    if clusters is not None and parted(clusters):
        weights = torch.stack([_fitted(fact, p) for p in penalties])
        sums = left_out(fact.scores.to(kind), weights, projected, centred, clusters)
    else:
        sums = _singly(fact, centred.to(kind), projected.to(kind), penalties)
    best = choose(sums.shared(groups).losses(by), penalties)
    shrink = fact.shrink(penalties[best]).T
    weights = fact.basis @ (shrink * projected)
    held = _left_out(fact, y, centred, projected, penalties, best) if loo else None
    return PenaltyPath(penalties, sums, best, weights, middle - fact.mean @ weights, held)


def _singly(fact: Factorised, label: Tensor, turned: Tensor, penalties: Tensor) -> LeftOut:
    """Sums over left-out examples, of centred targets [n t], in their type."""
    n, scores, leverage = fact.n, fact.scores.to(label.dtype), fact.leverage(penalties)
    k = n / (n - 1)
    with_label = torch.empty(len(penalties), label.shape[1], dtype=torch.float64)
    squares = torch.empty_like(with_label)
    for i, penalty in enumerate(penalties):
        left = scores @ (_fitted(fact, penalty).to(label.dtype)[:, None] * turned)
        left.sub_((k * leverage[i]).to(label.dtype)[:, None] * label)
        left.mul_((1 / (1 - 1 / n - leverage[i]).clamp(min=1e-12)).to(label.dtype)[:, None])
        with_label[i] = k * (left * label).sum(0)
        squares[i] = left.square_().sum(0)
    return LeftOut(with_label, squares, label.double().mul(k).square().sum(0), n)


def _fitted(fact: Factorised, penalty: Tensor) -> Tensor:
    """What the coordinates of `scores' y` are multiplied with to give fitted values: [r]."""
    return fact.shrink(penalty) * (fact.values if fact.dual else 1.0)


def _left_out(
    fact: Factorised, y: Tensor, centred: Tensor, projected: Tensor, penalties: Tensor, best: Tensor
) -> Tensor:
    """Leave-one-out predictions [n t] at each target's best penalty."""
    leverage = fact.leverage(penalties)
    held = torch.empty_like(y)
    for i in best.unique():
        which = best == i
        fitted = fact.scores @ (_fitted(fact, penalties[i])[:, None] * projected[:, which])
        held[:, which] = y[:, which] - (centred[:, which] - fitted) / (1 - 1 / fact.n - leverage[i])[:, None]
    return held
