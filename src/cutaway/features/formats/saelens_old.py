"""Configurations of SAELens 3 to 5 in the words of version 6.

Source: sae_lens 6.54.12, loading/pretrained_sae_loaders.py, handle_pre_6_0_config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutaway.errors import BadFormat

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
#: Settings that say what was trained on, which version 6 keeps under `metadata`.
_ABOUT = (
    "model_name", "hook_name", "model_class_name", "hook_head_index", "model_from_pretrained_kwargs", "prepend_bos",
    "exclude_special_tokens", "neuronpedia_id", "context_size", "seqpos_slice", "dataset_path", "sae_lens_version",
    "sae_lens_training_version", "hook_name_out", "hook_head_index_out",
)  # fmt: skip


def renewed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as version 6 would have written it. Raises `BadFormat` for an activation that it does not have.

    >>> old = {"hook_point": "blocks.1.hook_mlp_out", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    >>> new = renewed(old)
    >>> new["architecture"], new["k"], new["metadata"]["hook_name"]
    ('topk', 3, 'blocks.1.hook_mlp_out')
    """
    new = {_RENAMED.get(name, name): value for name, value in config.items()}
    new.setdefault("architecture", "standard")
    new.setdefault("apply_b_dec_to_input", True)
    new.setdefault("prepend_bos", True)
    activation = new.pop("activation_fn", None) or "relu"
    arguments = new.pop("activation_fn_kwargs", None) or {}
    if activation == "topk":
        if arguments.get("k") is None:
            raise BadFormat(
                "cfg.json says a TopK activation without k.", "Only its owner can say how many it keeps."
            )
        new["architecture"], new["k"] = "topk", arguments["k"]
    elif activation != "relu":
        raise BadFormat(f"cfg.json says the activation {activation!r}.", "Known are relu and topk.")
    norm = new.get("normalize_activations")
    if isinstance(norm, bool) or norm is None:
        new["normalize_activations"] = "expected_average_only_in" if norm else "none"
    new.setdefault("reshape_activations", "hook_z" if "hook_z" in str(new.get("hook_name", "")) else "none")
    about = {name: new.pop(name) for name in _ABOUT if name in new}
    return {**new, "metadata": about}
