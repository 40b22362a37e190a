"""Llama Scope: the first release (`hyperparams.json`, `checkpoints/final.safetensors`) and the one of the R1 distillation.

Source: OpenMOSS/Language-Model-SAEs, src/lm_saes/sae.py (encode, compute_norm_factor,
standardize_parameters_of_dataset_norm); sae_lens 6.54.12, loading/pretrained_sae_loaders.py, for the scale of the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Dictionary, Encoder, JumpReLU, Nonlinearity, ReLU, TopK
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.reading import (
    Stored,
    flag,
    held,
    matched,
    positive,
    single,
    times,
    unused,
    whole,
    wider,
)
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

FIRST, SECOND = "hyperparams.json", "config.json"
_LINEAR = frozenset({"encoder.weight", "encoder.bias", "decoder.weight"})
_NORM = "dataset_average_activation_norm"
_UNDERSTOOD = {
    "d_model", "d_sae", "hook_point_in", "hook_point_out", "act_fn", "jump_relu_threshold", "norm_activation", _NORM,
    "top_k", "use_decoder_bias", "apply_decoder_bias_to_pre_encoder", "sparsity_include_decoder_norm", "use_glu_encoder",
    "expansion_factor", "dtype", "device",
}  # fmt: skip


def _weights(source: DictionaryFiles) -> str | None:
    found = [name for name in source.tensor_files if name.endswith(".safetensors")]
    best = [
        name
        for name in found
        if Path(name).name in ("final.safetensors", "pruned.safetensors", "sae_weights.safetensors")
    ]
    return found[0] if len(found) == 1 else best[0] if best else None


def _config(source: DictionaryFiles) -> dict[str, Any]:
    return source.config(FIRST) or source.config(SECOND)


def _known(source: DictionaryFiles) -> bool:
    file = _weights(source)
    if file is None or "d_model" not in source.config(FIRST):
        return False
    keys = source.keys(file)
    return keys >= _LINEAR and "log_jumprelu_threshold" not in keys


def _known_distilled(source: DictionaryFiles) -> bool:
    file = _weights(source)
    return file is not None and source.keys(file) >= _LINEAR | {"log_jumprelu_threshold"}


def read(source: DictionaryFiles, scale: float | None = None) -> Dictionary:
    """An autoencoder or transcoder of the first release."""
    return _read(source, "llama-scope", scale)


def read_distilled(source: DictionaryFiles, scale: float | None = None) -> Dictionary:
    """An autoencoder of the release for the R1 distillation."""
    return _read(source, "llama-scope-r1", scale)


def _read(source: DictionaryFiles, format: str, scale: float | None) -> Dictionary:
    file, config = str(_weights(source)), _config(source)
    given = held(source, file)
    enc, dec = given.matrix("encoder.weight").T, given.matrix("decoder.weight").T
    matched(enc, dec, file)
    if config.get("d_model", enc.shape[0]) != enc.shape[0]:
        raise BadFormat(
            f"d_model is {config['d_model']}, but the encoder reads {enc.shape[0]} numbers.",
            "Fetch both again.",
        )
    if flag(config, "use_glu_encoder") or "encoder_glu.weight" in given:
        raise BadFormat(
            "Its encoder is gated by a sigmoid, which no reader here computes.", "Use another dictionary."
        )
    hooks = (
        str(config.get("hook_point_in") or ""),
        str(config.get("hook_point_out") or config.get("hook_point_in") or ""),
    )
    norm, factors = _factors(config, given, hooks, enc.shape[0], scale)
    bias, out = given.must("encoder.bias"), given.vector("decoder.bias", needed=False)
    centre = out if flag(config, "apply_decoder_bias_to_pre_encoder") else None
    notes: list[str] = []
    norms = dec.to(wider(dec)).norm(dim=1) if flag(config, "sparsity_include_decoder_norm") else None
    if norms is not None and torch.allclose(norms, torch.ones_like(norms)):
        norms = None
    gain: Tensor | None = None
    if factors != (1.0, 1.0):
        into, back = factors
        gain = torch.full((enc.shape[1],), into, dtype=wider(enc))
        bias, dec = times(bias, 1 / into), times(dec, 1 / back)
        out = None if out is None else times(out, 1 / back)
        centre = None if centre is None else times(given.must("decoder.bias"), 1 / into)
        notes.append(
            f"The scale of its rows, {into:g}, and of its outputs, {back:g}, is folded into its weights."
        )
    activation = _activation(given, config, factors[0], norms, format)
    if isinstance(activation, JumpReLU) and norms is not None:
        notes.append(
            "Its threshold is for activations times the norms of the decoder, by which it is divided."
        )
    if isinstance(activation, TopK) and norms is not None:
        gain = norms if gain is None else gain * norms
        dec = dec.to(wider(dec)) / norms[:, None]
        notes.append("Latents are compared times the norms of the decoder, which are folded into it.")
    encoder = Encoder(enc, bias, activation, centre, gain, norm)
    d_out = int(dec.shape[1])
    said = {
        "model": config.get("model_name") or config.get("model"), "hook": hooks[0] or None,
        "hook_out": hooks[1] if hooks[0] != hooks[1] else None,
        "l0": None, "k": config.get("top_k"), "dtype": config.get("dtype"), "config": config,
    }  # fmt: skip
    writes = hook_place(hooks[1], d_out) if hooks[0] != hooks[1] else None
    return single(encoder, dec, out, hook_place(hooks[0], encoder.width), writes, format=format, said=said,
                  notes=(*notes, unused(config, _UNDERSTOOD)))  # fmt: skip


_Norm = Literal["none", "layer-norm", "constant-norm"]


def _factors(
    config: Mapping[str, Any], given: Stored, hooks: tuple[str, str], width: int, scale: float | None
) -> tuple[_Norm, tuple[float, float]]:
    """How rows are normed, and by what rows and outputs were multiplied in training: the root of d over their mean norm."""
    mode = config.get("norm_activation", "dataset-wise")
    if mode == "inference":
        return "none", (1.0, 1.0)
    if mode == "token-wise":
        if hooks[0] != hooks[1]:
            raise BadFormat(
                "A transcoder of rows normed one by one does not say what its outputs are.", "Use another."
            )
        return "constant-norm", (1.0, 1.0)
    if mode != "dataset-wise":
        raise BadFormat(f"norm_activation is {mode!r}.", "Known are dataset-wise, token-wise and inference.")
    if scale is not None:
        return "none", (positive(scale, "scale"), positive(scale, "scale"))
    stored = config.get(_NORM) or {}
    found = []
    for side, hook in zip(("in", "out"), hooks, strict=True):
        value = (
            stored.get(side)
            or stored.get(hook)
            or given.number(f"{_NORM}.{hook}")
            or given.number(f"{_NORM}.{side}")
        )
        if not value or not value > 0:
            raise BadFormat(
                f"Its rows were scaled by the mean norm at {hook or side}, which the files do not hold.",
                "Give scale=, the root of d over that mean norm.",
            )
        found.append(width**0.5 / float(value))
    return "none", (found[0], found[1])


def _activation(
    given: Stored, config: Mapping[str, Any], into: float, norms: Tensor | None, format: str
) -> Nonlinearity:
    name = str(config.get("act_fn", "jumprelu")).lower()
    if format == "llama-scope-r1":
        level = given.must("log_jumprelu_threshold")
        level = level.to(wider(level)).exp()
    elif name == "jumprelu":
        value = config.get("jump_relu_threshold")
        if value is None:
            raise BadFormat(f"{FIRST} says no jump_relu_threshold.", "Fetch it again.")
        # the one threshold of all latents is on the scale of raw rows, its pre-activations on that of training
        level = torch.tensor(float(value) * into, dtype=torch.float32)
    elif name == "topk":
        return TopK(whole(config.get("top_k"), "top_k", FIRST))
    elif name == "relu":
        return ReLU()
    else:
        raise BadFormat(f"act_fn is {name!r}.", "Known are jumprelu, topk and relu.")
    return JumpReLU(level if norms is None else level / norms)


_SCALE = {"scale": "the root of d over the mean norm of rows, where the files do not hold it"}
FORMATS = (
    Format("llama-scope", "Llama Scope", _known, read, takes=_SCALE),
    Format(
        "llama-scope-r1", "Llama Scope of the R1 distillation", _known_distilled, read_distilled, takes=_SCALE
    ),
)
