"""Gemma Scope 2's cross-layer transcoders: one file a layer, decoders [F L d] with zeros towards earlier layers.

An activation is there where the pre-activation is above its threshold and above zero; the affine connection is used as
x @ affine_skip_connection (JumpReLUMultiLayerSAE of the release's notebook).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, JumpReLU, Place
from cutaway.features.formats.layered import above_zero, extras, maybe, must, need, numbered, only, type_notes
from cutaway.features.formats.places import hook_place, module_place
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_FILE = r"(?:.*_)?layer_(\d+)\.safetensors"
_KEYS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
_SKIP = "affine_skip_connection"
_HOOKS = ("hf_hook_point_in", "hf_hook_point_out")
_SAID = ("model_name", "width", "l0", "architecture", "affine_connection", "type", "num_layers", "dtype")
#: Latents that are looked at for decoders towards earlier layers.
_LOOKED_AT = 64


def _layers(source: DictionaryFiles) -> dict[int, str]:
    found = numbered(source, _FILE)
    return {
        n: file for n, file in found.items()
        if len(source.shapes(file).get("w_dec", ())) == 3 and source.keys(file).issuperset(_KEYS[:2])
    }  # fmt: skip


def _place(config: Mapping[str, Any], key: str, layer: int, width: int) -> Place:
    """The place that a hook means: one name for all layers with a gap for the number, or a list of one a layer."""
    hook = config.get(key)
    if isinstance(hook, list) and layer < len(hook):
        said = str(hook[layer])
    elif isinstance(hook, str) and any(gap in hook for gap in ("{layer}", "{}", ".N.")):
        said = hook.replace("{layer}", str(layer)).replace("{}", str(layer)).replace(".N.", f".{layer}.")
    else:
        return Place("", "", width)
    if said.startswith("blocks."):
        return hook_place(said, width)
    path, _, side = said.rpartition(".")
    return module_place(path, width, "in" if side == "input" else "out") if side in ("input", "output") else (
        Place(said, "", width)
    )  # fmt: skip


def _read(source: DictionaryFiles) -> Dictionary:
    files, config = must(_layers(source), source, "gemma-scope-2-clt"), source.config("config.json")
    n = source.shapes(next(iter(files.values())))["w_dec"][1]
    missing = sorted(set(range(n)) - set(files))
    if missing or len(files) != n:
        gone = ", ".join(map(str, missing))
        raise BadFormat(
            f"{source.path} is a part of a cross-layer transcoder: files of layers {gone} are missing.",
            "Open a folder with the files of all layers; what one writes to several targets must not be summed into one.",
        )
    encoders, decoders, biases, skips, earlier = [], [], [], [], []
    for i, file in files.items():
        held = source.tensors(file)
        only(held, (*_KEYS, _SKIP), file)
        weight = need(held, "w_enc", None, None, where=file)
        width, size = weight.shape
        threshold = need(held, "threshold", size, where=file)
        encoders.append(
            Encoder(weight, need(held, "b_enc", size, where=file), JumpReLU(above_zero(threshold)))
        )
        out = need(held, "w_dec", size, n, None, where=file)
        sample = out[torch.linspace(0, size - 1, min(size, _LOOKED_AT)).long(), :i]
        first = 0 if bool(sample.count_nonzero()) else i
        earlier += [i] if first < i else []
        decoders += [Decoder(i, j, out[:, j]) for j in range(first, n)]
        biases.append(need(held, "b_dec", out.shape[2], where=file))
        skip = maybe(held, _SKIP, width, out.shape[2], where=file)
        skips.append(None if skip is None else skip.T)
    notes = extras(config, (*_HOOKS, *_SAID), "config.json")
    if earlier:
        notes += (f"Layers {', '.join(map(str, earlier))} also write to earlier ones.",)
    else:
        notes += (
            f"Decoders to earlier layers are zero in the {_LOOKED_AT} latents looked at, and left out.",
        )
    said = {"model": config.get("model_name")} | {key: config.get(key) for key in _SAID[1:]}
    return type_notes(
        Dictionary(
            "cross-layer transcoder", tuple(encoders), tuple(decoders), tuple(biases),
            tuple((_place(config, _HOOKS[0], i, e.width),) for i, e in enumerate(encoders)),
            tuple(_place(config, _HOOKS[1], i, len(b)) for i, b in enumerate(biases)), tuple(skips),
            format="gemma-scope-2-clt", said={k: v for k, v in said.items() if v is not None}, notes=notes,
        )
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("gemma-scope-2-clt", "Gemma Scope 2, across layers", lambda source: bool(_layers(source)), _read),
)
