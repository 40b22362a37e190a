"""The norm's output before its gain: read, written, certified, refused."""

from __future__ import annotations

import pytest
import torch

import cutaway
from cutaway.errors import SiteUnavailable
from cutaway.zoo.tiny import tiny

#: Layer norm with bias, root mean square, a gain of one plus the weight, parallel blocks with one norm and with two.
KINDS = ("gpt2", "llama", "gemma2", "gpt_neox", "gptj", "phi")


def _random_gains(model: torch.nn.Module) -> torch.nn.Module:
    """Norms that do something: fresh networks have gains of one and biases of zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and ("norm" in name or "ln" in name):
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module", params=KINDS)
def net(request: pytest.FixtureRequest) -> cutaway.Network:
    return cutaway.open(_random_gains(tiny(request.param)), tokenizer=None)


def _ids(net: cutaway.Network) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, net.d_vocab or 10, (2, 6), generator=generator).tolist()


def _stream(net: cutaway.Network, name: str, layer: int) -> str:
    return f"resid_mid.{layer}" if name == "mlp" and net.has(f"resid_mid.{layer}") else f"resid_pre.{layer}"


@pytest.mark.parametrize("name", ["attn", "mlp"])
def test_it_is_the_stream_over_its_spread(net: cutaway.Network, name: str) -> None:
    for layer in range(net.n_layers or 0):
        stream = _stream(net, name, layer)
        run = net.run(_ids(net), keep=[f"{name}_normed.{layer}", stream])
        x, normed = run[stream].double(), run[f"{name}_normed.{layer}"].double()
        rms = x / x.square().mean(-1, keepdim=True).sqrt()
        layer_normed = torch.nn.functional.layer_norm(x, x.shape[-1:])
        errors = [float((normed - form).abs().max()) for form in (rms, layer_normed)]
        assert min(errors) < 2e-2, "the norm's own epsilon is all that is between them"
        assert float(normed.square().mean(-1).sub(1).abs().max()) < 2e-2


@pytest.mark.parametrize("name", ["attn", "mlp"])
def test_a_change_there_is_that_change_times_the_gain_behind_it(net: cutaway.Network, name: str) -> None:
    ids, (before, behind) = _ids(net), (f"{name}_normed.1", f"{name}_in.1")
    run = net.run(ids, keep=[before, behind])
    flat, out = run[before].flatten(0, 1).double(), run[behind].flatten(0, 1).double()
    one = torch.ones(len(flat), 1, dtype=torch.float64)
    gain = torch.stack(
        [
            torch.linalg.lstsq(torch.cat([flat[:, i : i + 1], one], 1), out[:, i]).solution[0]
            for i in range(flat.shape[1])
        ]
    ).float()
    step = 0.3 * torch.randn(run[before].shape, generator=torch.Generator().manual_seed(2))
    first = net.run(ids, edits=[cutaway.Patch(before, run[before] + step)])
    second = net.run(ids, edits=[cutaway.Patch(behind, run[behind] + gain * step)])
    assert torch.allclose(first.logits, second.logits, atol=2e-4)
    assert not torch.allclose(first.logits, run.logits, atol=1e-3)


def test_it_is_certified_and_remembered(net: cutaway.Network) -> None:
    check = next(c for c in net.certificate.checks if c.name == "unit(resid) = normed")
    assert not check.failures
    again = cutaway.open(net.model, tokenizer=None)
    assert [str(s) for s in again.sites()] == [str(s) for s in net.sites()]
    ids = _ids(net)
    assert torch.equal(
        again.run(ids, keep=["mlp_normed.0"])["mlp_normed.0"],
        net.run(ids, keep=["mlp_normed.0"])["mlp_normed.0"],
    )


def test_a_change_of_the_weights_is_followed() -> None:
    model = tiny("llama")
    net = cutaway.open(model, tokenizer=None)
    before = net.run([[1, 2, 3]], keep=["mlp_normed.0"])["mlp_normed.0"]
    with torch.no_grad():
        model.model.layers[0].post_attention_layernorm.weight.mul_(3.0)
    after = net.run([[1, 2, 3]], keep=["mlp_normed.0"])["mlp_normed.0"]
    assert torch.allclose(before, after, atol=1e-5), "a gain is behind it"


def test_where_a_gain_is_zero_it_cannot_be_told() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].post_attention_layernorm.weight[3] = 0.0
    net = cutaway.open(model, tokenizer=None)
    with pytest.raises(SiteUnavailable, match="gain of zero at 1 of"):
        net.run([[1, 2]], keep=["mlp_normed.0"])
    assert net.has("mlp_normed.1")


def test_a_norm_of_the_stream_itself_has_none() -> None:
    net = cutaway.open(tiny("bert"), tokenizer=None)
    assert not [s for s in net.sites() if s.name == "mlp_normed"], "what the MLP reads is the stream"


def test_sweeps_there_are_sweeps_behind_the_gain() -> None:
    net = cutaway.open("zoo:tales")
    pairs = cutaway.behaviour("pronoun", net, n=8)
    here, behind = (
        cutaway.patch(net, pairs, at=at, by=["layer", "position"]) for at in ("mlp_normed", "mlp_in")
    )
    assert here.to_pandas()["mean"].to_numpy() == pytest.approx(
        behind.to_pandas()["mean"].to_numpy(), abs=1e-4
    )
