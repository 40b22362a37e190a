"""Contributions add up to the logit difference, on every kind of architecture, with and without edits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stream_beds import opened, rows

import cutaway
from cutaway.errors import BadAddress, BadInput, NotFoldable, SiteUnavailable
from cutaway.interventions import Ablate, Patch
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.stream import (
    attribute_features,
    direction_at,
    logit_attribution,
    read_stream,
    string_log_prob,
)
from cutaway.stream.paths import expand_paths
from cutaway.zoo.tiny import tiny

#: kind -> what is particular about it.
KINDS = {
    "gpt2": "sequential, tied, position embeddings",
    "llama": "RMSNorm, grouped-query",
    "gpt_neox": "parallel, untied",
    "gptj": "parallel, an unembedding with bias",
    "cohere2": "parallel, logits scaled",
    "gemma2": "post-norms, soft-caps",
    "olmo2": "post-norms only",
    "granite": "residual and embedding multipliers",
    "openai-gpt": "post-norm",
    "bloom": "ALiBi, a norm behind the embedding",
    "mixtral": "mixture of experts",
    "qwen3_moe": "mixture of experts, query norms",
    "falcon": "multi-query",
    "jamba": "state spaces beside attention",
    "mamba": "no attention",
    "deepseek_v3": "latent attention",
    "t5": "encoder and decoder",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edited", [False, True], ids=["as it is", "random stream"])
@pytest.mark.parametrize("by", ["sublayer", "head", "neuron", "source"])
def test_contributions_sum_to_the_logit_difference(kind: str, edited: bool, by: str) -> None:
    net = opened(kind)
    ids = rows(net)
    pos = [-1] if kind == "t5" else [2, -1]
    if kind == "t5" and by == "source":
        pytest.skip("the decoder's start token is all that it reads")
    edits = []
    if edited:
        stream = torch.randn(
            3, 1 if kind == "t5" else 7, net.d_model or 0, generator=torch.Generator().manual_seed(7)
        )
        edits = [Patch("resid_pre.1", stream)]
    found = logit_attribution(net, ids, target=[11, 12, 13], foil=[17, 18, 19], by=by, pos=pos, edits=edits)
    logits = net.run(ids, edits=edits, logits=pos).logits
    assert logits is not None
    if found.softcap is not None:
        logits = torch.atanh(logits.double() / found.softcap) * found.softcap
    wanted = torch.stack([logits[i, :, 11 + i] - logits[i, :, 17 + i] for i in range(3)]).double().numpy()
    assert np.abs(found.total - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert found.error <= 1e-4
    assert ("edit" in {w.kind for w in found.writers}) == edited
    assert not any(w.kind == "rest" for w in found.writers)


def test_against_gpt2_by_hand() -> None:
    """Every contribution of every writer, from the model's own weights in double precision."""
    torch.manual_seed(3)
    model = tiny("gpt2").double().eval()
    net = cutaway.open(model)
    ids = rows(net, 2, 6)
    found = logit_attribution(net, ids, target=5, foil=9, by="head", pos=-1)
    run = net.run(ids, keep=["z", "mlp_out", "embed", "pos_embed", "resid_post"])
    core, n = model.transformer, len(model.transformer.h)
    last = run["resid_post", n - 1][:, -1]
    scale = 1 / torch.sqrt(last.var(-1, unbiased=False, keepdim=True) + core.ln_f.eps)
    u = model.lm_head.weight[5] - model.lm_head.weight[9]

    def adds(x: torch.Tensor) -> np.ndarray:
        return ((((x - x.mean(-1, keepdim=True)) * scale * core.ln_f.weight) @ u).detach().numpy())[:, None]

    assert np.allclose(found["embed"], adds(run["embed"][:, -1]), atol=1e-9)
    assert np.allclose(found["pos_embed"], adds(run["pos_embed"][:, -1]), atol=1e-9)
    for layer, block in enumerate(core.h):
        weight = block.attn.c_proj.weight.unflatten(0, (4, -1))
        for head in range(4):
            assert np.allclose(
                found[f"head {layer}.{head}"], adds(run["z", layer][:, -1, head] @ weight[head]), atol=1e-9
            )
        assert np.allclose(
            found[f"attention bias {layer}"], adds(block.attn.c_proj.bias[None].expand(2, -1)), atol=1e-9
        )
        assert np.allclose(found[f"mlp {layer}"], adds(run["mlp_out", layer][:, -1]), atol=1e-9)
    assert np.allclose(found["norm bias"], (core.ln_f.bias @ u).item(), atol=1e-9)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "granite", "openai-gpt", "gpt_neox"])
