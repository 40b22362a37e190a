"""GGUF files written on the spot, by the package gguf, as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection in the order of llama.cpp's rotary embedding."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, model: nn.Module, architecture: str = "llama", kind: Any = None, words: tuple[str, ...] = ()
) -> Path:
    """Write a tiny llama; `kind`: quantise its matrices; `words`: the tokens of a tokenizer without merges."""
    import gguf

    c: Any = model.config
    file = gguf.GGUFWriter(path, architecture)
    file.add_block_count(c.num_hidden_layers)
    file.add_context_length(c.max_position_embeddings)
    file.add_embedding_length(c.hidden_size)
    file.add_feed_forward_length(c.intermediate_size)
    file.add_head_count(c.num_attention_heads)
    file.add_head_count_kv(c.num_key_value_heads)
    file.add_layer_norm_rms_eps(c.rms_norm_eps)
    file.add_rope_freq_base(10000.0)
    file.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    file.add_vocab_size(c.vocab_size)
    if words:
        file.add_tokenizer_model("gpt2")
        file.add_token_list(list(words))
        file.add_token_types([1] * len(words))
        file.add_token_merges([f"{words[1]} {words[2]}"])
        file.add_bos_token_id(0)
        file.add_eos_token_id(0)
    for name, parameter in model.state_dict().items():
        values, path_ = parameter.float().numpy(), name.removesuffix(".weight")
        if path_.endswith(("q_proj", "k_proj")):
            heads = c.num_attention_heads if path_.endswith("q_proj") else c.num_key_value_heads
            values = np.ascontiguousarray(_interleaved(values, heads))
        layer, _, rest = path_.removeprefix("model.layers.").partition(".")
        called = (ENDS.get(path_) or f"blk.{layer}.{NAMES[rest]}") + ".weight"
        if kind is not None and values.ndim == 2:
            file.add_tensor(called, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            file.add_tensor(called, values)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path
