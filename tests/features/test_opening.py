"""A dictionary from its folder onto a network: read, measured, attached; refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cutaway
from cutaway import features
from cutaway.errors import BadFormat, BadInput, NotFound
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, ReLU
from cutaway.features.formats.places import hook_place
from cutaway.network import Network

TEXTS = ["Mary was sad because she", "John and Mary saw a dog", "the dog saw Mary and the dog saw John"] * 4


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open("zoo:tales")


def axes() -> Dictionary:
    """A latent for each direction of each axis of the stream: it leaves nothing unexplained."""
    place = hook_place("blocks.2.hook_resid_post", 128)
    both = torch.cat([torch.eye(128), -torch.eye(128)])
    encoder, decoder = Encoder(both.T, torch.zeros(256), ReLU()), Decoder(0, 0, both)
    return Dictionary("autoencoder", (encoder,), (decoder,), (torch.zeros(128),), ((place,),), (place,))


@pytest.mark.parametrize("format", ["saelens", "dictionary_learning"])
def test_what_fits_is_attached_where_its_file_says(net: Network, tmp_path: Path, format: str) -> None:
    folder = features.write(axes(), tmp_path / "sae", format=format)
    asked = {} if format == "saelens" else {"reads": "resid_post.2"}
    opened = features.open(folder, net, TEXTS, **asked)
    assert opened.binding is not None
    assert opened.binding.claim.supported
    run = opened.net.run(TEXTS[0], keep=["features.2", "feature_error.2"])
    assert torch.equal(run.logits, net.run(TEXTS[0]).logits)
    assert float(run["feature_error.2"].abs().max()) < 1e-4
    assert "supported" in repr(opened)


def test_without_texts_nothing_is_measured_and_that_is_said(net: Network, tmp_path: Path) -> None:
    opened = features.open(features.write(axes(), tmp_path / "sae"), net, name="mine")
    assert opened.binding is None
    assert "not measured" in repr(opened)
    assert opened.net.has("mine.features.2")


def test_what_does_not_fit_is_refused_unless_it_is_forced(net: Network, tmp_path: Path) -> None:
    made = axes()
    wrong = replace(made, decoders=(Decoder(0, 0, made.decoders[0].weight.roll(5, 1)),))
    folder = features.write(wrong, tmp_path / "sae")
    with pytest.raises(BadInput, match="force=True"):
        features.open(folder, net, TEXTS)
    forced = features.open(folder, net, TEXTS, force=True)
    assert forced.binding is not None
    assert forced.binding.claim.verdict == "refuted"


def test_what_is_no_dictionary_is_told(net: Network, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing at"):
        features.open(tmp_path / "nowhere", net)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadFormat, match="no file of tensors"):
        features.open(tmp_path, net)
    with pytest.raises(BadInput, match="no format"):
        features.write(axes(), tmp_path / "x", format="saelense")
    with pytest.raises(BadInput, match="read here, not written"):
        features.write(axes(), tmp_path / "x", format="prisma")
