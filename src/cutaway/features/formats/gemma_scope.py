"""Gemma Scope 1 (`params.npz`) and 2 (`params.safetensors` beside `config.json`).

Source: Lieberum et al. 2024 and the cards of google/gemma-scope and google/gemma-scope-2; sae_lens 6.54.12,
loading/pretrained_sae_loaders.py, for the scale of the embedding and for the transposed skip connection.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Dictionary, Encoder, JumpReLU, Place, ReLU
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.reading import Stored, held, jump, keys_of, shape_of, single, times, unused
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format
from cutaway.features.formats.writing import plain, put, refuse, thresholds

FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"
_KEYS = frozenset({"w_enc", "w_dec", "b_enc", "b_dec", "threshold"})
#: What the folders of the first release say.
_FOLDERS = {"layer": r"layer_(\d+)", "width": r"width_(\w+)", "l0": r"average_l0_(\d+)"}
#: Gemma's modules, as the second release names them, and the sites that they are.
_MODULES = {
    "output": "resid_post", "pre_feedforward_layernorm.output": "mlp_in", "post_feedforward_layernorm.output": "mlp_write",
    "self_attn.o_proj.input": "z", "post_attention_layernorm.output": "attn_write", "input_layernorm.output": "attn_in",
}  # fmt: skip


def _known(source: DictionaryFiles) -> bool:
    return {key.lower() for key in keys_of(source, FIRST)} == _KEYS


def _known_second(source: DictionaryFiles) -> bool:
    keys = keys_of(source, SECOND)
    return (
        keys >= _KEYS
        and keys - _KEYS <= {"affine_skip_connection"}
        and len(shape_of(source, SECOND, "w_dec")) == 2
    )


def read(source: DictionaryFiles, embedding: bool | None = None) -> Dictionary:
    """An autoencoder of the first release."""
    return _first(source, None, embedding)


def read_transcoder(source: DictionaryFiles) -> Dictionary:
    """A transcoder of the first release, whose files are like those of an autoencoder."""
    return _first(source, "transcoder", False)


def _first(source: DictionaryFiles, kind: str | None, embedding: bool | None) -> Dictionary:
    values = source.tensors(FIRST)
    given = Stored(FIRST, {key.lower(): value for key, value in values.items()})
    path = f"{source.folder.resolve()}/"
    said: dict[str, Any] = {
        name: found.group(1) for name, pattern in _FOLDERS.items() if (found := re.search(pattern, path))
    }
    said["l0"] = float(said["l0"]) if "l0" in said else None
    layer = said.get("layer")
    enc, dec = given.matrix("w_enc"), given.matrix("w_dec")
    encoder = Encoder(enc, given.must("b_enc"), jump(given.must("threshold")))
    out = given.must("b_dec")
    reads, writes, notes = Place("", "", encoder.width), None, ()
    if dec.shape != enc.T.shape:
        raise BadFormat(
            f"{FIRST} has an encoder {tuple(enc.shape)} and a decoder {tuple(dec.shape)}.", "Fetch it again."
        )
    if kind == "transcoder":
        place = "blocks.{}.ln2.hook_normalized", "blocks.{}.hook_mlp_out"
        reads, writes = (
            hook_place(p.format(layer) if layer else "", w)
            for p, w in zip(place, (encoder.width, dec.shape[1]), strict=True)
        )
    elif embedding or (embedding is None and re.search(r"/embedding/", path)):
        root = encoder.width**0.5
        encoder = replace(encoder, weight=times(enc, 1 / root))
        dec, out, reads = times(dec, root), times(out, root), hook_place("hook_embed", encoder.width)
        notes = (
            "Trained on rows of the embedding table; Gemma multiplies these with the root of d, which is folded in.",
        )
    else:
        notes = (
            "Its file does not say whether it is an autoencoder of one site or a transcoder; it is read as an autoencoder "
            f'(format="gemma-scope-transcoder" reads it as a transcoder){f", of layer {layer}" if layer else ""}.',
        )
    return single(encoder, dec, out, reads, writes, format=_name(kind), said=said, notes=notes)


def _name(kind: str | None) -> str:
    return "gemma-scope-transcoder" if kind == "transcoder" else "gemma-scope"


def read_second(source: DictionaryFiles) -> Dictionary:
    """An autoencoder or a transcoder of the second release."""
    config = source.config(CONFIG)
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise BadFormat(f"{CONFIG} says architecture {config['architecture']!r}.", "Known is jump_relu.")
    given = held(source, SECOND)
    enc, dec = given.matrix("w_enc"), given.matrix("w_dec")
    encoder = Encoder(enc, given.must("b_enc"), jump(given.must("threshold")))
    first, second = str(config.get("hf_hook_point_in") or ""), str(config.get("hf_hook_point_out") or "")
    reads, writes = _module(first, encoder.width), None
    if second and second != first:
        writes = _module(second, int(dec.shape[1]))
    skip = given.matrix("affine_skip_connection").T if "affine_skip_connection" in given else None
    note = ""
    if skip is not None and writes is None:
        writes, note = (
            Place("", "", int(dec.shape[1])),
            "Its skip connection makes it a transcoder; its file does not name the output.",
        )
    if writes is not None and re.search(r"-it\b", str(config.get("model_name", ""))):
        note = "Transcoders of chat models were not trained on the first four positions; leave these out."
    understood = (
        "architecture",
        "model_name",
        "hf_hook_point_in",
        "hf_hook_point_out",
        "width",
        "l0",
        "affine_connection",
        "type",
    )
    return single(
        encoder, dec, given.must("b_dec"), reads, writes, format="gemma-scope-2", skip=skip,
        notes=(note, unused(config, understood)),
        said={"model": config.get("model_name"), "hook": first or None, "hook_out": second or None,
              "l0": config.get("l0"), "config": config or None},
    )  # fmt: skip


def _module(path: str, width: int) -> Place:
    found = re.fullmatch(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.(.+)", path)
    site = _MODULES.get(found.group(2), "") if found else ""
    return Place(path, f"{site}.{found.group(1)}" if found and site else "", width)


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write `params.npz` as the first release has it. Raises `BadInput` for what it does not compute."""
    name = "gemma-scope"
    made = plain(dictionary, name)
    if made.centred:
        refuse(name, "an encoder that takes a bias from its rows")
    if made.norm != "none":
        refuse(name, "rows that are normed")
    if made.skip is not None:
        refuse(name, "a skip connection")
    if made.sizes[0] != made.sizes[2]:
        refuse(name, f"a transcoder of {made.sizes[0]} to {made.sizes[2]} numbers")
    if isinstance(made.activation, ReLU):
        level: Tensor = made.encoder.new_zeros(made.sizes[1])
    elif isinstance(made.activation, JumpReLU):
        level = thresholds(made.activation, made.sizes[1], name)
    else:
        refuse(name, made.activation.kind)
    tensors = {
        "W_enc": made.encoder,
        "W_dec": made.decoder,
        "b_enc": made.bias,
        "b_dec": made.out,
        "threshold": level,
    }
    stream = io.BytesIO()
    arrays: dict[str, Any] = {key: _array(value) for key, value in tensors.items()}
    np.savez(stream, **arrays)
    put(folder, {FIRST: stream.getvalue()})


def _array(value: Tensor) -> np.ndarray:
    """An array; NumPy has no bfloat16, whose numbers single precision holds exactly."""
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().contiguous().numpy()


FORMATS = (
    Format("gemma-scope", "Gemma Scope", _known, read, write,
           takes={"embedding": "is it the one of the embedding, whose folder is called so?"}),
    Format("gemma-scope-transcoder", "the transcoders of Gemma Scope", lambda _: False, read_transcoder),
    Format("gemma-scope-2", "Gemma Scope 2", _known_second, read_second),
)  # fmt: skip
