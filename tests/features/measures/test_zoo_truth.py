"""Networks of known truth: every fact has its neuron, five colours lie at the corners of a pentagon, and what nobody reads
is found and refused.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.features.measures.training import trained

import cutaway
from cutaway import zoo
from cutaway.errors import BadInput
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, ReLU
from cutaway.features.measures.matching import mcc
from cutaway.features.measures.zoo_truth import (
    class_directions,
    lever,
    mechanism_claim,
    own_features,
    recovered_directions,
    told_by,
    values_where,
)
from cutaway.features.sets import latents, neurons
from cutaway.network import Network


@cache
def net(name: str) -> Network:
    return cutaway.open(f"zoo:{name}")


@pytest.mark.parametrize("arch", ["gpt2", "llama", "neox"])
def test_every_fact_has_a_neuron_of_its_own_and_without_the_memory_none_has(arch: str) -> None:
    name, facts = f"lookup-{arch}", ("subject", "relation")
    layer = next(node.layer for node in zoo.truth(name).nodes if node.kind == "mlp")
    found = told_by(net(name), neurons(net(name), layer), name, facts)
    assert (found.own, len(found.values), found.chance) == (24, 24, 0)
    assert "24 of 24" in found.headline
    for kind in (
        "without",
        "random",
    ):  # inputs are few and discrete, so that some neuron tells some fact by chance
        twin = net(f"{name}~{kind}")
        assert told_by(twin, neurons(twin, min(layer, twin.n_layers - 1)), name, facts).own <= 8


def tied(directions: torch.Tensor, at: str, mean: torch.Tensor, bias: float) -> Dictionary:
    """Latents that fire where a row lies far enough along its own of these directions, as least squares tell them apart."""
    place = Place("", at, directions.shape[1])
    encoder = Encoder(
        torch.linalg.pinv(directions), torch.full((len(directions),), bias), ReLU(), centre=mean
    )
    return Dictionary("autoencoder", (encoder,), (Decoder(0, 0, directions),), (mean,), ((place,),), (place,))


@cache
def note(name: str) -> tuple[Dictionary, list[int], list[int]]:
    """A dictionary of what two heads of `unread` write, latents of the note, and latents of the answer."""
    of, at = net(name), "attn_write.0"
    notes, answers = (class_directions(of, "unread-gpt2", variable, at) for variable in ("note", "answer"))
    prompts = [list(pair.clean) for pair in zoo.specimen("unread-gpt2").task.pairs(200, 0)]
    mean = values_where(of, prompts, [len(row) - 1 for row in prompts], at).mean(0)
    made = tied(torch.cat([notes, answers]), at, mean, -0.3)
    return made, list(range(3)), list(range(3, 15))


def test_what_nobody_reads_is_found_as_a_feature_and_refused_as_a_mechanism() -> None:
    of, pairs = net("unread-gpt2"), zoo.specimen("unread-gpt2").task.pairs(60, 1)
    made, notes, answers = note("unread-gpt2")
    found = told_by(of, latents(of, made), "unread-gpt2", ("note",))
    assert found.own == 3
    assert set(found.features.tolist()) == set(notes)
    moved = lever(of, made, "attn_write.0", found.features.tolist(), pairs)
    claim = mechanism_claim("note", found, moved)
    assert claim.verdict == "refuted"
    assert "no mechanism" in claim.statement
    answer = told_by(of, latents(of, made), "unread-gpt2", ("answer",))
    assert answer.own == 12
    assert set(answer.features.tolist()) == set(answers)
    used = mechanism_claim("answer", answer, lever(of, made, "attn_write.0", answers, pairs))
    assert used.supported, str(used)


def test_in_the_twin_that_reads_it_the_same_feature_is_a_mechanism() -> None:
    of, pairs = net("unread-gpt2~used"), zoo.specimen("unread-gpt2").task.pairs(60, 1)
    made, notes, _answers = note("unread-gpt2~used")
    found = told_by(of, latents(of, made), "unread-gpt2", ("note",))
    moved = lever(of, made, "attn_write.0", notes, pairs)
    assert moved.above(0.02) is True
    assert mechanism_claim("note", found, moved).supported
    without = net("unread-gpt2~without")
    absent = told_by(without, latents(without, made), "unread-gpt2", ("note",))
    assert not absent.found
    assert mechanism_claim("note", absent, moved).verdict == "refuted"


def test_five_colours_in_two_dimensions_are_recovered_by_training() -> None:
    name, at = "superposition-gpt2", "attn_write.0"
    of = net(name)
    directions = class_directions(of, name, "seen", at)
    sizes = torch.linalg.svdvals(directions).square()
    assert float(sizes[:2].sum() / sizes.sum()) > 0.99
    stated = torch.tensor([f.direction for f in zoo.truth(name).features])
    angles = torch.nn.functional.normalize(directions, dim=1)
    corners = torch.nn.functional.normalize(stated, dim=1)
    torch.testing.assert_close(angles @ angles.T, corners @ corners.T, atol=0.05, rtol=0)
    prompts = [list(label.ids) for label in zoo.specimen(name).task.labels("seen", 400, 1)]
    rows = values_where(of, prompts, [len(row) - 1 for row in prompts], at)
    best = max(
        (trained(rows, 5, 1, seed, steps=200, site=at, lr=1e-2) for seed in range(4)),
        key=lambda d: -float((d.reconstruct(rows) - rows).square().sum()),
    )
    found, partners = recovered_directions(best, directions)
    assert found >= 0.98
    assert sorted(partners.tolist()) == [0, 1, 2, 3, 4]
    assert found == pytest.approx(mcc(directions, best.directions()))
    told = told_by(of, latents(of, best, reads=at), name, ("seen",))
    assert told.own == 5


def test_f1_is_counted_and_features_are_used_once() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    fires = torch.tensor([[1, 1, 0.0], [1, 1, 0], [0, 0, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    found = own_features(fires, labels, ["a", "b", "c"])
    assert found.f1[0] == 1.0
    assert found.f1[1] == pytest.approx(2 / 3)
    assert len(set(found.features.tolist())) == 3
    assert found.own == 1


def test_what_the_zoo_does_not_hold_is_refused() -> None:
    of = net("superposition-gpt2")
    with pytest.raises(BadInput, match="not held at one place"):
        told_by(of, neurons(of, 0), "superposition-gpt2", ("feature", "seen"))
    with pytest.raises(BadInput, match="no labels"):
        told_by(of, neurons(of, 0), "superposition-gpt2", ())
