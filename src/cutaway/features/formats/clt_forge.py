"""CLT-Forge: cross-layer transcoders whose decoders are a list of pairs, and transcoders a layer without them.

Pair k of W_dec leads from source to target as `torch.triu_indices` has them. Rows are multiplied by a factor of the layer
before they are encoded (the encoder's bias is not), and the reconstruction is divided by the target's; each pair has a bias
and a target's are summed. Files may be cut along the latents, `rank0_...` (src/clt_forge/clt.py, attribution/loading.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, JumpReLU
from cutaway.features.formats.layered import (
    agree,
    even_gain,
    extras,
    from_log,
    keys_in,
    must,
    need,
    only,
    single,
    spread_bias,
    type_notes,
    word,
)
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_SCALES = ("estimated_norm_scaling_factor_in", "estimated_norm_scaling_factor_out")
_KEYS = ("W_enc", "W_dec", "b_enc", "b_dec", "log_threshold", *_SCALES)
#: Tensors that only training needs.
_TRAINING = ("feature_count", "layer_mask", "l_idx", "k_idx")
_CONFIGS = ("cfg.json", "clt_cfg.json", "config.json")
#: Along which dimension a tensor is cut into ranks; others are the same in each.
_CUT = {"W_enc": 2, "b_enc": 1, "W_dec": 1, "log_threshold": 1}
_SAID = ("model_name", "dtype", "context_size", "l0_coefficient", "k")
_UNDERSTOOD = (
    *_SAID, "device", "seed", "debug", "d_in", "d_latent", "n_layers", "jumprelu_bandwidth", "jumprelu_init_threshold",
    "normalize_decoder", "dead_feature_window", "cross_layer_decoders", "functional_loss", "activation_fn", "sparse_decode",
    "sparse_threshold", "ddp", "fsdp", "feature_sharding", "is_sharded", "world_size",
)  # fmt: skip


def _files(source: DictionaryFiles) -> list[str]:
    """Its one file, or those of all ranks in order."""
    found = [
        name for name in source.tensor_files if keys_in(source, name).issuperset(("W_enc", "log_threshold"))
    ]
    ranks = {name: re.match(r"(?:.*/)?rank(\d+)_", name) for name in found}
    return sorted(found, key=lambda name: int(match[1]) if (match := ranks[name]) else -1)


def _read(source: DictionaryFiles) -> Dictionary:
    files = must(_files(source), source, "clt-forge")
    config = next((found for name in _CONFIGS if (found := source.config(name))), {})
    word(config, "activation_fn", ("jumprelu",), "jumprelu", "its configuration")
    held, where, cut = _joined(source, files)
    weight = need(held, "W_enc", None, None, None, where=where)
    n, width, size = weight.shape
    agree(config, "Its configuration", d_latent=size, d_in=width, n_layers=n)
    crossing = config.get(
        "cross_layer_decoders", len(need(held, "W_dec", None, size, width, where=where)) != n
    )
    pairs = torch.triu_indices(n, n).T.tolist() if crossing else [[i, i] for i in range(n)]
    out = need(held, "W_dec", len(pairs), size, width, where=where)
    bias = need(held, "b_dec", len(pairs), width, where=where)
    log = need(held, "log_threshold", n, size, where=where)
    inner, outer = (_factors(held, key, n, where) for key in _SCALES)
    b_enc = need(held, "b_enc", n, size, where=where)
    encoders = tuple(
        Encoder(weight[i], b_enc[i], JumpReLU(from_log(log[i])))
        if s == 1
        else Encoder(weight[i], spread_bias(b_enc[i], s), JumpReLU(from_log(log[i])), gain=even_gain(size, s))
        for i, s in enumerate(inner)
    )
    decoders = tuple(Decoder(i, j, _over(out[k], outer[j])) for k, (i, j) in enumerate(pairs))
    sums = [sum(bias[k] for k, (_, j) in enumerate(pairs) if j == target) for target in range(n)]
    notes = (*extras(config, _UNDERSTOOD, "Its configuration"), *cut)
    notes += ("Where it reads and writes is the format's own, not said in its files.",)
    if any(s != 1 for s in (*inner, *outer)):
        notes += ("Factors of the input are gains; those of the output are folded into decoders and biases.",)
    if config.get("normalize_decoder"):
        notes += ("Its trainer brought decoders to length one at each step; they are as they were saved.",)
    said = {"model": config.get("model_name")} | {key: config.get(key) for key in _SAID[1:]}
    return type_notes(
        Dictionary(
            "cross-layer transcoder" if crossing else "transcoder", encoders, decoders,
            tuple(_over(b, s) for b, s in zip(sums, outer, strict=True) if torch.is_tensor(b)),
            tuple((hook_place(f"blocks.{i}.ln2.hook_normalized", width),) for i in range(n)),
            tuple(hook_place(f"blocks.{i}.hook_mlp_out", width) for i in range(n)),
            format="clt-forge", said={k: v for k, v in said.items() if v is not None}, notes=notes,
        )
    )  # fmt: skip


def _factors(held: Mapping[str, Tensor], key: str, n: int, where: str) -> list[float]:
    """One number a layer, in double precision. Raises `BadFormat` where one is not above zero."""
    found = [float(s) for s in need(held, key, n, where=where).double()]
    if not all(0 < s < float("inf") for s in found):
        raise BadFormat(f"{key} in {where} is not above zero.", "Fetch the file again.")
    return found


def _over(value: Tensor, scale: float) -> Tensor:
    return value if scale == 1 else single(value) / scale


def _joined(source: DictionaryFiles, files: list[str]) -> tuple[Mapping[str, Tensor], str, tuple[str, ...]]:
    """Its tensors, put together from ranks where they are cut, a name for them, and a note."""
    for name in files:
        for key in set(_KEYS) - source.keys(name):
            raise BadFormat(f"{name} holds no {key}.", "The file is of another format, or damaged.")
        only(source.keys(name), (*_KEYS, *_TRAINING), name)
    if not re.match(r"(?:.*/)?rank\d+_", files[0]):
        return source.tensors(files[0]), files[0], ()
    ranks = [int(re.findall(r"rank(\d+)_", name)[-1]) for name in files]
    if ranks != list(range(len(ranks))):
        raise BadFormat(
            f"{source.path} has ranks {', '.join(map(str, ranks))} and not all from 0.",
            "Fetch all its files.",
        )
    parts = [source.tensors(name) for name in files]
    whole = {
        key: torch.cat([part[key] for part in parts], _CUT[key]) if key in _CUT else parts[0][key]
        for key in _KEYS
    }
    return whole, files[0], (f"Put together from {len(files)} ranks, in memory.",)


FORMATS: tuple[Format, ...] = (Format("clt-forge", "CLT-Forge", lambda source: bool(_files(source)), _read),)
