"""Writing is as exact as reading: an edit through Cutaway equals the same edit by hand in the bare model.

The hand's side uses bare PyTorch hooks at places that are written down here for each architecture, and
nothing of Cutaway. The inside of attention (q, k, v, scores, pattern) is in `test_exact_attention.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cutaway
from cutaway.interventions import Ablate, Add, Patch, Scale
from cutaway.network.network import Network
from cutaway.zoo.tiny import example_input, tiny

LAYER, POS, HEAD, NEURON = 1, 3, 1, 5


@dataclass(frozen=True)
class Bed:
    """One architecture, and where by hand its parts are: paths below a layer unless they start with '/'."""

    kind: str
    layers: str
    attn: str
    o: str
    mlp: str
    down: str | None
    norm: str | None = None
    task: str | None = None
    stack: str = ""
    attn_write: str | None = None
    mlp_write: str | None = None
    mid: str | None = "sum"
    factor: float = 1.0
    causal: bool = True
    gated: bool = False  # z is multiplied by a gate before the output projection
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.kind}-{self.stack}" if self.stack else self.kind


_LLAMA = ("model.layers", "self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj", "model.norm")
_SANDWICH = {"attn_write": "post_attention_layernorm", "mlp_write": "post_feedforward_layernorm"}
_MOE = ("model.layers", "self_attn", "self_attn.o_proj", "mlp", None, "model.norm")
_BART = ("self_attn", "self_attn.out_proj", "fc2", "fc2")

BEDS = [
    Bed("gpt2", "transformer.h", "attn", "attn.c_proj", "mlp", "mlp.c_proj", "transformer.ln_f"),
    Bed(
        *("gpt_neox", "gpt_neox.layers", "attention", "attention.dense", "mlp", "mlp.dense_4h_to_h"),
        *("gpt_neox.final_layer_norm",),
        mid=None,
    ),
    Bed("llama", *_LLAMA),
    Bed("gemma2", *_LLAMA, **_SANDWICH),
    Bed("gemma3_text", *_LLAMA, **_SANDWICH),
    Bed("qwen3", *_LLAMA),
    Bed("mixtral", *_MOE),
    Bed("gpt_oss", *_MOE),
    Bed(
        "jamba",
        "model.layers",
        "self_attn",
        "self_attn.o_proj",
        "feed_forward",
        None,
        "model.final_layernorm",
    ),
    Bed("qwen3_next", *_MOE, gated=True),
    Bed("opt", "model.decoder.layers", *_BART, "model.decoder.final_layer_norm"),
    Bed(
        *("bloom", "transformer.h", "self_attention.dense", "self_attention.dense", "mlp.dense_4h_to_h"),
        *("mlp.dense_4h_to_h", "transformer.ln_f"),
    ),
    Bed("gptj", "transformer.h", "attn", "attn.out_proj", "mlp", "mlp.fc_out", "transformer.ln_f", mid=None),
    Bed(
        *("falcon", "transformer.h", "self_attention", "self_attention.dense", "mlp", "mlp.dense_4h_to_h"),
        *("transformer.ln_f",),
        mid=None,
    ),
    Bed(
        "phi",
        "model.layers",
        "self_attn",
        "self_attn.dense",
        "mlp",
        "mlp.fc2",
        "model.final_layernorm",
        mid=None,
    ),
    Bed("cohere", *_LLAMA, mid=None),
    Bed("olmo2", *_LLAMA, **_SANDWICH),
    Bed("granite", *_LLAMA, factor=0.6),
    Bed(
        *(
            "t5",
            "decoder.block",
            "layer.0.SelfAttention",
            "layer.0.SelfAttention.o",
            "layer.2.DenseReluDense",
        ),
        *("layer.2.DenseReluDense.wo", "decoder.final_layer_norm"),
        task="seq2seq",
        mid=None,
    ),
    Bed(
        *(
            "t5",
            "encoder.block",
            "layer.0.SelfAttention",
            "layer.0.SelfAttention.o",
            "layer.1.DenseReluDense",
        ),
        *("layer.1.DenseReluDense.wo",),
        task="seq2seq",
        stack="encoder",
        causal=False,
    ),
    Bed("bart", "model.decoder.layers", *_BART, task="seq2seq", mid=None),
    Bed(
        "bart",
        "model.encoder.layers",
        *_BART,
        task="seq2seq",
        stack="encoder",
        mid="self_attn_layer_norm",
        causal=False,
    ),
    Bed(
        *("bert", "bert.encoder.layer", "attention.output.dense", "attention.output.dense", "output.dense"),
        *("output.dense",),
        task="masked-lm",
        mid="attention.output.LayerNorm",
        causal=False,
    ),
    Bed(
        "vit", "vit.layers", "attention", "attention.o_proj", "mlp", "mlp.fc2", "vit.layernorm", causal=False
    ),
]
NAMES = [bed.name for bed in BEDS]

#: What must be offered at layer LAYER; the rest of the sites are tested where they are offered.
NEEDED = {
    "resid_pre",
    "resid_post",
    "z",
    "attn_out",
    "attn_write",
    "mlp_out",
    "mlp_write",
    "q",
    "k",
    "v",
    "pattern",
}


@functools.cache
def bare(name: str) -> nn.Module:
    """The bare model of a bed; tests leave it as they found it."""
    bed = BEDS[NAMES.index(name)]
    return tiny(bed.kind, task=bed.task, **bed.fields)


@functools.cache
def opened(name: str) -> Network:
    """Cutaway's view of another model with the same weights."""
    bed = BEDS[NAMES.index(name)]
    return cutaway.open(tiny(bed.kind, task=bed.task, **bed.fields))


