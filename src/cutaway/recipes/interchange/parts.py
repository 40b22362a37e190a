"""The parts of a small GPT-2 or Llama network, read and replaced with plain hooks while it trains.

A part is a head (the values it hands to the output projection) or an MLP (its output). Parts are numbered layer by
layer, heads before the MLP: `part_list(layers=2, heads=4)` has ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ..algorithms import Place

ARCHITECTURES = ("gpt2", "llama")


@dataclass(frozen=True)
class Shape:
    """What decides the shape of a network of a task."""

    architecture: str
    vocabulary: int
    layers: int
    width: int = 48
    heads: int = 4
    mlp: int = 96
    context: int = 32


def build(shape: Shape, seed: int) -> PreTrainedModel:
    """An untrained network, drawn from its seed: GPT2LMHeadModel, or LlamaForCausalLM with two key/value heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape.architecture == "gpt2":
            return GPT2LMHeadModel(_gpt2(shape))
        return LlamaForCausalLM(_llama(shape))


def _gpt2(shape: Shape) -> GPT2Config:
    return GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.mlp,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.08,
        bos_token_id=0,
        eos_token_id=0,
        dtype="float32",
    )


def _llama(shape: Shape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=2,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        dtype="float32",
    )


def part_list(layers: int, heads: int) -> list[Place]:
    """All parts in their order.

    >>> [str(part) for part in part_list(1, 2)]
    ['head 0.0', 'head 0.1', 'mlp 0']
    """
    return [Place(layer, head) for layer in range(layers) for head in (*range(heads), None)]


@dataclass(frozen=True)
class Exchange:
    """Replace parts by what they were for other rows of a captured run.

    `mask` is bool `[rows parts p]`: where to replace. `source` is int `[rows]`: the captured row to take it from.
    """

    mask: Tensor
    source: Tensor


@dataclass
class Captured:
    """What each part gave in a run: `heads[layer]` is `[rows p h e]`, `mlps[layer]` `[rows p d]`."""

    heads: dict[int, Tensor]
    mlps: dict[int, Tensor]


_PLACES = {
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp"),
    "llama": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp"),
}
"""Architecture -> the output projection of a layer's attention, and its MLP."""


def _sublayers(model: PreTrainedModel) -> list[tuple[nn.Module, nn.Module]]:
    """For each layer the output projection of its attention, and its MLP."""
    projection, mlp = _PLACES[model.config.model_type]
    layers = range(model.config.num_hidden_layers)
    return [(model.get_submodule(projection.format(i)), model.get_submodule(mlp.format(i))) for i in layers]


def run(
    model: PreTrainedModel,
    ids: Tensor,
    heads: int,
    exchanges: Sequence[Exchange] = (),
    captured: Captured | None = None,
) -> tuple[Tensor, Captured]:
    """Logits at the last position, `[rows v]`, and what each part gave, after the exchanges (later ones win)."""
    seen = Captured({}, {})
    with _hooked(model, heads, exchanges, captured, seen):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits, seen


@contextmanager
def _hooked(
    model: PreTrainedModel,
    heads: int,
    exchanges: Sequence[Exchange],
    captured: Captured | None,
    seen: Captured,
) -> Iterator[None]:
    handles = []

    def on_heads(layer: int) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows, length, width = args[0].shape
            z = args[0].view(rows, length, heads, width // heads)
            start = layer * (heads + 1)
            for exchange in exchanges:
                assert captured is not None
                where = exchange.mask[:, start : start + heads].transpose(1, 2)[..., None]
                z = torch.where(where, captured.heads[layer][exchange.source], z)
            seen.heads[layer] = z
            return (z.reshape(rows, length, width), *args[1:])

        return hook

    def on_mlp(layer: int) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            for exchange in exchanges:
                assert captured is not None
                where = exchange.mask[:, layer * (heads + 1) + heads][..., None]
                out = torch.where(where, captured.mlps[layer][exchange.source], out)
            seen.mlps[layer] = out
            return out

        return hook

    try:
        for layer, (projection, mlp) in enumerate(_sublayers(model)):
            handles.append(projection.register_forward_pre_hook(on_heads(layer)))  # type: ignore[arg-type]
            handles.append(mlp.register_forward_hook(on_mlp(layer)))  # type: ignore[arg-type]
        yield
    finally:
        for handle in handles:
            handle.remove()
