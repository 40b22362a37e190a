"""Networks that people write themselves, in five styles, against one transformer computed by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import cutaway
import cutaway.errors as cutaway_errors
from cutaway.behaviours.data import check_fits
from cutaway.circuits.passes.certify import wiring

sys.path.insert(0, str(Path(__file__).parent))
from own_modules import STYLES, Shape, by_hand, noised, own, prompts

SHAPE = Shape()


@pytest.fixture(scope="module", params=STYLES)
def opened(request):
    model = own(request.param)
    return request.param, model, cutaway.open(model, example={"x": prompts()})


def test_d_networks_in_five_styles_are_read_as_they_are_computed(opened):
    style, model, net = opened
    x = prompts(seed=3, columns=6)
    wanted = by_hand(style, model, x)
    run = net.run({"x": x}, keep=[name for name in wanted if name != "logits"])
    assert net.n_layers == SHAPE.layers
    assert net.heads(0) == SHAPE.heads
    quiet = [name for name in wanted if name.partition(".")[0] not in ("logits", "scores", "pattern")]
    assert torch.equal(net.run({"x": x}, keep=quiet).logits, model(x)), "reading changes nothing"
    for name, value in {**wanted, "logits": wanted["logits"]}.items():
        got = run.logits if name == "logits" else run[name]
        finite = value.isfinite()
        assert torch.allclose(got[finite], value[finite], atol=1e-5), name
        assert got.shape == value.shape, name


def test_d_networks_in_five_styles_are_written_as_they_are_computed(opened):
    style, model, net = opened
    x = prompts(seed=4, columns=6)
    plain = by_hand(style, model, x)
    for name in plain:
        if name == "logits":
            continue
        wanted = by_hand(style, model, x, {name: noised})["logits"]
        got = net.run({"x": x}, edits=[cutaway.Apply(name, noised)]).logits
        assert torch.allclose(got, wanted, atol=2e-5), name
        assert not torch.allclose(got, plain["logits"], atol=1e-3), f"{name} does nothing"


def test_d_a_bare_tensor_of_logits_is_known_as_such():
    class Tupled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = own("linear")

        def forward(self, x, targets=None):
            return self.inner(x), None

    for model in (own("linear"), Tupled().eval()):
        net = cutaway.open(model, example={"x": prompts()})
        assert net.has("logits")
        assert net.anatomy.head.unembed.endswith("head")
        assert net.d_vocab == SHAPE.vocab
        assert net.d_vocab_in == SHAPE.vocab
        assert net.n_ctx == SHAPE.context


def test_d_hidden_states_are_not_taken_for_logits():
    class Headless(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = own("linear").blocks

        def forward(self, h):
            for block in self.blocks:
                h = block(h)
            return h

    net = cutaway.open(Headless().eval(), example={"h": torch.randn(2, 5, SHAPE.width)})
    assert not net.has("logits")
    assert "no output head" in net.refusal("logits")


@pytest.mark.parametrize("style", STYLES)
def test_d_a_context_of_two_has_attention(style):
    model = own(style, Shape(context=2))
    x = prompts(columns=2)
    net = cutaway.open(model, example={"x": x})
    assert net.heads(0) == SHAPE.heads
    assert net.has("pattern.0")
    assert net.n_ctx == 2
    assert [s.kind for s in net.anatomy.stack().layers[0].sublayers] == ["attention", "mlp"]


def test_d_a_mixer_of_two_positions_is_no_mlp():
    class Mixing(torch.nn.Module):
        def __init__(self, s):
            super().__init__()
            self.inner = torch.nn.Linear(s.width, s.width)

        def forward(self, x):
            return self.inner(torch.cumsum(x, 1))

    from own_modules import Stack, block_of

    torch.manual_seed(0)
    model = Stack(block_of(Mixing), Shape(context=2)).eval()
    net = cutaway.open(model, example={"x": prompts(columns=2)})
    assert [s.kind for s in net.anatomy.stack().layers[0].sublayers] == ["mixer", "mlp"]


@pytest.mark.parametrize("style", STYLES)
def test_d_token_ids_go_to_the_argument_that_takes_them(style):
    model = own(style)
    net = cutaway.open(model, example={"x": prompts()})
    rows = [[1, 2, 3, 4], [5, 6]]  # neither input_ids nor attention_mask is an argument
    run = net.run(rows, keep=["z.1"], logits="last")
    for i, row in enumerate(rows):
        wanted = model(torch.tensor([row]))[0, -1]
        assert torch.allclose(run.logits[i, 0], wanted, atol=1e-5)
    assert net.run([[1, 2, 3]], keep=["z.0"], pos=-1)["z.0"].shape[1] == 1
    assert net.is_causal


def test_d_prompts_beyond_the_embedded_positions_are_refused():
    net = cutaway.open(own("einsum"), example={"x": prompts()})
    with pytest.raises(cutaway_errors.TooLong, match="context of this network is 9"):
        net.run([list(range(10))])
    with pytest.raises(cutaway_errors.BadInput, match="outside the vocabulary of 23"):
        net.run([[23]])


def test_d_an_index_beyond_a_table_becomes_a_sentence():
    class Padded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = own("linear")

        def forward(self, x):
            return self.inner(torch.nn.functional.pad(x, (1, 0)))

    net = cutaway.open(Padded().eval(), example={"x": prompts()})
    with pytest.raises(cutaway_errors.BadInput, match="forward of Padded failed"):
        net.run([list(range(9))])
    with pytest.raises(cutaway_errors.UnknownOption, match="no option 'y'"):
        net.run({"y": prompts()})


def test_d_a_head_of_zeros_costs_nothing():
    model = own("linear")
    with torch.no_grad():
        for part in (model.blocks[0].attn.q, model.blocks[0].attn.k, model.blocks[0].attn.v):
            part.weight[:4] = 0
            part.bias[:4] = 0
        model.blocks[0].attn.o.weight[:, :4] = 0
    net = cutaway.open(model, example={"x": prompts()})
    assert all(net.has(f"{name}.{i}") for name in ("q", "k", "v", "z", "pattern", "head_out") for i in (0, 1))


def test_d_a_refused_pattern_does_not_refuse_z():
    from own_modules import LinearAttention, Stack, block_of, causal

    class Scaled(LinearAttention):
        """Weighs each source by its position after the softmax, so that the softmax's output is not what is used."""

        def forward(self, x):
            q, k, v = (self.split(m(x)) for m in (self.q, self.k, self.v))
            pattern = causal(q @ k.transpose(-1, -2)).softmax(-1)
            used = pattern * torch.linspace(0.5, 1.5, x.shape[1])
            return self.o((used @ v).transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    net = cutaway.open(Stack(block_of(Scaled), SHAPE).eval(), example={"x": prompts()})
    assert not net.has("pattern")
    assert "pattern @ v = z does not hold" in net.refusal("pattern.0")
    assert net.has("z")
    assert net.has("head_out")


@pytest.mark.parametrize("style", ["linear", "einsum"])
def test_d_prompts_are_checked_against_the_tokens_that_are_read(style):
    """An algorithmic network: more tokens go in than come out."""
    model = own(style)
    with torch.no_grad():
        if style == "linear":
            model.head = torch.nn.Linear(SHAPE.width, 5, bias=False)
        else:
            model.W_U, model.b_U = (torch.nn.Parameter(p[..., :5].clone()) for p in (model.W_U, model.b_U))
    net = cutaway.open(model, example={"x": prompts()})
    assert (net.d_vocab, net.d_vocab_in) == (5, SHAPE.vocab)
    check_fits(net, "sums", [(20, 22, 3)])
    with pytest.raises(cutaway_errors.BadBehaviour, match="vocabulary ends at 22"):
        check_fits(net, "sums", [(23, 1)])


def test_d_a_network_whose_eager_attention_does_not_run_opens():
    from transformers import MiniCPM3Config, MiniCPM3ForCausalLM

    torch.manual_seed(0)
    config = MiniCPM3Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64, intermediate_size=48
    )  # 32 key-value heads by default, and so no group for eager's repeated keys
    net = cutaway.open(MiniCPM3ForCausalLM(config).eval())
    assert net.n_layers == 2
    assert all(net.has(name) for name in ("q", "k", "v", "z", "mlp_act", "logits"))
    assert "does not run with its eager attention" in net.refusal("pattern.0")


