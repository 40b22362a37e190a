"""Queries, keys, values, scores and pattern: an edit inside attention equals the same edit by hand.

By hand means: the model's own functions or methods are replaced, in the test, by plain versions that
make the edit (an attention written out here in a dozen lines; it is first shown to equal the model's own).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cutaway
from cutaway.interventions import Ablate, Patch
from cutaway.network.network import Network
from cutaway.zoo.tiny import example_input, tiny

LAYER, POS, HEAD = 1, 4, 1

Edit = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Bed:
    """One architecture whose attention is on transformers' registry, and where layer LAYER's attention is."""

    kind: str
    attention: str
    task: str | None = None
    stack: str = ""

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.kind}-{self.stack}" if self.stack else self.kind


_SELF = "model.layers.1.self_attn"
REGISTRY = [
    Bed("gpt2", "transformer.h.1.attn"),
    Bed("gpt_neox", "gpt_neox.layers.1.attention"),
    *(
        Bed(kind, _SELF)
        for kind in ("llama", "gemma2", "gemma3_text", "qwen3", "mixtral", "gpt_oss", "jamba")
    ),
    *(Bed(kind, _SELF) for kind in ("qwen3_next", "phi", "cohere", "olmo2", "granite", "deepseek_v3")),
    Bed("opt", "model.decoder.layers.1.self_attn"),
    Bed("t5", "decoder.block.1.layer.0.SelfAttention", "seq2seq"),
    Bed("t5", "encoder.block.1.layer.0.SelfAttention", "seq2seq", "encoder"),
    Bed("bart", "model.decoder.layers.1.self_attn", "seq2seq"),
    Bed("bart", "model.encoder.layers.1.self_attn", "seq2seq", "encoder"),
    Bed("bert", "bert.encoder.layer.1.attention.self", "masked-lm"),
    Bed("vit", "vit.layers.1.attention"),
]
NAMES = [bed.name for bed in REGISTRY]
OTHERS = ["bloom", "gptj", "falcon"]


@functools.cache
def bare(kind: str, task: str | None, implementation: str | None) -> nn.Module:
    """The bare model; tests leave it as they found it."""
    return tiny(kind, task=task, attn_implementation=implementation)


@functools.cache
def opened(kind: str, task: str | None, implementation: str | None) -> Network:
    """Cutaway's view of another model with the same weights."""
    return cutaway.open(tiny(kind, task=task, attn_implementation=implementation))


@functools.cache
def inputs(kind: str, task: str | None) -> dict[str, Any]:
    """Keyword arguments of one forward."""
    given = example_input(bare(kind, task, None))
    given.pop("attention_mask", None)
    return given


def written_out(target: nn.Module, edit: Edit) -> Callable[..., tuple[Tensor, Tensor]]:
    """Attention as the papers write it, with `edit` applied to every part of one module's."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        change: Edit = edit if module is target else lambda _, part: part
        q, k, v = (
            change(n, t.transpose(1, 2)).transpose(1, 2)
            for n, t in zip("qkv", (query, key, value), strict=True)
        )
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = scores if softcap is None else softcap * (scores / softcap).tanh()
        scores = scores if position_bias is None else scores + position_bias
        scores = scores if attention_mask is None else scores + attention_mask[..., : k.shape[-2]]
        scores = change("scores", scores)
        sinks = getattr(module, "sinks", None)
        if sinks is None:
            pattern = scores.softmax(-1)
        else:
            extra = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
            pattern = torch.cat([scores, extra], -1).softmax(-1)[..., :-1]
        pattern = change("pattern", pattern)
        return change("z", (pattern @ v).transpose(1, 2)).contiguous(), pattern

    return attend


def by_hand(bed: Bed, edit: Edit, patch: pytest.MonkeyPatch) -> Tensor:
    """Logits of the bare model with its module's eager attention replaced by ours."""
    model = bare(bed.kind, bed.task, "eager")
    target = model.get_submodule(bed.attention)
    home = sys.modules[type(target).__module__]
    with patch.context() as patched, torch.no_grad():
        patched.setattr(home, "eager_attention_forward", written_out(target, edit))
        return model(**inputs(bed.kind, bed.task)).logits


def replacing(name: str, new: Tensor, index: tuple[Any, ...]) -> Edit:
    """An edit that takes part of one site from `new`."""

    def edit(part: str, old: Tensor) -> Tensor:
        if part != name:
            return old
        out = old.clone()
        out[index] = new[index]
        return out

    return edit


def close(ours: Tensor, hands: Tensor) -> None:
    """The same to 1e-5 of the logits' size."""
    torch.testing.assert_close(ours, hands, rtol=1e-5, atol=1e-5 * float(hands.abs().max()))


def agree(ours: Tensor, hands: Tensor, plain: Tensor) -> None:
    """The same, and truly different from the run without the edit."""
    close(ours, hands)
    assert float((hands - plain).abs().max()) > 1e-4 * float(plain.abs().max())


def site(bed: Bed, name: str) -> str:
    """A site of this bed's stack at LAYER."""
    return f"{bed.stack}.{name}.{LAYER}" if bed.stack else f"{name}.{LAYER}"


