"""Dictionaries written as llamascopium has them: config.json and sae_weights.safetensors, rows as they are.

The package compares with exp of a stored logarithm. Where no logarithm in single precision has the threshold as its exp,
it is stored in double; the package rounds it to its own type when it reads the file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.dictionaries import Dictionary, Encoder, JumpReLU, ReLU, TopK
from cutaway.features.formats.layered import as_json, from_log, plain, write_folder

_TITLE = "llamascopium"


def write(dictionary: Dictionary, folder: str | Path) -> None:
    """Write a dictionary. Raises `BadInput` for one that the format cannot hold."""
    places = [*dictionary.writes, *(place for row in dictionary.reads for place in row)]
    encoders = dictionary.encoders
    token_wise = dictionary.kind == "autoencoder" and encoders[0].norm == "constant-norm"
    if not token_wise:
        plain(dictionary, _TITLE, gates=True)
    if any(e.gain is not None or e.centre is not None for e in encoders):
        raise BadInput(
            f"{_TITLE} takes nothing from rows and multiplies nothing.",
            "Fold it first: cutaway.features.formats.layered.folded(dictionary).",
        )
    if len({place.width for place in places}) != 1:
        raise BadInput(f"{_TITLE} has the same width at all places.", "Choose another format.")
    if any(place.model for place in places):
        raise BadInput(f"{_TITLE} spans places of one model.", "Choose another format.")
    if any(skip is not None for skip in dictionary.skips):
        raise BadInput(f"{_TITLE} has no skip connection.", "Choose circuit-tracer-set or another format.")
    sizes = set(dictionary.sizes)
    if len(sizes) != 1:
        raise BadInput(f"{_TITLE} has as many latents at each layer.", "Choose another format.")
    if len({_kind(encoder) for encoder in encoders}) != 1:
        raise BadInput(f"{_TITLE} has one nonlinearity for all layers.", "Choose another format.")
    make = {
        "autoencoder": _single, "transcoder": _single, "cross-layer transcoder": _across, "crosscoder": _crosscoder,
    }  # fmt: skip
    config, tensors = make[dictionary.kind](dictionary)
    width, size = places[0].width, sizes.pop()
    first = encoders[0].activation
    k = {"top_k": first.k} if isinstance(first, TopK) else {}
    common = {
        "d_model": width,
        "expansion_factor": _factor(width, size),
        "act_fn": _kind(encoders[0]),
        "norm_activation": "token-wise" if token_wise else "inference",
        **k,
    }
    names = {key: dictionary.said[key] for key in ("model_name",) if key in dictionary.said}
    write_folder(
        folder,
        [("sae_weights.safetensors", tensors)],
        {"config.json": as_json({**config, **common, **names})},
        ("sae_weights.*", "config.json"),
    )


def _kind(encoder: Encoder) -> str:
    match encoder.activation:
        case ReLU() | JumpReLU() | TopK():
            return encoder.activation.kind
    raise BadInput(
        f"{_TITLE} has ReLU, JumpReLU and top-k, not {encoder.activation.kind}.", "Choose another format."
    )


def _factor(width: int, size: int) -> float:
    """A factor f for which int(width * f) is the number of latents, as the package computes it."""
    factor = size / width
    while int(width * factor) < size:
        factor = math.nextafter(factor, math.inf)
    return factor


def _log(threshold: Tensor) -> Tensor:
    """A logarithm whose exp, rounded, is this threshold: of its own type where there is one, else in double precision."""
    if bool((threshold < 0).any()):
        raise BadInput(
            f"{_TITLE} stores logarithms of thresholds, and one is below zero.", "Choose another format."
        )
    exact = threshold.double().log()
    for log in (exact.to(threshold.dtype), exact):
        if torch.equal(from_log(log).to(threshold.dtype), threshold):
            return log
    raise BadInput(
        f"{_TITLE} stores logarithms of thresholds, and these in double precision have none.",
        "Write it in single precision: dictionary.to(torch.float32).",
    )


def _activation(encoders: list[Encoder], lengths: list[Tensor]) -> tuple[dict[str, Any], Tensor | None]:
    """What config.json says of decoders' lengths, and logarithms [L F] of thresholds."""
    acts = [encoder.activation for encoder in encoders]
    thresholds = [
        a.threshold.expand(e.size) for a, e in zip(acts, encoders, strict=True) if isinstance(a, JumpReLU)
    ]
    tops = [a for a in acts if isinstance(a, TopK)]
    if len({top.k for top in tops}) > 1:
        raise BadInput(f"{_TITLE} has one k for all layers.", "Choose another format.")
    ranked = [top.by is not None for top in tops]
    if any(ranked):
        same = all(
            top.by is not None and torch.equal(top.by, n) for top, n in zip(tops, lengths, strict=True)
        )
        if not same:
            raise BadInput(
                f"{_TITLE} ranks latents by the lengths of their decoders only.", "Choose another format."
            )
    log = _log(torch.stack(thresholds)) if thresholds else None
    return {"sparsity_include_decoder_norm": any(ranked)}, log


