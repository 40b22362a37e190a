"""Scores against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from torch import Tensor

from cutaway.probes.fits import scores


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_scores_and_weighted_scores_are_scikit_learns() -> None:
    draw = torch.Generator().manual_seed(0)
    weights = torch.randint(0, 3, (5, 60), generator=draw)
    out, labels = random(1, 60, 3), torch.randint(0, 3, (60,), generator=draw)
    assert float(scores.score("multiclass", out, labels, 3)) == pytest.approx(
        balanced_accuracy_score(labels, out.argmax(1))
    )
    mine = scores.weighted_score("multiclass", out, labels, weights, 3)
    theirs = [balanced_accuracy_score(labels, out.argmax(1), sample_weight=w) for w in weights]
    assert np.allclose(mine, theirs)
    binary, tied = (labels > 0).long(), out[:, :1].round()
    mine = scores.weighted_score("binary", tied, binary, weights)
    assert np.allclose(mine, [roc_auc_score(binary, tied[:, 0], sample_weight=w) for w in weights])
    value = random(2, 60)
    mine = scores.weighted_score("continuous", out[:, :1], value, weights)
    assert np.allclose(mine, [r2_score(value, out[:, 0], sample_weight=w) for w in weights])
