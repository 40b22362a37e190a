"""Transcoders of circuit-tracer: one a layer (its own sets, and those of mwhanna), and cross-layer ones, by source.

Stored: W_enc [F d] and W_dec [F d] of each layer; cross-layer W_dec [F L-i d] of source i. Nothing is taken from the input
and nothing scaled. A set's skip connection W_skip is used as x @ W_skip.T (circuit-tracer 0.5.0,
transcoder/single_layer_transcoder.py, cross_layer_transcoder.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput
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
    as_yaml,
    extras,
    hooks_of,
    maybe,
    must,
    need,
    numbered,
    only,
    plain,
    type_notes,
    word,
    write_folder,
)
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_LAYER, _ENCODER, _DECODER = (
    r"layer_(\d+)\.safetensors",
    r"W_enc_(\d+)\.safetensors",
    r"W_dec_(\d+)\.safetensors",
)
_KEYS = ("W_enc", "W_dec", "b_enc", "b_dec")
_THRESHOLD = "activation_function.threshold"
#: wandb's settings beside the files of mwhanna; one repository spells them so.
_WANDB = ("wandb-config.yaml", "wanb-config.yaml")
#: What config.yaml may say; where files come from says nothing of what they compute.
_SAID = ("model_name", "scan", "repo_id", "revision", "subfolder", "transcoders")
_HOOKS = ("feature_input_hook", "feature_output_hook")


def _is_set(source: DictionaryFiles) -> bool:
    layers = numbered(source, _LAYER)
    return bool(layers) and source.keys(next(iter(layers.values()))).issuperset(_KEYS)


def _place(hook: object, layer: int, width: int) -> Place:
    if not hook:
        return Place("", "", width)
    said = str(hook)
    if "{layer}" in said:
        return hook_place(said.replace("{layer}", str(layer)), width)
    return hook_place(f"blocks.{layer}.{said}", width)


def _said(config: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What config.yaml says of model and files, and notes on the rest. Raises `BadFormat` for another kind."""
    word(config, "model_kind", (kind,), kind, "config.yaml")
    notes = extras(config, (*_SAID, *_HOOKS, "model_kind"), "config.yaml")
    if not all(config.get(hook) for hook in _HOOKS):
        notes += ("No config.yaml says where it reads and writes.",)
    said = {"model": config.get("model_name")} | {key: config.get(key) for key in _SAID[1:]}
    return {key: value for key, value in said.items() if value is not None}, notes


def _activation(threshold: Tensor | None) -> Nonlinearity:
    return ReLU() if threshold is None else JumpReLU(threshold)


# a transcoder a layer --------------------------------------------------------------------------------------------------


def _read_set(source: DictionaryFiles, name: str = "circuit-tracer-set") -> Dictionary:
    config, layers = source.config("config.yaml"), must(numbered(source, _LAYER), source, name)
    said, notes = _said(config, "transcoder_set")
    encoders, decoders, biases, skips, reads, writes = [], [], [], [], [], []
    for n, (layer, file) in enumerate(layers.items()):
        held = source.tensors(file)
        only(held, (*_KEYS, _THRESHOLD, "W_skip"), file)
        weight = need(held, "W_enc", None, None, where=file)
        size, width = weight.shape
        out = need(held, "W_dec", size, None, where=file)
        encoders.append(
            Encoder(
                weight.T,
                need(held, "b_enc", size, where=file),
                _activation(maybe(held, _THRESHOLD, size, where=file)),
            )
        )
        decoders.append(Decoder(n, n, out))
        biases.append(need(held, "b_dec", out.shape[1], where=file))
        skips.append(maybe(held, "W_skip", out.shape[1], width, where=file))
        reads.append((_place(config.get(_HOOKS[0]), layer, width),))
        writes.append(_place(config.get(_HOOKS[1]), layer, out.shape[1]))
    missing = sorted(set(range(max(layers))) - set(layers))
    if len(layers) > 1 and missing:
        notes += (f"There is no file for layers {', '.join(map(str, missing))}.",)
    said["layers"] = list(layers)
    return type_notes(
        Dictionary(
            "transcoder",
            tuple(encoders),
            tuple(decoders),
            tuple(biases),
            tuple(reads),
            tuple(writes),
            tuple(skips),
            format=name,
            said=said,
            notes=notes,
        )
    )


def _read_mwhanna(source: DictionaryFiles) -> Dictionary:
    made = _read_set(source, "mwhanna")
    config = source.config(must(next((n for n in _WANDB if n in source.files), None), source, "mwhanna"))
    values = {key: row.get("value", row) if isinstance(row, Mapping) else row for key, row in config.items()}
    agree(values, "wandb's settings", d_model=made.encoders[0].width, d_feature=made.encoders[0].size)
    kept = {"context_size": "batch_size", "dataset": "dataset", "k": "k", "dtype": "dtype"}
    said = {name: values[key] for name, key in kept.items() if key in values}
    return replace(made, said={**made.said, **said, "training": values})


