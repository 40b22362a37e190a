"""Probes of class means against scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from cutaway.statistics.fits import means


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_discriminant_is_scikit_learns() -> None:
    x = random(7, 200, 6)
    labels = (x[:, 0] + random(8, 200) > 0.5).long()
    hot = torch.nn.functional.one_hot(labels, 2).double()
    mine = means.discriminant(x, hot, shrink=0.0)
    model = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), labels.numpy())
    # theirs divides by n, not by n minus the number of classes
    assert np.abs(mine.weights[:, 0].numpy() * 200 / 198 - model.coef_[0]).max() < 1e-8
    out = (x @ mine.weights + mine.bias)[:, 0].numpy()
    assert np.corrcoef(out, model.decision_function(x.numpy()))[0, 1] > 0.999999
    assert 0 <= means.shrinkage(x - hot @ means.class_means(x, hot), means.within_covariance(x, hot)) <= 1


def test_discriminant_survives_a_singular_covariance() -> None:
    x = random(9, 20, 40)
    hot = torch.nn.functional.one_hot(torch.arange(20) % 2, 2).double()
    assert bool(torch.isfinite(means.discriminant(x, hot, shrink=0.0).weights).all())
