"""Ridge regression against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from cutaway.statistics.fits import ridge, single_precision


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("n", "d"), [(120, 15), (30, 30), (25, 80)])
def test_ridge_path_is_scikit_learns(n: int, d: int) -> None:
    x, y = random(0, n, d), random(1, n, 3)
    y[:, 0] += x[:, 0]
    penalties = torch.logspace(-2, 3, 12).double()
    mine = ridge.path(ridge.factorise(x), y, penalties, loo=True)
    theirs = RidgeCV(alphas=penalties.numpy(), alpha_per_target=True, store_cv_results=True).fit(
        x.numpy(), y.numpy()
    )
    assert np.abs(mine.weights.numpy() - theirs.coef_.T).max() < 1e-8
    assert np.abs(mine.bias.numpy() - theirs.intercept_).max() < 1e-8
    assert np.abs(mine.errors.numpy() - theirs.cv_results_.mean(0).T).max() < 1e-6 * float(mine.errors.max())
    assert np.allclose(penalties[mine.best].numpy(), theirs.alpha_)


@pytest.mark.parametrize(("n", "d"), [(18, 5), (12, 20)])
def test_left_out_predictions_are_those_of_fits_without_the_example(n: int, d: int) -> None:
    x, y = random(2, n, d), random(3, n, 2)
    penalty = torch.tensor([3.0]).double()
    held = ridge.path(ridge.factorise(x), y, penalty, loo=True).loo
    assert held is not None
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        model = Ridge(alpha=3.0).fit(x[rest].numpy(), y[rest].numpy())
        assert np.abs(model.predict(x[[i]].numpy()) - held[i].numpy()).max() < 1e-8


@given(
    st.integers(0, 10_000),
    st.integers(2, 30),
    st.lists(st.integers(1, 12), min_size=3, max_size=6),
    st.booleans(),
)
def test_left_out_groups_are_predicted_by_fits_without_them(
    seed: int, d: int, sizes: list[int], fast: bool
) -> None:
    assume(max(sizes) > 1)
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))]
    n = len(groups)
    x, y = random(seed, n, d), random(seed + 1, n, 2)
    penalties = torch.tensor([0.5, 20.0]).double()
    found = ridge.path(ridge.factorise(x), y, penalties, clusters=groups, fast=fast).left_out
    for a, penalty in enumerate(penalties.tolist()):
        c, q = torch.zeros_like(y), torch.zeros_like(y)
        for g in groups.unique():
            out, rest = groups == g, groups != g
            mean = y[rest].mean(0)
            if int(rest.sum()) > 1:
                model = Ridge(alpha=penalty).fit(x[rest].numpy(), y[rest].numpy())
                predicted = torch.as_tensor(model.predict(x[out].numpy()))
            else:
                predicted = mean.expand(int(out.sum()), -1)
            c[out], q[out] = y[out] - mean, predicted - mean
        tolerance = 1e-3 if fast else 1e-7
        assert torch.allclose(found.errors[a], (c - q).square().mean(0), rtol=tolerance)
        assert torch.allclose(
            found.correlations[a],
            (c * q).sum(0) / (c.norm(dim=0) * q.norm(dim=0)),
            rtol=tolerance,
            atol=tolerance,
        )


def test_groups_of_one_are_examples_and_groups_serve_what_is_new() -> None:
    x, y = random(0, 60, 8), random(1, 60, 2)
    penalties = torch.logspace(-2, 3, 8).double()
    fact = ridge.factorise(x)
    a, b = ridge.path(fact, y, penalties), ridge.path(fact, y, penalties, clusters=torch.randperm(60))
    assert torch.equal(a.left_out.squares, b.left_out.squares)
    # ten noisy copies of each of thirty cases: leaving out a copy tells nothing of a new case
    wins = []
    for seed in range(6):
        cases, truth = random(seed, 330, 40), random(seed + 9, 40, 1)
        labels = (cases @ truth / 6 + random(seed + 20, 330, 1) > 0).double() * 2 - 1
        x = cases[:30].repeat_interleave(10, 0) + 0.1 * random(seed + 30, 300, 40)
        y, groups = labels[:30].repeat_interleave(10, 0), torch.arange(30).repeat_interleave(10)
        penalties = torch.tensor(ridge.PENALTIES).double() * 300
        scores = {}
        for name, clusters in (("examples", None), ("groups", groups)):
            f = single_precision.solve(x, y, penalties, by="error", clusters=clusters)
            scores[name] = float((cases[30:] @ f.weights + f.bias - labels[30:]).square().mean())
        wins.append(scores["groups"] < scores["examples"])
    assert np.mean(wins) > 0.5


def test_targets_of_one_label_share_a_penalty() -> None:
    x, y = random(0, 60, 5), random(1, 60, 4)
    done = ridge.path(ridge.factorise(x), y, torch.logspace(-3, 3, 9).double(), groups=[0, 0, 1, 1])
    assert done.best[0] == done.best[1]
    assert done.best[2] == done.best[3]
