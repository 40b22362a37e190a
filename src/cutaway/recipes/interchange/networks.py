"""Small networks of the GPT-2 and Llama classes, drawn from a seed, for one task each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

ARCHITECTURES = ("gpt2", "llama")
_SHARED: Any = {"initializer_range": 0.08, "bos_token_id": 0, "eos_token_id": 0, "dtype": "float32"}


@dataclass(frozen=True)
class NetworkShape:
    """What decides the shape of a network of a task.

    Attributes:
        architecture: "gpt2" or "llama".
        vocabulary: tokens.
        layers: how many.
        width: of the stream.
        heads: in a layer.
        mlp: neurons in a layer.
        context: positions.
    """

    architecture: str
    vocabulary: int
    layers: int
    width: int = 48
    heads: int = 4
    mlp: int = 96
    context: int = 32


def build(shape: NetworkShape, seed: int) -> PreTrainedModel:
    """An untrained network, drawn from its seed: GPT2LMHeadModel, or LlamaForCausalLM with two key/value heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape.architecture == "gpt2":
            return GPT2LMHeadModel(_gpt2(shape))
        return LlamaForCausalLM(_llama(shape))


def _gpt2(shape: NetworkShape) -> GPT2Config:
    return GPT2Config(
        vocab_size=shape.vocabulary, n_positions=shape.context, n_embd=shape.width, n_layer=shape.layers,
        n_head=shape.heads, n_inner=shape.mlp, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_SHARED,
    )  # fmt: skip


def _llama(shape: NetworkShape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.mlp, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=2, max_position_embeddings=shape.context,
        tie_word_embeddings=True, pad_token_id=0, **_SHARED,
    )  # fmt: skip
