"""Discovery on layers drawn at random: the form, the writers and their factors are those the layer was written with."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import cutaway
from cutaway.network.anatomy import SumTap
from cutaway.network.discovery.linear import Sums
from cutaway.network.discovery.trace import record
from cutaway.zoo.tiny import tiny

WIDTH = 12


class Attention(nn.Module):
    """Causal attention written out in a module's own code."""

    def __init__(self, heads=3):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(q, k.transpose(-1, -2)) / 2.0
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        pattern = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1)
        return self.out(torch.matmul(pattern, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer by description: parallel or in turn, norms before or after, factors, in place or not."""

    def __init__(self, parallel, post, multiplier, per_channel, in_place, nested):
        super().__init__()
        self.attention, self.mlp = (
            Attention(),
            nn.Sequential(nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, WIDTH)),
        )
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5) if per_channel else None
        self.drop = nn.Dropout(0.5)
        self.parallel, self.post, self.multiplier, self.in_place, self.nested = (
            parallel,
            post,
            multiplier,
            in_place,
            nested,
        )

    def write(self, stream, update):
        update = self.drop(update) * self.multiplier
        if self.scale is not None:
            update = update * self.scale
        if self.in_place:
            stream = stream.clone()
            stream += update
            return stream
        return update + stream

    def forward(self, x):
        if self.post:
            x = self.norm1(self.write(x, self.attention(x)))
            x = self.norm2(self.write(x, self.mlp(x)))
        elif self.parallel:
            y = self.norm1(x)
            x = self.write(self.write(x, self.attention(y)), self.mlp(y))
        else:
            x = self.write(x, self.attention(self.norm1(x)))
            x = self.write(x, self.mlp(self.norm2(x)))
        return (x, None) if self.nested else x


class Net(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


def build(seed, **how):
    torch.manual_seed(seed)
    model = Net([Layer(**how) for _ in range(2)]).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model, {"x": torch.randn(2, 6, WIDTH)}


HOW = st.fixed_dictionaries(
    {
        "parallel": st.booleans(),
        "post": st.booleans(),
        "multiplier": st.sampled_from([1.0, 0.25, -1.5]),
        "per_channel": st.booleans(),
        "in_place": st.booleans(),
        "nested": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(how=HOW, seed=st.integers(0, 10**6))
def test_a_layer_is_read_as_it_was_written(how, seed):
    model, example = build(seed, **how)
    net = cutaway.open(model, example=example)
    layer = net.anatomy.stack().layers[0]
    assert layer.form == ("post-norm" if how["post"] else "parallel" if how["parallel"] else "sequential")
    assert [s.kind for s in layer.sublayers] == ["attention", "mlp"]
    expected = torch.full((WIDTH,), how["multiplier"])
    if how["per_channel"]:
        expected = expected * model.layers[0].scale.detach()
    for sub in layer.sublayers:
        assert torch.allclose(torch.as_tensor(sub.factor).expand(WIDTH), expected, rtol=1e-5)
    names = ["attn_write", "mlp_write", "resid_pre", "resid_post", "pattern", "z", "q", "mlp_act", "head_out"]
    assert all(net.has(f"{n}.{i}") for n in names for i in range(2)), net.certificate.refusals
    assert net.has("resid_mid.0") == (how["post"] or not how["parallel"])
    assert net.certificate.bitwise is None  # it gives states, no logits: nothing was compared
    # an edit of a write is the edit of what is added
    x = example["x"]
    edited = net.run(x, keep=["resid_post.0"], edits=[cutaway.Ablate("mlp_write.0")])["resid_post.0"]
    model.layers[0].mlp.register_forward_hook(lambda m, a, out: out * 0)
    by_hand = model.layers[0](x)
    by_hand = by_hand[0] if isinstance(by_hand, tuple) else by_hand
    assert torch.allclose(edited, by_hand, atol=1e-5)


def test_sums_follow_in_place_additions_and_forms():
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = a, b

        def forward(self, x):
            y = x.clone()
            y += 2 * self.a(x)
            return (y.reshape(-1, 4) - self.b(x).reshape(-1, 4)).view(x.shape) / 4

    model, x = Two(), torch.randn(2, 3, 4)
    trace, _ = record(model, lambda recorder: model(x))
    sums = Sums(trace)
    root = trace.calls[0]
    source, result = root.inputs[0][1], root.outputs[0][1]
    parts = sums.expand(result, trace.inside(0), frozenset({sums.root(source)}))
    weights = {
        sums.owner(v, trace.inside(0))[0].path if v != sums.root(source) else "x": c for v, c in parts.items()
    }
    assert weights == {"x": 0.25, "a": 0.5, "b": -0.25}
    assert trace.in_place


def test_a_shared_layer_is_several_layers():
    model, example = build(
        0, parallel=False, post=False, multiplier=1.0, per_channel=False, in_place=False, nested=False
    )
    model.layers = nn.ModuleList([model.layers[0]] * 3)
    net = cutaway.open(model, example=example)
    assert net.n_layers == 3
    run = net.run(
        example["x"], keep=["resid_pre", "resid_post", "z"], edits=[cutaway.Ablate("z", layer=1, head=0)]
    )
    assert torch.equal(run["resid_post.0"], run["resid_pre.1"])
    assert not run["z.1"][:, :, 0].any()
    assert run["z.0"][:, :, 0].any()
    assert run["z.2"][:, :, 0].any()


def test_what_no_module_hands_over_is_a_sum():
    model, example = build(
        1, parallel=False, post=False, multiplier=0.5, per_channel=False, in_place=True, nested=True
    )
    net = cutaway.open(model, example=example)
    tap = net.tap(net.resolve("resid_mid.0")[0])
    assert isinstance(tap, SumTap)
    assert net.anatomy.in_place


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_a_norm_that_casts_and_casts_back_hides_no_sublayer(kind: str, dtype: torch.dtype) -> None:
    net, whole = cutaway.open(tiny(kind).to(dtype)), cutaway.open(tiny(kind))
    stack, other = net.anatomy.stack(), whole.anatomy.stack()
    assert stack is not None
    assert other is not None
    for layer, wanted in zip(stack.layers, other.layers, strict=True):
        assert layer.form == wanted.form == "sequential"
        assert [s.kind for s in layer.sublayers] == ["attention", "mlp"]
    assert net.layers_with("z") == whole.layers_with("z")
    assert net.layers_with("mlp_act") == whole.layers_with("mlp_act")
