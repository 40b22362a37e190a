"""The transcoders of Dunefsky, Chlenski and Nanda: tensors with a configuration, which most of their files pickle.

A file whose configuration is a pickled object is refused with the line that its owner can run; what it writes is read.

Source: jacobdunefsky/transcoder_circuits, sae_training/sparse_autoencoder.py (forward, save_model).
"""

from __future__ import annotations

from cutaway.features.dictionaries import Dictionary, Encoder, ReLU
from cutaway.features.formats.places import hook_place
from cutaway.features.formats.reading import held, only, single
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format

_KEYS = frozenset({"W_enc", "W_dec", "b_enc", "b_dec", "b_dec_out"})


def _prefix(keys: frozenset[str]) -> str | None:
    for prefix in ("", "state_dict."):
        if {f"{prefix}{key}" for key in _KEYS} == {key for key in keys if not key.startswith("cfg.")}:
            return prefix
    return None


def _files(source: DictionaryFiles) -> list[str]:
    if source.config("config.json"):
        return []  # Prisma's transcoders have the same tensors and say more
    return [name for name in source.tensor_files if _prefix(source.keys(name)) is not None]


def read(source: DictionaryFiles) -> Dictionary:
    """One transcoder: relu((row - b_dec) W_enc + b_enc) W_dec + b_dec_out."""
    file = only(_files(source), source)
    given = held(source, file, _prefix(source.keys(file)) or "")
    config = {
        key.removeprefix("cfg."): value
        for key, value in source.tensors(file).items()
        if key.startswith("cfg.")
    }
    enc, dec = given.matrix("W_enc"), given.matrix("W_dec")
    encoder = Encoder(enc, given.must("b_enc"), ReLU(), given.must("b_dec"))
    hook = str(config.get("hook_point") or "")
    layer = config.get("out_hook_point_layer")
    after = str(config.get("out_hook_point") or (f"blocks.{layer}.hook_mlp_out" if layer is not None else ""))
    said = {
        "model": config.get("model_name"), "hook": hook or None, "hook_out": after or None,
        "dataset": config.get("dataset_path"), "context_size": config.get("context_size"), "config": config or None,
    }  # fmt: skip
    note = "" if hook else "Its file does not name the sites that it was trained on."
    return single(encoder, dec, given.must("b_dec_out"), hook_place(hook, encoder.width),
                  hook_place(after, int(dec.shape[1])), format="transcoder_circuits", said=said, notes=(note,))  # fmt: skip


FORMATS = (
    Format("transcoder_circuits", "transcoder_circuits", lambda source: bool(_files(source)), read),
)  # fmt: skip
