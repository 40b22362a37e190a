"""What is asked of a network every day: weights by name, gradients, conversations, and a run that says what comes next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2LMHeadModel, PreTrainedTokenizerFast

import cutaway
from cutaway.errors import BadAddress, BadInput, CutawayError, NotFound, SiteUnavailable, UnknownOption
from cutaway.network import Network
from cutaway.network.factored import Factored
from cutaway.network.named_weights import WEIGHTS

TEXT = "Mary was sad because"


@pytest.fixture(scope="module")
def tales() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture
def gpt2(tiny_gpt2: GPT2LMHeadModel) -> Network:
    return cutaway.open(tiny_gpt2)


# weights ---------------------------------------------------------------------------------------------------------


def test_the_weights_of_gpt2_are_the_models_own(gpt2: Network) -> None:
    block: Any = gpt2.model.transformer.h[1]
    q, k, v = block.attn.c_attn.weight.split(32, dim=1)
    q_bias, _, v_bias = block.attn.c_attn.bias.split(32)
    by_head = {"W_Q": q, "W_K": k, "W_V": v}
    for name, matrix in by_head.items():
        wanted = matrix.reshape(32, 4, 8).transpose(0, 1)
        assert torch.allclose(gpt2.weights(name, layer=1).value, wanted, atol=1e-6), name
    assert torch.allclose(gpt2.weights("b_Q", layer=1).value, q_bias.reshape(4, 8), atol=1e-6)
    assert torch.allclose(gpt2.weights("b_V", layer=1).value, v_bias.reshape(4, 8), atol=1e-6)
    assert torch.equal(gpt2.weights("W_O", layer=1).value, block.attn.c_proj.weight.reshape(4, 8, 32))
    assert torch.equal(gpt2.weights("b_O", layer=1).value, block.attn.c_proj.bias)
    assert torch.equal(gpt2.weights("W_in", layer=1).value, block.mlp.c_fc.weight)
    assert torch.equal(gpt2.weights("b_in", layer=1).value, block.mlp.c_fc.bias)
    assert torch.equal(gpt2.weights("W_out", layer=1).value, block.mlp.c_proj.weight)
    assert torch.equal(gpt2.weights("W_E").value, gpt2.model.transformer.wte.weight)
    assert torch.equal(gpt2.weights("W_pos").value, gpt2.model.transformer.wpe.weight)
    assert torch.equal(gpt2.weights("W_U").value, gpt2.model.lm_head.weight.T)
    assert not gpt2.weights("b_U").value.any()
    ov = gpt2.weights("W_OV", layer=1, head=2).value
    assert isinstance(ov, Factored)
    wanted = v.reshape(32, 4, 8)[:, 2] @ block.attn.c_proj.weight.reshape(4, 8, 32)[2]
    assert torch.allclose(ov.full(), wanted, atol=1e-6)
    qk = gpt2.weights("W_QK", layer=-2, head=0).value
    assert torch.allclose(qk.full(), q.reshape(32, 4, 8)[:, 0] @ k.reshape(32, 4, 8)[:, 0].T, atol=1e-6)
    whole = gpt2.weights("W_Q")
    assert whole.shape == (3, 4, 32, 8)
    assert whole.axes == ("layer", "head", "d_model", "d_head")
    assert any("relative error" in line for line in whole.checks)


def test_gates_and_rotary_attention(tales: Network) -> None:
    layer: Any = tales.model.model.layers[2]
    assert torch.equal(tales.weights("W_gate", layer=2).value, layer.mlp.gate_proj.weight.T)
    assert torch.equal(tales.weights("W_in", layer=2).value, layer.mlp.up_proj.weight.T)
    with pytest.raises(SiteUnavailable, match="rotary.*offset"):
        tales.weights("W_QK")
    run = tales.run(TEXT, keep=["attn_in.2", "scores.2"])
    x = run["attn_in.2"][0]
    head = tales.weights("W_QK", layer=2, head=1, offset=2).value
    got = x[4] @ head.full() @ x[2] / tales.anatomy.stack().layers[2].attention().head_width ** 0.5
    assert float(got) == pytest.approx(float(run["scores.2"][0, 1, 4, 2]), rel=1e-4)


def test_shared_keys_stand_once_for_each_query_head() -> None:
    from cutaway.zoo.tiny import tiny

    net = cutaway.open(tiny("llama"))
    attention = net.anatomy.stack().layers[0].attention()
    assert attention.kv_heads < attention.heads
    weight = net.weights("W_K", layer=0)
    projection = net.model.model.layers[0].self_attn.k_proj.weight.T
    own = projection.reshape(net.d_model, attention.kv_heads, -1).transpose(0, 1)
    assert torch.allclose(
        weight.value, own.repeat_interleave(attention.heads // attention.kv_heads, 0), atol=1e-6
    )
    assert any("serves" in line for line in weight.checks)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        (("W_q",), NotFound, "W_Q"),
        (("W_gate",), SiteUnavailable, "no gate.*W_in"),
        (("W_E", {"layer": 0}), BadAddress, "whole network"),
        (("W_Q", {"layer": 3}), BadAddress, "layer 3"),
        (("W_Q", {"layer": 0, "head": 4}), BadAddress, "head 4"),
        (("W_in", {"head": 0}), BadAddress, "no heads"),
        (("W_QK", {"offset": -1}), BadInput, "offset"),
        (("W_Q", {"layr": 0}), UnknownOption, "layer"),
    ],
)
def test_what_is_no_weight(
    gpt2: Network, asked: tuple[Any, ...], error: type[CutawayError], said: str
) -> None:
    options = asked[1] if len(asked) > 1 else {}
    with pytest.raises(error, match=said):
        gpt2.weights(asked[0], **options)


def test_every_weight_is_told_or_refused_with_a_reason(tales: Network) -> None:
    for name in WEIGHTS:
        if name == "W_pos":
            with pytest.raises(SiteUnavailable, match="No position embedding"):
                tales.weights(name)
            continue
        weight = tales.weights(name, offset=0) if name == "W_QK" else tales.weights(name)
        assert len(weight.axes) == len(weight.shape), name
        assert name in str(weight)


# gradients -------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_bare_model_with_hooks(gpt2: Network) -> None:
    ids = torch.tensor([[5, 17, 3, 88, 41]])
    model: Any = gpt2.model
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            value.retain_grad()
            seen[name] = value

        return hook

    handles = [
        model.transformer.wte.register_forward_hook(keep("embed")),
        model.transformer.h[1].register_forward_hook(keep("resid_post.1")),
        model.transformer.h[0].mlp.act.register_forward_hook(keep("mlp_act.0")),
    ]
    logits = model(ids).logits
    for handle in handles:
        handle.remove()
    for number in (
        (7, logits[0, -1, 7]),
        ((7, 9), logits[0, -1, 7] - logits[0, -1, 9]),
        ("loss", torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])),
        (lambda x: x[:, 2].logsumexp(-1), logits[0, 2].logsumexp(-1)),
    ):
        of, value = number
        for tensor in seen.values():
            tensor.grad = None
        value.backward(retain_graph=True)
        found = gpt2.gradients(ids, of=of, to=["embed", "resid_post.1", "mlp_act.0"])
        assert float(found.value[0]) == pytest.approx(float(value.detach()), rel=1e-5)
        for name, tensor in seen.items():
            assert tensor.grad is not None
            assert np.allclose(found[name], tensor.grad.numpy(), atol=1e-6), (of, name)
        wanted = (seen["embed"].grad * seen["embed"]).sum(-1)
        assert np.allclose(found.saliency(), wanted.detach().numpy(), atol=1e-6)
    assert all(p.grad is None or not p.grad.isnan().any() for p in model.parameters())


def test_rows_of_unequal_length_have_gradients_of_their_own(tales: Network) -> None:
    both = tales.gradients([TEXT, "John was"], of=" she", to="resid_post.1")
    alone = tales.gradients("John was", of=" she", to=("resid_post", 1))
    assert np.allclose(
        both["resid_post.1"][1, : alone["resid_post.1"].shape[1]], alone["resid_post.1"][0], atol=1e-5
    )
    assert not both["resid_post.1"][1, alone["resid_post.1"].shape[1] :].any()
    assert len(both.to_pandas()) == sum(len(tokens) for tokens in both.tokens)
    found = tales.gradients(TEXT, of=(" she", " he"))
    most = found.tokens[0][int(np.abs(found.saliency()[0]).argmax())]
    assert f"depends most on {most!r}" in found.headline


def test_gradients_are_kept_and_shown(tales: Network, tmp_path: Any) -> None:
    found = tales.gradients(TEXT, of=" she", to=["embed", "z.1"])
    again = cutaway.load(found.save(tmp_path / "slopes"))
    assert np.array_equal(again["z.1"], found["z.1"])
    assert again.page().title
    assert again.plot().data
    assert "Mary" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"of": "she she"}, BadInput, "tokens"),
        ({"of": 99999}, BadInput, "vocabulary"),
        ({"of": (" she", " he", " it")}, BadInput, "pair"),
        ({"of": lambda logits: logits}, BadInput, "one number"),
        ({"of": lambda logits: 3.0}, BadInput, "one number"),
        ({"to": ["embd"]}, NotFound, "embed"),
        ({"to": []}, BadInput, "No site"),
        ({"pos": 99}, BadAddress, "outside"),
        ({"off": 1}, UnknownOption, "of"),
    ],
)
def test_what_is_no_gradient(tales: Network, options: Any, error: type[CutawayError], said: str) -> None:
    with pytest.raises(error, match=said):
        tales.gradients(TEXT, **{"of": " she", **options})


def test_gradients_need_a_text_and_logits(tales: Network) -> None:
    with pytest.raises(BadInput, match="empty"):
        tales.gradients("")
    with pytest.raises(BadInput, match="one token"):
        tales.gradients([[5]])
    torch.manual_seed(0)
    small = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    with pytest.raises(SiteUnavailable, match="no logits"):
        cutaway.open(BertModel(small).eval()).gradients([[5, 6, 7]])


# conversations ---------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}[ {{ m['role'] }} ] {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}[ assistant ]{% endif %}"
)


@pytest.fixture
def talking(tiny_gpt2: GPT2LMHeadModel) -> Network:
    words = {w: i for i, w in enumerate("[UNK] [ ] user assistant system hello there be kind".split())}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    tokenizer.chat_template = TEMPLATE
    return cutaway.open(tiny_gpt2, tokenizer)


def test_a_conversation_is_what_the_template_makes_of_it(talking: Network) -> None:
    said = talking.chat("hello there")
    assert said.strings() == "[ user ] hello there [ assistant ]".split()
    assert talking.chat([{"role": "user", "content": "hello"}], add_generation_prompt=False).strings() == (
        "[ user ] hello".split()
    )
    assert talking.chat("hello", system="be kind").strings()[:5] == "[ system ] be kind".split()
    assert talking.run(said).logits.shape[1] == said.width
    assert talking.generate(said, 2).new.shape == (1, 2)
    from cutaway.stream.patterns import read_patterns

    assert read_patterns(talking, said, layer=0).tokens == tuple(said.strings())


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("", "empty"),
        ([], "empty"),
        ({"role": "user", "content": "hello"}, "no conversation"),
        (["hello"], "no message"),
        ([{"role": "user"}], "what is said"),
        ([{"role": "user", "content": " "}], "empty"),
        ([{"rol": "user", "content": "hello"}], "role"),
    ],
)
def test_what_is_no_conversation(talking: Network, messages: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        talking.chat(messages)


def test_without_a_template_it_is_said(talking: Network, tales: Network, gpt2: Network) -> None:
    with pytest.raises(BadInput, match="no chat template"):
        tales.chat("hello")
    with pytest.raises(BadInput, match="without a tokenizer"):
        gpt2.chat("hello")
    talking.tokenizer.chat_template = "{{ raise_exception('users first') }}"
    with pytest.raises(BadInput, match="users first"):
        talking.chat("hello")


# what a run says -------------------------------------------------------------------------------------------------


def test_a_run_says_what_comes_next_and_how_surprised_it_was(tales: Network) -> None:
    run = tales.run([TEXT, "John"], keep=["resid_post", "z.1"])
    ids = tales.encode(TEXT).ids
    logits = tales.model(ids).logits[0]
    best = logits[-1].softmax(-1).max(-1)
    token, p = run.next_tokens(1)[0]
    assert token == tales.token_strings([int(best.indices)])[0]
    assert p == pytest.approx(float(best.values), rel=1e-5)
    wanted = float(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]))
    assert tales.run(TEXT).loss == pytest.approx(wanted, rel=1e-5)
    john = tales.encode("John").ids
    other = float(torch.nn.functional.cross_entropy(tales.model(john).logits[0, :-1], john[0, 1:]))
    assert run.loss == pytest.approx((wanted * 4 + other) / 5, rel=1e-5)
    said = repr(run)
    assert "' she'" in said
    assert "nats a token" in said
    assert "resid_post.0 to 3 [2 5 128], z.1 [2 5 4 32]" in said
    assert len(said.splitlines()) <= 6
    assert "nats a token" in run._repr_html_()


def test_parts_of_the_logits_say_less(tales: Network) -> None:
    last = tales.run([TEXT, "John"], logits="last")
    assert last.next_tokens(1, row=1)[0][0] == tales.run("John").next_tokens(1)[0][0]
    assert last.loss is None
    none = tales.run(TEXT, keep="resid_post.1", logits=False)
    assert none.next_tokens() == []
    assert "resid_post.1" in repr(none)
    with pytest.raises(BadInput, match="k=0"):
        last.next_tokens(0)
    with pytest.raises(BadAddress, match="row 2"):
        last.next_tokens(1, row=2)


def test_a_masked_model_is_not_asked_for_the_next_token() -> None:
    torch.manual_seed(0)
    small = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    run = cutaway.open(BertForMaskedLM(small).eval()).run([[5, 6, 7]])
    assert run.next_tokens() == []
    assert run.loss is None
    assert "logits" in repr(run)


def test_a_run_keeps_no_network_alive(tiny_gpt2: GPT2LMHeadModel) -> None:
    import gc
    import weakref

    net = cutaway.open(tiny_gpt2)
    run, held = net.run([[5, 6, 7]]), weakref.ref(net.core)
    net.close()
    gc.collect()
    assert held() is None
    assert len(run.next_tokens(3)) == 3