def random_like(value: Tensor, seed: int = 3) -> Tensor:
    """Random numbers of a tensor's size."""
    spread = value[value.isfinite()].clamp(-10, 10).std()
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.fixture(params=NAMES)
def bed(request: pytest.FixtureRequest) -> Bed:
    """Each architecture in turn."""
    return REGISTRY[NAMES.index(request.param)]


@pytest.fixture(params=["eager", "default"])
def net(request: pytest.FixtureRequest, bed: Bed) -> Network:
    """The same network with the model's eager attention, and with the one it comes with (often sdpa)."""
    return opened(bed.kind, bed.task, "eager" if request.param == "eager" else None)


def given(bed: Bed) -> dict[str, Any]:
    """The bed's inputs."""
    return inputs(bed.kind, bed.task)


def plain(bed: Bed) -> Tensor:
    """Logits of the bare eager model."""
    with torch.no_grad():
        return bare(bed.kind, bed.task, "eager")(**given(bed)).logits


def position(bed: Bed) -> int:
    """A position that has something to attend to, inside the stack's length."""
    return POS


def test_the_attention_written_out_here_is_the_models_own(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    close(by_hand(bed, lambda _, part: part, monkeypatch), plain(bed))


@pytest.mark.parametrize("name", ["q", "k", "v", "scores", "pattern", "z"])
def test_reads_equal_what_attention_computes(
    bed: Bed, net: Network, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Tensor] = {}

    def look(part: str, value: Tensor) -> Tensor:
        seen[part] = value.clone()
        return value

    by_hand(bed, look, monkeypatch)
    ours = net.run(given(bed), keep=[site(bed, name)])[site(bed, name)]
    hand = seen[name]
    if name == "scores":
        allowed = hand > -1e4
        assert torch.equal(allowed, ours > -1e4)
        ours, hand = ours[allowed], hand[allowed]
    torch.testing.assert_close(ours, hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_replacing_one_head_of_queries_keys_values(
    bed: Bed, net: Network, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = net.run(given(bed), keep=[site(bed, name)])[site(bed, name)]
    assert old.shape[2] > 1, "one head only: the test would not tell heads apart"
    new, index = random_like(old), (slice(None), POS, HEAD)
    if name == "k":
        index = (slice(None), slice(None), HEAD)
        ours = net.run(given(bed), edits=[Patch(site(bed, name), new, head=HEAD)]).logits
    else:
        ours = net.run(given(bed), edits=[Patch(site(bed, name), new, head=HEAD, pos=POS)]).logits
    agree(ours, by_hand(bed, replacing(name, new, index), monkeypatch), plain(bed))


def test_one_row_of_the_pattern_made_uniform(bed: Bed, net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    old = net.run(given(bed), keep=[site(bed, "pattern")])[site(bed, "pattern")]
    new = (old > 0).float()
    new /= new.sum(-1, keepdim=True)
    index = (slice(None), HEAD, POS)
    hands = by_hand(bed, replacing("pattern", new, index), monkeypatch)
    agree(
        net.run(given(bed), edits=[Patch(site(bed, "pattern"), new, head=HEAD, pos=POS)]).logits,
        hands,
        plain(bed),
    )


def test_the_whole_pattern_frozen_to_another_runs(
    bed: Bed, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pattern is taken from a run on the rows in reverse order, for all heads at once."""
    old = net.run(given(bed), keep=[site(bed, "pattern")])[site(bed, "pattern")]
    hands = by_hand(bed, replacing("pattern", old.flip(0), (slice(None),)), monkeypatch)
    agree(net.run(given(bed), edits=[Patch(site(bed, "pattern"), old.flip(0))]).logits, hands, plain(bed))


def test_scores_of_one_head_raised(bed: Bed, net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    old = net.run(given(bed), keep=[site(bed, "scores")])[site(bed, "scores")]
    new = torch.where(old > -1e4, random_like(old), old)
    hands = by_hand(bed, replacing("scores", new, (slice(None), HEAD, POS)), monkeypatch)
    agree(
        net.run(given(bed), edits=[Patch(site(bed, "scores"), new, head=HEAD, pos=POS)]).logits,
        hands,
        plain(bed),
    )


def test_one_head_of_z_zeroed(bed: Bed, net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    old = net.run(given(bed), keep=[site(bed, "z")])[site(bed, "z")]
    hands = by_hand(bed, replacing("z", torch.zeros_like(old), (slice(None), slice(None), HEAD)), monkeypatch)
    if bed.kind == "qwen3_next":
        pytest.skip("z is gated there after the attention function; test_exact_edits covers the gated value")
    agree(net.run(given(bed), edits=[Ablate(site(bed, "z"), "zero", head=HEAD)]).logits, hands, plain(bed))


def test_grouped_heads_have_their_own_keys_and_values() -> None:
    network = opened("llama", None, None)
    run = network.run(inputs("llama", None), keep=["q", "k", "v", "pattern", "z"])
    assert run["k", LAYER].shape[2] == run["v", LAYER].shape[2] == 2
    assert run["q", LAYER].shape[2] == run["z", LAYER].shape[2] == 4
    values = run["v", LAYER].repeat_interleave(2, 2)
    z = torch.einsum("bhqk,bkhe->bqhe", run["pattern", LAYER], values)
    torch.testing.assert_close(z, run["z", LAYER], rtol=1e-5, atol=1e-6)


def _edit_in_gptj(model: Any, edit: Edit, patch: pytest.MonkeyPatch) -> None:
    attention = model.transformer.h[LAYER].attn

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = (edit(n, t.transpose(1, 2)).transpose(1, 2) for n, t in zip("qkv", (q, k, v), strict=True))
        scores = q @ k.transpose(-1, -2) / attention.scale_attn
        scores = edit("scores", scores if mask is None else scores + mask)
        pattern = edit("pattern", scores.softmax(-1))
        return edit("z", (pattern @ v).transpose(1, 2)).transpose(1, 2), pattern

    patch.setattr(attention, "_attn", attend)


def _edit_in_bloom(model: Any, edit: Edit, patch: pytest.MonkeyPatch) -> None:
    attention = model.transformer.h[LAYER].self_attention
    reshape, merge = attention._reshape, attention._merge_heads

    def split(fused: Tensor) -> tuple[Tensor, ...]:
        parts = zip("qkv", reshape(fused), strict=True)
        return tuple(edit(n, t.transpose(1, 2)).transpose(1, 2) for n, t in parts)

    def join(context: Tensor) -> Tensor:
        z = context.unflatten(0, (-1, attention.num_heads)).transpose(1, 2)
        return merge(edit("z", z).transpose(1, 2).flatten(0, 1))

    patch.setattr(attention, "_reshape", split)
    patch.setattr(attention, "_merge_heads", join)
    _edit_softmax_inside(model, attention, edit, patch)


def _edit_in_falcon(model: Any, edit: Edit, patch: pytest.MonkeyPatch) -> None:
    attention = model.transformer.h[LAYER].self_attention
    home = sys.modules[type(attention).__module__]
    split, rotate, inside = attention._split_heads, home.apply_rotary_pos_emb, [False]

    def split_heads(fused: Tensor) -> tuple[Tensor, ...]:
        q, k, v = split(fused)
        inside[0] = True
        return q, k, edit("v", v)

    def rotary(q: Tensor, k: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        q, k = rotate(q, k, *rest)
        if not inside[0]:
            return q, k
        inside[0] = False
        return tuple(edit(n, t.transpose(1, 2)).transpose(1, 2) for n, t in zip("qk", (q, k), strict=True))

    patch.setattr(attention, "_split_heads", split_heads)
    patch.setattr(home, "apply_rotary_pos_emb", rotary)
    _edit_softmax_inside(model, attention, edit, patch)


def _edit_softmax_inside(model: Any, attention: nn.Module, edit: Edit, patch: pytest.MonkeyPatch) -> None:
    """Edit the first softmax computed while one attention module runs."""
    softmax, forward = torch.nn.functional.softmax, attention.forward

    def edited(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return edit("pattern", softmax(edit("scores", scores), *args, **kwargs))

    def run(*args: Any, **kwargs: Any) -> Any:
        with patch.context() as inner:
            inner.setattr(torch.nn.functional, "softmax", edited)
            return forward(*args, **kwargs)

    patch.setattr(attention, "forward", run)


_EDITORS = {"gptj": _edit_in_gptj, "bloom": _edit_in_bloom, "falcon": _edit_in_falcon}


def _by_hand_outside_the_registry(kind: str, edit: Edit, patch: pytest.MonkeyPatch) -> Tensor:
    model = bare(kind, None, "eager")
    with patch.context() as patched, torch.no_grad():
        _EDITORS[kind](model, edit, patched)
        return model(**inputs(kind, None)).logits


@pytest.mark.parametrize("implementation", ["eager", None])
@pytest.mark.parametrize("name", ["q", "k", "v", "scores", "pattern"])
@pytest.mark.parametrize("kind", OTHERS)
def test_attention_outside_the_registry(
    kind: str, name: str, implementation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = opened(kind, None, implementation)
    place = f"{name}.{LAYER}"
    assert place in {str(s) for s in network.sites()}, network.refusal(place)
    seen: dict[str, Tensor] = {}
    unedited = _by_hand_outside_the_registry(kind, lambda n, t: seen.setdefault(n, t.clone()), monkeypatch)
    old = network.run(inputs(kind, None), keep=[place])[place]
    allowed = old > -1e4
    torch.testing.assert_close(old[allowed], seen[name][allowed], rtol=1e-5, atol=1e-5)
    new = torch.where(allowed, random_like(old), old)
    if name == "pattern":
        new = (old > 0).float() / (old > 0).sum(-1, keepdim=True)
    head = min(HEAD, old.shape[1 if name in ("scores", "pattern") else 2] - 1)
    index = (slice(None), head, POS) if name in ("scores", "pattern") else (slice(None), POS, head)
    hands = _by_hand_outside_the_registry(kind, replacing(name, new, index), monkeypatch)
    ours = network.run(inputs(kind, None), edits=[Patch(place, new, head=head, pos=POS)]).logits
    agree(ours, hands, unedited)
