"""llamascopium (OpenMOSS, Llama Scope 2): sparse autoencoders, transcoders, cross-layer transcoders by target, crosscoders.

Stored: W_E [d F] ([L d F] across layers, [H d F] for H places), W_D [F d] (W_D.j [j+1 F d] for target j, [H F d]), and
logarithms of thresholds. Rows are scaled by `norm_activation`; where `sparsity_include_decoder_norm` is set, pre-activations
are multiplied by the lengths of decoders to be compared or ranked, and divided again (llamascopium 2.0.0b34, models/*.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
    even_gain,
    extras,
    from_log,
    keys_in,
    maybe,
    must,
    need,
    number,
    only,
    over_lengths,
    single,
    spread_bias,
    type_notes,
    word,
)
from cutaway.features.formats.llamascopium_files import write
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_THRESHOLD, _NORM = "activation_function.log_jumprelu_threshold", "dataset_average_activation_norm."
_WEIGHTS = tuple(
    f"{name}.{kind}"
    for name in ("sae_weights", "checkpoints/pruned", "checkpoints/final")
    for kind in ("safetensors", "pt")
)
_TYPES = ("sae", "clt", "crosscoder")
_SCALINGS = ("token-wise", "batch-wise", "dataset-wise", "inference")
_JOINT = ("layertopk", "batchlayertopk")
_UNDERSTOOD = (
    "sae_type", "d_model", "expansion_factor", "use_decoder_bias", "act_fn", "norm_activation",
    "sparsity_include_decoder_norm", "top_k", "use_triton_kernel", "sparsity_threshold_for_triton_spmm_kernel",
    "jumprelu_threshold_window", "hook_point_in", "hook_point_out", "use_glu_encoder", "hook_points_in",
    "hook_points_out", "hook_points", "init_cross_layer_decoder_all_zero", "decode_with_csr",
    "sparsity_threshold_for_csr", "dtype", "device",
)  # fmt: skip


def _file(source: DictionaryFiles) -> str | None:
    """The file of weights, in the order in which the package looks for it."""
    names = [source.path.name] if source.path.is_file() else [n for n in _WEIGHTS if n in source.files]
    return next((n for n in names if keys_in(source, n) & {"W_E", "sae.W_E"}), None)


def _known(source: DictionaryFiles) -> bool:
    return "sae_type" in source.config("config.json") and _file(source) is not None


@dataclass(frozen=True)
class _Scope:
    tensors: Mapping[str, Any]
    where: str
    config: Mapping[str, Any]
    act: str
    scaling: str

    def get(self, key: str, *shape: int | None) -> Tensor:
        return need(self.tensors, key, *shape, where=self.where)

    @property
    def weighted(self) -> bool:
        """Are pre-activations multiplied by the lengths of decoders to be compared?"""
        return bool(self.config.get("sparsity_include_decoder_norm", True))

    def scale(self, hook: str, width: int) -> float:
        """By what values of a hook were multiplied, in double precision. Raises `BadFormat` where it is missing."""
        if self.scaling != "dataset-wise":
            return 1.0
        stored = self.tensors.get(_NORM + hook)
        length = float(stored) if torch.is_tensor(stored) and stored.numel() == 1 else math.nan
        if not 0 < length < math.inf:
            raise BadFormat(
                f"Values of {hook} were divided by their average length, which {self.where} does not hold.",
                "Save it again with its dataset_average_activation_norm.",
            )
        return math.sqrt(width) / length

    def activation(self, log: Tensor | None, lengths: Tensor, dtype: torch.dtype) -> Nonlinearity:
        """The nonlinearity of latents whose decoders have these lengths [F]."""
        if self.act == "relu":
            return ReLU()
        if self.act == "jumprelu":
            assert log is not None
            threshold = from_log(log).to(dtype)
            return JumpReLU(over_lengths(threshold, lengths) if self.weighted else threshold)
        return TopK(number(self.config, "top_k", "config.json"), by=lengths if self.weighted else None)


def _read(source: DictionaryFiles) -> Dictionary:
    config, where = source.config("config.json"), must(_file(source), source, "llamascopium")
    kind = word(config, "sae_type", _TYPES, "", "config.json")
    act = str(config.get("act_fn", "relu")).lower()
    if act in _JOINT:
        raise BadFormat(
            f"{act} keeps the strongest latents of all layers together, which no layer can tell alone.",
            "Turn it into a JumpReLU first, with llamascopium's topk-to-jumprelu conversion.",
        )
    word({"act_fn": act}, "act_fn", ("relu", "jumprelu", "topk", "batchtopk"), "relu", "config.json")
    scaling = word(config, "norm_activation", _SCALINGS, "dataset-wise", "config.json")
    if scaling == "batch-wise":
        raise BadFormat(
            "Rows were divided by the average length of their batch, so that one row has no answer.",
            "Train it with norm_activation token-wise or dataset-wise.",
        )
    tensors = source.tensors(where)
    if "W_E" not in tensors:
        tensors = {
            key.removeprefix("sae."): value for key, value in tensors.items() if key.startswith("sae.")
        }
    held = _Scope(tensors, where, config, act, scaling)
    known = {"W_E", "b_E", "W_D", "b_D", "W_E_glu", "b_E_glu", _THRESHOLD}
    only([key for key in tensors if not key.startswith((_NORM, "W_D.", "b_D."))], known, where)
    if (act == "jumprelu") != (_THRESHOLD in tensors):
        raise BadFormat(
            f"config.json says act_fn {act}, and {where} holds {'no' if act == 'jumprelu' else 'a'} threshold.",
            "Fetch the configuration and the weights of the same run.",
        )
    notes = extras(config, _UNDERSTOOD, "config.json")
    if act == "batchtopk":
        notes += ("Its trainer takes the strongest of a batch; here each row keeps its own top k.",)
    if act == "jumprelu" and held.weighted:
        notes += (
            "Its thresholds compare pre-activations times the lengths of decoders, by which they are divided here.",
        )
    stored = [float(v) for key, v in tensors.items() if key.startswith(_NORM) and torch.is_tensor(v)]
    if kind == "sae" and act == "jumprelu" and scaling == "inference" and any(1e-3 < v < 1e9 for v in stored):
        notes += (
            "If its package folded the scale in, thresholds were left as they were: compare its sparsity.",
        )
    if scaling == "dataset-wise":
        notes += ("Input scales are gains; output scales are folded into decoders and biases.",)
    width, size = held.get("W_E", *([None] * (2 if kind == "sae" else 3))).shape[-2:]
    agree(config, "config.json", d_model=width)
    if "expansion_factor" in config:
        agree({"latents": int(width * config["expansion_factor"])}, "config.json", latents=size)
    made = {"sae": _read_sae, "clt": _read_clt, "crosscoder": _read_crosscoder}[kind](held, notes)
    return type_notes(made)


def _said(held: _Scope) -> dict[str, Any]:
    kept = ("norm_activation", "sparsity_include_decoder_norm", "act_fn", "model_name")
    return {key: held.config[key] for key in kept if key in held.config} | (
        {"k": held.config["top_k"]} if "topk" in held.act and "top_k" in held.config else {}
    )


def _lengths(rows: Tensor) -> Tensor:
    """Of decoders [... F d] -> [... F], without a copy of them."""
    return torch.linalg.vector_norm(rows, dim=-1)


def _over(value: Tensor | None, scale: float) -> Tensor | None:
    return value if value is None or scale == 1 else single(value) / scale


def _scaled(weight: Tensor, bias: Tensor, activation: Nonlinearity, s: float, **more: Any) -> Encoder:
    """An encoder of rows that are multiplied by s first."""
    if s == 1:
        return Encoder(weight, bias, activation, **more)
    return Encoder(weight, spread_bias(bias, s), activation, gain=even_gain(weight.shape[1], s), **more)


def _read_sae(held: _Scope, notes: tuple[str, ...]) -> Dictionary:
    hook_in, hook_out = (str(held.config.get(f"hook_point_{side}") or "") for side in ("in", "out"))
    weight = held.get("W_E", None, None)
    width, size = weight.shape
    bias, out = held.get("b_E", size), held.get("W_D", size, width)
    if held.scaling == "token-wise" and hook_in != hook_out:
        raise BadFormat(
            "Each target was divided by its own length, which nobody knows before it is there.",
            "Train it with norm_activation dataset-wise.",
        )
    s_in, s_out = held.scale(hook_in, width), held.scale(hook_out, width)
    log = maybe(held.tensors, _THRESHOLD, size, where=held.where)
    act = held.activation(log, _lengths(out), weight.dtype)
    more: dict[str, Any] = {"norm": "constant-norm"} if held.scaling == "token-wise" else {}
    if held.config.get("use_glu_encoder"):
        gate = held.get("W_E_glu", width, size)
        more |= {
            "gate": gate if s_in == 1 else single(gate) * s_in,
            "gate_bias": held.get("b_E_glu", size),
        }
    b_out = held.get("b_D", width) if held.config.get("use_decoder_bias", True) else None
    return Dictionary(
        "autoencoder" if hook_in == hook_out else "transcoder", (_scaled(weight, bias, act, s_in, **more),),
        (Decoder(0, 0, _sure(_over(out, s_out))),), (_over(b_out, s_out),), ((hook_place(hook_in, width),),),
        (hook_place(hook_out, width),), format="llamascopium", said=_said(held), notes=notes,
    )  # fmt: skip


def _sure(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _hooks(held: _Scope, key: str, n: int) -> list[str]:
    found = held.config.get(key)
    if not isinstance(found, list) or len(found) != n:
        raise BadFormat(f"config.json has no {key} for each of {n} places.", "Fetch it again.")
    return [str(hook) for hook in found]


def _read_clt(held: _Scope, notes: tuple[str, ...]) -> Dictionary:
    weight = held.get("W_E", None, None, None)
    n, width, size = weight.shape
    bias = held.get("b_E", n, size)
    hooks_in, hooks_out = _hooks(held, "hook_points_in", n), _hooks(held, "hook_points_out", n)
    if held.scaling == "token-wise":
        raise BadFormat(
            "Each target was divided by its own length, which nobody knows before it is there.",
            "Train it with norm_activation dataset-wise.",
        )
    outs = [held.get(f"W_D.{j}", j + 1, size, width) for j in range(n)]
    s_in = [held.scale(hook, width) for hook in hooks_in]
    s_out = [held.scale(hook, width) for hook in hooks_out]
    log = maybe(held.tensors, _THRESHOLD, n, size, where=held.where)
    encoders = []
    for i in range(n):
        lengths = torch.ones(size)
        if held.act != "relu" and held.weighted:
            lengths = torch.stack([_lengths(outs[j][i]).pow(2) for j in range(i, n)]).sum(0).sqrt()
        act = held.activation(None if log is None else log[i], lengths, weight.dtype)
        encoders.append(_scaled(weight[i], bias[i], act, s_in[i]))
    biased = held.config.get("use_decoder_bias", True) or "b_D.0" in held.tensors
    return Dictionary(
        "cross-layer transcoder", tuple(encoders),
        tuple(Decoder(i, j, _sure(_over(outs[j][i], s_out[j]))) for i in range(n) for j in range(i, n)),
        tuple(_over(held.get(f"b_D.{j}", width), s_out[j]) if biased else None for j in range(n)),
        tuple((hook_place(hook, width),) for hook in hooks_in), tuple(hook_place(hook, width) for hook in hooks_out),
        format="llamascopium", said=_said(held), notes=notes,
    )  # fmt: skip


def _read_crosscoder(held: _Scope, notes: tuple[str, ...]) -> Dictionary:
    """One source for all places; one for each where latents are compared with lengths of decoders, a mask for each place."""
    weight = held.get("W_E", None, None, None)
    n, width, size = weight.shape
    hooks = _hooks(held, "hook_points", n)
    if held.scaling == "token-wise":
        raise BadFormat(
            "Each place's row was divided by its own length, which one encoder of all places cannot do.",
            "Train it with norm_activation dataset-wise.",
        )
    bias = single(held.get("b_E", n, size)).sum(0).to(weight.dtype)
    out, b_out = held.get("W_D", n, size, width), held.get("b_D", n, width)
    scales = [held.scale(hook, width) for hook in hooks]
    even = len(set(scales)) == 1
    rows = (
        weight
        if even
        else single(weight) * torch.tensor(scales, dtype=torch.float64).to(single(weight))[:, None, None]
    )
    rows = rows.reshape(n * width, size)
    log = maybe(held.tensors, _THRESHOLD, size, where=held.where)
    acts = [held.activation(log, _lengths(out[h]), weight.dtype) for h in range(n)]
    acts = acts[:1] if held.act == "relu" else acts
    places: tuple[Place, ...] = tuple(hook_place(hook, width) for hook in hooks)
    several = len(acts) > 1
    if several:
        notes += (
            "A latent may be there for one place and not for another: each place is a source of its own.",
        )
    return Dictionary(
        "crosscoder", tuple(_scaled(rows, bias, act, scales[0] if even else 1.0) for act in acts),
        tuple(Decoder(h if several else 0, h, _sure(_over(out[h], scales[h]))) for h in range(n)),
        tuple(_over(b_out[h], scales[h]) for h in range(n)), (places,) * len(acts), places,
        format="llamascopium", said=_said(held), notes=notes,
    )  # fmt: skip


def _write(dictionary: Dictionary, folder: Path) -> None:
    write(dictionary, folder)


FORMATS: tuple[Format, ...] = (
    Format("llamascopium", "llamascopium (Llama Scope 2) of OpenMOSS", _known, _read, _write),
)
