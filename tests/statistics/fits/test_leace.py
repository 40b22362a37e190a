"""Concept erasure: the theorem on training data, held-out data within noise, rare concepts, streaming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.probes import Leace
from cutaway.statistics import auroc


def mixture(n: int, d: int, share: float, seed: int = 0, strength: float = 2.0) -> tuple[Tensor, Tensor]:
    """Correlated features of very different scale, shifted along one direction where the concept holds."""
    draw = torch.Generator().manual_seed(seed)
    mix = (
        torch.randn(d, d, generator=torch.Generator().manual_seed(99)).double()
        * torch.logspace(-4, 2, d).double()
    )
    z = (torch.rand(n, generator=draw) < share).double()
    x = torch.randn(n, d, generator=draw).double()
    x[:, 0] += strength * z
    return x @ mix + 7, z


def odds(x: Tensor, z: Tensor) -> tuple[float, float]:
    """Training log loss of a weakly penalised logistic regression, and that of a constant."""
    scaled = (x - x.mean(0)) / x.std(0).clamp(min=1e-12)
    model = LogisticRegression(C=1e4, max_iter=5000, tol=1e-8).fit(scaled.numpy(), z.numpy())
    p = np.clip(model.predict_proba(scaled.numpy())[:, 1], 1e-12, 1 - 1e-12)
    loss = -float(np.mean(np.where(z.numpy() > 0, np.log(p), np.log(1 - p))))
    share = float(z.mean())
    return loss, -(share * np.log(share) + (1 - share) * np.log(1 - share))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_no_linear_predictor_beats_a_constant_after_erasure(share: float) -> None:
    x, z = mixture(6000, 12, share)
    before, constant = odds(x, z)
    assert before < 0.9 * constant
    eraser = Leace(12, 1).update(x, z[:, None]).eraser
    erased = eraser(x)
    means = torch.stack([erased[z == c].mean(0) for c in (0, 1)])
    assert float(((means[0] - means[1]).abs() / x.std(0)).max()) < 1e-9
    after, _ = odds(erased, z)
    assert after > constant - 1e-6
    assert eraser.rank == 1


@pytest.mark.parametrize("share", [0.5, 0.01])
def test_held_out_data_is_at_chance_within_noise(share: float) -> None:
    x, z = mixture(20_000, 12, share, seed=1)
    eraser = Leace(12, 1).update(x[:10_000], z[:10_000, None]).eraser
    weights = torch.linalg.lstsq(
        x[:10_000] - x[:10_000].mean(0), z[:10_000, None] - z[:10_000].mean()
    ).solution[:, 0]
    assert float(auroc(x[10_000:] @ weights, z[10_000:])) > 0.8
    left = eraser(x[10_000:])
    ones = float(z[10_000:].sum())
    noise = 3 * np.sqrt(1 / (12 * ones) + 1 / (12 * 10_000))
    again = torch.linalg.lstsq(
        eraser(x[:10_000]) - eraser(x[:10_000]).mean(0), z[:10_000, None] - z[:10_000].mean()
    )
    assert abs(float(auroc(left @ again.solution[:, 0], z[10_000:])) - 0.5) < noise + 0.02
    assert abs(float(auroc(left @ weights, z[10_000:])) - 0.5) < noise + 0.02


def test_a_rare_concept_on_a_tiny_scale_is_not_left_in() -> None:
    x, z = mixture(20_000, 6, 0.01, seed=2)
    x = torch.cat(
        [
            x,
            (torch.randn(20_000, 1, generator=torch.Generator().manual_seed(5)).double() + 4 * z[:, None])
            * 1e-6,
        ],
        1,
    )
    erased = Leace(7, 1).update(x, z[:, None]).eraser(x)
    gap = (erased[z == 1].mean(0) - erased[z == 0].mean(0)).abs() / x.std(0)
    assert float(gap.max()) < 1e-8


def test_streaming_is_all_at_once() -> None:
    x, z = mixture(900, 8, 0.3)
    once = Leace(8, 1).update(x, z[:, None]).eraser
    sums = Leace(8, 1)
    for start in range(0, 900, 77):
        sums.update(x[start : start + 77], z[start : start + 77, None])
    assert torch.allclose(once(x), sums.eraser(x), atol=1e-8)
    first = sums.eraser
    assert sums.eraser is first
    assert sums.update(x[:5], z[:5, None]).eraser is not first


def test_it_is_the_least_change_that_equalises_the_means() -> None:
    """Against the closed form with matrix square roots, and against projecting the mean difference out."""
    x, z = mixture(2000, 5, 0.4)
    x = (x - x.mean(0)) / x.std(0)
    eraser = Leace(5, 1).update(x, z[:, None]).eraser
    centred = x - x.mean(0)
    sigma = centred.T @ centred / len(x)
    cross = centred.T @ (z - z.mean())[:, None] / len(x)
    values, vectors = torch.linalg.eigh(sigma)
    root, inverse = vectors * values.sqrt() @ vectors.T, vectors / values.sqrt() @ vectors.T
    u = inverse @ cross / (inverse @ cross).norm()
    reference = x - centred @ (root @ u @ u.T @ inverse).T
    assert torch.allclose(eraser(x), reference, atol=1e-8)
    gap = x[z == 1].mean(0) - x[z == 0].mean(0)
    gap = gap / gap.norm()
    plain = x - torch.outer(centred @ gap, gap)
    assert float(((eraser(x) - x) ** 2).sum()) <= float(((plain - x) ** 2).sum())


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="does not vary"):
        _ = Leace(3, 1).update(torch.randn(10, 3), torch.ones(10, 1)).eraser
    with pytest.raises(BadInput, match="do not fit"):
        Leace(3, 1).update(torch.randn(10, 4), torch.ones(10, 1))
    with pytest.raises(BadInput, match="NaN"):
        Leace(1, 1).update(torch.tensor([[float("nan")]]), torch.ones(1, 1))
    with pytest.raises(BadInput, match="nothing to erase"):
        _ = Leace(3, 1).eraser