def test_d_use_leaves_out_text_that_a_network_does_not_predict():
    """More tokens go in than come out, so that there is no cross-entropy on text."""
    from types import SimpleNamespace

    from cutaway.network.sites import Site
    from cutaway.probes.use.unrelated import cross_entropy, side_effect

    model = own("linear")
    model.head = torch.nn.Linear(SHAPE.width, 5, bias=False)
    net = cutaway.open(model, example={"x": prompts()})
    tokens = net.encode(prompts())
    spot, bed = SimpleNamespace(site=Site("resid_post", 0), head=None), SimpleNamespace(tokens=tokens)
    moving = SimpleNamespace(net=net, spot=spot, bed=bed, seed=0)
    assert side_effect(moving, (), torch.zeros(1, SHAPE.width), None) is None
    with pytest.raises(cutaway_errors.BadInput, match="does not predict the tokens that it reads"):
        cross_entropy(net, tokens)


@pytest.mark.parametrize("style", [s for s in STYLES if s != "bare"])
def test_d_a_circuit_graph_of_a_context_of_three(style):
    net = cutaway.open(own(style, Shape(context=3)), example={"x": prompts(columns=3)})
    graph = wiring(net).graph
    assert {part.kind for part in graph.writers} == {"input", "head", "mlp"}
    assert sum(part.kind == "head" for part in graph.writers) == SHAPE.layers * SHAPE.heads


