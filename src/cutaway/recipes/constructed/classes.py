"""Dense weights put into the classes of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from cutaway.recipes.constructed.architectures import Architecture, BuiltWeights
from cutaway.recipes.constructed.blueprint import CONTEXT, WIDTH

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}


def filled(arch: Architecture, weights: BuiltWeights, vocabulary: int) -> PreTrainedModel:
    """A model of the architecture's class with these weights, in evaluation mode."""
    with torch.no_grad():
        return {"gpt2": _gpt2, "llama": _llama, "neox": _neox}[arch.name](weights, vocabulary).eval()


def _put(parameter: Any, value: Tensor | float) -> None:
    parameter.copy_(torch.as_tensor(value, dtype=parameter.dtype).expand_as(parameter))


def _zero_biases(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()


def _gpt2(w: BuiltWeights, vocabulary: int) -> PreTrainedModel:
    layers, heads, _, neurons = len(w.q), w.q.shape[1], w.q.shape[2], w.read.shape[1]
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=CONTEXT, n_embd=WIDTH, n_layer=layers, n_head=heads, n_inner=neurons,
        activation_function="relu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_SPECIAL,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    _zero_biases(model)
    body = model.transformer
    _put(body.wte.weight, w.embed)
    assert w.position is not None
    _put(body.wpe.weight, w.position)
    for i, block in enumerate(body.h):
        for norm in (block.ln_1, block.ln_2):
            _put(norm.weight, w.norm)
        _put(block.attn.c_attn.weight, torch.cat([x[i].flatten(0, 1) for x in (w.q, w.k, w.v)]).T)
        _put(block.attn.c_proj.weight, _output(w.o[i]).T)
        _put(block.mlp.c_fc.weight, w.read[i].T)
        _put(block.mlp.c_proj.weight, w.write[i].T)
    _put(body.ln_f.weight, w.norm)
    _put(model.lm_head.weight, w.unembed)
    return model


def _llama(w: BuiltWeights, vocabulary: int) -> PreTrainedModel:
    layers, heads, width, neurons = len(w.q), w.q.shape[1], w.q.shape[2], w.read.shape[1]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=neurons, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=w.k.shape[1], head_dim=width, max_position_embeddings=CONTEXT,
        hidden_act="relu", rope_parameters={"rope_type": "default", "rope_theta": 1e9}, **_SPECIAL,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    body = model.model
    _put(body.embed_tokens.weight, w.embed)
    constant = torch.zeros(neurons, WIDTH)
    constant[:, 0] = 1.0  # the gate's partner reads the constant, so a gated neuron is a plain one
    for i, block in enumerate(body.layers):
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            _put(norm.weight, w.norm)
        for name, x in (("q_proj", w.q), ("k_proj", w.k), ("v_proj", w.v)):
            _put(getattr(block.self_attn, name).weight, x[i].flatten(0, 1))
        _put(block.self_attn.o_proj.weight, _output(w.o[i]))
        _put(block.mlp.gate_proj.weight, w.read[i])
        _put(block.mlp.up_proj.weight, constant)
        _put(block.mlp.down_proj.weight, w.write[i])
    _put(body.norm.weight, w.norm)
    _put(model.lm_head.weight, w.unembed)
    return model


def _neox(w: BuiltWeights, vocabulary: int) -> PreTrainedModel:
    layers, heads, neurons = len(w.q), w.q.shape[1], w.read.shape[1]
    config = GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=neurons, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=CONTEXT, hidden_act="relu", use_parallel_residual=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25},
        attention_dropout=0.0, hidden_dropout=0.0, **_SPECIAL,
    )  # fmt: skip
    model: Any = GPTNeoXForCausalLM(config)
    _zero_biases(model)
    body = model.gpt_neox
    _put(body.embed_in.weight, w.embed)
    for i, block in enumerate(body.layers):
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            _put(norm.weight, w.norm)
        # one matrix, head by head: its queries, keys and values
        _put(block.attention.query_key_value.weight, torch.cat([w.q[i], w.k[i], w.v[i]], 1).flatten(0, 1))
        _put(block.attention.dense.weight, _output(w.o[i]))
        _put(block.mlp.dense_h_to_4h.weight, w.read[i])
        _put(block.mlp.dense_4h_to_h.weight, w.write[i])
    _put(body.final_layer_norm.weight, w.norm)
    _put(model.embed_out.weight if hasattr(model, "embed_out") else model.lm_head.weight, w.unembed)
    return model


def _output(o: Tensor) -> Tensor:
    """[d h*e] the output projection of all heads [h d e]."""
    return o.transpose(0, 1).flatten(1)