def _vector(value: Tensor | None, size: int, like: Tensor) -> Tensor:
    return like.new_zeros(size) if value is None else value


def _key() -> str:
    return "activation_function.log_jumprelu_threshold"


def _single(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not dictionary.single:
        raise BadInput(f"{_TITLE} has one layer of transcoders a file.", "Write a set as circuit-tracer-set.")
    encoder, out, bias = dictionary.encoders[0], dictionary.directions(), dictionary.biases[0]
    lengths = torch.linalg.vector_norm(out, dim=-1)
    config, log = _activation([encoder], [lengths])
    held = {"W_E": encoder.weight, "b_E": _vector(encoder.bias, encoder.size, encoder.weight), "W_D": out}
    if bias is not None:
        held["b_D"] = bias
    if encoder.gate is not None:
        held |= {"W_E_glu": encoder.gate, "b_E_glu": _vector(encoder.gate_bias, encoder.size, encoder.gate)}
    if log is not None:
        held[_key()] = log[0]
    hooks = {
        "hook_point_in": dictionary.reads[0][0].said,
        "hook_point_out": dictionary.writes[0].said,
    }
    if (hooks["hook_point_in"] == hooks["hook_point_out"]) != (dictionary.kind == "autoencoder"):
        raise BadInput(
            f"{_TITLE} tells a transcoder from an autoencoder by the names of its two hooks.",
            "Name both places.",
        )
    return {
        "sae_type": "sae", **hooks, **config, "use_decoder_bias": bias is not None,
        "use_glu_encoder": encoder.gate is not None,
    }, held  # fmt: skip


def _across(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    n, like = len(dictionary.encoders), dictionary.encoders[0].weight
    if len(dictionary.writes) != n or any(len(row) != 1 for row in dictionary.reads):
        raise BadInput(f"{_TITLE} has one site to read and one target a layer.", "Choose another format.")
    if any(d.target < d.source for d in dictionary.decoders):
        raise BadInput(f"In {_TITLE} no layer writes to an earlier one.", "Choose another format.")
    if any(encoder.gate is not None for encoder in dictionary.encoders):
        raise BadInput(f"{_TITLE} has no gated linear unit across layers.", "Choose another format.")
    to = {(d.source, d.target): d.weight for d in dictionary.decoders}
    empty = like.new_zeros(like.shape[1], like.shape[0])
    rows = [torch.stack([to.get((i, j), empty) for i in range(j + 1)]) for j in range(n)]
    lengths = [
        torch.stack([torch.linalg.vector_norm(rows[j][i], dim=-1).pow(2) for j in range(i, n)]).sum(0).sqrt()
        for i in range(n)
    ]
    config, log = _activation(list(dictionary.encoders), lengths)
    held = {
        "W_E": torch.stack([e.weight for e in dictionary.encoders]),
        "b_E": torch.stack([_vector(e.bias, e.size, e.weight) for e in dictionary.encoders]),
    }
    held |= {f"W_D.{j}": rows[j] for j in range(n)}
    held |= {f"b_D.{j}": _vector(dictionary.biases[j], like.shape[0], like) for j in range(n)}
    if log is not None:
        held[_key()] = log
    hooks = {
        "hook_points_in": [row[0].said for row in dictionary.reads],
        "hook_points_out": [place.said for place in dictionary.writes],
    }
    return {"sae_type": "clt", **hooks, **config, "use_decoder_bias": True}, held


def _crosscoder(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    n, encoder = len(dictionary.writes), dictionary.encoders[0]
    if len(dictionary.encoders) != 1 or not isinstance(encoder.activation, ReLU) or encoder.gate is not None:
        raise BadInput(
            f"{_TITLE} compares a crosscoder's latents times the lengths of decoders, in which thresholds would be rounded.",
            "Only crosscoders with a ReLU are written; choose another format for others.",
        )
    if [place.said for place in dictionary.reads[0]] != [place.said for place in dictionary.writes]:
        raise BadInput(f"{_TITLE}'s crosscoder writes to the places that it reads.", "Choose another format.")
    to = {d.target: d.weight for d in dictionary.decoders}
    width, size = dictionary.writes[0].width, encoder.size
    empty = encoder.weight.new_zeros(size, width)
    b_e = encoder.weight.new_zeros(n, size)
    b_e[0] = _vector(encoder.bias, size, encoder.weight)
    held = {
        "W_E": encoder.weight.reshape(n, width, size),
        "b_E": b_e,
        "W_D": torch.stack([to.get(j, empty) for j in range(n)]),
        "b_D": torch.stack([_vector(bias, width, encoder.weight) for bias in dictionary.biases]),
    }
    hooks = {"hook_points": [place.said for place in dictionary.writes]}
    return {
        "sae_type": "crosscoder", **hooks, "sparsity_include_decoder_norm": True, "use_decoder_bias": True,
    }, held  # fmt: skip
