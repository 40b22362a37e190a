"""Releases of single `.pt` files: Qwen Scope, Goodfire, and the attention autoencoders of Kissane and Krzyzanowski.

Source: sae_lens 6.54.12, loading/pretrained_sae_loaders.py (qwen_scope, goodfire, connor_rob_hook_z); the releases' cards.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Dictionary, Encoder, Place, ReLU, TopK
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.reading import held, only, single, unused, whole
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_MATRICES = frozenset({"W_enc", "W_dec", "b_enc", "b_dec"})
_QWEN = re.compile(r"(?:.*/)?layer(\d+)\.sae\.(?:pt|safetensors)")
_LINEAR = frozenset(
    {"encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias"}
)


def _qwen(source: DictionaryFiles) -> list[str]:
    return [name for name in source.tensor_files if _QWEN.fullmatch(name) and source.keys(name) == _MATRICES]


def read_qwen(source: DictionaryFiles, k: int | None = None) -> Dictionary:
    """One layer of Qwen Scope. Its k stands only in the name of its repository (`…-L0_50`), so it must be given."""
    file = only(_qwen(source), source)
    if k is None:
        raise BadFormat(
            f"{file} keeps the k strongest latents of a row, and does not say k.",
            "Give k=; it stands at the end of the name of its repository, after L0_.",
        )
    given = held(source, file)
    enc, dec = given.matrix("W_enc").T, given.matrix("W_dec").T
    layer = _QWEN.fullmatch(file).group(1)  # type: ignore[union-attr]
    encoder = Encoder(enc, given.must("b_enc"), TopK(whole(k, "k", "the call")))
    place = Place(f"model.layers.{layer}", f"resid_post.{layer}", encoder.width)
    return single(encoder, dec, given.must("b_dec"), place, format="qwen-scope", said={"hook": place.said, "k": k},
                  notes=("Its k was given by the caller.",))  # fmt: skip


def _goodfire(source: DictionaryFiles) -> list[str]:
    return [name for name in source.tensor_files if source.keys(name) == _LINEAR]


def read_goodfire(source: DictionaryFiles) -> Dictionary:
    """One autoencoder of Goodfire, of the residual stream after a layer that only its name says."""
    file = only(_goodfire(source), source)
    given = held(source, file)
    encoder = Encoder(given.matrix("encoder_linear.weight").T, given.must("encoder_linear.bias"), ReLU())
    found = re.search(r"-l(\d+)\.pth?$", file)
    site = f"resid_post.{found.group(1)}" if found else ""
    notes = (
        ("Its layer stands only in the file's name.",) if found else ("Its file does not name its layer.",)
    )
    return single(encoder, given.matrix("decoder_linear.weight").T, given.must("decoder_linear.bias"),
                  Place("", site, encoder.width), format="goodfire", said={}, notes=notes)  # fmt: skip


def _beside(name: str) -> str:
    return f"{name.removesuffix('.pt')}_cfg.json"


def _attention(source: DictionaryFiles) -> list[str]:
    return [
        name for name in source.tensor_files
        if name.endswith(".pt") and {"act_size", "dict_size"} <= set(source.config(_beside(name)))
    ]  # fmt: skip


def read_attention(source: DictionaryFiles) -> Dictionary:
    """One autoencoder of the heads' values of a layer, side by side."""
    file = only(_attention(source), source)
    config: dict[str, Any] = source.config(_beside(file))
    given = held(source, file)
    enc, out = given.matrix("W_enc"), given.must("b_dec")
    if tuple(enc.shape) != (config["act_size"], config["dict_size"]):
        raise BadFormat(
            f"{Path(file).name} is {tuple(enc.shape)}, not {config['act_size']} to {config['dict_size']}.",
            "Fetch both again.",
        )
    encoder = Encoder(enc, given.must("b_enc"), ReLU(), out)
    hook = str(config.get("act_name") or "")
    flat = True if hook.endswith("hook_z") else None
    said = {"model": config.get("model_name"), "hook": hook or None, "heads_flat": flat, "config": config}
    return single(encoder, given.matrix("W_dec"), out, hook_place(hook, encoder.width), format="attention-autoencoders",
                  said=said, notes=(unused(config, _ATTENTION),))  # fmt: skip


_ATTENTION = (
    "act_size",
    "dict_size",
    "act_name",
    "model_name",
    "layer",
    "site",
    "head_idx",
    "concat_heads",
    "dict_mult",
)
FORMATS = (
    Format("qwen-scope", "Qwen Scope", lambda source: bool(_qwen(source)), read_qwen,
           takes={"k": "how many latents a row keeps, which stands in the name of the repository"}),
    Format("goodfire", "Goodfire", lambda source: bool(_goodfire(source)), read_goodfire),
    Format("attention-autoencoders", "the attention autoencoders of Kissane and Krzyzanowski",
           lambda source: bool(_attention(source)), read_attention),
)  # fmt: skip
