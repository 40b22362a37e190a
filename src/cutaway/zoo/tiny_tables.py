"""The facts behind `cutaway.zoo.tiny`: how configuration fields shrink, and what the rules cannot know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

VOCABULARY = 128
"""Tokens in a tiny network's vocabulary."""

WIDTH, HEADS, HEAD, LAYERS, MLP, EXPERTS = 32, 4, 8, 3, 48, 4

Rule = Callable[[Mapping[str, Any]], Any]


def _kv_heads(fields: Mapping[str, Any]) -> int:
    """Grouped queries everywhere, except where keys are made from one latent per query head."""
    return HEADS if "kv_lora_rank" in fields else 2


def _same(value: int, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), lambda _: value)


def _capped(value: int, names: str) -> dict[str, Rule]:
    return {name: lambda fields, name=name: min(fields[name], value) for name in names.split()}


FIELDS: dict[str, Rule] = {
    # widths
    **_same(VOCABULARY, "vocab_size decoder_vocab_size vocab_size_per_layer_input audio_vocab_size"),
    **_same(WIDTH, "hidden_size n_embd d_model emb_dim embedding_size embedding_dim embed_dim dim"),
    **_same(WIDTH, "word_embed_proj_dim input_embedding_size output_embedding_size hidden_size_global"),
    **_same(WIDTH, "lru_width attention_hidden_size out_hidden_size projection_dim"),
    **_same(MLP, "intermediate_size encoder_ffn_dim decoder_ffn_dim ffn_dim dim_ff dff d_ff d_inner n_inner"),
    **_same(MLP, "ffn_hidden_size mlp_dim feed_forward_size hidden_dim dense_intermediate_size"),
    **_same(24, "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size"),
    **_same(24, "expert_ffn_hidden_size moe_shared_expert_intermediate_size"),
    **_capped(24, "shared_intermediate_size"),
    **_same(8, "hidden_size_per_layer_input laurel_rank adapter_rank prompt_length gated_norm_rank"),
    # depth
    **_same(LAYERS, "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers depth"),
    **_same(LAYERS, "num_encoder_layers num_decoder_layers num_blocks num_layers_per_stack"),
    **_same(LAYERS, "conf_num_hidden_layers"),
    **_capped(2, "num_kv_shared_layers num_nextn_predict_layers"),
    # attention
    **_same(HEADS, "num_attention_heads n_head n_heads num_heads encoder_attention_heads attention_heads"),
    **_same(HEADS, "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads"),
    **_same(HEADS, "swa_num_attention_heads conf_num_attention_heads num_query_groups"),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), _kv_heads),
    **_same(2, "kv_n_heads index_n_heads"),
    **_same(HEAD, "head_dim dim_head swa_head_dim attention_head_size attention_head_dim d_head d_kv"),
    **_same(HEAD, "v_head_dim qk_nope_head_dim qk_rope_head_dim"),
    **_same(2 * HEAD, "qk_head_dim"),
    **_same(16, "kv_lora_rank q_lora_rank o_lora_rank router_hidden_size index_head_dim"),
    **_same(4, "index_topk rotary_dim"),
    **_capped(4, "sliding_window sliding_window_size local_attention window_size attention_window_size"),
    **_capped(32, "query_pre_attn_scalar"),
    # mixtures of experts
    **_same(EXPERTS, "num_experts num_local_experts n_routed_experts moe_num_experts zero_expert_num"),
    **_capped(2, "num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k"),
    **_capped(2, "n_group num_expert_group"),
    **_same(1, "topk_group"),
    **_capped(1, "num_shared_experts n_shared_experts moe_num_shared_experts"),
    **_capped(1, "first_k_dense_replace num_dense_layers moe_layer_start_index"),
    # state spaces and linear attention
    **_capped(8, "chunk_size mamba_chunk_size block_size keep_window_size"),
    **_same(8, "mamba_d_state state_size ssm_state_size mamba_n_heads mamba_num_heads n_mamba_heads"),
    **_same(8, "mamba_d_head mamba_head_dim mamba_headdim"),
    **_capped(2, "mamba_n_groups n_groups mamba_ngroups"),
    **_same(4, "time_step_rank mamba_dt_rank linear_num_value_heads linear_num_heads"),
    **_same(2, "linear_num_key_heads"),
    **_same(8, "linear_key_head_dim linear_value_head_dim linear_head_dim"),
    # context and pictures
    **_capped(64, "max_position_embeddings n_positions n_ctx max_seq_len model_max_length"),
    **_capped(64, "max_target_positions context_length original_max_position_embeddings"),
    **_capped(32, "image_size crop_size max_source_positions num_position_embeddings"),
    **_capped(8, "patch_size"),
}
"""Field name -> rule, from the default configuration's fields to the small value. Whole numbers only."""

