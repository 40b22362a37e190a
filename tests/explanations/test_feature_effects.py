"""Which features carry a behaviour: found on discovery pairs, tested on held-out ones, beside what is random."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.errors import BadInput, SiteUnavailable, Stopped
from cutaway.explanations import pipeline
from cutaway.explanations.carriers import random_like
from cutaway.explanations.carrying import CarriedBy
from cutaway.features import sets, with_dictionary
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, Signed
from cutaway.recipes.tales.scenes import stories
from cutaway.reports import render

TEXTS = [story.text for story in islice(stories("feature effects"), 40)]


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pairs(net: cutaway.Network) -> cutaway.Behaviour:
    return cutaway.behaviour("pronoun", net, n=64)


@pytest.fixture(scope="module")
def found(net: cutaway.Network, pairs: cutaway.Behaviour) -> CarriedBy:
    components = sets.components(net, TEXTS, "resid_post.2", 100).dictionary()
    return cutaway.feature_effects(
        with_dictionary(net, components), pairs, n=6, labels={"f2.28": "she or he"}
    )


def _gap_restored(net: cutaway.Network, pairs: cutaway.Behaviour, patch: list[cutaway.Patch]) -> float:
    held = pairs.held_out
    plan = cutaway.plan_interventions(net, held, [patch], on="corrupted")
    return float(plan.run().data["mean"].values[0])


def test_what_they_do_together_is_what_one_run_does(
    net: cutaway.Network, pairs: cutaway.Behaviour, found: CarriedBy
) -> None:
    seen = with_dictionary(net, sets.components(net, TEXTS, "resid_post.2", 100).dictionary())
    held = pairs.held_out
    clean = seen.run(held.clean_tokens(seen), keep=["features.2"])
    which = [int(one.name.rpartition(".")[2]) for one in found.features]
    together = _gap_restored(seen, pairs, [cutaway.Patch("features.2", clean, neuron=which)])
    assert found.together.value == pytest.approx(together, abs=1e-6)
    first = _gap_restored(seen, pairs, [cutaway.Patch("features.2", clean, neuron=which[:1])])
    assert found.features[0].restores.value == pytest.approx(first, abs=1e-6)
    assert abs(found.together.value) > 0.2


def test_all_features_and_the_error_are_the_whole(found: CarriedBy) -> None:
    assert found.whole is not None
    assert found.error is not None
    assert found.whole.value > 0.9
    assert abs(found.error.value) < 0.1
    assert found.claim.verdict == "supported"
    assert len(found.random) == 20
    assert np.mean(found.random) < found.together.value / 2


def test_chosen_on_discovery_pairs_alone(
    net: cutaway.Network, pairs: cutaway.Behaviour, found: CarriedBy
) -> None:
    seen = with_dictionary(net, sets.components(net, TEXTS, "resid_post.2", 100).dictionary())
    table = cutaway.attribution_patch(
        seen, pairs.discovery, at="features", by=["layer", "feature"]
    ).to_pandas()
    best = table.reindex(table["mean"].abs().sort_values(ascending=False, kind="stable").index)["feature"][:6]
    assert [one.name for one in found.features] == [f"f2.{i}" for i in best]
    assert [one.estimated for one in found.features] == pytest.approx(
        table["mean"].loc[best.index].tolist(), abs=1e-6
    )


def test_labels_are_shown_and_kept(found: CarriedBy, tmp_path: Path) -> None:
    labelled = [one for one in found.features if one.label]
    assert [one.name for one in labelled] == ["f2.28"]
    again = cutaway.load(found.save(tmp_path / "found"))
    assert isinstance(again, CarriedBy)
    assert again.to_pandas().equals(found.to_pandas())
    page = render(found.page())
    assert "she or he" in page
    assert "best random directions" in page


def test_random_directions_carry_less_and_are_never_supported(
    net: cutaway.Network, pairs: cutaway.Behaviour
) -> None:
    components = sets.components(net, TEXTS, "resid_post.2", 100).dictionary()
    for seed in range(3):
        drawn = random_like(components, 0, 100, seed)
        found = cutaway.feature_effects(with_dictionary(net, drawn), pairs, n=6, seed=seed + 10)
        assert found.claim.verdict != "supported", "they are no better than other random directions"


def test_a_direction_that_nothing_reads_restores_nothing(
    net: cutaway.Network, pairs: cutaway.Behaviour
) -> None:
    unused = torch.linalg.svd(torch.as_tensor(net.weights("W_U").value).float())[0][:, -1:]
    place = Place("", "resid_post.3", net.d_model or 0)
    dictionary = Dictionary(
        "autoencoder",
        (Encoder(unused, None, Signed()),),
        (Decoder(0, 0, unused.T * 1e-6),),
        (None,),
        ((place,),),
        (place,),
    )
    found = cutaway.feature_effects(with_dictionary(net, dictionary), pairs, n=1, random=2)
    assert found.together.value == pytest.approx(0, abs=1e-4)
    assert found.claim.verdict != "supported"


def test_neurons_where_no_dictionary_is_attached(net: cutaway.Network, pairs: cutaway.Behaviour) -> None:
    found = cutaway.feature_effects(net, pairs, n=8)
    assert all(one.name.startswith("n") for one in found.features)
    assert (found.whole, found.random_dictionary) == (None, None)
    assert found.claim.verdict == "supported"
    assert "8 neurons" in found.headline


def test_without_the_control_nothing_is_supported(net: cutaway.Network, pairs: cutaway.Behaviour) -> None:
    components = sets.components(net, TEXTS, "resid_post.2", 20).dictionary()
    found = cutaway.feature_effects(with_dictionary(net, components), pairs, n=3, controls=False)
    assert found.claim.verdict == "inconclusive"


def test_what_cannot_be_asked_is_refused(net: cutaway.Network, pairs: cutaway.Behaviour) -> None:
    components = sets.components(net, TEXTS, "resid_post.2", 5).dictionary()
    both = with_dictionary(with_dictionary(net, components, name="one"), components, name="two")
    with pytest.raises(BadInput, match="Say which"):
        cutaway.feature_effects(both, pairs)
    with pytest.raises(BadInput, match="There are 5 features"):
        cutaway.feature_effects(both, pairs, at="one.features", n=6)
    with pytest.raises(SiteUnavailable, match="no features"):
        cutaway.feature_effects(net, pairs, at="resid_post")
    with pytest.raises(BadInput, match="n=0"):
        cutaway.feature_effects(net, pairs, n=0)


def test_an_explanation_names_the_features(net: cutaway.Network, tmp_path: Path) -> None:
    components = sets.components(net, TEXTS, "resid_post.2", 40).dictionary()
    seen = with_dictionary(net, components, name="pca")
    pairs = cutaway.behaviour("pronoun", seen, n=32)
    found = cutaway.explain(seen, pairs, controls=False, labels={"pca.f2.29": "she or he"})
    assert found.features is not None
    assert found.features.features[0].name.startswith("pca.f2.")
    assert "Which features carry it" in render(found.page())
    again = cutaway.load(found.save(tmp_path / "explained"))
    assert again.features.to_pandas().equals(found.features.to_pandas())
    assert cutaway.explain(seen, pairs, controls=False, features=False).features is None
    assert "Features." not in dict(found.unexplained)


def test_an_explanation_that_is_stopped_before_says_that_features_were_not_looked_at(
    net: cutaway.Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: object, **__: object) -> None:
        raise Stopped("Enough.", "Go on.")

    monkeypatch.setattr(pipeline, "feature_effects", stops)
    components = sets.components(net, TEXTS, "resid_post.2", 40).dictionary()
    seen = with_dictionary(net, components, name="pca")
    found = cutaway.explain(seen, cutaway.behaviour("pronoun", seen, n=32), controls=False)
    assert not found.complete
    assert found.features is None
    assert "stopped before that" in dict(found.unexplained)["Features."]