def _write_set(dictionary: Dictionary, folder: Path) -> None:
    title = "A set of circuit-tracer"
    plain(dictionary, title)
    n = len(dictionary.encoders)
    if dictionary.kind != "transcoder" or len(dictionary.writes) != n:
        raise BadInput(
            f"{title} holds one transcoder a layer.", "Write a cross-layer one as circuit-tracer-clt."
        )
    if sorted((d.source, d.target) for d in dictionary.decoders) != [(i, i) for i in range(n)]:
        raise BadInput(f"In {title.lower()} each source writes to its own target.", "Use circuit-tracer-clt.")
    if any(len(places) != 1 for places in dictionary.reads):
        raise BadInput(f"{title} reads one site a layer.", "Use another format.")
    sizes = {tuple(d.weight.shape) for d in dictionary.decoders}
    if len(sizes) != 1 or {e.width for e in dictionary.encoders} != {width for _, width in sizes}:
        raise BadInput(
            f"{title} has the same size at each layer and side.", "Write layers of other sizes apart."
        )
    config = _hooks(dictionary, "transcoder_set", title)
    layers = _layers(dictionary, title)
    thresholds = [_threshold(encoder, title) for encoder in dictionary.encoders]

    def file(i: int) -> tuple[str, dict[str, Tensor]]:
        encoder, bias, skip = dictionary.encoders[i], dictionary.biases[i], dictionary.skips[i]
        held = {
            "W_enc": encoder.weight.T,
            "W_dec": dictionary.decoders_of(i)[0].weight,
            "b_enc": _vector(encoder.bias, encoder.size, encoder.weight),
            "b_dec": _vector(bias, encoder.width, encoder.weight),
        }
        optional = {_THRESHOLD: thresholds[i], "W_skip": skip}
        return f"layer_{layers[i]}.safetensors", held | {k: v for k, v in optional.items() if v is not None}

    texts = {"config.yaml": as_yaml(config)} if config else {}
    write_folder(folder, map(file, range(n)), texts, ("layer_*.safetensors", "config.yaml"))


# across layers ----------------------------------------------------------------------------------------------------------


def _is_clt(source: DictionaryFiles) -> bool:
    return bool(numbered(source, _ENCODER) or numbered(source, _DECODER))


def _read_clt(source: DictionaryFiles) -> Dictionary:
    """All layers. Raises `BadFormat` where one is missing: what a layer writes to later ones is never summed into one."""
    encoders, decoders = numbered(source, _ENCODER), numbered(source, _DECODER)
    must(encoders or decoders, source, "circuit-tracer-clt")
    config = source.config("config.yaml")
    said, notes = _said(config, "cross_layer_transcoder")
    found = sorted(set(encoders) & set(decoders))
    lone = sorted(set(encoders) ^ set(decoders))
    last = max((*encoders, *decoders))
    n = last + 1
    if found:
        shape = source.shapes(decoders[found[0]]).get(f"W_dec_{found[0]}", ())
        n = found[0] + shape[1] if len(shape) == 3 else n
    if lone or found != list(range(n)):
        gone = sorted(set(range(max(n, last + 1))) - set(found)) or lone
        raise BadFormat(
            f"{source.path} is a part of a cross-layer transcoder: files of layers {', '.join(map(str, gone))} are missing.",
            "Open a folder with W_enc and W_dec of all layers; a single one writes to several targets, which must not be "
            "summed into one.",
        )
    made_encoders, made_decoders, biases = [], [], []
    for i in range(n):
        file = encoders[i]
        held = source.tensors(file)
        only(held, (f"W_enc_{i}", f"b_enc_{i}", f"b_dec_{i}", f"threshold_{i}"), file)
        weight = need(held, f"W_enc_{i}", None, None, where=file)
        size, width = weight.shape
        threshold = held.get(f"threshold_{i}")
        if threshold is not None:
            threshold = threshold.reshape(-1) if threshold.ndim == 2 and len(threshold) == 1 else threshold
            threshold = need({f"threshold_{i}": threshold}, f"threshold_{i}", size, where=file)
        made_encoders.append(
            Encoder(weight.T, need(held, f"b_enc_{i}", size, where=file), _activation(threshold))
        )
        biases.append(need(held, f"b_dec_{i}", None, where=file))
        held = source.tensors(decoders[i])
        only(held, (f"W_dec_{i}",), decoders[i])
        out = need(held, f"W_dec_{i}", size, n - i, len(biases[0]), where=decoders[i])
        made_decoders += [Decoder(i, i + j, out[:, j]) for j in range(n - i)]
    reads = tuple((_place(config.get(_HOOKS[0]), i, e.width),) for i, e in enumerate(made_encoders))
    writes = tuple(_place(config.get(_HOOKS[1]), i, len(b)) for i, b in enumerate(biases))
    return type_notes(
        Dictionary(
            "cross-layer transcoder",
            tuple(made_encoders),
            tuple(made_decoders),
            tuple(biases),
            reads,
            writes,
            format="circuit-tracer-clt",
            said=said,
            notes=notes,
        )  # fmt: skip
    )


