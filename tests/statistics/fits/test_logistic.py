"""Logistic regression against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cutaway.statistics.fits import logistic


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("penalty", [0.1, 1.0, 50.0])
def test_logistic_is_scikit_learns_on_many_sites_at_once(penalty: float) -> None:
    x = random(4, 3, 200, 12)
    y = (x[:, :, 0] + random(5, 3, 200) > 0.3).long()
    done = logistic.fit(x, y[None].expand(3, -1, -1), penalty)
    assert bool(done.converged.all())
    for s in range(3):
        for t in range(3):
            model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(
                x[s].numpy(), y[t].numpy()
            )
            assert np.abs(done.weights[s, t].numpy() - model.coef_[0]).max() < 1e-4
            assert abs(float(done.bias[s, t]) - model.intercept_[0]) < 1e-4
            chance = torch.sigmoid(x[s] @ done.weights[s, t] + done.bias[s, t]).numpy()
            assert np.abs(chance - model.predict_proba(x[s].numpy())[:, 1]).max() < 1e-4


def test_multinomial_logistic_is_scikit_learns() -> None:
    x, y = random(6, 250, 8), torch.randint(0, 4, (1, 250), generator=torch.Generator().manual_seed(0))
    done = logistic.fit(x[None], y, 2.0, classes=4)
    model = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(x.numpy(), y[0].numpy())
    assert np.abs(done.weights[0, 0].numpy() - model.coef_.T).max() < 1e-4
    assert np.abs(done.bias[0, 0].numpy() - model.intercept_).max() < 1e-4


def test_logistic_on_separable_data_stays_finite() -> None:
    x = torch.linspace(-1, 1, 40)[:, None].double()
    done = logistic.fit(x[None], (x[:, 0] > 0).long()[None], 1e-6)
    assert bool(torch.isfinite(done.weights).all())
