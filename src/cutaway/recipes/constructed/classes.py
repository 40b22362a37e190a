"""Dense weights put into the classes of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
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


#: A model, and what the weights of its modules are to be; biases are zero.
Filling = tuple[Any, list[tuple[Any, Tensor]]]
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}


def filled(arch: Architecture, weights: BuiltWeights, vocabulary: int) -> PreTrainedModel:
    """A model of the architecture's class with these weights, in evaluation mode."""
    with torch.no_grad():
        model, values = {"gpt2": _gpt2, "llama": _llama, "neox": _neox}[arch.name](weights, vocabulary)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for module, value in values:
            module.weight.copy_(value.expand_as(module.weight))
    return model.eval()


def _gpt2(w: BuiltWeights, vocabulary: int) -> Filling:
    layers, heads, _, neurons = len(w.q), w.q.shape[1], w.q.shape[2], w.read.shape[1]
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=CONTEXT, n_embd=WIDTH, n_layer=layers, n_head=heads, n_inner=neurons,
        activation_function="relu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_SPECIAL,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    body = model.transformer
    assert w.position is not None
    values = [(body.wte, w.embed), (body.wpe, w.position), (body.ln_f, w.norm), (model.lm_head, w.unembed)]
    for i, block in enumerate(body.h):
        read_all = torch.cat([x[i].flatten(0, 1) for x in (w.q, w.k, w.v)])
        values += [
            (block.ln_1, w.norm), (block.attn.c_attn, read_all.T), (block.attn.c_proj, _output(w.o[i]).T),
            (block.ln_2, w.norm), (block.mlp.c_fc, w.read[i].T), (block.mlp.c_proj, w.write[i].T),
        ]  # fmt: skip
    return model, values


def _llama(w: BuiltWeights, vocabulary: int) -> Filling:
    layers, heads, width, neurons = len(w.q), w.q.shape[1], w.q.shape[2], w.read.shape[1]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=neurons, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=w.k.shape[1], head_dim=width, max_position_embeddings=CONTEXT,
        hidden_act="relu", rope_parameters={"rope_type": "default", "rope_theta": 1e9}, **_SPECIAL,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    body = model.model
    values = [(body.embed_tokens, w.embed), (body.norm, w.norm), (model.lm_head, w.unembed)]
    constant = torch.zeros(neurons, WIDTH)
    constant[:, 0] = 1.0  # the gate's partner reads the constant, so a gated neuron is a plain one
    for i, block in enumerate(body.layers):
        attention, mlp = block.self_attn, block.mlp
        values += [
            (block.input_layernorm, w.norm), (attention.q_proj, w.q[i].flatten(0, 1)),
            (attention.k_proj, w.k[i].flatten(0, 1)), (attention.v_proj, w.v[i].flatten(0, 1)),
            (attention.o_proj, _output(w.o[i])), (block.post_attention_layernorm, w.norm),
            (mlp.gate_proj, w.read[i]), (mlp.up_proj, constant), (mlp.down_proj, w.write[i]),
        ]  # fmt: skip
    return model, values


def _neox(w: BuiltWeights, vocabulary: int) -> Filling:
    layers, heads, neurons = len(w.q), w.q.shape[1], w.read.shape[1]
    config = GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=neurons, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=CONTEXT, hidden_act="relu", use_parallel_residual=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25},
        attention_dropout=0.0, hidden_dropout=0.0, **_SPECIAL,
    )  # fmt: skip
    model: Any = GPTNeoXForCausalLM(config)
    body = model.gpt_neox
    head = model.embed_out if hasattr(model, "embed_out") else model.lm_head
    values = [(body.embed_in, w.embed), (body.final_layer_norm, w.norm), (head, w.unembed)]
    for i, block in enumerate(body.layers):
        # one matrix, head by head: its queries, keys and values
        read_all = torch.cat([w.q[i], w.k[i], w.v[i]], 1).flatten(0, 1)
        values += [
            (block.input_layernorm, w.norm), (block.attention.query_key_value, read_all),
            (block.attention.dense, _output(w.o[i])), (block.post_attention_layernorm, w.norm),
            (block.mlp.dense_h_to_4h, w.read[i]), (block.mlp.dense_4h_to_h, w.write[i]),
        ]  # fmt: skip
    return model, values


def _output(o: Tensor) -> Tensor:
    """[d h*e] the output projection of all heads [h d e]."""
    return o.transpose(0, 1).flatten(1)
