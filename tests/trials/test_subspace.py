"""Directions and subspaces as candidates: what they keep and remove is what a hook by hand gives."""

import numpy as np
import pytest
import torch

import cutaway
from cutaway.errors import BadInput
from cutaway.network.sites import Site
from cutaway.recipes.tales.prompts import FEMALE, MALE
from cutaway.trials import (
    Limits,
    Subspace,
    SubspaceBench,
    SubspacePlace,
    evidence_of,
    put_to_test,
    verdict_of,
)

PLACE = SubspacePlace(Site("resid_post", 2), pos=-1)


@pytest.fixture(scope="module")
def net():
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pairs(net):
    return cutaway.behaviour("pronoun", net, n=32)


@pytest.fixture(scope="module")
def bench(net, pairs):
    return SubspaceBench.of(net, pairs, PLACE)


def by_hand(net, pairs, exchange, pos=-1, part=None):
    """The metric [n] with the stream after layer 2 of every clean prompt changed to exchange(clean, corrupted)."""
    layers = dict(net.model.named_modules())["model.layers"]
    values = []
    for i in range(pairs.n):
        clean, corrupted = torch.tensor([pairs.clean_ids[i]]), torch.tensor([pairs.corrupted_ids[i]])
        seen = []

        def read(_module, _inputs, out, seen=seen):
            seen.append((out[0] if isinstance(out, tuple) else out).clone())

        def write(_module, _inputs, out, seen=seen):
            value = (out[0] if isinstance(out, tuple) else out).clone()
            value[:, pos] = exchange(value[:, pos], seen[0][:, pos])
            return (value, *out[1:]) if isinstance(out, tuple) else value

        with torch.no_grad():
            hook = layers[2].register_forward_hook(read)
            net.model(corrupted)
            hook.remove()
            hook = layers[2].register_forward_hook(write)
            logits = net.model(clean).logits[:, pairs.answer_pos[i]]
            hook.remove()
        values.append(float(pairs.metric(logits, pairs.answers[torch.tensor([i])])))
    return np.array(values)


def test_keeping_and_removing_are_what_a_hook_gives(net, pairs, bench):
    basis, _ = torch.linalg.qr(torch.randn(net.d_model, 3))
    candidate = Subspace.of(basis.T, PLACE)
    inside = basis @ basis.T
    kept = by_hand(net, pairs, lambda clean, other: other + (clean - other) @ inside)
    left = by_hand(net, pairs, lambda clean, other: clean + (other - clean) @ inside)
    empty = by_hand(net, pairs, lambda _, other: other)
    np.testing.assert_allclose(candidate.keep(bench)[0], kept, atol=1e-4)
    np.testing.assert_allclose(candidate.remove(bench)[0], left, atol=1e-4)
    np.testing.assert_allclose(bench.scale.empty, empty, atol=1e-4)


def test_the_whole_space_keeps_all_and_a_subspace_and_its_complement_change_places(net, bench):
    d = net.d_model
    everything = Subspace.of(torch.randn(d, d), PLACE)
    assert (everything.size, everything.total) == (d, d)
    np.testing.assert_allclose(everything.keep(bench)[0], bench.scale.whole, atol=1e-4)
    np.testing.assert_allclose(everything.remove(bench)[0], bench.scale.empty, atol=1e-4)
    assert everything.like_it(np.random.default_rng(0), 3) == []
    frame, _ = torch.linalg.qr(torch.randn(d, d).double())
    some, rest = Subspace.of(frame[:20], PLACE), Subspace.of(frame[20:], PLACE)
    np.testing.assert_allclose(some.keep(bench)[0], rest.remove(bench)[0], atol=1e-4)


def test_a_head_of_a_site_with_heads(pairs):
    net = cutaway.open(
        "zoo:tales", dtype=torch.float64
    )  # metrics of 16 in single precision differ in the sixth digit
    place = SubspacePlace(Site("z", 1), head=2)
    bench = SubspaceBench.of(net, pairs, place)
    width = bench.difference.shape[1]
    np.testing.assert_allclose(
        Subspace.of(torch.eye(width), place).keep(bench)[0], bench.scale.whole, atol=1e-5
    )
    patched = cutaway.patch(net, pairs, at="z", by=("layer", "head"), direction="corrupt")
    assert patched.data["metric"].values[1, 2] == pytest.approx(bench.scale.empty, abs=1e-4)


def test_a_probes_direction_is_put_on_trial_like_anything_else(net, pairs, bench):
    frames = ["{} was sad because", "{} was happy because", "One day {} was sad because"]
    rows = [
        {"text": frame.format(name), "gender": gender, "name": name}
        for gender, names in (("girl", FEMALE), ("boy", MALE))
        for name in names
        for frame in frames
    ]
    data = cutaway.probe_data(rows, label="gender", group="name")
    probing = cutaway.probe(net, data, at="resid_post.2", pos=-1, permutations=0, untrained=False)
    read = probing.probe().candidate()
    assert read.words == "a direction at resid_post.2 at position -1"
    limits = Limits(random=20)
    cloud = bench.difference
    main = torch.linalg.svd(cloud, full_matrices=False)[2][0]
    for candidate in (read, Subspace.of(main, PLACE, cloud)):
        trial = put_to_test(bench, candidate, limits)
        tests = evidence_of(trial, candidate, limits, "dimensions")
        assert {e.name for e in tests} >= {"Kept alone", "Removed", "Small"}
        assert len(trial.kept_random) == 20
        assert verdict_of(tests) in ("refuted", "inconclusive", "supported")
    assert trial.kept_p == trial.left_p == pytest.approx(1 / 21)
    assert trial.kept.value > 0.9
    random = Subspace.of(torch.randn(net.d_model), PLACE, cloud)
    trial = put_to_test(bench, random, limits)
    assert verdict_of(evidence_of(trial, random, limits, "dimensions")) == "refuted"
    alike = random.like_it(np.random.default_rng(1), 6)
    assert all(a.basis.shape == (1, net.d_model) for a in alike)
    np.testing.assert_allclose([float(a.basis.norm()) for a in alike], 1.0)


def test_what_cannot_be_a_subspace_is_refused(net, pairs):
    with pytest.raises(BadInput, match="span nothing"):
        Subspace.of(torch.zeros(4), PLACE)
    assert Subspace.of(torch.ones(3, 4), PLACE).size == 1
    with pytest.raises(BadInput, match="one value for each head"):
        SubspaceBench.of(net, pairs, SubspacePlace(Site("z", 1)))
    with pytest.raises(BadInput, match="has no heads"):
        SubspaceBench.of(net, pairs, SubspacePlace(Site("resid_post", 1), head=0))
