"""Planted dictionaries have the statistics that were asked for, and recovery is what its definitions say."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import BadInput, UnknownOption
from cutaway.features.measures.matching import drawn_like, match, mcc, shared, uniqueness
from cutaway.features.planted import PRESETS, Planted, plant, preset


def test_features_fire_as_often_as_asked() -> None:
    truth = plant(40, 16, exponent=0.7, most=0.4, least=0.02, seed=1)
    n = 40_000
    rates = (truth.activations(n) > 0).double().mean(0)
    error = (truth.rates * (1 - truth.rates) / n).sqrt()
    assert bool(((rates - truth.rates).abs() < 5 * error).all())
    assert truth.rates[0] == pytest.approx(0.4)
    assert truth.rates[-1] == pytest.approx(0.02)
    assert bool((truth.rates.diff() < 0).all())
    fall = (truth.rates - truth.rates[-1]).double()[:-1] / (truth.rates[0] - truth.rates[-1])
    ranks = torch.arange(1, 41, dtype=torch.float64) ** -0.7
    torch.testing.assert_close(fall, ((ranks - ranks[-1]) / (1 - ranks[-1]))[:-1], rtol=1e-4, atol=1e-6)


def test_a_row_is_directions_times_sizes_and_a_bias() -> None:
    truth = plant(12, 6, bias=2.0, seed=3)
    rows, found = truth.sample(50, seed=4)
    by_hand = [
        truth.bias + sum((a * v for a, v in zip(of, truth.vectors, strict=True)), torch.zeros(6))
        for of in found
    ]
    torch.testing.assert_close(rows, torch.stack(by_hand))
    assert float(truth.bias.norm()) == pytest.approx(2.0)
    torch.testing.assert_close(truth.vectors.norm(dim=1), torch.ones(12))


def test_noise_has_its_spread_and_sizes_theirs() -> None:
    truth = plant(8, 30, noise=0.3, sizes="linear", size=(4.0, 2.0), spread=0.5, most=0.5, least=0.5, seed=0)
    rows, found = truth.sample(20_000)
    clean = found @ truth.vectors + truth.bias
    assert float((rows - clean).std()) == pytest.approx(0.3, rel=0.02)
    for i in range(8):
        there = found[:, i][found[:, i] > 0]
        assert float(there.mean()) == pytest.approx(float(truth.means[i]), rel=0.02)
        assert float(there.std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("sizes", "ends"), [("constant", (3.0, 3.0)), ("linear", (4.0, 1.0)), ("exponential", (4.0, 1.0))]
)
def test_mean_sizes_run_as_asked(sizes: str, ends: tuple[float, float]) -> None:
    means = plant(9, 4, sizes=sizes, size=3.0 if sizes == "constant" else ends).means  # type: ignore[arg-type]
    assert (float(means[0]), float(means[-1])) == pytest.approx(ends)
    middle = {"constant": 3.0, "linear": 2.5, "exponential": 2.0}[sizes]
    assert float(means[4]) == pytest.approx(middle)


def test_folded_normal_sizes_differ_and_are_above_zero() -> None:
    means = plant(500, 4, sizes="folded-normal", size=(1.0, 0.5)).means
    assert bool((means > 0).all())
    assert float(means.std()) == pytest.approx(0.5, rel=0.2)


@cache
def tree() -> Planted:
    return plant(60, 16, most=0.5, least=0.05, exponent=0.4, roots=4, branching=3, depth=2, seed=2)


def test_a_child_fires_only_where_its_parent_does_and_siblings_exclude_one_another() -> None:
    truth = tree()
    fires = truth.activations(5000) > 0
    assert len(truth.levels) == 3
    assert len(truth.pairs) > 20
    assert all(bool((fires[:, parent] | ~fires[:, child]).all()) for parent, child in truth.pairs)
    for parent in {p for p, _ in truth.pairs}:
        children = [c for p, c in truth.pairs if p == parent]
        assert int(fires[:, children].sum(1).max()) == 1
        assert all(bool(fires[:, c].any()) for c in children)  # each of them is kept at times


def test_a_childs_rate_over_all_rows_stays_what_it_is_where_nothing_is_excluded() -> None:
    flat = plant(60, 16, most=0.5, least=0.05, exponent=0.4, seed=2)
    truth = plant(
        60, 16, most=0.5, least=0.05, exponent=0.4, roots=4, branching=3, depth=2, exclusive=False, seed=2
    )
    n = 40_000
    rates = (truth.activations(n) > 0).double().mean(0)
    assert bool(((rates - flat.rates).abs() < 5 * (flat.rates / n).sqrt()).all())
    children = [c for p, c in truth.pairs if p == truth.pairs[0][0]]
    assert int((truth.activations(n)[:, children] > 0).sum(1).max()) > 1


def test_features_that_share_factors_fire_together() -> None:
    truth = plant(30, 8, most=0.3, least=0.2, rank=3, together=0.5, seed=5)
    fires = (truth.activations(30_000) > 0).double()
    seen = np.corrcoef(fires.T.numpy())
    meant = (truth.factors @ truth.factors.T).numpy()
    pairs = np.triu_indices(30, 1)
    strong = np.abs(meant[pairs]) > 0.2
    assert strong.sum() > 20
    assert (np.sign(seen[pairs][strong]) == np.sign(meant[pairs][strong])).all()
    rates = fires.mean(0)
    assert bool(((rates - truth.rates).abs() < 0.02).all())  # how they hang together leaves the rates alone


def test_the_same_seed_gives_the_same_rows() -> None:
    first, second = (plant(20, 8, noise=0.1, seed=7).sample(30, seed=1) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], plant(20, 8, noise=0.1, seed=7).sample(30, seed=2)[0])


def test_whoever_draws_directions_with_the_same_seed_does_not_draw_the_planted_ones() -> None:
    truth = plant(32, 16, seed=0)
    drawn = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    assert mcc(drawn, truth.vectors) < 0.8


def test_a_coherence_holds_or_is_refused() -> None:
    plain, apart = plant(40, 16, seed=0), plant(40, 16, coherence=0.4, seed=0)
    largest = [float((p.vectors @ p.vectors.T).fill_diagonal_(0).abs().max()) for p in (plain, apart)]
    assert largest[1] <= 0.4 < largest[0]
    with pytest.raises(BadInput, match="coherence of 0.05"):
        plant(40, 16, coherence=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_superposed_sparse_and_hierarchical(name: str) -> None:
    truth = preset(name)
    found = truth.activations(500)
    l0 = float((found > 0).double().sum(1).mean())
    assert len(truth) >= 4 * truth.width
    assert 2 < l0 < truth.width / 4
    assert len(truth.pairs) >= 30
    assert truth.factors.shape[1] >= 8


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"least": 0.5, "most": 0.1}, "out of range"), ({"roots": 100}, "does not fit"), ({"size": -1.0}, "above zero"),
     ({"spread": -1.0}, "below zero")],
)  # fmt: skip
def test_what_cannot_be_planted_is_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        plant(20, 8, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownOption):
        preset("smal")


# matching ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 5), st.booleans())
def test_the_match_is_the_best_of_all_there_are(seed: int, a: int, b: int, signed: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    left, right = torch.randn(a, 3, generator=draw), torch.randn(b, 3, generator=draw)
    alike = torch.nn.functional.cosine_similarity(left.double()[:, None], right.double()[None], dim=-1)
    alike = alike if signed else alike.abs()
    small, large = sorted((a, b))
    table = alike if a <= b else alike.T
    best = max(
        sum(float(table[i, j]) for i, j in enumerate(order))
        for order in itertools.permutations(range(large), small)
    )
    found = match(left, right, signed)
    assert float(found.cosines.sum()) == pytest.approx(best, abs=1e-9)
    assert len(set(found.right.tolist())) == len(found.right) == small


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_order_sign_and_length_do_not_matter(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    left, right = torch.randn(6, 4, generator=draw), torch.randn(7, 4, generator=draw)
    order = torch.randperm(7, generator=draw)
    scale = torch.randn(7, 1, generator=draw) + 0.01
    assert mcc(left, (right * scale)[order]) == pytest.approx(mcc(left, right), abs=1e-6)
    assert mcc(left, left[torch.randperm(6, generator=draw)]) == pytest.approx(1.0)
    assert uniqueness(left, left) == 1.0


def test_shared_directions_are_counted_with_their_sign_and_random_ones_have_the_same_moments() -> None:
    axes = torch.eye(6)
    assert shared(axes, axes[[3, 1, 0, 2, 5, 4]]) == (6, 6)
    assert shared(axes, torch.cat([-axes[:3], axes[3:]])) == (3, 6)
    narrow = torch.nn.functional.normalize(
        torch.randn(3000, 5) * torch.tensor([3.0, 1.0, 1.0, 0.1, 0.1]), dim=1
    )
    drawn = drawn_like(narrow, 0)
    moments = [t.T @ t / len(t) for t in (narrow, drawn)]
    assert float(drawn.norm(dim=1).std()) < 1e-6
    torch.testing.assert_close(moments[0].diagonal(), moments[1].diagonal(), atol=0.1, rtol=0.1)
    assert not torch.allclose(moments[1], torch.eye(5) / 5, atol=0.1)
