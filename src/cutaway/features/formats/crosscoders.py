"""Crosscoders over two models (Kissane, Nanda) and over layers or models (crosscoder_learning).

Kissane: W_enc [2 d F], W_dec [F 2 d], b_enc [F], b_dec [2 d], ReLU. crosscoder_learning: encoder.weight [n d F],
decoder.weight [n F d]; its batch top-k compares activations times the lengths of decoders with a threshold, and where that
is -1 it was never set. Coupled lengths are sums over layers; decoupled ones keep a mask for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import (
    Decoder,
    Dictionary,
    Encoder,
    JumpReLU,
    Nonlinearity,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats.layered import (
    agree,
    extras,
    keys_in,
    maybe,
    must,
    need,
    only,
    over_lengths,
    single,
    type_notes,
)
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_KISSANE = ("W_enc", "W_dec", "b_enc", "b_dec")
_LEARNED = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
#: Buffers of crosscoder_learning beside its weights.
_BUFFERS = ("k", "threshold", "code_normalization_id")
_NORMALIZERS = ("activation_mean", "activation_std", "activation_global_scale", "target_rms")
#: In the order of their numbers, from 1.
_CODES = ("CROSSCODER", "SAE", "MIXED", "NONE", "DECOUPLED")
_SAID = (
    "model_name",
    "model_A",
    "model_B",
    "hook_point",
    "site",
    "dataset",
    "seq_len",
    "enc_dtype",
    "l1_coeff",
)


def _solid(source: DictionaryFiles, keys: tuple[str, ...]) -> str | None:
    """The file that holds these keys, the first and third of them of three dimensions."""
    for name in source.tensor_files:
        if keys_in(source, name).issuperset(keys):
            shapes = source.shapes(name)
            if all(len(shapes.get(key, ())) == 3 for key in (keys[0], next(k for k in keys if "dec" in k))):
                return name
    return None


def _file_kissane(source: DictionaryFiles) -> str | None:
    name = _solid(source, _KISSANE)
    return name if name and "log_threshold" not in source.keys(name) else None


def _config(source: DictionaryFiles, where: str) -> Mapping[str, Any]:
    stem = where.rpartition(".")[0]
    names = (f"{stem}_cfg.json", "cfg.json", "config.json")
    return next((found for name in names if (found := source.config(name))), {})


# two models, side by side ------------------------------------------------------------------------------------------------


def _read_kissane(source: DictionaryFiles) -> Dictionary:
    where = must(_file_kissane(source), source, "crosscoder-kissane")
    held, config = source.tensors(where), _config(source, where)
    only(held, _KISSANE, where)
    weight = need(held, "W_enc", None, None, None, where=where)
    n, width, size = weight.shape
    out = need(held, "W_dec", size, n, width, where=where)
    bias = need(held, "b_dec", n, width, where=where)
    agree(config, "Its configuration", d_in=width, dict_size=size)
    hook = str(config.get("hook_point") or "")
    places = tuple(
        Place(hook, (hook_place(hook, width).site if hook else ""), width, model=m) for m in range(n)
    )
    encoder = Encoder(weight.reshape(n * width, size), need(held, "b_enc", size, where=where), ReLU())
    notes = (
        "Its trainer multiplied each model's values by a factor that brings their length to sqrt(d), which no file records.",
    )
    said = {"model": config.get("model_name")} | {key: config.get(key) for key in _SAID[1:]}
    return type_notes(
        Dictionary(
            "crosscoder", (encoder,), tuple(Decoder(0, m, out[:, m]) for m in range(n)), tuple(bias), (places,), places,
            format="crosscoder-kissane", said={k: v for k, v in said.items() if v is not None}, notes=notes,
        )
    )  # fmt: skip


# crosscoder_learning -----------------------------------------------------------------------------------------------------


def _read_learned(source: DictionaryFiles) -> Dictionary:
    where = must(_solid(source, _LEARNED), source, "crosscoder-learning")
    held, config = source.tensors(where), _config(source, where)
    row = config.get("trainer", config)
    settings = row if isinstance(row, Mapping) else {}
    _refuse_normalizers(held, where)
    only(held, (*_LEARNED, *_BUFFERS), where)
    weight = need(held, "encoder.weight", None, None, None, where=where)
    n, width, size = weight.shape
    out = need(held, "decoder.weight", None, size, width, where=where)
    targets = out.shape[0]
    bias = need(held, "decoder.bias", targets, width, where=where)
    b_enc = need(held, "encoder.bias", size, where=where)
    agree(settings, "Its configuration", activation_dim=width, dict_size=size)
    read = settings.get("encoder_layers_indices") or list(range(n))
    if len(read) != n or not all(isinstance(i, int) and 0 <= i < targets for i in read):
        raise BadFormat(
            f"{where} encodes {n} of {targets} places, and no configuration says which.",
            "Put the configuration of its run beside it, with encoder_layers_indices.",
        )
    activations, notes = _learned_activations(held, out, settings, where)
    places = tuple(Place("", "", width, model=m) for m in range(targets))
    encoders = tuple(Encoder(weight.reshape(n * width, size), b_enc, one) for one in activations)
    own = len(encoders) > 1
    notes += ("Its files number the places that it reads, and do not name them.",)
    known = (
        "activation_dim", "dict_size", "num_layers", "num_encoder_layers", "k", "decoder_type", "same_init_for_all_layers",
        "norm_init_scale", "init_with_transpose", "encoder_layers_indices", "num_decoder_output_layers",
        "code_normalization", "code_normalization_alpha_sae", "code_normalization_alpha_cc", "trainer", "buffer",
    )  # fmt: skip
    notes += extras(settings, (*known, *_SAID), "Its configuration") if settings is config else ()
    kept = ("k", "code_normalization", *_SAID)
    return type_notes(
        Dictionary(
            "crosscoder", encoders, tuple(Decoder(m if own else 0, m, out[m]) for m in range(targets)), tuple(bias),
            tuple(tuple(places[i] for i in read) for _ in encoders), places, format="crosscoder-learning",
            said={key: settings[key] for key in kept if settings.get(key) is not None}, notes=notes,
        )
    )  # fmt: skip


def _refuse_normalizers(held: Mapping[str, Any], where: str) -> None:
    found = [key for key in held if key.rpartition(".")[2] in _NORMALIZERS]
    if found:
        raise BadFormat(
            f"{where} standardises what it reads ({', '.join(sorted(found))}), in a way that its file does not say.",
            "Fold it in first: weights over deviations, biases less the mean.",
        )


def _learned_activations(
    held: Mapping[str, Any], out: Tensor, config: Mapping[str, Any], where: str
) -> tuple[list[Nonlinearity], tuple[str, ...]]:
    """One nonlinearity, or one for each target where the lengths of decoders are not put together; and notes."""
    if "k" not in held and "threshold" not in held:
        return [ReLU()], ()
    lengths, coupled = _lengths(held, out, config)
    threshold = maybe(held, "threshold", *((out.shape[0],) if not coupled else ()), where=where)
    k = int(held["k"]) if "k" in held else config.get("k")
    set_ = threshold is not None and bool((threshold >= 0).any() if not coupled else threshold >= 0)
    if set_ and threshold is not None:
        found = threshold.reshape(-1).to(lengths.dtype)
        return [JumpReLU(over_lengths(found[i], lengths[i]).clamp(min=0)) for i in range(len(lengths))], (
            "Its threshold compares activations times the lengths of decoders, by which it is divided here.",
        )
    if not isinstance(k, int) or k < 1:
        raise BadFormat(f"{where} has neither a threshold that was set nor a k.", "Fetch it again.")
    return [TopK(k, by=length) for length in lengths], (
        f"Its threshold was never set: each row keeps its {k} strongest, where its trainer takes those of a batch.",
    )


def _lengths(held: Mapping[str, Any], out: Tensor, config: Mapping[str, Any]) -> tuple[Tensor, bool]:
    """With what activations are multiplied to be compared, [1 F] or [n F] for each target, and are targets put together?"""
    stored = held.get("code_normalization_id")
    code = str(config.get("code_normalization") or "CROSSCODER").rpartition(".")[2].upper()
    if stored is not None:
        at = int(stored) - 1
        code = _CODES[at] if 0 <= at < len(_CODES) else str(int(stored))
    norms = torch.linalg.vector_norm(single(out), dim=2)
    match code:
        case "CROSSCODER":
            return norms.sum(0, keepdim=True), True
        case "SAE":
            return norms.pow(2).sum(0, keepdim=True).sqrt(), True
        case "MIXED":
            sae, cc = (
                float(config.get(f"code_normalization_alpha_{key}", d))
                for key, d in (("sae", 1.0), ("cc", 0.1))
            )
            return sae * norms.pow(2).sum(0, keepdim=True).sqrt() + cc * norms.sum(0, keepdim=True), True
        case "NONE":
            return torch.ones_like(norms[:1]), True
        case "DECOUPLED":
            return norms, False
    raise BadFormat(f"code_normalization is {code!r}, which is not known.", f"Known are {', '.join(_CODES)}.")


FORMATS: tuple[Format, ...] = (
    Format(
        "crosscoder-kissane", "crosscoders of Kissane and Nanda over two models",
        lambda source: _file_kissane(source) is not None, _read_kissane,
    ),
    Format(
        "crosscoder-learning", "crosscoder_learning, over layers or models",
        lambda source: _solid(source, _LEARNED) is not None, _read_learned,
    ),
)  # fmt: skip