@pytest.mark.parametrize("by", ["sublayer", "head", "neuron"])
def test_forward_vectors_agree_with_contributions(kind: str, by: str) -> None:
    """Two ways round: vectors carried forwards and read at the end; the direction carried backwards."""
    net = opened(kind)
    ids = rows(net, 2)
    stream = read_stream(net, ids, by=by, pos=-1)
    vectors = stream.decompose()
    last = net.run(ids, keep=[f"resid_post.{net.n_layers - 1}"], pos=-1)[f"resid_post.{net.n_layers - 1}"]
    assert torch.allclose(vectors.sum(), last, atol=1e-4 * float(last.abs().max()))
    from cutaway.stream import direction

    aim = direction(net, torch.tensor([4, 4]))
    forward = (stream.decompose(fold=True).values * aim.vector[:, None]).sum(-1)
    found = logit_attribution(net, ids, target=4, by=by, pos=-1)
    for writer, value in zip(vectors.writers, forward, strict=True):
        rows_ = [v for w, v in zip(found.writers, found.values, strict=True) if w == writer]
        assert len(rows_) == 1
        assert np.allclose(rows_[0], value.numpy(), atol=1e-4 * np.abs(found.values).max())


def test_accumulated_and_heads_mean_what_transformerlens_means() -> None:
    net = opened("gpt2")
    ids = rows(net, 2)
    stream = read_stream(net, ids, by="head")
    run = net.run(ids, keep=["resid_pre", "resid_post", "head_out", "final_norm"])
    piled = stream.accumulated()
    assert piled.labels == ["resid_pre.0", "resid_pre.1", "resid_pre.2", "resid_post.2"]
    assert torch.equal(piled["resid_pre.2"], run["resid_pre", 2])
    folded = stream.accumulated(fold=True)
    bias = net.model.transformer.ln_f.bias
    assert torch.allclose(folded.values[-1] + bias, run["final_norm"], atol=1e-4)
    heads = stream.stack_heads(layer=2)
    assert heads.labels == [f"a{la}.h{h}" for la in range(2) for h in range(4)]
    assert torch.equal(heads["head 1.3"], heads["a1.h3"])
    assert torch.allclose(heads["head 1.3"], run["head_out", 1][:, :, 3], atol=1e-5)
    whole = stream.stack_heads(layer=2, remainder=True)
    assert torch.allclose(whole.sum(), run["resid_pre", 2], atol=1e-4)
    for layer in range(4):
        site = "resid_post.2" if layer == 3 else f"resid_pre.{layer}"
        assert torch.allclose(stream.decompose(layer).sum(), piled[site], atol=1e-4)
    assert torch.equal(stream.decompose(-1).values, stream.decompose(2).values)


def test_sources_sum_to_their_head_and_an_ablated_head_gives_nothing() -> None:
    net = opened("llama")
    ids = rows(net)
    whole = logit_attribution(net, ids, target=3, foil=4, by="head", pos=-1)
    each = logit_attribution(net, ids, target=3, foil=4, by="source", pos=-1)
    for layer in range(3):
        for head in range(4):
            parts = sum(each[f"head {layer}.{head} from {s}"] for s in range(7))
            assert np.allclose(parts, whole[f"head {layer}.{head}"], atol=1e-5)
    quiet = logit_attribution(
        net, ids, target=3, foil=4, pos=-1, edits=[Ablate("z", layer=1, head=2, how="zero")]
    )
    assert float(np.abs(quiet["head 1.2"]).max()) == 0.0
    assert quiet.error < 1e-4


