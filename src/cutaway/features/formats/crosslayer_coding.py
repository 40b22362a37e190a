"""crosslayer-coding (curt-tigges): one module a pair of layers, `decoders.0->2`, or decoders tied to source or target.

Stored: encoder weights [F d], decoder weights [d F]. Each untied decoder has a bias, and a target's are summed. JumpReLU
keeps what is at its threshold too. Statistics of inputs and targets lie in norm_stats.json, deviations plus 1e-6
(clt/models/decoder.py, theta.py, activations.py, clt/training/data/manifest_activation_store.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
)
from cutaway.features.formats.layered import (
    agree,
    extras,
    from_log,
    keys_in,
    maybe,
    must,
    need,
    number,
    only,
    single,
    type_notes,
    word,
)
from cutaway.features.formats.places import hook_place, module_place
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_CODER, _DECODER = "encoder_module.encoders", "decoder_module.decoders"
_THETA = "theta_manager.log_threshold"
_STATISTICS = "norm_stats.json"
#: Added to deviations before anything is divided by them.
_EPS = 1e-6
_SAID = (
    "model_name", "normalization_method", "clt_dtype", "batchtopk_k", "topk_k", "context_size", "expected_input_dtype",
)  # fmt: skip
_UNDERSTOOD = (
    *_SAID, "num_features", "num_layers", "d_model", "activation_fn", "jumprelu_threshold", "batchtopk_straight_through",
    "topk_straight_through", "topk_mode", "two_stage_batchtopk", "mlp_input_template", "mlp_output_template",
    "tl_input_template", "tl_output_template", "decoder_tying", "enable_feature_offset", "enable_feature_scale",
    "skip_connection", "sqrt_d_model_normalize",
)  # fmt: skip


def _file(source: DictionaryFiles) -> str | None:
    return next((name for name in source.tensor_files if f"{_CODER}.0.weight" in keys_in(source, name)), None)


@dataclass(frozen=True)
class _Coding:
    tensors: Mapping[str, Any]
    where: str
    n: int
    width: int
    size: int
    tying: str

    def decoder(self, i: int, j: int) -> str:
        """The name of the module that leads from layer i to layer j."""
        return f"{_DECODER}.{ {'none': f'{i}->{j}', 'per_source': i}.get(self.tying, j) }"

    def scale(self, j: int) -> Tensor | None:
        """The factor [F] of latents towards a target."""
        return maybe(self.tensors, f"decoder_module.feature_scale.{j}", self.size, where=self.where)


def _read(source: DictionaryFiles) -> Dictionary:
    where = must(_file(source), source, "crosslayer-coding")
    config = source.config("cfg.json")
    tensors = source.tensors(where)
    size, width = need(tensors, f"{_CODER}.0.weight", None, None, where=where).shape
    n = number(config, "num_layers", "cfg.json")
    agree(config, "cfg.json", num_features=size, d_model=width)
    tying = word(config, "decoder_tying", ("none", "per_source", "per_target"), "none", "cfg.json")
    held = _Coding(tensors, where, n, width, size, tying)
    _check_keys(held)
    statistics = _statistics(source, config, held)
    activations = _activations(held, config)
    encoders = tuple(_encoder(held, i, activations[i], statistics) for i in range(n))
    decoders = tuple(Decoder(i, j, _decoder(held, i, j, statistics)) for i in range(n) for j in range(i, n))
    biases = tuple(_bias(held, j, statistics) for j in range(n))
    skips = tuple(_skip(held, j) for j in range(n))
    if any(skip is not None for skip in skips) and statistics:
        raise BadFormat(
            "Its skip connection reads standardised rows, which is not supported beside norm_stats.json.",
            "Ask for it, with the file.",
        )
    notes = extras(config, _UNDERSTOOD, "cfg.json")
    if statistics:
        notes += (f"The statistics of {_STATISTICS} are folded into weights and biases.",)
    if isinstance(activations[0], JumpReLU):
        notes += (
            "What is at its threshold counts as above: thresholds are the next smaller numbers of their type.",
        )
    said = {"model": config.get("model_name")} | {key: config.get(key) for key in _SAID[1:]}
    return type_notes(
        Dictionary(
            "cross-layer transcoder", encoders, decoders, biases,
            tuple((_place(config, "input", i, width),) for i in range(n)),
            tuple(_place(config, "output", i, width) for i in range(n)), skips, format="crosslayer-coding",
            said={k: v for k, v in said.items() if v is not None}, notes=notes,
        )
    )  # fmt: skip


def _check_keys(held: _Coding) -> None:
    """Raise `BadFormat` for keys of another shape of this format, and for what is not linear in activations."""
    n = held.n
    known = [f"{_CODER}.{i}.{key}" for i in range(n) for key in ("weight", "bias_param")]
    known += [
        f"{held.decoder(i, j)}.{key}"
        for i in range(n)
        for j in range(i, n)
        for key in ("weight", "bias_param")
    ]
    known += [f"decoder_module.{key}.{j}" for key in ("feature_scale", "feature_offset") for j in range(n)]
    known += [f"decoder_module.skip_weights.{i}->{j}" for i in range(n) for j in range(i, n)]
    known += [f"decoder_module.skip_weights.{j}" for j in range(n)]
    only(held.tensors, [*known, _THETA], held.where)
    for j in range(n):
        offset = held.tensors.get(f"decoder_module.feature_offset.{j}")
        if offset is not None and bool(offset.count_nonzero()):
            raise BadFormat(
                "Its feature offsets add a number to each latent that is there, for each target another.",
                "Such a decoder is not linear in activations; only files without offsets are read.",
            )


def _activations(held: _Coding, config: Mapping[str, Any]) -> list[Nonlinearity]:
    kind = word(config, "activation_fn", ("jumprelu", "relu", "batchtopk", "topk"), "jumprelu", "cfg.json")
    if kind in ("batchtopk", "topk"):
        raise BadFormat(
            f"Its {kind} ranks latents by how far they are from their mean over the batch, so one row has no answer.",
            "Turn it into a JumpReLU with its own scripts/convert_batchtopk_to_jumprelu.py.",
        )
    if kind == "relu":
        return [ReLU()] * held.n
    log = need(held.tensors, _THETA, held.n, held.size, where=held.where)
    at = from_log(single(log))
    below = torch.nextafter(at, torch.full_like(at, -torch.inf))
    return [JumpReLU(below[i]) for i in range(held.n)]


def _statistics(
    source: DictionaryFiles, config: Mapping[str, Any], held: _Coding
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Mean and deviation [d] of inputs and targets by layer; {} where nothing was standardised.

    Raises `BadFormat` where they are needed and missing.
    """
    said = config.get("normalization_method", "none")
    method = {"auto": "mean_std", "estimated_mean_std": "mean_std"}.get(said, said)
    if config.get("sqrt_d_model_normalize") or method not in ("none", "mean_std"):
        raise BadFormat(
            f"normalization_method is {said!r}, of which its files do not say what was divided by what.",
            "Files with none and mean_std are read.",
        )
    if method == "none":
        return {}
    found = source.config(_STATISTICS)
    if not found:
        raise BadFormat(
            f"It was trained on standardised rows, and there is no {_STATISTICS} beside {held.where}.",
            "Fetch the one of its run; without it every activation would be wrong.",
        )
    return {side: [_layer(found, i, side, held) for i in range(held.n)] for side in ("inputs", "targets")}


