"""sparsify (EleutherAI): a folder for each module, `cfg.json` beside `sae.safetensors`.

Source: eai-sparsify 1.3.3, config.py, sparse_coder.py, fused_encoder.py; for `signed`, EleutherAI/sae of 2024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import AbsTopK, Dictionary, Encoder, GroupMax, Nonlinearity, TopK
from cutaway.features.formats.places import module_place
from cutaway.features.formats.reading import above, flag, held, keys_of, single, unused, whole
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format
from cutaway.features.formats.writing import plain, put, refuse, safetensors, text

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_UNDERSTOOD = {
    "activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "skip_connection",
    "transcode", "d_in", "signed",
}  # fmt: skip


def _known(source: DictionaryFiles) -> bool:
    keys = keys_of(source, WEIGHTS)
    return (
        source.has(CONFIG)
        and "encoder.weight" in keys
        and {"expansion_factor", "num_latents"} & set(source.config(CONFIG)) != set()
    )


def read(source: DictionaryFiles, hookpoint: str | None = None) -> Dictionary:
    """The dictionary of one hookpoint's folder."""
    config = source.config(CONFIG)
    given = held(source, WEIGHTS)
    if "W_dec" not in given:
        raise BadFormat(f"{WEIGHTS} holds an encoder without a decoder.", "Fetch the whole file.")
    enc, dec, out = given.matrix("encoder.weight").T, given.matrix("W_dec"), given.must("b_dec")
    transcodes = flag(config, "transcode")
    skip = given.matrix("W_skip") if "W_skip" in given else None
    if flag(config, "skip_connection") != (skip is not None):
        raise BadFormat(
            f"{CONFIG} says skip_connection {config.get('skip_connection', False)}, but {WEIGHTS} "
            f"{'lacks' if skip is None else 'holds'} W_skip.",
            "Fetch both again.",
        )
    d, size = int(enc.shape[0]), int(enc.shape[1])
    wanted = config.get("num_latents") or config.get("d_in", d) * config.get("expansion_factor", 0)
    if config.get("d_in", d) != d or (wanted and wanted != size):
        raise BadFormat(
            f"{CONFIG} says {config.get('d_in')} to {wanted}, but the encoder is {d} to {size}.",
            "Fetch both again.",
        )
    encoder = Encoder(enc, given.must("encoder.bias"), _activation(config), None if transcodes else out)
    path = hookpoint or _hookpoint(source)
    reads = module_place(path, d, "in" if transcodes else "out")
    about = above(source, "config.json", "sae")
    return single(
        encoder, dec, out, reads, module_place(path, int(dec.shape[1])) if transcodes else None, format="sparsify",
        skip=skip, notes=(unused(config, _UNDERSTOOD),),
        said={"model": about.get("model"), "dataset": about.get("dataset"), "context_size": about.get("ctx_len"),
              "hook": path or None, "k": config.get("k"), "config": config},
    )  # fmt: skip


def _activation(config: Mapping[str, Any]) -> Nonlinearity:
    k, name = whole(config.get("k"), "k", CONFIG), config.get("activation", "topk")
    if name not in ("topk", "groupmax"):
        raise BadFormat(f"{CONFIG} says the activation {name!r}.", "Known are topk and groupmax.")
    if flag(config, "signed"):
        return AbsTopK(k)
    return TopK(k) if name == "topk" else GroupMax(k)


def _hookpoint(source: DictionaryFiles) -> str:
    """The folder's name where it names a module (`layers.10.mlp`), as the package saves it; seeds lie one level deeper."""
    folder = source.folder.resolve()
    name = folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name
    return (
        name if re.fullmatch(r"embed_tokens|wte|(\w+\.)*(h|layers|blocks|layer)\.\d+(\.\w+)*", name) else ""
    )


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write `cfg.json` and `sae.safetensors`; name the folder after the module. Raises `BadInput` for what it lacks."""
    name = "sparsify"
    made = plain(dictionary, name)
    if not isinstance(made.activation, TopK | GroupMax):
        refuse(name, made.activation.kind)
    if made.norm != "none":
        refuse(name, "rows that are normed")
    if made.centred == made.transcodes:
        refuse(name, "an autoencoder that takes nothing from its rows, or a transcoder that does")
    d, f, d_out = made.sizes
    if d != d_out:
        refuse(name, f"a transcoder of {d} to {d_out} numbers")
    tensors: dict[str, Tensor | None] = {
        "encoder.weight": made.encoder.T, "encoder.bias": made.bias, "W_dec": made.decoder, "b_dec": made.out,
        "W_skip": made.skip,
    }  # fmt: skip
    config = {
        "activation": made.activation.kind, "expansion_factor": max(f // d, 1), "normalize_decoder": True, "num_latents": f,
        "k": made.activation.k, "multi_topk": False, "skip_connection": made.skip is not None,
        "transcode": made.transcodes, "d_in": d,
    }  # fmt: skip
    put(folder, {CONFIG: text(config), WEIGHTS: safetensors(tensors)})


FORMATS = (
    Format("sparsify", "sparsify", _known, read, write,
           takes={"hookpoint": "the module that it was trained on, where the folder is not named after it"}),
)  # fmt: skip
