"""From what is learned about centred and scaled rows to a dictionary of raw values.

Rows are trained on as (x - mean) * scale, with one scale for each place. A latent's activation is divided by the scale of
its source's own target, so that it is in the units of what it writes and its decoder keeps its length there; thresholds
are divided with it. Which latents fire is not touched by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.dictionaries.dictionary import Decoder, Dictionary, Place
from cutaway.features.dictionaries.encoder import Encoder
from cutaway.features.dictionaries.nonlinearities import (
    Gated,
    GroupMax,
    JumpReLU,
    Nonlinearity,
    ReLU,
    TopK,
    tensors_of,
)
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.wiring import Routes


def folded(
    recipe: DictionaryRecipe, wiring: Routes, parameters: Mapping[str, Tensor], thresholds: Sequence[float],
    means_in: Sequence[Tensor], scales_in: Sequence[float], means_out: Sequence[Tensor],
    scales_out: Sequence[float], dtype: torch.dtype = torch.float32,
) -> Dictionary:  # fmt: skip
    """The dictionary that does on raw rows what the parameters do on rows less their mean, times their scale.

    thresholds: of "batchtopk", the number that activations of each source are compared with on single rows. Means [d] and
    scales are those of the places read and of the targets. Worked out in double precision.

    Raises `BadInput` where means and scales do not fit, or a scale is not above zero.
    """
    for what, means, scales, widths in (
        ("read", means_in, scales_in, wiring.widths_in),
        ("written", means_out, scales_out, wiring.widths_out),
    ):
        if [tuple(m.shape) for m in means] != [(w,) for w in widths] or len(scales) != len(widths):
            raise BadInput(
                f"Means and scales do not fit what is {what}, of widths {widths}.",
                "Give one mean [d] and one scale for each place.",
            )
        if not all(0 < float(s) < float("inf") for s in scales):
            raise BadInput(f"A scale of what is {what} is not above zero.", "Give finite scales above zero.")
    held = {name: value.detach().double() for name, value in parameters.items()}
    into = [m.detach().double() for m in means_in]
    out = [m.detach().double() for m in means_out]
    encoders, decoders = [], []
    for s, reads in enumerate(wiring.reads):
        unit = 1 / float(scales_out[wiring.writes[s][0]])
        mean = torch.cat([into[i] for i in reads])
        scale = torch.cat([torch.full_like(into[i], float(scales_in[i])) for i in reads])
        weight = held[f"encoders.{s}.weight"] * scale
        shift, bias = weight @ mean, held[f"encoders.{s}.bias"]
        activation, bias = _activation(recipe, s, held, thresholds, unit, shift, bias)
        encoders.append(
            Encoder(_cast(weight.T * unit, dtype), bias if bias is None else _cast(bias, dtype), activation)
        )
        wide = held[f"decoders.{s}.weight"]
        for target, part in zip(wiring.writes[s], wide.split(list(wiring.spans(s).values()), 1), strict=True):
            decoders.append(Decoder(s, target, _cast(part / (unit * float(scales_out[target])), dtype)))
    biases, skips = [], []
    for t in range(len(wiring.widths_out)):
        bias = held[f"biases.{t}"] / float(scales_out[t]) + out[t]
        skip = held.get(f"skips.{t}")
        if skip is not None:
            skip = skip * (float(scales_in[t]) / float(scales_out[t]))
            bias = bias - skip @ into[t]
        biases.append(_cast(bias, dtype))
        skips.append(None if skip is None else _cast(skip, dtype))
    places = [Place("", site, width) for site, width in zip(recipe.reads, wiring.widths_in, strict=True)]
    targets = [Place("", site, width) for site, width in zip(recipe.writes, wiring.widths_out, strict=True)]
    return Dictionary(
        recipe.kind, tuple(_typed(e, dtype) for e in encoders), tuple(decoders), tuple(biases),
        tuple(tuple(places[i] for i in reads) for reads in wiring.reads), tuple(targets), tuple(skips),
    )  # fmt: skip


def _activation(
    recipe: DictionaryRecipe, source: int, held: Mapping[str, Tensor], thresholds: Sequence[float], unit: float,
    shift: Tensor, bias: Tensor,
) -> tuple[Nonlinearity, Tensor | None]:  # fmt: skip
    """The nonlinearity of one source and the bias of its product, where activations are multiplied with `unit`."""
    bias = (bias - shift) * unit
    match recipe.activation:
        case "topk":
            return TopK(recipe.k), bias
        case "groupmax":
            return GroupMax(recipe.k), bias
        case "jumprelu":
            return JumpReLU(held[f"encoders.{source}.threshold"] * unit), bias
        case "batchtopk":
            return JumpReLU(bias.new_tensor(thresholds[source] * unit)), bias
        case "gated":
            scale = held[f"encoders.{source}.scale"].exp()
            size = (held[f"encoders.{source}.magnitude"] - scale * shift) * unit
            return Gated(bias, scale, size), None
    return ReLU(), bias


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).contiguous()


def _typed(encoder: Encoder, dtype: torch.dtype) -> Encoder:
    """With the numbers of its nonlinearity in the same type."""
    cast = {name: _cast(value, dtype) for name, value in tensors_of(encoder.activation).items()}
    return replace(encoder, activation=replace(encoder.activation, **cast))  # type: ignore[type-var]
