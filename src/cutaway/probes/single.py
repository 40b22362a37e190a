"""Ridge regression in single precision, made as exact as in double.

The factorisation, which costs most, is done in float32, and what it is used for is then secured:

- Whether it holds at the smallest penalty is tested by one step of refinement there, for the sum of the targets; where it
  does not, everything is done again in float64.
- A penalty is chosen by exact leave-one-out error, but only penalties that can win have theirs computed. The residuals r of
  one likely penalty bound the error of any other from below: with c = 1/(1-h)² of the other's leverages h, and D what the
  residuals change by, it is `|r + D|²` weighted by c. The norm of D and its product with r need no pass over the examples:
  they follow from the labels' projections on the eigenvectors. What is left, c's spread, costs at most
  `2 |(c - mean c) r| |D|` (Cauchy and Schwarz).
- Weights are refined with residuals in float64 until they stop changing (Wilkinson's iterative refinement).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.linalg import get_blas_funcs
from torch import Tensor

from cutaway.probes import ridge

#: Relative change of the weights by which single precision is trusted at the smallest penalty, and by which they are done.
_TRUSTED, _DONE = 1e-3, 1e-8
_SLACK = 1e-5
_STEPS, _ROWS = 8, 256


def solve(
    features: Tensor, targets: Tensor, penalties: Tensor, groups: list[int] | None = None, precise: bool = False,
    refine: int | None = None,
) -> ridge.Path:  # fmt: skip
    """Fit targets [n t] to features [n d] over penalties [a], and choose by leave-one-out error, as `ridge.path` does.

    Weights agree with float64 to about 1e-8 of their norm; penalties agree but where two errors differ by less than 1e-5
    of the label's variance. errors are infinite where a penalty was excluded without computing them. precise: all in
    float64. refine: how many targets, from the first, get refined weights (None: all); the others' agree to 1e-3 of their
    norm, and mostly to 1e-5. Fewer examples than features are always factorised in float64.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    >>> done = solve(x, x[:, :1], torch.tensor([1e-6, 1.0], dtype=torch.float64))
    >>> round(done.weights[0, 0].item(), 3), done.best.tolist()
    (1.0, [0])
    """
    n, d = features.shape
    if not precise and n > d:
        try:
            found = _solve(features, targets.double(), penalties, groups, refine)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage] # float32 overflowed
            found = None
        if found is not None:
            return found
    return ridge.path(ridge.factorise(features), targets, penalties, groups, fast=not precise)


def _solve(
    features: Tensor, y: Tensor, penalties: Tensor, groups: list[int] | None, refine: int | None
) -> ridge.Path | None:
    """In single precision, or None where that does not hold."""
    problem = _Problem.of(features, y - y.mean(0))
    if not problem.summed().shaken(penalties.min()) <= _TRUSTED:
        return None
    errors = problem.errors(penalties, groups)
    best = ridge.choose(errors, groups)
    weights = problem.polished(penalties[best], y.shape[1] if refine is None else min(refine, y.shape[1]))
    if weights is None:
        return None
    return ridge.Path(penalties, errors, best, weights, y.mean(0) - problem.mean @ weights)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weights [d t] so far, in float64, and what they were penalised with [t]."""

    weights: Tensor
    penalty: Tensor

    def first(self, count: int) -> _Fit:
        return _Fit(self.weights[:, :count], self.penalty[:count])