SCALARS: dict[str, float | list[float]] = {
    **dict.fromkeys(("residual_multiplier", "attention_out_multiplier", "ssm_out_multiplier"), 0.6),
    **dict.fromkeys(("embedding_multiplier", "attention_in_multiplier", "ssm_in_multiplier"), 1.7),
    **dict.fromkeys(("attention_multiplier", "key_multiplier"), 0.4),
    **dict.fromkeys(("logits_scaling", "lm_head_multiplier", "route_scale", "routed_scaling_factor"), 1.3),
    **dict.fromkeys(("router_scaling_factor", "moe_routed_scaling_factor"), 1.3),
    **dict.fromkeys(("full_attn_alpha_factor", "linear_attn_beta_factor", "mlp_alpha_factor"), 1.4),
    **dict.fromkeys(("full_attn_beta_factor", "linear_attn_alpha_factor", "mlp_beta_factor"), 0.7),
    "mlp_multipliers": [0.8, 1.2],
    "ssm_multipliers": [0.8, 1.2, 0.9, 1.1, 0.7],
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "logits_soft_cap"), 2.0),
}
"""Factors and soft-caps at which a mistake would show; set where the default is 1 or a cap beyond reach."""

UNSET = frozenset({"head_dim", "num_key_value_heads"})
"""Fields that also shrink when the default configuration leaves them empty: the model would fail on them."""

LAYER_LISTS: dict[str, str] = {
    **dict.fromkeys(("layer_types", "layers_block_type", "attention_layers", "attn_layers", "no_rope_layers"), "cycle"),
    **dict.fromkeys(("mlp_layer_types", "indexer_types", "layer_rope_theta", "num_attention_heads_per_layer"), "last"),
    **dict.fromkeys(("activation_sparsity_pattern", "intermediate_size"), "last"),
}  # fmt: skip
"""Lists with one entry per layer: 'cycle' through the kinds found, or pass once and repeat the 'last'."""

_LOOKS_AHEAD = "without is_decoder its attention looks at later tokens and it is no causal language model"
_BERT_LIKE = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "xmod"),
    *("rembert", "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl"),
    "megatron-bert",
)
_NO_ATTENTION_LAYER = "the default pattern has no attention layer among the first few"
_MISSING = "the default configuration leaves fields empty that the model needs"
_TWO_STREAMS = "attention reads the stream beside the embedding, which is twice the width"
_ADAPTERS = "adapters must read the width of the tower they adapt"
_TOWERS = (("vision", "adapter_in_dim"), ("audio", "adapter_input_size"))
_ROC = {"shape_vocab_size": 128, "shape_embed_dim": 32, "pronunciation_vocab_size": 128}
_STAGES = "widths and depths are lists with one entry per stage"
_QSA = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4}
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_MAMBA_WIDTH = "heads times head width must equal the expanded width"

