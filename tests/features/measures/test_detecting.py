"""A latent as a detector beside what needs no dictionary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import BadInput
from cutaway.features.measures.detecting import detects, p_values, weighted_areas
from cutaway.features.measures.recovery import oracle
from cutaway.features.planted import Planted, plant
from cutaway.features.sets import FeatureSet
from cutaway.network.sites import Site
from cutaway.statistics import auroc


def latents_of(truth: Planted, k: int) -> FeatureSet:
    dictionary = oracle(truth, k)
    return FeatureSet(
        "latents", "latents", (Site("resid_post", 0),), tuple(f"f0.{i}" for i in range(len(truth))),
        lambda values: dictionary.encode(values[0]), source=dictionary,
    )  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_weighted_areas_are_those_of_rows_that_are_repeated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, labels = rng.integers(0, 5, (12, 2)).astype(float), np.arange(12) % 2 == 0
    weights = rng.integers(0, 3, (3, 12)).astype(float)
    found = weighted_areas(table, labels, weights)
    for b in range(3):
        again = np.repeat(np.arange(12), weights[b].astype(int))
        for c in range(2):
            if len(np.unique(labels[again])) == 2:
                assert found[b, c] == pytest.approx(auroc(table[again, c], labels[again]))


def test_p_values_are_even_where_nothing_is_told_and_small_where_something_is() -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(100), 4)
    labels = rng.random(400) < 0.4
    noise = (
        rng.standard_normal((400, 600)) + rng.standard_normal((100, 600))[documents]
    )  # alike within a document
    p = p_values(noise, labels, documents)
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert p.mean() == pytest.approx(0.5, abs=0.05)
    assert p_values(noise[:, :1] + 2.0 * labels[:, None], labels, documents)[0] < 1e-4
    assert p_values(np.zeros((400, 1)), labels, documents)[0] == 0.5


def test_a_latent_that_a_dense_probe_equals_is_not_said_to_detect() -> None:
    truth = plant(24, 24, coherence=0.4, most=0.3, least=0.2, size=3.0, spread=0.2, seed=0)
    rows, active = truth.sample(800)
    found = detects(
        latents_of(truth, 6), 3, active[:, 3] > 0, rows, owner=np.arange(800) // 8, comes_again=True
    )
    names = [name for name, _ in found.controls]
    assert names == [
        "dense probe", "difference of means", "best number of the row", "best of 1,000 random directions"
    ]  # fmt: skip
    assert found.auroc.value > 0.95
    assert dict(found.controls)["dense probe"].value > 0.99
    assert found.p < 1e-6
    assert not found.claim.supported
    assert "dense probe" in str(found.claim)


def test_a_latent_that_only_a_threshold_tells_detects_beyond_what_is_linear() -> None:
    """The label is where the reading lies in a narrow band, which no linear read-out and no single number tells."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(1200, 6, generator=draw)
    labels = (rows[:, 0].abs() < 0.5).numpy()

    def band(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([(0.5 - values[0][:, 0].abs()).relu(), values[0][:, 1]], 1)

    found_set = FeatureSet("latents", "bands", (Site("resid_post", 0),), ("f0.0", "f0.1"), band)  # type: ignore[arg-type]
    owner = np.arange(1200) // 6
    found = detects(found_set, None, labels, rows, owner=owner, comes_again=True)
    assert (found.feature, found.searched) == ("f0.0", 2)
    assert found.claim.supported
    assert found.excess.value > 0.3
    once = detects(found_set, "f0.0", labels, rows, owner=owner)
    assert once.claim.verdict == "inconclusive"  # one seed
    other = detects(found_set, "f0.1", labels, rows, owner=owner, comes_again=True)
    assert other.claim.verdict == "refuted"
    assert "does not detect" in other.claim.statement


def test_the_best_of_many_that_know_nothing_is_told_from_chance_no_more_often_than_it_should() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 10, generator=draw)
    labels = (torch.rand(300, generator=draw) < 0.5).numpy()
    reads = torch.randn(10, 400, generator=draw)
    many = FeatureSet(
        "latents",
        "many",
        (Site("resid_post", 0),),
        tuple(f"f0.{i}" for i in range(400)),
        lambda v: (v[0] @ reads).relu(),
    )
    found = detects(many, None, labels, rows, comes_again=True)
    assert found.searched == 400
    assert found.p > 0.05
    assert not found.claim.supported


def test_neurons_that_are_given_are_searched_and_what_does_not_fit_is_refused() -> None:
    truth = plant(12, 8, seed=0, most=0.4, least=0.3)
    rows, active = truth.sample(200)
    labels = (active[:, 0] > 0).numpy()
    found = detects(latents_of(truth, 3), 0, labels, rows, neurons=active)
    assert dict(found.controls)["best neuron"].value == pytest.approx(1.0)
    with pytest.raises(BadInput, match="do not go together"):
        detects(latents_of(truth, 3), 0, labels[:5], rows)
    with pytest.raises(BadInput, match="only one kind"):
        detects(latents_of(truth, 3), 0, np.zeros(200), rows)
    with pytest.raises(BadInput, match="No feature"):
        detects(latents_of(truth, 3), [], labels, rows)