def _layer(found: Mapping[str, Any], i: int, side: str, held: _Coding) -> tuple[Tensor, Tensor]:
    row = found.get(str(i))
    row = row.get(side) if isinstance(row, Mapping) else None
    try:
        mean, std = (torch.tensor(row[key], dtype=torch.float64) for key in ("mean", "std"))  # type: ignore[index]
    except (TypeError, KeyError, ValueError) as error:
        raise BadFormat(
            f"{_STATISTICS} has no mean and std of {side} of layer {i}.", "Fetch it again."
        ) from error
    if mean.shape != (held.width,) or std.shape != (held.width,):
        raise BadFormat(
            f"{_STATISTICS} has {len(mean)} numbers for {side} of layer {i}, not {held.width}.",
            "Fetch it again.",
        )
    return mean, std + _EPS


def _encoder(
    held: _Coding, i: int, activation: Nonlinearity, statistics: Mapping[str, list[tuple[Tensor, Tensor]]]
) -> Encoder:
    weight = need(held.tensors, f"{_CODER}.{i}.weight", held.size, held.width, where=held.where).T
    bias = need(held.tensors, f"{_CODER}.{i}.bias_param", held.size, where=held.where)
    if not statistics:
        return Encoder(weight, bias, activation)
    mean, std = statistics["inputs"][i]
    weight = single(weight)
    return Encoder((weight / std[:, None]).to(weight.dtype), bias, activation, centre=mean.to(weight.dtype))


def _decoder(held: _Coding, i: int, j: int, statistics: Mapping[str, list[tuple[Tensor, Tensor]]]) -> Tensor:
    rows = need(held.tensors, f"{held.decoder(i, j)}.weight", held.width, held.size, where=held.where).T
    scale = held.scale(j)
    rows = rows if scale is None else single(rows) * scale[:, None]
    return rows if not statistics else (single(rows) * statistics["targets"][j][1]).to(single(rows).dtype)


def _bias(held: _Coding, j: int, statistics: Mapping[str, list[tuple[Tensor, Tensor]]]) -> Tensor:
    """The bias of a target: of each decoder that leads there, once for those tied to the target."""
    names = list(dict.fromkeys(held.decoder(i, j) for i in range(j + 1)))
    parts = [need(held.tensors, f"{name}.bias_param", held.width, where=held.where) for name in names]
    total = parts[0] if len(parts) == 1 else torch.stack([single(part) for part in parts]).sum(0)
    if not statistics:
        return total
    mean, std = statistics["targets"][j]
    return (single(total) * std + mean).to(single(total).dtype)


def _skip(held: _Coding, j: int) -> Tensor | None:
    """The skip connection of a target from its own layer. Raises `BadFormat` where earlier layers have one too."""
    names = {i: f"decoder_module.skip_weights.{i}->{j}" for i in range(j + 1)}
    if held.tying != "none":
        names = dict.fromkeys(range(j + 1), f"decoder_module.skip_weights.{j}")
    found = {i: held.tensors[name] for i, name in names.items() if name in held.tensors}
    if any(i < j and bool(skip.count_nonzero()) for i, skip in found.items()):
        raise BadFormat(
            f"Layer {j} has skip connections from earlier layers too.",
            "Only those from a layer's own input are read.",
        )
    return maybe(held.tensors, names[j], held.width, held.width, where=held.where)


def _place(config: Mapping[str, Any], side: str, layer: int, width: int) -> Place:
    hook, module = config.get(f"tl_{side}_template"), config.get(f"mlp_{side}_template")
    said = str(hook or module or "")
    for gap in ("{}", "{layer}", "{layer_idx}", "{i}"):
        said = said.replace(gap, str(layer))
    if not said:
        return Place("", "", width)
    return hook_place(said, width) if hook else module_place(said, width, "in" if side == "input" else "out")


FORMATS: tuple[Format, ...] = (
    Format(
        "crosslayer-coding", "crosslayer-coding of curt-tigges, by pairs of layers",
        lambda source: _file(source) is not None, _read,
    ),
)  # fmt: skip
