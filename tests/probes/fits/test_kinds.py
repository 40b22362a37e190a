"""Every kind of linear probe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cutaway.probes.fits.kinds import Fitting, Labellings, fit
from cutaway.statistics import auroc


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("kind", ["ridge", "logistic", "means", "lda", "mass-mean"])
def test_every_kind_finds_a_direction_in_raw_space(kind: str) -> None:
    x = random(0, 400, 10) * torch.linspace(1, 20, 10).double() + 3
    labels = (x[:, 2] > x[:, 2].mean()).long()
    found = fit(x, Labellings(labels[None], "binary", 2), Fitting(kind))
    out = found.outputs(x)[0]
    assert out.shape == (400, 1)
    assert float(auroc(out[:, 0], labels)) > 0.95


@pytest.mark.parametrize("kind", ["ridge", "logistic", "lda", "means"])
def test_several_classes(kind: str) -> None:
    labels = torch.arange(300) % 3
    x = random(0, 300, 6) + 3 * torch.nn.functional.one_hot(labels, 6).double()
    found = fit(x, Labellings(labels[None], "multiclass", 3), Fitting(kind))
    assert float((found.outputs(x)[0].argmax(1) == labels).float().mean()) > 0.9
