"""Ridge regression in single precision against the same in double."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cutaway.statistics.fits import ridge, single_precision
from cutaway.statistics.fits.choice import By
from cutaway.statistics.fits.screening import Screening


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def labelled(n: int, d: int, t: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of uneven spread with means, and targets from almost all signal to pure noise."""
    turn = torch.linalg.qr(random(seed + 1, d, d)).Q
    x = random(seed, n, d) * torch.logspace(0.3, -0.5, d).double() @ turn + 3.0
    share = torch.linspace(1, 0, t).double()
    signal = (x - 3) @ random(seed + 2, d, t) / d**0.5
    return x, share * signal + (1 - share**2) * random(seed + 3, n, t)


def test_choosing_penalties_in_single_precision_gives_the_same_fit() -> None:
    x, y = random(0, 300, 40), random(1, 300, 5)
    penalties = torch.logspace(-2, 3, 8).double()
    a = ridge.path(ridge.factorise(x), y, penalties)
    b = ridge.path(ridge.factorise(x), y, penalties, fast=True)
    assert bool((a.best == b.best).all())
    assert torch.equal(a.weights, b.weights)


@given(st.integers(0, 10_000), st.integers(2, 60), st.booleans(), st.sampled_from(["error", "correlation"]))
def test_ridge_in_single_precision_is_ridge_in_double(seed: int, d: int, grouped: bool, by: By) -> None:
    x, y = labelled(150, d, 6, seed)
    penalties = torch.logspace(-1, 4, 20).double()
    groups = [0, 0, 1, 1, 2, 3] if grouped else None
    mine = single_precision.solve(x, y, penalties, groups, refine=2, by=by)
    exact = ridge.path(ridge.factorise(x), y, penalties, groups, by=by)
    everywhere = exact.left_out.shared(groups).losses(by)
    chosen = everywhere.gather(0, mine.best[None])[0]
    unit = y.var(0).max() if by == "error" else 1.0
    assert bool((chosen <= everywhere.amin(0) * (1 + 1e-5) + 1e-5 * unit).all())
    computed = mine.errors.isfinite()
    assert bool(computed[:, :2].all())
    assert bool(computed[mine.best, range(6)].all())
    assert torch.allclose(mine.errors[computed], exact.errors[computed], rtol=1e-4, atol=1e-5)
    assert torch.allclose(
        mine.left_out.correlations[computed], exact.left_out.correlations[computed], rtol=1e-4, atol=2e-5
    )
    for t, best in enumerate(mine.best.tolist()):
        same = ridge.path(ridge.factorise(x), y[:, [t]], penalties[[best]])
        gap = (same.weights[:, 0] - mine.weights[:, t]).norm() / same.weights.norm()
        assert gap < (1e-7 if t < 2 else 1e-3)
        assert t > 1 or abs(float(same.bias[0] - mine.bias[t])) < 1e-6 * (1 + float(same.weights.norm()))


@given(st.integers(0, 10_000), st.integers(4, 40), st.booleans())
def test_penalties_are_excluded_only_where_they_cannot_win(seed: int, d: int, grouped: bool) -> None:
    x, y = labelled(120, d, 6, seed)
    y = y - y.mean(0)
    x = x - x.mean(0)
    penalties = torch.logspace(-1, 4, 20).double()
    fact = ridge.factorise(x)
    screening = Screening.of(y, fact.scores.float(), fact.values, fact.scores.T @ y, penalties)
    exact = ridge.path(fact, y, penalties).left_out
    likely = torch.arange(6) * 3
    bound = screening._most(likely, screening._fitted(likely, torch.arange(6)))
    small = 1e-5 * exact.total
    assert bool((bound.with_label >= exact.with_label - small).all())
    assert bool((bound.squares <= exact.squares + small).all())
    groups = [0, 0, 1, 1, 2, 3] if grouped else None
    for by in ("error", "correlation"):
        least, true = bound.shared(groups).losses(by), exact.shared(groups).losses(by)
        assert bool((least <= true + 1e-5 * max(1.0, float(true.max()))).all())


def test_most_penalties_are_excluded_without_their_errors() -> None:
    x, y = labelled(400, 60, 6, 5)
    errors = single_precision.solve(x, y, torch.logspace(-2, 5, 20).double(), refine=0).errors
    assert float(errors.isfinite().double().mean()) < 0.4


def test_a_label_that_nothing_predicts_gets_the_largest_penalty() -> None:
    x = random(0, 300, 10)
    y = torch.stack([torch.ones(300), random(1, 300)], 1).double()
    y[:, 1] -= x @ torch.linalg.lstsq(x, y[:, 1:]).solution[:, 0]  # no linear trace of the features is left
    penalties = torch.tensor([1.0, 1000.0, 10.0]).double()
    for precise in (True, False):
        found = single_precision.solve(x, y, penalties, precise=precise, by="correlation")
        assert found.best.tolist() == [1, 1]
        assert bool(found.weights.isfinite().all())


def test_correlation_serves_the_order_where_squared_error_shrinks() -> None:
    # one strong feature direction without the label, and the label's in a weak one: heavy shrinkage loses it
    gains = []
    for seed in range(5):
        x = random(seed, 3000, 60)
        x[:, :10] *= 8
        score = 0.35 * x[:, 30] + random(seed + 50, 3000)
        y = (score > 0).double()[:, None] * 2 - 1
        penalties = torch.tensor(ridge.PENALTIES).double() * 400
        found = {
            by: single_precision.solve(x[:400], y[:400], penalties, by=by) for by in ("error", "correlation")
        }
        right = {
            by: ((x[400:] @ f.weights + f.bias > 0) == (y[400:] > 0)).double().mean()
            for by, f in found.items()
        }
        gains.append(float(right["correlation"] - right["error"]))
    assert np.mean(gains) > 0.0


def test_single_precision_is_left_where_it_does_not_hold() -> None:
    x, y = random(0, 200, 40), random(1, 200, 3)
    x[:, 0] *= 1e6
    penalties = torch.logspace(-8, 2, 9).double()
    y[:, 0] += x[:, 1:].sum(1)
    mine = single_precision.solve(x, y, penalties)
    exact = ridge.path(ridge.factorise(x), y, penalties)
    assert bool((mine.best == exact.best).all())
    assert torch.allclose(mine.weights, exact.weights, rtol=1e-9, atol=0)


def test_double_precision_is_an_option() -> None:
    x, y = labelled(100, 20, 4, 7)
    penalties = torch.logspace(-2, 3, 8).double()
    exact = ridge.path(ridge.factorise(x), y, penalties)
    assert torch.equal(single_precision.solve(x, y, penalties, precise=True).weights, exact.weights)
    few = single_precision.solve(x, y, penalties, refine=1)
    assert (few.weights - exact.weights).norm() < 1e-4 * exact.weights.norm()
    assert (few.weights[:, 0] - exact.weights[:, 0]).norm() < 1e-7 * exact.weights[:, 0].norm()