OVERRIDES: dict[str, tuple[dict[str, Any], str]] = {
    **{f"{name}:causal-lm": ({"is_decoder": True}, _LOOKS_AHEAD) for name in _BERT_LIKE},
    "big_bird:causal-lm": ({"is_decoder": True, "attention_type": "original_full"}, _LOOKS_AHEAD),
    "reformer": (
        {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "num_buckets": 2},
        "positions are a grid whose sides must multiply to the context, and widths add up to the hidden size",
    ),
    "xmod:causal-lm": ({"is_decoder": True, "default_language": "en_XX"}, "adapters need a language"),
    "bamba": ({"attn_layer_indices": [1]}, _NO_ATTENTION_LAYER),
    "jamba": ({"attn_layer_period": 2, "attn_layer_offset": 1}, _NO_ATTENTION_LAYER),
    "zamba": (
        {
            **{"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
            **{"attention_hidden_size": 64, "attention_head_dim": 16},
        },
        f"{_NO_ATTENTION_LAYER}; {_TWO_STREAMS}",
    ),
    "granitemoehybrid": ({"layer_types": ["mamba", "attention", "mamba"]}, _NO_ATTENTION_LAYER),
    "lfm2_moe": ({"layer_types": ["conv", "full_attention", "conv"]}, _MISSING),
    "falcon_h1": ({"mamba_d_ssm": 64}, _MAMBA_WIDTH),
    "zamba2": ({"attention_hidden_size": 64, "attention_head_dim": 16, "kv_channels": ...}, _TWO_STREAMS),
    "mamba2": ({"num_heads": 8, "head_dim": 8}, _MAMBA_WIDTH),
    "dots1": ({"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}, _MISSING),
    "deepseek_v2": ({"num_experts_per_tok": 2}, _MISSING),
    "hunyuan_v1_dense": ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, _MISSING),
    "cohere_compass_text": (
        {
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_hidden_layers": 4,
            "rope_parameters": {"sliding_attention": _MROPE, "full_attention": _MROPE},
        },
        _MISSING,
    ),
    "qwen4_exp_text": ({**_QSA, "indexer_compress_ratio": 2}, _MISSING),
    "hrm_text": (
        {"num_layers_per_stack": ..., "num_hidden_layers": 2},
        "the number of cache slots, layers times cycles, is derived",
    ),
    "xlstm": (
        {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2},
        "key and value widths are rounded up to multiples of 64",
    ),
    "dbrx": ({"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}}, _MISSING),
    "dots3_note": (
        {f"{kind}_config": {name: 32, "adapter_out_dim": 32} for kind, name in _TOWERS},
        _ADAPTERS,
    ),
    "blt": ({"encoder_hash_byte_group_vocab": 64}, "the hash table of byte groups has half a million rows"),
    "musicgen_decoder": ({"num_codebooks": 1}, "tokens of shape [b p] need a single codebook"),
    "musicgen_melody_decoder": ({"num_codebooks": 1}, "tokens of shape [b p] need a single codebook"),
    "dots3_note_text": (
        {
            **{"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 16},
            **{"swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8},
        },
        "sliding layers have attention widths of their own, under names that only the constructor knows",
    ),
    "roc_bert:causal-lm": ({**_ROC, "is_decoder": True}, "shapes and sounds of characters have vocabularies"),
    "roc_bert": (_ROC, "shapes and sounds of characters have vocabularies"),
    "resnet": ({"hidden_sizes": [16, 24], "depths": [1, 1]}, _STAGES),
    "convnext": ({"hidden_sizes": [16, 24], "depths": [1, 2], "num_stages": 2}, _STAGES),
    "gemma4_text": ({"global_head_dim": 16}, "full-attention layers have a head width of their own"),
}
"""Model type or 'type:task' -> (configuration fields, reason); '...' drops a field that a rule would set."""

NESTED: dict[str, str] = {"musicgen": "decoder", "musicgen_melody": "decoder"}
"""Types whose causal language model takes a nested configuration, which the Auto class does not know."""

CANNOT: dict[str, str] = {
    "gemma3n": "its vision tower needs the timm package (gemma3n_text, the language model, builds)",
    "gemma4_assistant": "a draft model: it cannot run without the keys and values of a target model",
    "gemma4_unified_assistant": "a draft model: it cannot run without the keys and values of a target model",
}
"""Types that cannot be built and run alone, with the reason."""
