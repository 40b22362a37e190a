"""Features take part in whatever takes parts: sweeps over single features, attributions, top examples, planned lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway.errors import BadAddress, BadInput
from cutaway.features import sets, with_dictionary
from cutaway.network.parts import Part
from cutaway.sweeps.cells import write_of

TEXTS = ["Mary was sad because she lost the ball.", "John and Mary saw a dog in the park."]


@pytest.fixture(scope="module", params=["", "pca"])
def seen(request: pytest.FixtureRequest) -> cutaway.Network:
    net = cutaway.open("zoo:tales")
    dictionary = sets.components(net, TEXTS, "resid_post.2", 4).dictionary()
    return with_dictionary(net, dictionary, name=request.param)


def _prefix(seen: cutaway.Network) -> str:
    (name,) = seen.anatomy.dictionaries
    return f"{name}." if name else ""


def test_patching_each_feature_is_patching_it_by_hand(seen: cutaway.Network) -> None:
    at = f"{_prefix(seen)}features"
    pairs = cutaway.behaviour("pronoun", seen, n=32)
    effects = cutaway.patch(seen, pairs, at=at, by=["layer", "feature"])
    clean = seen.run(pairs.clean_tokens(seen), keep=[f"{at}.2"])
    whole = cutaway.plan_interventions(
        seen, pairs, [cutaway.Patch(f"{at}.2", clean, neuron=i) for i in range(4)], on="corrupted"
    ).run()
    by_hand = np.asarray(whole.to_pandas()["mean"], float)
    assert np.allclose(effects.to_pandas()["mean"], by_hand, atol=1e-4)
    assert np.abs(by_hand).max() > 1e-3
    assert str(effects).startswith(f"Restoring {_prefix(seen).replace('.', ' ')}feature 2.")


def test_one_feature_and_all_of_them_are_told_apart(seen: cutaway.Network) -> None:
    at = f"{_prefix(seen)}features"
    pairs = cutaway.behaviour("pronoun", seen, n=8)
    single = cutaway.attribution_patch(seen, pairs, at=at, by=["layer", "feature"]).to_pandas()
    together = cutaway.attribution_patch(seen, pairs, at=at, by=["layer"]).to_pandas()
    assert single["mean"].sum() == pytest.approx(together["mean"].iloc[0], abs=1e-4), "a gradient is linear"
    assert list(single["feature"]) == [0, 1, 2, 3]


def test_the_write_of_a_feature_names_its_dictionary(seen: cutaway.Network) -> None:
    write = write_of(Part.parse(f"{_prefix(seen)}f2.3"))
    assert (str(write.where), write.neuron) == (f"{_prefix(seen)}features.2", 3)


def test_top_examples_of_a_feature(seen: cutaway.Network) -> None:
    found = cutaway.top_examples(seen, TEXTS, of=f"{_prefix(seen)}f2.1", k=2)
    kept = seen.run(TEXTS[0], keep=[f"{_prefix(seen)}features.2"])
    example = next(e for e in found.features[0].top if e.text == 0)
    value = kept[f"{_prefix(seen)}features.2"][0, example.position, 1]
    assert example.activation == pytest.approx(float(value), rel=1e-4)
    with pytest.raises(BadAddress, match="features 0 to 3"):
        cutaway.top_examples(seen, TEXTS, of=f"{_prefix(seen)}f2.9")


def test_top_examples_of_a_set_are_those_of_each_of_its_features() -> None:
    net = cutaway.open("zoo:tales")
    vectors = torch.randn(2, net.d_model)
    both = cutaway.top_examples(
        net, TEXTS, of=sets.directions(net, "resid_post.1", vectors, names=["a", "b"]), k=3
    )
    one = cutaway.top_examples(net, TEXTS, of=("resid_post.1", vectors[1]), k=3)
    assert [e.activation for e in both["b"].top] == pytest.approx([e.activation for e in one.features[0].top])
    with pytest.raises(BadInput, match="index_features"):
        cutaway.top_examples(net, TEXTS, of=sets.random_directions(net, "resid_post.1", 65))


def test_sites_without_features_are_refused() -> None:
    net = cutaway.open("zoo:tales")
    with pytest.raises(BadInput, match="has no features"):
        cutaway.patch(net, cutaway.behaviour("pronoun", net, n=8), at="mlp_act", by=["layer", "feature"])