def _write_clt(dictionary: Dictionary, folder: Path) -> None:
    title = "A cross-layer transcoder of circuit-tracer"
    plain(dictionary, title)
    n = len(dictionary.encoders)
    if len(dictionary.writes) != n or any(len(places) != 1 for places in dictionary.reads):
        raise BadInput(f"{title} has one site to read and one target a layer.", "Use another format.")
    if any(d.target < d.source for d in dictionary.decoders):
        raise BadInput(f"In {title.lower()} no layer writes to an earlier one.", "Use another format.")
    if any(skip is not None for skip in dictionary.skips):
        raise BadInput(
            f"{title} has no skip connection in its files.", "Leave it out, or use another format."
        )
    widths = {(e.width, e.size, p.width) for e, p in zip(dictionary.encoders, dictionary.writes, strict=True)}
    if len(widths) != 1 or next(iter(widths))[0] != next(iter(widths))[2]:
        raise BadInput(f"{title} has the same size at each layer and side.", "Use another format.")
    config = _hooks(dictionary, "cross_layer_transcoder", title)
    if _layers(dictionary, title) != list(range(n)):
        raise BadInput(f"{title} has all layers, from 0.", "Use another format.")
    thresholds = [_threshold(encoder, title) for encoder in dictionary.encoders]
    jumps = any(threshold is not None for threshold in thresholds)

    def files() -> Iterator[tuple[str, dict[str, Tensor]]]:
        for i, encoder in enumerate(dictionary.encoders):
            held = {
                f"W_enc_{i}": encoder.weight.T,
                f"b_enc_{i}": _vector(encoder.bias, encoder.size, encoder.weight),
                f"b_dec_{i}": _vector(dictionary.biases[i], encoder.width, encoder.weight),
            }
            if jumps:
                held[f"threshold_{i}"] = _vector(thresholds[i], encoder.size, encoder.weight)
            yield f"W_enc_{i}.safetensors", held
            to = {d.target: d.weight for d in dictionary.decoders_of(i)}
            empty = encoder.weight.new_zeros(encoder.size, encoder.width)
            rows = torch.stack([to.get(j, empty) for j in range(i, n)], 1)
            yield f"W_dec_{i}.safetensors", {f"W_dec_{i}": rows}

    texts = {"config.yaml": as_yaml(config)} if config else {}
    write_folder(folder, files(), texts, ("W_enc_*.safetensors", "W_dec_*.safetensors", "config.yaml"))


def _hooks(dictionary: Dictionary, kind: str, title: str) -> dict[str, Any]:
    """What config.yaml is to say; {} where the dictionary says nothing."""
    _, reads = hooks_of([places[0] for places in dictionary.reads], title)
    _, writes = hooks_of(dictionary.writes, title)
    said = dict(dictionary.said)
    model = {"model_name": str(said["model"])} if said.get("model") else {}
    known = {key: said[key] for key in _SAID[1:] if key in said}
    hooks = {key: hook for key, hook in zip(_HOOKS, (reads, writes), strict=True) if hook}
    return {"model_kind": kind, **model, **hooks, **known} if model or known or hooks else {}


def _layers(dictionary: Dictionary, title: str) -> list[int]:
    layers, hook = hooks_of([places[0] for places in dictionary.reads], title)
    said = dictionary.said.get("layers")
    if not hook and isinstance(said, list) and len(said) == len(layers):
        return [int(layer) for layer in said]
    if len(set(layers)) < len(layers):
        raise BadInput(f"{title} has one transcoder for each layer, not two.", "Write them to two folders.")
    return layers


def _vector(value: Tensor | None, size: int, like: Tensor) -> Tensor:
    return like.new_zeros(size) if value is None else value


def _threshold(encoder: Encoder, title: str) -> Tensor | None:
    match encoder.activation:
        case ReLU():
            return None
        case JumpReLU(threshold=threshold):
            return threshold.expand(encoder.size)
        case other:
            raise BadInput(
                f"{title} has ReLU and JumpReLU, not {other.kind}.",
                "Turn it into a JumpReLU first, or choose another format.",
            )


FORMATS: tuple[Format, ...] = (
    Format(
        "circuit-tracer-set", "circuit-tracer, a transcoder a layer",
        lambda source: _is_set(source) and not any(name in source.files for name in _WANDB), _read_set, _write_set,
    ),
    Format(
        "mwhanna", "mwhanna's transcoders, with wandb's settings",
        lambda source: _is_set(source) and any(name in source.files for name in _WANDB), _read_mwhanna,
    ),
    Format("circuit-tracer-clt", "circuit-tracer and mntss, across layers, by source", _is_clt, _read_clt, _write_clt),
)  # fmt: skip
