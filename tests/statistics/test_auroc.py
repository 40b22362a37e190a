"""AUROC of tensors, with ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cutaway.statistics import auroc


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_auroc_under_ties(seed: int, values: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    guess, labels = (
        torch.randint(0, values, (40,), generator=draw).double(),
        torch.randint(0, 2, (40,), generator=draw),
    )
    if 0 < int(labels.sum()) < 40:
        mine = float(auroc(guess, labels))
        assert mine == pytest.approx(roc_auc_score(labels, guess), abs=1e-12)
        pairs = (guess[labels == 1][:, None] - guess[labels == 0][None]).sign()
        assert mine == pytest.approx(float((pairs + 1).mean() / 2), abs=1e-12)
        order = torch.randperm(40, generator=draw)
        assert mine == pytest.approx(float(auroc(guess[order], labels[order])), abs=1e-12)


def test_auroc_of_one_class_is_nan() -> None:
    assert bool(np.isnan(auroc(torch.arange(3.0), torch.ones(3))))
