"""Sites, positions, dimensions and inputs of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration
from xor_networks import Specimen, specimen

import cutaway
from cutaway.errors import BadInput, NotFinite, NotFound, SiteUnavailable
from cutaway.probes import (
    ProbeData,
    ProbeOptions,
    probe,
    use,
)

QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def labelled(made: Specimen, name: str) -> ProbeData:
    return ProbeData(made.prompts, made.labels[name], name=name)


def test_nan_activations(made: Specimen) -> None:
    broken = specimen(3).model
    with torch.no_grad():
        broken.transformer.h[1].mlp.c_proj.bias[0] = float("nan")
    net = cutaway.open(broken, certify=False)
    with pytest.raises(NotFinite, match="resid_post.1 is NaN or infinite for example"):
        probe(net, labelled(made, "used"), at="resid_post.1", options=QUICK)


def test_sites_positions_and_dimensions(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    with pytest.raises(SiteUnavailable, match="no one vector per position"):
        probe(net, data, at="pattern")
    with pytest.raises(NotFound):
        probe(net, data, at="resid_pots")
    with pytest.raises(BadInput, match="has no heads"):
        probe(net, data, by=["layer", "head"])
    with pytest.raises(BadInput, match="no dimension"):
        probe(net, data, by=["colour"])
    with pytest.raises(BadInput, match="outside the shortest input"):
        probe(net, data, pos=7)
    with pytest.raises(NotFound, match="kind of probe"):
        probe(net, data, options=ProbeOptions(kind="rigde"))
    with pytest.raises(BadInput, match="does not fit continuous"):
        probe(
            net,
            ProbeData(made.prompts, np.linspace(0, 1, 240), "continuous", ()),
            options=ProbeOptions(kind="lda"),
        )
    with pytest.raises(BadInput, match="folds=1"):
        ProbeOptions(folds=1)
    with pytest.raises(BadInput, match="above zero"):
        ProbeOptions(penalties=(0.0,))
    with pytest.raises(BadInput, match="no option 'label'"):
        probe(net, data, label="x")


def test_images_and_module_paths() -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    model = torch.nn.Sequential(*layers).eval()
    pixels = torch.randn(120, 1, 8, 8)
    net = cutaway.open(model, example={"input": pixels[:2]})
    labels = (pixels.mean((1, 2, 3)) > 0).long().numpy()
    data = ProbeData({"input": pixels}, labels, name="bright")
    found = probe(net, data, at=["0", "3"], options=QUICK)
    assert found.data["score"].shape == (2, 1)
    assert float(found.data["score"].sel(site="0").max()) > 0.9
    with pytest.raises(BadInput, match="prompts of tokens"):
        use(net, found, data)


def test_the_decoder_of_an_encoder_decoder_has_read_one_token() -> None:
    config = T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    net = cutaway.open(T5ForConditionalGeneration(config).eval())
    ids = np.random.default_rng(0).integers(2, 60, (60, 5))
    data = ProbeData(ids.tolist(), ids[:, -1] % 2)
    options = ProbeOptions(permutations=19, untrained=False)
    assert probe(net, data, at="resid_post", options=options).places.positions == (0,)
    assert probe(net, data, at="encoder.resid_post", options=options).places.positions == (-1,)
    with pytest.raises(BadInput, match=r"encoder\.resid_post"):
        probe(net, data, at="resid_post", pos=-1, options=options)
