"""Every figure of recovery against its definition, counted in loops; the truth itself, and chance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from cutaway.errors import BadInput
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, JumpReLU, Place, ReLU, TopK
from cutaway.features.measures.recovery import FeatureRecovery, oracle, random_directions, recovery
from cutaway.features.planted import Planted, plant


@cache
def truth() -> Planted:
    return plant(
        12, 10, most=0.5, least=0.1, roots=2, branching=2, depth=1, size=2.0, spread=0.4, noise=0.1, seed=1
    )


def some(seed: int, latents: int) -> Dictionary:
    """A dictionary near the truth: some of its directions, moved, twice, or others."""
    draw = torch.Generator().manual_seed(seed)
    at = torch.randint(0, 12, (latents,), generator=draw)
    sign = torch.where(torch.rand(latents, 1, generator=draw) < 0.2, -1.0, 1.0)
    writes = sign * truth().vectors[at] + 0.25 * torch.randn(latents, 10, generator=draw)
    reads = writes.T / writes.T.norm(dim=0).square()
    place = Place("", "", 10)
    encoder = Encoder(
        reads, -0.5 - 2.0 * (torch.arange(latents) == 0).float() * 50, ReLU(), centre=truth().bias
    )
    return Dictionary(
        "autoencoder", (encoder,), (Decoder(0, 0, writes),), (truth().bias,), ((place,),), (place,)
    )


def _f1(fires: list[bool], true: list[bool]) -> float:
    hits = sum(a and b for a, b in zip(fires, true, strict=True))
    return 2 * hits / (sum(fires) + sum(true)) if sum(fires) + sum(true) else 0.0


def by_hand(dictionary: Dictionary, rows: torch.Tensor, active: torch.Tensor) -> dict[str, float | None]:
    features, latents = 12, dictionary.sizes[0]
    codes = dictionary.encode(rows)
    made = dictionary.decode(codes, rows)
    writes = dictionary.directions().double()
    cosine = [
        [abs(float(v.double() @ w / (v.double().norm() * w.norm()))) for w in writes] for v in truth().vectors
    ]
    left, right = linear_sum_assignment([[-c for c in row] for row in cosine])
    partner = dict(zip(left.tolist(), right.tolist(), strict=True))
    each = [cosine[i][partner[i]] if i in partner else 0.0 for i in range(features)]
    fires = [[float(v) != 0 for v in codes[:, j]] for j in range(latents)]
    true = [[float(v) > 0 for v in active[:, i]] for i in range(features)]
    nearest = [max(range(features), key=lambda i: cosine[i][j]) for j in range(latents)]
    alive = [any(f) for f in fires]
    best = []
    for i in range(features):
        column = codes[:, partner[i]].tolist() if i in partner else []
        tried = [_f1([v >= t for v in column], true[i]) for t in set(column) if t > 0]
        best.append(max(tried, default=0.0))
    absorbed, missed = [], []
    parents = truth().parents.tolist()
    for child, parent in enumerate(parents):
        if parent < 0 or each[child] < 0.7 or each[parent] < 0.7:
            continue
        family = [c for c, p in enumerate(parents) if p == parent]
        mine, own = fires[partner[parent]], fires[partner[child]]
        there = [r for r in range(len(rows)) if true[child][r]]
        alone = [r for r in range(len(rows)) if true[parent][r] and not any(true[c][r] for c in family)]
        if there and alone:
            absorbed.append(sum(own[r] and not mine[r] for r in there) / len(there))
            missed.append(sum(not mine[r] for r in alone) / len(alone))
    slopes = []
    for i in range(features):
        if each[i] >= 0.7:
            size = (codes[:, partner[i]].double() * writes[partner[i]].norm()).tolist()
            both = [(a, float(t)) for a, t in zip(size, active[:, i], strict=True) if a != 0 and t > 0]
            if both:
                slopes.append(sum(a * t for a, t in both) / sum(t * t for _, t in both))
    held = [
        sum(nearest[j] == i and cosine[i][j] >= 0.7 and alive[j] for j in range(latents))
        for i in range(features)
    ]
    mean = rows.double().mean(0)
    return {
        "mcc": sum(cosine[i][j] for i, j in partner.items()) / len(partner),
        "recovered": sum(c >= 0.9 for c in each) / features,
        "uniqueness": len(set(nearest)) / latents,
        "f1": sum(_f1(fires[partner[i]], true[i]) if i in partner else 0.0 for i in range(features)) / features,
        "f1_best": sum(best) / features,
        "f1_nearest": sum(_f1(fires[j], true[nearest[j]]) for j in range(latents)) / latents,
        "absorption": sum(absorbed) / len(absorbed) if absorbed else None,
        "missed": sum(missed) / len(missed) if missed else None,
        "splitting": sum(h >= 2 for h in held) / features,
        "shrinkage": sum(slopes) / len(slopes) if slopes else None,
        "ratio": float((made.norm(dim=1) / rows.norm(dim=1)).mean()),
        "fvu": float((made.double() - rows.double()).square().sum() / (rows.double() - mean).square().sum()),
        "l0": sum(map(sum, fires)) / len(rows),
        "true_l0": sum(map(sum, true)) / len(rows),
        "dead": sum(not a for a in alive) / latents,
        "dense": sum(sum(f) / len(rows) > 0.1 for f in fires) / latents,
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 20))
def test_every_figure_is_what_its_definition_says(seed: int, latents: int) -> None:
    rows, active = truth().sample(80, seed)
    found = recovery(some(seed, latents), truth(), rows, active)
    for name, wanted in by_hand(some(seed, latents), rows, active).items():
        assert getattr(found, name) == pytest.approx(wanted, abs=1e-5), name
    assert found.rows == 80
    assert set(found.to_dict()) == set(vars(found)) - {"each"}


def test_the_truth_recovers_itself_and_chance_does_not() -> None:
    easy = plant(48, 48, coherence=0.35, most=0.1, least=0.03, size=2.0, spread=0.2, seed=0)
    rows, active = easy.sample(4000)
    best = recovery(oracle(easy, 12), easy, rows, active)
    chance = recovery(random_directions(easy, 48, 12), easy, rows, active)
    assert best.mcc == pytest.approx(1.0)
    assert best.recovered == best.uniqueness == 1.0
    assert best.f1_best > 0.999
    assert best.fvu < 1e-6
    assert best.shrinkage == pytest.approx(1.0, abs=1e-3)
    assert chance.mcc < 0.5
    assert chance.recovered == 0
    assert chance.f1_best < 0.45
    assert "0 % of the features" in chance.headline


def test_superposed_truth_read_by_its_own_directions_is_told_almost_right() -> None:
    packed = plant(128, 64, coherence=0.3, most=0.05, least=0.01, size=2.0, spread=0.2, seed=0)
    rows, active = packed.sample(4000)
    best = recovery(oracle(packed, 3), packed, rows, active)
    assert best.mcc == pytest.approx(1.0)
    assert best.f1_best > 0.9
    assert recovery(random_directions(packed, 128, 3), packed, rows, active).mcc < 0.5


def _reading(reads: torch.Tensor, writes: torch.Tensor, threshold: float, of: Planted) -> Dictionary:
    place = Place("", "", of.width)
    encoder = Encoder(reads, None, JumpReLU(torch.tensor(threshold)), centre=of.bias)
    return Dictionary("autoencoder", (encoder,), (Decoder(0, 0, writes),), (of.bias,), ((place,),), (place,))


def test_a_child_that_takes_over_its_parent_is_seen_as_absorption() -> None:
    family = plant(6, 8, coherence=1e-6, most=0.5, least=0.3, roots=1, branching=2, depth=1, seed=0)
    parent, child = family.pairs[0]
    rows, active = family.sample(3000)
    right = _reading(family.vectors.T, family.vectors, 0.1, family)
    none = recovery(right, family, rows, active)
    assert none.absorption == pytest.approx(0.0)
    assert none.missed == pytest.approx(0.0)
    reads = family.vectors.T.clone()
    for other in (c for p, c in family.pairs if p == parent):
        reads[:, parent] -= family.vectors[other]  # it keeps silent where a child is there
    absorbing = recovery(_reading(reads, family.vectors, 0.1, family), family, rows, active)
    assert absorbing.absorption == pytest.approx(1.0)
    assert absorbing.missed == pytest.approx(0.0)
    assert absorbing.f1 < none.f1


def test_two_latents_of_one_feature_split_it_and_halved_ones_shrink() -> None:
    plain = plant(6, 8, coherence=1e-6, most=0.5, least=0.3, seed=0)
    rows, active = plain.sample(2000)
    twice = torch.cat([plain.vectors, plain.vectors[:2]])
    found = recovery(_reading(twice.T, twice, 0.1, plain), plain, rows, active)
    assert found.splitting == pytest.approx(2 / 6)
    assert found.uniqueness == pytest.approx(6 / 8)
    halved = recovery(_reading(0.5 * plain.vectors.T, plain.vectors, 0.1, plain), plain, rows, active)
    assert halved.shrinkage == pytest.approx(0.5, abs=1e-4)
    assert halved.ratio < found.ratio


def test_what_does_not_fit_is_refused() -> None:
    rows, active = truth().sample(20)
    with pytest.raises(BadInput, match="does not read rows of 10"):
        recovery(oracle(plant(4, 6), 2), truth(), rows, active)
    with pytest.raises(BadInput, match="go together"):
        recovery(oracle(truth(), 2), truth(), rows, active[:3])
    silent = replace(
        oracle(truth(), 2), encoders=(replace(oracle(truth(), 2).encoders[0], bias=torch.full((12,), -1e9)),)
    )
    found = recovery(silent, truth(), rows, active)
    assert isinstance(found, FeatureRecovery)
    assert (found.dead, found.f1, found.shrinkage) == (1.0, 0.0, None)
    assert TopK(2) == silent.encoders[0].activation