def test_edits_of_what_a_sublayer_writes_are_its_own_or_the_rest() -> None:
    net = opened("gpt2")
    ids = rows(net)
    patch = Patch("attn_write.1", torch.randn(3, 7, net.d_model or 0))
    found = logit_attribution(net, ids, target=3, foil=4, by="head", pos=-1, edits=[patch])
    assert found.error < 1e-4
    assert "rest1" in found.labels
    whole = logit_attribution(net, ids, target=3, foil=4, by="sublayer", pos=-1, edits=[patch])
    assert "a1" in whole.labels
    assert not any(w.kind in ("rest", "edit") for w in whole.writers)


def test_left_padding_and_unequal_lengths() -> None:
    net = opened("llama")
    long, short = rows(net, 1, 7)[0].tolist(), rows(net, 1, 4, seed=1)[0].tolist()
    both = logit_attribution(net, [long, short], target=3, foil=4, by="source", pos=-1)
    alone = logit_attribution(net, [short], target=3, foil=4, by="source", pos=-1)
    assert both.error < 1e-4
    for s in range(4):
        assert np.allclose(both[f"head 2.1 from {s}"][1], alone[f"head 2.1 from {s}"][0], atol=1e-5)
    assert np.allclose(both["head 2.1 from 6"][1], 0)


def test_half_precision_sums_with_its_rounding_shown() -> None:
    torch.manual_seed(0)
    net = cutaway.open(tiny("llama").to(torch.bfloat16).eval())
    found = logit_attribution(net, rows(net), target=3, foil=4, pos=-1)
    assert found.error < 1e-4
    assert any(w.kind == "rest" for w in found.writers)


def test_what_is_rounded_behind_the_last_layer_is_not_written_in_one() -> None:
    """A network with more layers than there are kinds of writers, in half precision."""
    torch.manual_seed(0)
    net = cutaway.open(tiny("llama", num_hidden_layers=24).to(torch.bfloat16).eval())
    stream = read_stream(net, rows(net, 1))
    assert all(step.layer == 24 for step in stream.steps if step.fold is not None)
    last = stream.run["resid_post.23"].float()
    assert torch.allclose(stream.decompose().sum(), last, atol=1e-5 * float(last.abs().max()))


def test_layers_add_up_and_tables_show(tales: Network) -> None:
    found = logit_attribution(tales, "Mary was sad because", target=" she", foil=" he", by="layer")
    heads = logit_attribution(tales, "Mary was sad because", target=" she", foil=" he")
    assert found.error < 1e-4
    assert np.allclose(found.total, heads.total)
    assert heads.what == "logit of ' she' minus ' he'"
    assert list(heads.top(3).columns)[0] == "writer"
    assert len(heads.top(3)) == 3
    assert "sums to it within" in str(heads)
    assert heads.to_dict()["error"] < 1e-4


@pytest.mark.parametrize("top", [2, 5, 24])
def test_the_bars_that_are_drawn_add_up_to_the_logit_difference(tales: Network, top: int) -> None:
    text = "Mary was sad because"
    made = logit_attribution(tales, text, target=" she", foil=" he")
    drawn = made.plot(top=top).table()
    assert drawn["value"].sum() == pytest.approx(float(made.total.mean()), abs=1e-4)
    assert drawn["label"].str.contains("more, together").sum() == (top < 20)
    paths = expand_paths(tales, text, target=" she", foil=" he", depth=1)
    assert paths.plot(top=top).table()["value"].sum() == pytest.approx(paths.total, abs=1e-4)


