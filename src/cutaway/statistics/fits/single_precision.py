"""Ridge regression in single precision, made as exact as in double.

The factorisation, which costs most, is done in float32, and what it is used for is then secured:

- Whether it holds at the smallest penalty is tested by one step of refinement there, for the sum of the targets; where it
  does not, everything is done again in float64.
- A penalty is chosen by exact leave-one-out, computed for those penalties only that can win (`screening`). Where an example
  all but fits itself at a chosen penalty, so that rounding would tell, everything is done again in float64.
- Weights are refined with residuals in float64 until they stop changing (Wilkinson's iterative refinement).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cutaway.statistics.fits import grouped, ridge
from cutaway.statistics.fits.choice import By, choose
from cutaway.statistics.fits.screening import Screening

#: How much of an example's own say must be left over at the chosen penalty: below, rounding in its leverage would tell.
_MARGIN = 3e-3
#: Relative change of the weights by which single precision is trusted at the smallest penalty, and by which they are done.
_TRUSTED, _DONE = 1e-3, 1e-8
_STEPS, _BLOCK = 8, 128


def solve(
    features: Tensor, targets: Tensor, penalties: Tensor, groups: list[int] | None = None, precise: bool = False,
    refine: int | None = None, by: By = "error", clusters: Tensor | None = None,
) -> ridge.PenaltyPath:  # fmt: skip
    """Fit targets [n t] to features [n d] over penalties [a], and choose by leave-one-out, as `ridge.path` does.

    Weights agree with float64 to about 1e-8 of their norm; penalties agree but where two errors differ by less than 1e-5
    of the label's variance (two correlations by less than 1e-5). clusters: [n], examples that are left out together; then
    every penalty's sums are computed. precise: all in float64. refine: how many targets, from
    the first, get refined weights and the sums of every penalty (None: all); the others' weights agree to 1e-3 of their
    norm, and mostly to 1e-5, and sums are NaN where a penalty was excluded without computing them. Fewer examples than
    features are always factorised in float64.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    >>> done = solve(x, x[:, :1], torch.tensor([1e-6, 1.0], dtype=torch.float64))
    >>> round(done.weights[0, 0].item(), 3), done.best.tolist()
    (1.0, [0])
    """
    n, d = features.shape
    if not precise and n > d:
        try:
            fitted = _solve(features, targets.double(), penalties, groups, refine, by, clusters)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage] # float32 overflowed
            fitted = None
        if fitted is not None:
            return fitted
    return ridge.path(ridge.factorise(features), targets, penalties, groups, by=by, clusters=clusters)


def _solve(
    features: Tensor, y: Tensor, penalties: Tensor, groups: list[int] | None, refine: int | None, by: By,
    clusters: Tensor | None,
) -> ridge.PenaltyPath | None:  # fmt: skip
    """In single precision, or None where that does not hold."""
    problem = _RidgeProblem.of(features, y - y.mean(0))
    if not problem.summed().shaken(penalties.min()) <= _TRUSTED:
        return None
    whole = y.shape[1] if refine is None else min(refine, y.shape[1])
    screening = Screening.of(problem.y, problem.scores, problem.values, problem.turned, penalties)
    if clusters is not None and grouped.parted(clusters):
        left_out = grouped.left_out(problem.scores, screening.shrink, problem.turned, problem.y, clusters)
    else:
        left_out = screening.left_out(groups, by, whole)
    best = choose(left_out.shared(groups).losses(by), penalties)
    if float((1 - 1 / len(y) - screening.leverage[best.unique()]).min()) < _MARGIN:
        return None
    weights = problem.polished(penalties[best], whole)
    if weights is None:
        return None
    return ridge.PenaltyPath(penalties, left_out, best, weights, y.mean(0) - problem.mean @ weights)


def _gram(x: Tensor) -> Tensor:
    """The lower triangle of x'x [d d], block by block; above it, zeros but for the blocks on the diagonal."""
    out = x.new_zeros(x.shape[1], x.shape[1])
    for start in range(0, len(out), _BLOCK):
        end = start + _BLOCK
        out[start:end, :end] = x[:, start:end].T @ x[:, :end]
    return out


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weights [d t] so far, in float64, and what they were penalised with [t]."""

    weights: Tensor
    penalty: Tensor

    def first(self, count: int) -> _Fit:
        return _Fit(self.weights[:, :count], self.penalty[:count])


@dataclass(frozen=True, eq=False)
class _RidgeProblem:
    """x [n d] (not centred), its mean and centred y [n t] in float64; the rest in float32: basis [d d], scores [n d] =
    centred x times basis, turned [d t] = scores' y; values [d], the eigenvalues, as squared norms of the scores."""

    x: Tensor
    y: Tensor
    mean: Tensor
    basis: Tensor
    scores: Tensor
    values: Tensor
    turned: Tensor

    @classmethod
    def of(cls, features: Tensor, y: Tensor) -> _RidgeProblem:
        mean = features.mean(0, dtype=torch.float64)
        rough = (features - mean).float()
        basis = torch.linalg.eigh(_gram(rough), UPLO="L").eigenvectors
        scores = rough @ basis
        values = scores.square().sum(0).double()
        return cls(features.double(), y, mean, basis, scores, values, scores.T @ y.float())

    def summed(self) -> _RidgeProblem:
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