SPELLINGS = [
    ("bqhe,bkhe->bhqk", "bhqk,bkhe->bqhe"),
    ("b k h e, b q h e -> b h q k", "b k h e, b h q k -> b q h e"),
    ("...qhe,...khe->...hqk", "...hqk,...khe->...qhe"),
    ("iqhe,ikhe->hiqk", None),
]


@pytest.mark.parametrize(("score", "average"), SPELLINGS)
def test_d_einsums_are_read_whatever_their_letters_and_order(score, average):
    """The axes are told from the equation; one that is not understood is an opaque mixer, not a wrong reading."""
    from own_modules import EinsumAttention, causal

    class Spelt(EinsumAttention):
        def forward(self, x):
            q = torch.einsum("b p d, h d e -> b p h e", x, self.W_Q) + self.b_Q
            k = F.linear(x, self.W_K.transpose(1, 2).flatten(0, 1), self.b_K.flatten()).unflatten(
                -1, (SHAPE.heads, -1)
            )
            v = (x[:, None] @ self.W_V).transpose(1, 2) + self.b_V
            first = score.replace(" ", "").split(",")[0]
            scores = torch.einsum(score, *((q, k) if "q" in first else (k, q))) / math.sqrt(SHAPE.head_width)
            pattern = causal(scores).softmax(-1)
            if average is None:
                z = torch.einsum("hiqk,ikhe->iqhe", pattern, v)
            else:
                z = torch.einsum(average, *((v, pattern) if "e" in average.split(",")[0] else (pattern, v)))
            return z.flatten(2) @ self.W_O.flatten(0, 1) + self.b_O

    model = own("einsum")
    for block in model.blocks:
        block.attn.forward = Spelt.forward.__get__(block.attn)
    x = prompts(seed=6)
    net = cutaway.open(model, example={"x": prompts()})
    wanted = by_hand("einsum", model, x)
    for name in ("q.1", "k.0", "v.1", "pattern.1", "z.0", "head_out.1"):
        assert torch.allclose(net.run({"x": x}, keep=[name])[name], wanted[name], atol=1e-5), name
        edited = by_hand("einsum", model, x, {name: noised})["logits"]
        got = net.run({"x": x}, edits=[cutaway.Apply(name, noised)]).logits
        assert torch.allclose(got, edited, atol=2e-5), name


@pytest.mark.parametrize("columns", [2, 6])
def test_d_an_opaque_attention_is_no_mlp(columns):
    """Queries, keys and values are handed over apart; only keys and values reach other positions."""

    class Opaque(torch.nn.Module):
        def __init__(self, s):
            super().__init__()
            self.inner = torch.nn.MultiheadAttention(s.width, s.heads, batch_first=True)

        def forward(self, x):
            return self.inner(x, x.clone(), x.clone(), need_weights=False)[0]

    class Block(torch.nn.Module):
        def __init__(self, s):
            super().__init__()
            self.norm, self.attn = (
                torch.nn.LayerNorm(s.width),
                torch.nn.MultiheadAttention(s.width, s.heads, batch_first=True),
            )

        def forward(self, x):
            y = self.norm(x)
            return x + self.attn(y, y.clone(), y.clone(), need_weights=False)[0]

    from own_modules import Stack, block_of

    torch.manual_seed(0)
    for block in (block_of(Opaque), Block):
        net = cutaway.open(Stack(block, Shape(context=6)).eval(), example={"x": prompts(columns=columns)})
        assert net.anatomy.stack().layers[0].sublayers[0].kind == "mixer"