@dataclass(frozen=True, eq=False)
class _Problem:
    """x [n d] (not centred), its mean and centred y [n t] in float64; the rest in float32: basis [d d], scores [n d] =
    centred x times basis, squares = scores², turned [d t] = scores' y; values [d], the eigenvalues, as squared norms of
    the scores."""

    x: Tensor
    y: Tensor
    mean: Tensor
    basis: Tensor
    scores: Tensor
    squares: Tensor
    values: Tensor
    turned: Tensor

    @classmethod
    def of(cls, features: Tensor, y: Tensor) -> _Problem:
        mean = features.mean(0, dtype=torch.float64)
        rough = torch.empty(features.shape)
        for block, rows in zip(rough.split(_ROWS), features.split(_ROWS), strict=True):
            block.copy_(rows - mean.to(rows.dtype))
        turned = rough.numpy().T
        (product,) = get_blas_funcs(("syrk",), (turned,))  # half the work of turned @ rough
        lower = torch.from_numpy(product(1.0, turned, lower=1))
        basis = torch.linalg.eigh(lower, UPLO="L").eigenvectors
        scores = rough @ basis
        squares = scores.square()
        values = squares.sum(0).double()
        return cls(features.double(), y, mean, basis, scores, squares, values, scores.T @ y.float())

    def summed(self) -> _Problem:
        """The problem whose only target is the sum of this one's."""
        return replace(self, y=self.y.sum(1, keepdim=True), turned=self.turned.sum(1, keepdim=True))

    def shaken(self, penalty: Tensor) -> float:
        """By how much of their norm one step of refinement changes the weights at one penalty."""
        return self.refined(self.start(penalty.expand(self.y.shape[1])))[1]

    def start(self, penalty: Tensor) -> _Fit:
        """The fit as single precision gives it, at penalties [t]."""
        shrunk = self.turned / (self.values[:, None] + penalty).float()
        return _Fit((self.basis @ shrunk).double(), penalty)

    def refined(self, fit: _Fit) -> tuple[_Fit, float]:
        """One step of refinement of the first targets, and by how much of their norm the weights changed, at most."""
        residual = self.y[:, : len(fit.penalty)] - (self.x @ fit.weights - self.mean @ fit.weights)
        slope = self.x.T @ residual - self.mean[:, None] * residual.sum(0) - fit.penalty * fit.weights
        shrunk = (self.basis.T @ slope.float()) / (self.values[:, None] + fit.penalty).float()
        change = (self.basis @ shrunk).double()
        weights = fit.weights + change
        size = float((change.norm(dim=0) / weights.norm(dim=0).clamp(min=1e-300)).max())
        return _Fit(weights, fit.penalty), size if size == size else float("inf")

    def polished(self, penalty: Tensor, count: int) -> Tensor | None:
        """Weights [d t] at penalties [t], the first refined until done; None where they do not settle."""
        whole = self.start(penalty)
        fit, before = whole.first(count), 1.0
        for _ in range(_STEPS if count else 0):
            fit, change = self.refined(fit)
            if change * min(1.0, change / before) <= _DONE:
                whole.weights[:, :count] = fit.weights
                return whole.weights
            before = change
        return None if count else whole.weights

    def errors(self, penalties: Tensor, groups: list[int] | None) -> Tensor:
        """Leave-one-out errors [a t] of every penalty that can win, infinite for the others."""
        n = len(self.x)
        shrink = 1 / (self.values + penalties[:, None])
        weight = (1 - 1 / n - shrink.float() @ self.squares.T).clamp(min=1e-6).square().reciprocal()
        power, total = self.turned.double().square(), self.y.square().sum(0)
        missed = total - (2 * shrink - self.values * shrink.square()) @ power
        middle, least = weight.double().mean(1)[:, None], weight.double().amin(1)[:, None]
        likely = ridge.choose(missed.clamp(min=0) * middle, groups)
        errors = torch.full_like(missed, torch.inf)
        first = torch.arange(len(penalties))[:, None] == likely
        reached = self._fill(errors, first, shrink, weight)
        spread = (weight - middle.float()).square() @ reached
        change, with_it = self._change(shrink, shrink[likely].T, power)
        low = (weight @ reached).double() + 2 * middle * with_it + least * change
        low = low - 2 * (spread.double() * change).sqrt() - _SLACK * middle * total
        low = torch.maximum(low, least * (missed - _SLACK * total)).clamp(min=0) / n
        both = ridge.shared(torch.cat([low, errors.gather(0, likely[None])]), groups)
        self._fill(errors, (both[:-1] <= both[-1]) & ~first, shrink, weight)
        return errors

    def _change(self, shrink: Tensor, likely: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norm [a t] of what residuals change by from the likely penalties to others, and its product with the
        residuals at the likely ones; shrink [a d], likely [d t], power [d t]."""
        values = self.values[:, None]
        once, twice = values * power, shrink @ (values * likely * power)
        square = (values * likely.square() * power).sum(0)
        change = shrink.square() @ once - 2 * twice + square
        with_it = (likely * power).sum(0) - shrink @ power - (square - twice)
        return change.clamp(min=0), with_it

    def _fill(self, errors: Tensor, which: Tensor, shrink: Tensor, weight: Tensor) -> Tensor:
        """Compute the errors [a t] that `which` marks, and give the squared residuals [n k] of all of them."""
        t, a = which.T.nonzero(as_tuple=True)
        residual = torch.sub(self.y.float()[:, t], self.scores @ (shrink.float()[a].T * self.turned[:, t]))
        squared = residual.square_()
        errors[a, t] = torch.einsum("kn,nk->k", weight[a], squared).double() / len(squared)
        return squared
