from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from cutaway.errors import BadInput
from cutaway.statistics import auroc, average_precision

SCORES = hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-4, 4).map(float))


@given(SCORES, st.integers(0, 1000))
def test_areas_under_ties_are_those_of_scikit_learn_and_of_all_pairs(scores: np.ndarray, seed: int) -> None:
    labels = np.random.default_rng(seed).random(len(scores)) < 0.5
    labels[:2] = True, False
    above = scores[labels][:, None] - scores[~labels][None, :]
    assert auroc(scores, labels) == pytest.approx((above > 0).mean() + 0.5 * (above == 0).mean())
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_the_area_of_tensors_under_ties(seed: int, values: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    guess = torch.randint(0, values, (40,), generator=draw).double()
    labels = torch.randint(0, 2, (40,), generator=draw)
    if 0 < int(labels.sum()) < 40:
        area = float(auroc(guess, labels))
        assert area == pytest.approx(roc_auc_score(labels, guess), abs=1e-12)
        pairs = (guess[labels == 1][:, None] - guess[labels == 0][None]).sign()
        assert area == pytest.approx(float((pairs + 1).mean() / 2), abs=1e-12)
        order = torch.randperm(40, generator=draw)
        assert area == pytest.approx(float(auroc(guess[order], labels[order])), abs=1e-12)


def test_a_table_is_done_at_once_and_labels_broadcast() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, (3, 4, 40)), rng.random((4, 40)) < 0.4
    areas = auroc(scores, labels)
    assert areas.shape == (3, 4)
    for i, j in np.ndindex(3, 4):
        assert areas[i, j] == pytest.approx(auroc(scores[i, j], labels[j]))
    np.testing.assert_array_equal(auroc(torch.tensor(scores), torch.tensor(labels)), areas)


def test_with_one_class_there_is_no_area() -> None:
    assert math.isnan(auroc([1.0, 2.0], [1, 1]))
    assert bool(np.isnan(auroc(torch.arange(3.0), torch.ones(3))))
    assert np.isnan(auroc([[1.0, 2.0], [1.0, 2.0]], [[0, 0], [0, 1]])).tolist() == [True, False]
    assert math.isnan(average_precision([1.0, 2.0], [0, 0]))
    with pytest.raises(BadInput, match="one length"):
        average_precision([1.0, 2.0], [1])
