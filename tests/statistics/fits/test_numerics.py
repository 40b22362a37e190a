"""Ridge, logistic regression, class means and scores against scikit-learn, brute force and definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from torch import Tensor

from cutaway.probes.fits import scores
from cutaway.probes.fits.cross_validation import from_moments
from cutaway.probes.fits.kinds import Fitting, Labellings, fit
from cutaway.statistics.fits import logistic, means, ridge, single_precision
from cutaway.statistics.fits.choice import By
from cutaway.statistics.fits.screening import Screening


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


def test_choosing_penalties_in_single_precision_gives_the_same_fit() -> None:
    x, y = random(0, 300, 40), random(1, 300, 5)
    penalties = torch.logspace(-2, 3, 8).double()
    a = ridge.path(ridge.factorise(x), y, penalties)
    b = ridge.path(ridge.factorise(x), y, penalties, fast=True)
    assert bool((a.best == b.best).all())
    assert torch.equal(a.weights, b.weights)


def labelled(n: int, d: int, t: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of uneven spread with means, and targets from almost all signal to pure noise."""
    turn = torch.linalg.qr(random(seed + 1, d, d)).Q
    x = random(seed, n, d) * torch.logspace(0.3, -0.5, d).double() @ turn + 3.0
    share = torch.linspace(1, 0, t).double()
    signal = (x - 3) @ random(seed + 2, d, t) / d**0.5
    return x, share * signal + (1 - share**2) * random(seed + 3, n, t)


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


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_auroc_under_ties(seed: int, values: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    guess, labels = (
        torch.randint(0, values, (40,), generator=draw).double(),
        torch.randint(0, 2, (40,), generator=draw),
    )
    if 0 < int(labels.sum()) < 40:
        mine = float(scores.auroc(guess, labels))
        assert mine == pytest.approx(roc_auc_score(labels, guess), abs=1e-12)
        pairs = (guess[labels == 1][:, None] - guess[labels == 0][None]).sign()
        assert mine == pytest.approx(float((pairs + 1).mean() / 2), abs=1e-12)
        order = torch.randperm(40, generator=draw)
        assert mine == pytest.approx(float(scores.auroc(guess[order], labels[order])), abs=1e-12)


def test_auroc_of_one_class_is_nan() -> None:
    assert bool(torch.isnan(scores.auroc(torch.arange(3.0), torch.ones(3))))


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


def test_ridge_from_sums_is_ridge_from_activations() -> None:
    """R² of every fold from sums alone equals fitting on the other folds and predicting, penalty chosen by GCV."""
    n, d, k = 90, 6, 3
    x, y = random(0, n, d) * 3 + 5, random(1, n, 2)
    y[:, 0] += x[:, 0]
    fold = torch.arange(n) % k
    parts = [(fold == f) for f in range(k)]
    found = from_moments(
        torch.tensor([float(p.sum()) for p in parts]).double(),
        torch.stack([x[p].sum(0) for p in parts])[:, None],
        torch.stack([x[p].T @ x[p] for p in parts])[:, None],
        torch.stack([x[p].T @ y[p] for p in parts])[:, None],
        torch.stack([y[p].sum(0) for p in parts]),
        torch.stack([(y[p] ** 2).sum(0) for p in parts]),
    )
    missed = torch.zeros(2).double()
    for p in parts:
        missed += ((_by_gcv(x[~p], y[~p], x[p]) - y[p]) ** 2).sum(0)
    assert torch.allclose(found.r2[0], 1 - missed / ((y - y.mean(0)) ** 2).sum(0), atol=1e-9)


def _by_gcv(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    n = len(x)
    mean, scale = x.mean(0), x.std(0, correction=0)
    z = (x - mean) / scale
    out = torch.empty(len(new), y.shape[1]).double()
    for t in range(y.shape[1]):
        best = (float("inf"), z[0])
        for penalty in ridge.PENALTIES:
            inverse = torch.linalg.inv(z.T @ z + penalty * n * torch.eye(z.shape[1]).double())
            weights = inverse @ z.T @ (y[:, t] - y[:, t].mean())
            residual = y[:, t] - y[:, t].mean() - z @ weights
            freedom = float((z @ inverse @ z.T).trace()) + 1
            best = min(best, (float((residual**2).sum()) / (n - freedom) ** 2, weights), key=lambda b: b[0])
        out[:, t] = (new - mean) / scale @ best[1] + y[:, t].mean()
    return out


@pytest.mark.parametrize("kind", ["ridge", "logistic", "means", "lda", "mass-mean"])
def test_every_kind_finds_a_direction_in_raw_space(kind: str) -> None:
    x = random(0, 400, 10) * torch.linspace(1, 20, 10).double() + 3
    labels = (x[:, 2] > x[:, 2].mean()).long()
    found = fit(x, Labellings(labels[None], "binary", 2), Fitting(kind))
    out = found.outputs(x)[0]
    assert out.shape == (400, 1)
    assert float(scores.auroc(out[:, 0], labels)) > 0.95


@pytest.mark.parametrize("kind", ["ridge", "logistic", "lda", "means"])
def test_several_classes(kind: str) -> None:
    labels = torch.arange(300) % 3
    x = random(0, 300, 6) + 3 * torch.nn.functional.one_hot(labels, 6).double()
    found = fit(x, Labellings(labels[None], "multiclass", 3), Fitting(kind))
    assert float((found.outputs(x)[0].argmax(1) == labels).float().mean()) > 0.9