@functools.cache
def inputs(name: str) -> dict[str, Any]:
    """Keyword arguments of one forward."""
    given = example_input(bare(name))
    given.pop("attention_mask", None)
    return given


@pytest.fixture(params=NAMES)
def bed(request: pytest.FixtureRequest) -> Bed:
    """Each architecture in turn."""
    return BEDS[NAMES.index(request.param)]


def layer_of(bed: Bed, index: int = LAYER) -> nn.Module:
    """The bare model's layer."""
    return bare(bed.name).get_submodule(bed.layers)[index]  # type: ignore[index]


def site(bed: Bed, name: str) -> str:
    """A site of this bed's stack at LAYER."""
    prefix = f"{bed.stack}." if bed.stack else ""
    return f"{prefix}{name}.{LAYER}"


def offered(bed: Bed, name: str) -> bool:
    """Whether the network has the site at LAYER."""
    return site(bed, name) in {str(s) for s in opened(bed.name).sites()}


def first(value: Any) -> Tensor:
    """A module's tensor: its output, or the first of its outputs."""
    return value if torch.is_tensor(value) else value[0]


@contextmanager
def before(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """By hand: replace the first tensor that a module is given."""

    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        key = (
            "hidden_states"
            if "hidden_states" in kwargs
            else next(k for k, v in kwargs.items() if torch.is_tensor(v))
        )
        return args, {**kwargs, key: change(kwargs[key])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def after(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """By hand: replace the first tensor that a module gives."""

    def hook(_: nn.Module, args: Any, out: Any) -> Any:
        return change(out) if torch.is_tensor(out) else (change(out[0]), *out[1:])

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def hand_logits(bed: Bed, *contexts: Any) -> Tensor:
    """The bare model's logits while the given hooks are in place."""
    with ExitStack() as stack, torch.no_grad():
        for context in contexts:
            stack.enter_context(context)
        return bare(bed.name)(**inputs(bed.name)).logits


def captured(bed: Bed, module: nn.Module, side: str) -> Tensor:
    """The first tensor that a module of the bare model is given ('in') or gives ('out')."""
    seen: list[Tensor] = []

    def look(value: Tensor) -> Tensor:
        seen.append(value.detach().clone())
        return value

    hand_logits(bed, before(module, look) if side == "in" else after(module, look))
    return seen[0]


def agree(ours: Tensor, hands: Tensor, plain: Tensor) -> None:
    """The same to 1e-5 of the logits' size, and truly different from the run without the edit."""
    scale = float(hands.abs().max())
    torch.testing.assert_close(ours, hands, rtol=1e-5, atol=1e-5 * scale)
    assert float((hands - plain).abs().max()) > 1e-3 * scale, (
        "the edit changed nothing, so the test shows nothing"
    )


def run_logits(bed: Bed, *edits: Any) -> Tensor:
    """Logits through Cutaway under edits."""
    return opened(bed.name).run(inputs(bed.name), edits=list(edits)).logits


def random_like(value: Tensor, seed: int = 7) -> Tensor:
    """Random numbers of a tensor's size."""
    spread = value[value.abs() < 1e4].std()
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)) * spread


def at_pos(new: Tensor, pos: int = POS) -> Callable[[Tensor], Tensor]:
    """A change that takes one position from `new`; a flattened tensor is brought to [b p d] and back."""

    def change(old: Tensor) -> Tensor:
        out = old.reshape(new.shape).clone()
        out[:, pos] = new[:, pos]
        return out.reshape(old.shape)

    return change


def test_every_bed_offers_what_it_must(bed: Bed) -> None:
    net = opened(bed.name)
    missing = {name for name in NEEDED if not offered(bed, name)}
    assert not missing, {name: net.refusal(site(bed, name)) for name in missing}


def test_nothing_read_or_written_is_the_bare_model_bitwise(bed: Bed) -> None:
    assert torch.equal(run_logits(bed), hand_logits(bed))


def test_reading_every_site_leaves_logits_alone(bed: Bed) -> None:
    net, plain = opened(bed.name), hand_logits(bed)
    for place in net.sites():
        ours = net.run(inputs(bed.name), keep=[place]).logits
        if place.name.removeprefix("cross_") in ("scores", "pattern"):
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
        else:
            assert torch.equal(ours, plain), str(place)


def test_writing_back_what_was_read_leaves_logits_alone(bed: Bed) -> None:
    net, plain = opened(bed.name), hand_logits(bed)
    scale = float(plain.abs().max())
    for place in net.sites():
        value = net.run(inputs(bed.name), keep=[place])[place]
        if not value.is_floating_point():
            continue
        ours = net.run(inputs(bed.name), edits=[Patch(place, value.clone())]).logits
        error = float((ours - plain).abs().max()) / scale
        assert error <= 2e-6, f"{place}: {error}"


def test_every_site_can_be_changed(bed: Bed) -> None:
    """Random numbers written at a site change the logits (routing weights choose experts, so they are left out)."""
    net, plain = opened(bed.name), hand_logits(bed)
    for place in net.sites():
        value = net.run(inputs(bed.name), keep=[place])[place]
        if value.is_floating_point() and place.name != "router":
            ours = net.run(inputs(bed.name), edits=[Patch(place, random_like(value))]).logits
            assert not torch.allclose(ours, plain, rtol=1e-6, atol=1e-7), str(place)


def test_reads_equal_what_hooks_see(bed: Bed) -> None:
    net, layer = opened(bed.name), layer_of(bed)
    names = ["resid_pre", "resid_post", "z", "attn_out", "mlp_out", "attn_write", "mlp_write"]
    run = net.run(inputs(bed.name), keep=[site(bed, n) for n in names])
    ours = {n: run[site(bed, n)] for n in names}
    stream = captured(bed, layer, "in")
    hands = {
        "resid_pre": stream,
        "resid_post": captured(bed, layer, "out"),
        "z": captured(bed, layer.get_submodule(bed.o), "in").reshape(ours["z"].shape),
        "attn_out": captured(bed, layer.get_submodule(bed.attn), "out"),
        "mlp_out": captured(bed, layer.get_submodule(bed.mlp), "out").reshape(stream.shape),
        "attn_write": captured(bed, layer.get_submodule(bed.attn_write or bed.attn), "out") * bed.factor,
        "mlp_write": captured(bed, layer.get_submodule(bed.mlp_write or bed.mlp), "out").reshape(stream.shape)
        * bed.factor,
    }
    if bed.gated:
        del hands["z"]
    for name, hand in hands.items():
        torch.testing.assert_close(ours[name], hand, rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["resid_pre", "resid_post"])
def test_replacing_the_stream_at_one_position(bed: Bed, name: str) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    new = random_like(captured(bed, layer, "in"))
    wrap = before if name == "resid_pre" else after
    agree(
        run_logits(bed, Patch(site(bed, name), new, pos=POS)),
        hand_logits(bed, wrap(layer, at_pos(new))),
        plain,
    )


def test_replacing_the_stream_between_sublayers(bed: Bed) -> None:
    if bed.mid is None:
        if bed.kind in ("t5", "bart"):
            pytest.skip("between the self-attention and the MLP of a decoder lies the cross-attention")
        assert not offered(bed, "resid_mid")
        return
    layer, plain = layer_of(bed), hand_logits(bed)
    stream = captured(bed, layer, "in")
    new = random_like(stream)
    if bed.mid != "sum":
        hands = hand_logits(bed, after(layer.get_submodule(bed.mid), at_pos(new)))
    else:
        hands = hand_logits(
            bed, after(layer.get_submodule(bed.attn_write or bed.attn), at_pos((new - stream) / bed.factor))
        )
    agree(run_logits(bed, Patch(site(bed, "resid_mid"), new, pos=POS)), hands, plain)


def test_zeroing_one_head(bed: Bed) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    z = opened(bed.name).run(inputs(bed.name), keep=[site(bed, "z")])[site(bed, "z")]

    def zero(old: Tensor) -> Tensor:
        out = old.reshape(z.shape).clone()
        out[:, :, HEAD] = 0
        return out.reshape(old.shape)

    hands = hand_logits(bed, before(layer.get_submodule(bed.o), zero))
    agree(run_logits(bed, Ablate(site(bed, "z"), "zero", head=HEAD)), hands, plain)


@pytest.mark.parametrize("name", ["attn_out", "mlp_out"])
def test_adding_to_what_a_sublayer_gives(bed: Bed, name: str) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    module = layer.get_submodule(getattr(bed, name.split("_")[0]))
    stream = captured(bed, layer, "in")
    vector = random_like(stream[0, 0])

    def push(old: Tensor) -> Tensor:
        out = old.reshape(stream.shape).clone()
        out[:, POS] += 2.5 * vector
        return out.reshape(old.shape)

    agree(
        run_logits(bed, Add(site(bed, name), vector, 2.5, pos=POS)),
        hand_logits(bed, after(module, push)),
        plain,
    )


@pytest.mark.parametrize("name", ["attn_write", "mlp_write"])
def test_scaling_what_a_sublayer_writes(bed: Bed, name: str) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    path = getattr(bed, name) or getattr(bed, name.split("_")[0])
    hands = hand_logits(bed, after(layer.get_submodule(path), lambda old: old * 0.3))
    agree(run_logits(bed, Scale(site(bed, name), 0.3)), hands, plain)


def test_zeroing_the_mlp_at_the_last_position(bed: Bed) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    nothing = torch.zeros_like(captured(bed, layer, "in"))
    hands = hand_logits(bed, after(layer.get_submodule(bed.mlp), at_pos(nothing, -1)))
    agree(run_logits(bed, Ablate(site(bed, "mlp_out"), "zero", pos=-1)), hands, plain)


def test_adding_to_what_the_attention_writes(bed: Bed) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    stream = captured(bed, layer, "in")
    vector = random_like(stream[0, 0])

    def push(old: Tensor) -> Tensor:
        out = old.clone()
        out[:, POS] += 2.5 * vector / bed.factor
        return out

    hands = hand_logits(bed, after(layer.get_submodule(bed.attn_write or bed.attn), push))
    agree(run_logits(bed, Add(site(bed, "attn_write"), vector, 2.5, pos=POS)), hands, plain)


def test_changing_one_neuron(bed: Bed) -> None:
    if bed.down is None:
        pytest.skip("a mixture of experts has no one down projection")
    assert offered(bed, "mlp_act"), opened(bed.name).refusal(site(bed, "mlp_act"))
    layer, plain = layer_of(bed), hand_logits(bed)
    shape = (*captured(bed, layer, "in").shape[:2], -1)

    def set_neuron(old: Tensor) -> Tensor:
        out = old.clone()
        out[..., NEURON] = 3.0
        return out

    act = captured(bed, layer.get_submodule(bed.down), "in").reshape(shape)
    hands = hand_logits(bed, before(layer.get_submodule(bed.down), set_neuron))
    agree(
        run_logits(bed, Patch(site(bed, "mlp_act"), torch.full_like(act, 3.0), neuron=NEURON)), hands, plain
    )


@pytest.mark.parametrize("name", ["attn_in", "mlp_in"])
def test_changing_what_a_sublayer_reads_changes_only_that(bed: Bed, name: str) -> None:
    if not offered(bed, name):
        assert opened(bed.name).refusal(site(bed, name))
        return
    if bed.kind in ("opt", "bart", "bert", "bloom"):
        pytest.skip("attention or MLP is not one module there, so no one hook sits at its input")
    layer, plain = layer_of(bed), hand_logits(bed)
    module = layer.get_submodule(getattr(bed, name.split("_")[0]))
    new = random_like(captured(bed, module, "in"))
    agree(
        run_logits(bed, Patch(site(bed, name), new, pos=POS)),
        hand_logits(bed, before(module, at_pos(new))),
        plain,
    )


def test_changing_the_final_norm_and_the_logits(bed: Bed) -> None:
    if bed.norm is None:
        pytest.skip("no norm stands before the unembedding of this stack")
    module, plain = bare(bed.name).get_submodule(bed.norm), hand_logits(bed)
    new = random_like(captured(bed, module, "out"))
    agree(
        run_logits(bed, Patch("final_norm", new, pos=0)),
        hand_logits(bed, after(module, at_pos(new, 0))),
        plain,
    )
    if plain.ndim == 3:
        written = run_logits(bed, Patch("logits", torch.full_like(plain, 2.0), pos=POS))
        assert torch.equal(written, at_pos(torch.full_like(plain, 2.0))(plain))


def test_a_causal_edit_leaves_earlier_positions_alone(bed: Bed) -> None:
    if not bed.causal:
        pytest.skip("this stack looks both ways")
    plain = hand_logits(bed)
    ours = run_logits(bed, Ablate(site(bed, "resid_pre"), "zero", pos=POS))
    torch.testing.assert_close(ours[:, :POS], plain[:, :POS], rtol=1e-6, atol=1e-6)


def test_several_edits_together(bed: Bed) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    new = random_like(captured(bed, layer, "in"))
    hands = hand_logits(
        bed,
        before(layer, at_pos(new)),
        after(layer.get_submodule(bed.attn), lambda old: old * 0.5),
        after(layer.get_submodule(bed.mlp), lambda old: old * 1.5),
    )
    edits = [
        *(Scale(site(bed, "mlp_out"), 1.5), Scale(site(bed, "attn_out"), 0.5)),
        Patch(site(bed, "resid_pre"), new, pos=POS),
    ]
    agree(run_logits(bed, *edits), hands, plain)


def test_one_row_of_a_batch(bed: Bed) -> None:
    layer, plain = layer_of(bed), hand_logits(bed)
    new = random_like(captured(bed, layer, "in"))

    def second_row(old: Tensor) -> Tensor:
        out = old.clone()
        out[1, POS] = new[1, POS]
        return out

    ours = run_logits(bed, Patch(site(bed, "resid_pre"), new, pos=POS, row=1))
    agree(ours, hand_logits(bed, before(layer, second_row)), plain)
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-6, atol=1e-6)
