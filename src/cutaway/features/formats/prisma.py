"""Prisma's autoencoders and transcoders of vision transformers: `weights.pt` beside `config.json`.

Source: Prisma-Multimodal/ViT-Prisma, sae/config.py, sae/sae.py, sae/transcoder.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Dictionary, Encoder, Gated, Nonlinearity, ReLU, TopK
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.reading import Stored, flag, held, only, single, whole
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

CONFIG = "config.json"
#: Settings that only Prisma's configurations have.
_OWN = {"hook_point_layer", "layer_subtype"}
_NORMS: dict[str, Literal["none", "layer-norm", "constant-norm"]] = {
    "none": "none", "layer_norm": "layer-norm", "constant_norm_rescale": "constant-norm",
}  # fmt: skip


def _files(source: DictionaryFiles) -> list[str]:
    if not set(source.config(CONFIG)) >= _OWN:
        return []
    return [name for name in source.tensor_files if {"W_enc", "state_dict.W_enc"} & source.keys(name)]


def read(source: DictionaryFiles) -> Dictionary:
    """One autoencoder or transcoder of Prisma."""
    config = source.config(CONFIG)
    file = only(_files(source), source)
    given = held(source, file, "state_dict." if "state_dict.W_enc" in source.keys(file) else "")
    enc, dec, out = given.matrix("W_enc"), given.matrix("W_dec"), given.must("b_dec")
    transcodes = flag(config, "is_transcoder")
    norm = str(config.get("normalize_activations", "layer_norm"))
    if norm not in _NORMS:
        raise BadFormat(f"{CONFIG} says normalize_activations {norm!r}.", f"Known are {', '.join(_NORMS)}.")
    skip = given.matrix("W_skip") if "W_skip" in given and transcodes else None
    if skip is not None and _NORMS[norm] != "none":
        raise BadFormat(
            "Its skip connection reads raw rows and what it gives is scaled with the normed ones, which no reader computes.",
            "Use a transcoder without a skip connection, or without a norm.",
        )
    activation = _activation(given, config)
    bias = None if isinstance(activation, Gated) else given.must("b_enc")
    encoder = Encoder(enc, bias, activation, out, norm=_NORMS[norm])
    hook = f"blocks.{config['hook_point_layer']}.{config['layer_subtype']}"
    after = (
        f"blocks.{config.get('out_hook_point_layer')}.{config.get('layer_out_subtype')}"
        if transcodes
        else None
    )
    said = {
        "model": config.get("model_name"), "hook": hook, "hook_out": after, "dataset": config.get("dataset_name"),
        "context_size": config.get("context_size"), "k": encoder.k, "cls_only": config.get("cls_token_only"),
        "config": config,
    }  # fmt: skip
    notes = ("Trained on the class token only.",) if flag(config, "cls_token_only") else ()
    return single(
        encoder, dec, given.must("b_dec_out") if transcodes else out, hook_place(hook, encoder.width),
        hook_place(after, int(dec.shape[1])) if after else None, format="prisma", skip=skip, said=said, notes=notes,
    )  # fmt: skip


def _activation(given: Stored, config: Mapping[str, Any]) -> Nonlinearity:
    architecture, name = config.get("architecture", "standard"), config.get("activation_fn_str", "relu")
    if architecture == "gated":
        return Gated(given.must("b_gate"), given.must("r_mag").exp(), given.must("b_mag"))
    if architecture != "standard":
        raise BadFormat(f"{CONFIG} says architecture {architecture!r}.", "Known are standard and gated.")
    if name == "topk":
        return TopK(whole((config.get("activation_fn_kwargs") or {}).get("k"), "k", CONFIG))
    if name != "relu":
        raise BadFormat(f"{CONFIG} says the activation {name!r}.", "Known are relu and topk.")
    return ReLU()


FORMATS = (Format("prisma", "Prisma", lambda source: bool(_files(source)), read),)