def test_bad_input_is_refused_with_what_to_do(tales: Network) -> None:
    text = "Mary was sad because"
    with pytest.raises(BadInput, match="tokens here"):
        logit_attribution(tales, text, target=" she he")
    first = logit_attribution(tales, text, target=" she he", first_token=True)
    assert first.target == (" she",)
    assert string_log_prob(tales, text, " she") == pytest.approx(
        float(tales.run(text).logits[0, -1].log_softmax(-1)[tales.to_single_token(" she")]), abs=1e-5
    )
    assert string_log_prob(tales, text, " she was") < string_log_prob(tales, text, " she")
    for bad in ("", -1, 10**9, 1.5, True):
        with pytest.raises(BadInput):
            logit_attribution(tales, text, target=bad)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="for 1 prompts"):
        logit_attribution(tales, text, target=[" she", " he"])
    with pytest.raises(BadInput, match="by="):
        logit_attribution(tales, text, target=" she", by="token")
    with pytest.raises(BadAddress):
        logit_attribution(tales, text, target=" she", pos=99)
    with pytest.raises(BadAddress):
        read_stream(tales, text).decompose(99)
    with pytest.raises(BadInput, match="read by neuron"):
        read_stream(tales, text, by="neuron").stack_heads()


def test_what_the_certificate_refuses_is_refused_with_its_reason() -> None:
    with pytest.raises(SiteUnavailable, match="more than one matrix"):
        logit_attribution(opened("bert"), [[5, 6, 7]], target=3)
    assert read_stream(opened("bert"), [[5, 6, 7]]).decompose().sum().shape == (1, 3, 32)
    with pytest.raises(SiteUnavailable, match="No head"):
        read_stream(opened("mamba"), [[5, 6, 7]], by="head").stack_heads()


def test_a_norm_that_is_not_affine_is_refused_for_attribution() -> None:
    class Squash(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) * self.weight

    torch.manual_seed(0)
    model = tiny("gpt2").eval()
    model.transformer.ln_f = Squash(32)
    net = cutaway.open(model)
    with pytest.raises(NotFoldable, match="lenses"):
        logit_attribution(net, rows(net), target=3, foil=4)


def test_names(tales: Network) -> None:
    assert Part("unembed_bias").words == "unembedding bias"
    assert Part("neuron", 2, 17).words == "neuron 2.17"
    found = logit_attribution(tales, "Mary was sad because", target=" she", by="source")
    assert "a3.h1 from 2" in found.labels
    assert "head 3.1 from 2" in found.words
    by_name = found["a3.h1 from 2"]
    assert np.array_equal(by_name, found["head 3.1 from 2"])
    whole = logit_attribution(tales, "Mary was sad because", target=" she")
    assert np.array_equal(whole["a3.h1"], whole["head 3.1"])
    assert np.array_equal(whole["a3.h1"], whole[Part("head", 3, 1)])
    assert np.array_equal(whole["m0"], whole["MLP 0"])
    with pytest.raises(BadInput, match="Nothing is called"):
        whole["a9.h9"]


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "openai-gpt"])
@pytest.mark.parametrize("name", ["mlp_write", "mlp_out", "attn_write", "resid_pre", "resid_post"])
def test_features_add_up_to_what_their_site_adds(kind: str, name: str) -> None:
    """A random dictionary: its features, what it misses and its bias; the sum against the site's own contribution."""
    net = opened(kind)
    ids = rows(net, 2)
    stream = read_stream(net, ids, pos=[2, -1])
    generator = torch.Generator().manual_seed(2)
    acts, decoder = torch.rand(2, 2, 10, generator=generator), torch.randn(10, 32, generator=generator)
    target, foil = torch.tensor([5, 6]), torch.tensor([7, 8])
    found = attribute_features(stream, f"{name}.1", acts, decoder, target, foil, bias=torch.ones(32))
    assert found.error < 1e-5
    whole = logit_attribution(net, ids, target=target, foil=foil, by="sublayer", pos=[2, -1])
    if name in ("mlp_write", "attn_write"):
        assert np.allclose(found.total, whole[f"{name.split('_')[0]} 1"], atol=1e-5)
    g = direction_at(stream, f"{name}.1", target, foil)
    assert np.allclose(found["feature 1.3"], acts[..., 3].numpy() * (g @ decoder[3]).numpy(), atol=1e-5)
