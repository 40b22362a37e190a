"""Dictionaries of several sources or sites are bound whole: where they were trained, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import islice

import pytest
import torch

import cutaway
from cutaway.errors import BadInput
from cutaway.features.binding import bind
from cutaway.features.dictionaries import Dictionary, JumpReLU, Place
from cutaway.features.readings import scaled
from cutaway.features.training import DictionaryRecipe
from cutaway.features.training.trainee import Trainee
from cutaway.recipes.tales.scenes import stories

CLT = ("mlp_in.1", "mlp_in.2"), ("mlp_write.1", "mlp_write.2")
CROSS = ("resid_post.0", "resid_post.2"), ("resid_post.0", "resid_post.2")


@cache
def net() -> cutaway.Network:
    return cutaway.open("zoo:tales")


@cache
def texts(seed: int = 0) -> tuple[str, ...]:
    return tuple(story.text for story in islice(stories(f"binding together {seed}"), 100))


@cache
def trained(kind: str) -> Dictionary:
    """A cross-layer transcoder or a crosscoder, trained for some seconds."""
    reads, writes = CLT if kind == "cross-layer transcoder" else CROSS
    run = net().run(list(texts(1)), keep=[*reads, *writes], logits=False)
    mask = run.tokens.mask.clone()
    mask[:, 0] = False
    values = {site: run[site][mask] for site in (*reads, *writes)}
    means = {site: value.mean(0) for site, value in values.items()}
    scales = {s: v.shape[1] ** 0.5 / float((v - means[s]).norm(dim=1).mean()) for s, v in values.items()}
    rows = {site: (value - means[site]) * scales[site] for site, value in values.items()}
    recipe = DictionaryRecipe(
        reads,
        writes,
        kind=kind,
        activation="topk",
        latents=256,
        k=16,
        batch=512,
        lr=2e-3,
        revive=0.0,  # type: ignore[arg-type]
    )
    trainee = Trainee(recipe, (128,) * len(reads), (128,) * len(writes))
    generator = torch.Generator().manual_seed(0)
    for step in range(400):
        at = torch.randint(len(rows[reads[0]]), (512,), generator=generator)
        trainee.step([rows[s][at] for s in reads], [rows[s][at] for s in writes], step / 400)
    made = trainee.dictionary(
        [means[s] for s in reads],
        [scales[s] for s in reads],
        [means[s] for s in writes],
        [scales[s] for s in writes],
    )
    places = [Place("", site, 128) for site in reads]
    grouped = (tuple(places),) if kind == "crosscoder" else tuple((place,) for place in places)
    return replace(
        made, reads=grouped, writes=tuple(Place("", site, 128) for site in writes), said={"l0": 16.0}
    )


KINDS = ("cross-layer transcoder", "crosscoder")


@pytest.mark.parametrize("kind", KINDS)
def test_it_belongs_where_it_was_trained(kind: str) -> None:
    found = bind(net(), trained(kind), list(texts()))
    assert found.claim.verdict == "supported", found.claim
    assert found.reads == (CLT if kind == KINDS[0] else CROSS)[0]
    assert found.stated.fvu.value < 0.5


def test_a_layer_off_is_refused_and_named() -> None:
    reads, writes = ("mlp_in.2", "mlp_in.3"), ("mlp_write.2", "mlp_write.3")
    found = bind(net(), trained(KINDS[0]), list(texts()), reads=reads, writes=writes)
    assert found.claim.verdict == "refuted"
    assert "mlp_in.1" in found.claim.statement


def test_the_stream_in_place_of_what_the_sublayer_reads_is_refused_and_named() -> None:
    found = bind(net(), trained(KINDS[0]), list(texts()), reads=("resid_mid.1", "resid_mid.2"), writes=CLT[1])
    assert found.claim.verdict == "refuted"
    assert "mlp_in.1, mlp_in.2" in found.claim.statement


def test_a_lost_scale_is_refused_and_named() -> None:
    dictionary = trained(KINDS[1])
    lengths = [float(b.norm()) for b in dictionary.biases if b is not None]
    assert len(lengths) == 2
    run = net().run(list(texts()), keep=list(CROSS[0]), logits=False)
    both = torch.cat([run[site][:, 1:] for site in CROSS[0]], -1)
    by = (256**0.5) / float(both.norm(dim=-1).mean())
    lost = scaled(dictionary, 1 / by)
    found = bind(net(), lost, list(texts()))
    assert found.claim.verdict == "refuted"


def test_thresholds_that_are_logarithms_are_told() -> None:
    dictionary = trained(KINDS[0])
    with torch.no_grad():
        jumps = tuple(
            replace(e, activation=JumpReLU(torch.full((e.size,), 0.5))) for e in dictionary.encoders
        )
    right = replace(dictionary, encoders=jumps, said={})
    wrong = replace(
        right,
        encoders=tuple(replace(e, activation=JumpReLU(e.activation.threshold.log())) for e in jumps),  # type: ignore[attr-defined]
    )
    stated = bind(net(), right, list(texts()))
    misread = bind(net(), wrong, list(texts()))
    assert stated.claim.verdict != "refuted"
    assert any("logarithms" in fit.reading for fit in misread.fits)


def test_as_many_sites_as_it_has_must_be_named() -> None:
    with pytest.raises(BadInput, match="the dictionary has 2"):
        bind(net(), trained(KINDS[0]), list(texts()), reads="mlp_in.1", writes=CLT[1])
