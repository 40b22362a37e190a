"""crosslayer-transcoder (Goreg12345): all layers in one file, decoders by target, standardisers folded or beside.

Stored: encoder.W [L d F], encoder.b [L F]; decoder.W [L F d] (a transcoder a layer) or decoder.W_j [j+1 F d] for target j;
decoder.b [L d]. JumpReLU: above theta *and* above zero. A trained batch top-k has a threshold for single rows; a top-k over
all layers together is no matter of one layer and is refused (crosslayer_transcoder/model/clt.py, topk.py, jumprelu.py,
standardize.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    above_zero,
    agree,
    extras,
    holding,
    maybe,
    must,
    need,
    number,
    only,
    single,
    type_notes,
)
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_INPUT, _OUTPUT = "input_standardizer", "output_standardizer"
_STANDARD = ("Standardizer", "Dimensionwise", "Layerwise")
_UNDERSTOOD = (
    "class_path", "init_args", "is_folded", "encoder", "decoder", "nonlinearity", _INPUT, _OUTPUT, "model",
)  # fmt: skip


@dataclass(frozen=True)
class _Crosslayer:
    tensors: Mapping[str, Any]
    where: str
    config: Mapping[str, Any]

    def part(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """The class and arguments of a part; ("", {}) where the configuration has none."""
        row = self.config.get("init_args", {}).get(name)
        if not isinstance(row, Mapping):
            return "", {}
        return str(row.get("class_path", "")).rpartition(".")[2], row.get("init_args") or {}


def _file(source: DictionaryFiles) -> str | None:
    name = holding(source, "encoder.W", "encoder.b")
    keys = source.keys(name) if name else frozenset()
    return name if "decoder.W" in keys or "decoder.W_0" in keys else None


def _read(source: DictionaryFiles) -> Dictionary:
    where = must(_file(source), source, "crosslayer-transcoder")
    whole = source.config("config.yaml")
    model = whole.get("model", whole)
    config = model if isinstance(model, Mapping) else {}
    held = _Crosslayer(source.tensors(where), where, config)
    weight = need(held.tensors, "encoder.W", None, None, None, where=where)
    n, width, size = weight.shape
    b_enc = need(held.tensors, "encoder.b", n, size, where=where)
    agree(held.part("encoder")[1], "config.yaml", d_acts=width, d_features=size, n_layers=n)
    crossing = "decoder.W" not in held.tensors
    names = [f"decoder.W_{j}" for j in range(n)] if crossing else ["decoder.W"]
    only(
        held.tensors,
        ("encoder.W", "encoder.b", "decoder.b", *names, "nonlinearity.theta", "nonlinearity.threshold",
         "nonlinearity.bandwidth", *(f"{side}.{key}" for side in (_INPUT, _OUTPUT) for key in ("mean", "std"))),
        where,
    )  # fmt: skip
    activations, notes = _activations(held, n, size)
    standards = {side: _standard(held, side, n, width) for side in (_INPUT, _OUTPUT)}
    encoders = tuple(_encoder(weight[i], b_enc[i], activations[i], standards[_INPUT], i) for i in range(n))
    spread = standards[_OUTPUT]
    decoders = []
    for j in range(n):
        if crossing:
            rows = need(held.tensors, f"decoder.W_{j}", j + 1, size, width, where=where)
            decoders += [Decoder(i, j, _times(rows[i], spread, j)) for i in range(j + 1)]
        else:
            rows = need(held.tensors, "decoder.W", n, size, width, where=where)
            decoders.append(Decoder(j, j, _times(rows[j], spread, j)))
    b_dec = maybe(held.tensors, "decoder.b", n, width, where=where)
    biases = tuple(_shifted(None if b_dec is None else b_dec[j], spread, j) for j in range(n))
    if any(standards.values()):
        notes += ("Its standardisers are folded into weights and biases.",)
    notes += extras(config, _UNDERSTOOD, "config.yaml")
    notes += ("Its files do not say where it reads and writes, but for the layer.",)
    places = tuple(Place("", "", width) for _ in range(n))
    return type_notes(
        Dictionary(
            "cross-layer transcoder" if crossing else "transcoder", encoders, tuple(decoders), biases,
            tuple((place,) for place in places), places, format="crosslayer-transcoder",
            said={"is_folded": bool(config.get("is_folded", not any(standards.values())))}, notes=notes,
        )
    )  # fmt: skip


def _activations(held: _Crosslayer, n: int, size: int) -> tuple[list[Nonlinearity], tuple[str, ...]]:
    """The nonlinearity of each layer, and notes. Raises `BadFormat` for one that looks at all layers together."""
    tensors, where = held.tensors, held.where
    kind, args = held.part("nonlinearity")
    if kind == "JumpReLU" or (not kind and "nonlinearity.theta" in tensors):
        theta = need(tensors, "nonlinearity.theta", 1, n, size, where=where)[0]
        return [JumpReLU(above_zero(theta[i])) for i in range(n)], ()
    if kind in ("ReLU", ""):
        if not kind:
            raise BadFormat(
                f"No config.yaml says which nonlinearity {where} has.",
                "Put the config.yaml of its run beside it.",
            )
        return [ReLU()] * n, ()
    if kind == "PerLayerTopK":
        return [TopK(number(args, "k", "config.yaml"))] * n, ()
    if kind in ("BatchTopK", "PerLayerBatchTopK"):
        several = kind == "PerLayerBatchTopK"
        found = need(tensors, "nonlinearity.threshold", n if several else 1, where=where).clamp(min=0)
        if bool((found == 0).all()):
            raise BadFormat(
                f"The threshold of {where} was never set, and its trainer takes the strongest of a batch.",
                "Train it a step with e above zero, or estimate the threshold.",
            )
        notes = ("Its trainer takes the strongest of a batch; for rows it uses the threshold it learned.",)
        return [JumpReLU(found[i if several else 0].reshape(())) for i in range(n)], notes
    if kind == "LayerTopK":
        raise BadFormat(
            "LayerTopK keeps the strongest latents of all layers together, which no layer can tell alone.",
            "Turn it into a JumpReLU first.",
        )
    raise BadFormat(
        f"The nonlinearity {kind!r} in config.yaml is not known.", "Known are ReLU, JumpReLU and top-k."
    )


def _standard(held: _Crosslayer, side: str, n: int, width: int) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation [L d] of a standardiser that is not folded; None for none."""
    kind, _ = held.part(side)
    keys = [key for key in (f"{side}.mean", f"{side}.std") if key in held.tensors]
    if not keys:
        if kind and kind != "Standardizer":
            raise BadFormat(
                f"{kind} standardises each row by itself, and nothing undoes it." if kind.startswith("Sample") else
                f"{held.where} holds no {side}, which config.yaml names.",
                "Save it with its standardisers folded.",
            )  # fmt: skip
        return None
    shape = (n,) if held.tensors[keys[0]].ndim == 1 else (n, width)
    mean, std = (need(held.tensors, f"{side}.{key}", *shape, where=held.where) for key in ("mean", "std"))
    if not bool((std > 0).all()):
        raise BadFormat(f"A deviation of {side} is not above zero.", "Fetch the file again.")
    wide = [v if v.ndim == 2 else v[:, None].expand(n, width) for v in (single(mean), single(std))]
    return wide[0], wide[1]


def _encoder(
    weight: Tensor, bias: Tensor, activation: Nonlinearity, standard: tuple[Tensor, Tensor] | None, i: int
) -> Encoder:
    if standard is None:
        return Encoder(weight, bias, activation)
    mean, std = standard
    return Encoder(single(weight) / std[i][:, None], bias, activation, centre=mean[i])


def _times(rows: Tensor, standard: tuple[Tensor, Tensor] | None, target: int) -> Tensor:
    return rows if standard is None else single(rows) * standard[1][target]


def _shifted(bias: Tensor | None, standard: tuple[Tensor, Tensor] | None, target: int) -> Tensor | None:
    if standard is None:
        return bias
    mean, std = standard
    return mean[target] if bias is None else single(bias) * std[target] + mean[target]


FORMATS: tuple[Format, ...] = (
    Format(
        "crosslayer-transcoder", "crosslayer-transcoder of Goreg12345, by target",
        lambda source: _file(source) is not None, _read,
    ),
)  # fmt: skip
