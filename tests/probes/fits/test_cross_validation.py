"""Cross-validation from sums alone."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.probes.fits.cross_validation import from_moments
from cutaway.statistics.fits import ridge


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_ridge_from_sums_is_ridge_from_activations() -> None:
    """R² of every fold from sums alone equals fitting on the other folds and predicting, penalty chosen by GCV."""
    n, d, k = 90, 6, 3
    x, y = random(0, n, d) * 3 + 5, random(1, n, 2)
    y[:, 0] += x[:, 0]
    fold = torch.arange(n) % k
    parts = [(fold == f) for f in range(k)]
    found = from_moments(
        torch.tensor([float(p.sum()) for p in parts]).double(),
        torch.stack([x[p].sum(0) for p in parts])[:, None],
        torch.stack([x[p].T @ x[p] for p in parts])[:, None],
        torch.stack([x[p].T @ y[p] for p in parts])[:, None],
        torch.stack([y[p].sum(0) for p in parts]),
        torch.stack([(y[p] ** 2).sum(0) for p in parts]),
    )
    missed = torch.zeros(2).double()
    for p in parts:
        missed += ((_by_gcv(x[~p], y[~p], x[p]) - y[p]) ** 2).sum(0)
    assert torch.allclose(found.r2[0], 1 - missed / ((y - y.mean(0)) ** 2).sum(0), atol=1e-9)


def _by_gcv(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    n = len(x)
    mean, scale = x.mean(0), x.std(0, correction=0)
    z = (x - mean) / scale
    out = torch.empty(len(new), y.shape[1]).double()
    for t in range(y.shape[1]):
        best = (float("inf"), z[0])
        for penalty in ridge.PENALTIES:
            inverse = torch.linalg.inv(z.T @ z + penalty * n * torch.eye(z.shape[1]).double())
            weights = inverse @ z.T @ (y[:, t] - y[:, t].mean())
            residual = y[:, t] - y[:, t].mean() - z @ weights
            freedom = float((z @ inverse @ z.T).trace()) + 1
            best = min(best, (float((residual**2).sum()) / (n - freedom) ** 2, weights), key=lambda b: b[0])
        out[:, t] = (new - mean) / scale @ best[1] + y[:, t].mean()
    return out
