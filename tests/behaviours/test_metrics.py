from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutaway.behaviours import METRICS, Answers, Metric, custom, metric, shares
from cutaway.errors import BadBehaviour, BadInput, NotFinite, NotFound

SETS = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)
ROWS = st.lists(st.tuples(SETS, SETS).filter(lambda p: not set(p[0]) & set(p[1])), min_size=1, max_size=5)


def by_hand(name: str, row: np.ndarray, right: list[int], wrong: list[int], reference: np.ndarray) -> float:
    p = np.exp(row - row.max())
    p /= p.sum()
    q = np.exp(reference - reference.max())
    q /= q.sum()
    return {
        "logit_diff": row[right].mean() - row[wrong].mean(),
        "logit_diff_lse": math.log(p[right].sum()) - math.log(p[wrong].sum()),
        "prob_diff": p[right].sum() - p[wrong].sum(),
        "log_prob": math.log(p[right].sum()),
        "cross_entropy": -math.log(p[right].sum()),
        "kl": float((q * (np.log(q) - np.log(p))).sum()),
        "accuracy": float(row[right].max() > row[wrong].max()),
    }[name]


@pytest.mark.parametrize("name", list(METRICS))
@given(rows=ROWS, seed=st.integers(0, 99))
def test_metrics_against_their_definition(
    name: str, rows: list[tuple[list[int], list[int]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, reference = rng.normal(0, 3, (len(rows), 10)), rng.normal(0, 3, (len(rows), 10))
    answers = Answers.of([r for r, _ in rows], [w for _, w in rows]).with_reference(torch.tensor(reference))
    got = metric(name)(torch.tensor(logits), answers)
    expected = [by_hand(name, logits[i], r, w, reference[i]) for i, (r, w) in enumerate(rows)]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("name", list(METRICS))
def test_low_precision_is_computed_in_float32(name: str) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(6, 50) * 20).to(torch.bfloat16)
    answers = Answers.of([[i] for i in range(6)], [[i + 7, i + 8] for i in range(6)]).with_reference(
        logits.flip(0)
    )
    got = metric(name)(logits, answers)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, metric(name)(logits.float(), answers))


def test_accuracy_without_wrong_answers_is_top_one() -> None:
    answers = Answers.of([[1], [1]], [[], []])
    assert METRICS["accuracy"](torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 2.0]]), answers).tolist() == [
        0.0,
        1.0,
    ]
    mixed = Answers.of([[1], [1]], [[], [2]])
    assert METRICS["accuracy"](torch.tensor([[0.0, 3.0, 2.0], [9.0, 3.0, 2.0]]), mixed).tolist() == [1.0, 1.0]


def test_answers_can_be_sliced_repeated_and_moved() -> None:
    answers = Answers.of([[1], [2, 3], [4]], [[5], [6], [7, 8]]).with_reference(
        torch.arange(30.0).view(3, 10)
    )
    assert len(answers[1:]) == 2
    twice = answers.repeat(2).to("cpu")
    assert twice.right.tolist() == [*answers.right.tolist(), *answers.right.tolist()]
    assert twice.reference is not None
    assert twice.reference[4].tolist() == list(range(10, 20))
    torch.manual_seed(0)
    logits = torch.randn(3, 10)
    whole = METRICS["logit_diff"](logits, answers)
    torch.testing.assert_close(METRICS["logit_diff"](logits.repeat(2, 1), twice), whole.repeat(2))


def test_your_own_metric() -> None:
    def top(logits: torch.Tensor, _: Answers) -> torch.Tensor:
        return logits.amax(-1)

    answers = Answers.of([[0]], [[]])
    assert metric(top).name == "top"
    assert custom(top, "best", higher=False).higher is False
    assert metric(top)(torch.tensor([[1.0, 4.0]], dtype=torch.float16), answers).item() == 4.0
    assert isinstance(metric(METRICS["kl"]), Metric)


def test_masked_logits_are_allowed_and_others_are_not() -> None:
    answers = Answers.of([[0], [0]], [[1], [1]])
    assert METRICS["logit_diff"](torch.tensor([[1.0, 0.0, -math.inf]] * 2), answers).tolist() == [1.0, 1.0]
    for bad in (math.nan, math.inf):
        with pytest.raises(NotFinite, match="1 of 2 examples.*example 1, token 2"):
            METRICS["logit_diff"](torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, bad]]), answers)


def test_bad_input() -> None:
    answers = Answers.of([[0]], [[]])
    with pytest.raises(BadBehaviour, match="compares with wrong answers"):
        METRICS["logit_diff"](torch.zeros(1, 3), answers)
    with pytest.raises(BadInput, match="no.* reference logits|there are none"):
        METRICS["kl"](torch.zeros(1, 3), answers)
    with pytest.raises(BadInput, match="reference logits do not have"):
        METRICS["kl"](torch.zeros(1, 3), answers.with_reference(torch.zeros(1, 4)))
    with pytest.raises(BadInput, match=r"logits \[1 v\]"):
        METRICS["log_prob"](torch.zeros(1, 2, 3), answers)
    with pytest.raises(NotFound, match="Did you mean logit_diff"):
        metric("logit_dif")


def test_shares() -> None:
    above, below = shares(torch.tensor([3.0]), torch.tensor([4.0]), torch.tensor([0.0]))
    assert (above / below).item() == 0.75


@pytest.mark.parametrize("bad", [lambda x, _: x, lambda x, _: x.mean(), lambda _x, _: 1.0])
def test_a_metric_of_the_wrong_shape_is_named(bad) -> None:
    answers = Answers.of([[0], [0]], [[1], [1]])
    with pytest.raises(BadInput, match=r"'mine' gave .*shape \[2\]"):
        custom(bad, "mine")(torch.zeros(2, 3), answers)


def test_nan_of_the_metric_itself_is_blamed_on_it() -> None:
    with pytest.raises(NotFinite, match="'mine' itself gives NaN"):
        custom(lambda x, _: x[:, 0] / x[:, 0], "mine")(torch.zeros(1, 3), Answers.of([[0]], [[1]]))
