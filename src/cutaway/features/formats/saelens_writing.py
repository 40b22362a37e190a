"""Writing SAELens 6: `cfg.json` and `sae_weights.safetensors`, as its `save_model` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cutaway.features.dictionaries import AbsTopK, Dictionary, Gated, JumpReLU, ReLU, TopK
from cutaway.features.formats.checks import wider
from cutaway.features.formats.writing import (
    Plain,
    inverse_exp,
    plain,
    put,
    refuse,
    safetensors,
    text,
    thresholds,
    word,
)

_NORMS = {"none": "none", "layer-norm": "layer_norm", "constant-norm": "constant_norm_rescale"}
_UNDONE = ", not undone"


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary of one source as SAELens 6 does. Raises `BadInput` for what its architectures cannot compute."""
    made = plain(dictionary, "saelens")
    norm = made.norm.removesuffix(_UNDONE)
    if made.transcodes and made.centred:
        refuse("saelens", "a transcoder that takes something from its rows")
    if made.skip is not None and not made.transcodes:
        refuse("saelens", "an autoencoder with a skip connection")
    if norm != "none" and made.transcodes != made.norm.endswith(_UNDONE):
        refuse("saelens", "a transcoder whose outputs are brought back, or an autoencoder whose are not")
    tensors: dict[str, Tensor | None] = {
        "W_enc": made.encoder, "b_enc": made.bias, "W_dec": made.decoder, "b_dec": made.out, "W_skip": made.skip,
    }  # fmt: skip
    architecture, extra = _architecture(made, tensors)
    d, f, d_out = made.sizes
    config: dict[str, Any] = {
        "d_in": d, "d_sae": f, "dtype": word(wider_of(tensors)), "device": "cpu",
        "apply_b_dec_to_input": made.centred, "normalize_activations": _NORMS[norm],
        "reshape_activations": "hook_z" if dictionary.said.get("heads_flat") else "none",
        "metadata": _about(dictionary, made), "architecture": architecture, **extra,
    }  # fmt: skip
    if made.transcodes:
        config["d_out"] = d_out
    put(folder, {"cfg.json": text(config), "sae_weights.safetensors": safetensors(tensors)})


def _architecture(made: Plain, tensors: dict[str, Tensor | None]) -> tuple[str, dict[str, Any]]:
    activation = made.activation
    if made.transcodes:
        words = [
            *(["jumprelu"] if isinstance(activation, JumpReLU) else []),
            *(["skip"] if made.skip is not None else []),
        ]
        if isinstance(activation, JumpReLU):
            tensors["threshold"] = thresholds(activation, made.sizes[1], "saelens")
        elif not isinstance(activation, ReLU):
            refuse("saelens", f"a transcoder with {activation.kind}")
        return "_".join([*words, "transcoder"]), {}
    if isinstance(activation, JumpReLU):
        tensors["threshold"] = thresholds(activation, made.sizes[1], "saelens")
        return "jumprelu", {}
    if isinstance(activation, Gated):
        if bool((made.bias != 0).any()):
            refuse("saelens", "a gated encoder with a bias of its own")
        del tensors["b_enc"]
        tensors |= {
            "b_gate": activation.gate,
            "r_mag": inverse_exp(activation.scale),
            "b_mag": activation.magnitude,
        }
        return "gated", {}
    if isinstance(activation, TopK | AbsTopK):
        return activation.kind, {"k": activation.k, "rescale_acts_by_decoder_norm": False}
    if not isinstance(activation, ReLU):
        refuse("saelens", activation.kind)
    return "standard", {}


def wider_of(tensors: dict[str, Tensor | None]) -> Any:
    """The type that SAELens casts all tensors to when it loads them: the one they share, or the widest."""
    types = {value.dtype for value in tensors.values() if value is not None}
    return (
        types.pop() if len(types) == 1 else wider(*(value for value in tensors.values() if value is not None))
    )


def _about(dictionary: Dictionary, made: Plain) -> dict[str, Any]:
    said = dictionary.said
    names = {
        "model_name": "model",
        "dataset_path": "dataset",
        "context_size": "context_size",
        "prepend_bos": "prepend_bos",
    }
    about = {name: said[key] for name, key in names.items() if key in said}
    about |= {"hook_name": _hook(made.reads.said, made.reads.site), "sae_lens_version": "6.54.12"}
    if made.transcodes:
        about["hook_name_out"] = _hook(made.writes.said, made.writes.site)
    return {**about, **dict(said.get("metadata", {}))}


def _hook(said: str, site: str) -> str:
    """TransformerLens's name of a site, or what the file said."""
    from cutaway.network.sites import SITES

    name, _, layer = site.partition(".")
    if not said and name in SITES and SITES[name].hooks:
        return f"blocks.{layer}.{SITES[name].hooks[0]}" if layer else SITES[name].hooks[0]
    return said
