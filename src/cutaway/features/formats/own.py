"""The house's own format, which holds every dictionary as it is: `dictionary.safetensors` and `dictionary.json`.

The tensors are those of `Dictionary.tensors()`, by the same names; everything else (nonlinearities with their settings,
norms, places, which source writes to which target, what was said and noted) is in the JSON. No other format holds all forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Nonlinearity, Place
from cutaway.features.dictionaries.nonlinearities import NONLINEARITIES, tensors_of
from cutaway.features.formats.reading import FLOATS
from cutaway.features.formats.source import DictionaryFiles
from cutaway.features.formats.table import Format
from cutaway.features.formats.writing import put, safetensors
from cutaway.results import to_json

NAME = "cutaway"
TENSORS, SAYS = "dictionary.safetensors", "dictionary.json"
_TAG, _VERSION = "cutaway-dictionary", 1
_PARTS = ("weight", "bias", "centre", "gain", "gate", "gate_bias")
#: Of which format a dictionary was read that is then written in this one; among what it says.
FORMERLY = "read as"


def _known(source: DictionaryFiles) -> bool:
    return source.has(TENSORS, SAYS) and source.config(SAYS).get("format") == _TAG


def read(source: DictionaryFiles) -> Dictionary:
    """The dictionary that was written. Raises `BadFormat` for a later version and for what does not go together."""
    said = source.config(SAYS)
    if said.get("format") != _TAG:
        raise BadFormat(f"{source.path} has no {SAYS} of Cutaway's.", "Name the folder that was written.")
    if said["version"] > _VERSION:
        raise BadFormat(
            f"{source.path} was written by a later version of Cutaway ({said['version']}).",
            "Read it with that version.",
        )
    held = source.tensors(TENSORS)
    used: set[str] = set()

    def tensor(name: str) -> Tensor | None:
        if name not in held:
            return None
        value = held[name]
        if value.dtype not in FLOATS:
            raise BadFormat(f"{name} is {value.dtype}.", "Floating-point numbers are expected.")
        used.add(name)
        return value

    def needed(name: str) -> Tensor:
        value = tensor(name)
        if value is None:
            raise BadFormat(f"{source.path} has no tensor {name}.", "Copy the folder again.")
        return value

    encoders = []
    for i, row in enumerate(said["encoders"]):
        parts = {name: tensor(f"encoders.{i}.{name}") for name in _PARTS}
        parts["weight"] = needed(f"encoders.{i}.weight")
        activation = _activation(row["activation"], f"encoders.{i}.activation.", tensor)
        encoders.append(Encoder(**parts, activation=activation, norm=row["norm"], restores=row["restores"]))  # type: ignore[arg-type]
    targets = range(len(said["writes"]))
    made = Dictionary(
        said["kind"], tuple(encoders), tuple(Decoder(s, t, needed(f"decoders.{s}.{t}")) for s, t in said["decoders"]),
        tuple(tensor(f"biases.{i}") for i in targets), tuple(tuple(Place(**p) for p in ps) for ps in said["reads"]),
        tuple(Place(**p) for p in said["writes"]), tuple(tensor(f"skips.{i}") for i in targets), NAME,
        dict(said["said"]), tuple(said["notes"]),
    )  # fmt: skip
    if said["kind"] not in ("autoencoder", "transcoder", "cross-layer transcoder", "crosscoder"):
        raise BadFormat(f"{source.path} is a dictionary of kind {said['kind']!r}.", "Copy the folder again.")
    if strange := sorted(set(held) - used) or sorted(set(said["tensors"]) ^ used):
        raise BadFormat(
            f"{source.path} holds other tensors than it says, such as {strange[0]}.", "Copy the folder again."
        )
    return made


def _activation(said: Mapping[str, Any], prefix: str, tensor: Any) -> Nonlinearity:
    kind = NONLINEARITIES.get(said["kind"])
    if kind is None:
        raise BadFormat(f"The nonlinearity {said['kind']!r} is not known.", "Read it with a later version.")
    given = {f.name: tensor(f"{prefix}{f.name}") for f in fields(kind)}
    given = {name: value for name, value in given.items() if value is not None}
    return kind(**given, **{name: value for name, value in said.items() if name != "kind"})


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary of any form, both files or none. Raises `SaveFailed`."""
    tensors, stored = dict(dictionary.tensors()), set()
    for name, value in tensors.items():
        whole = value.detach().cpu().contiguous()
        where = whole.untyped_storage().data_ptr()
        tensors[name] = whole.clone() if where in stored else whole  # tied weights are stored twice
        stored.add(where)
    put(folder, {TENSORS: safetensors(tensors), SAYS: (to_json(_said(dictionary)) + "\n").encode()})


def _said(dictionary: Dictionary) -> dict[str, Any]:
    said = dict(dictionary.said)
    if dictionary.format not in ("", NAME):
        said[FORMERLY] = dictionary.format
    encoders = []
    for encoder in dictionary.encoders:
        activation, held = encoder.activation, tensors_of(encoder.activation)
        settings = {f.name: getattr(activation, f.name) for f in fields(activation)}  # type: ignore[arg-type]
        plain = {n: value for n, value in settings.items() if n not in held and value is not None}
        encoders.append(
            {"activation": {"kind": activation.kind, **plain}, "norm": encoder.norm, "restores": encoder.restores}
        )  # fmt: skip
    return {
        "format": _TAG,
        "version": _VERSION,
        "kind": dictionary.kind,
        "encoders": encoders,
        "decoders": [[d.source, d.target] for d in dictionary.decoders],
        "reads": [[asdict(place) for place in places] for places in dictionary.reads],
        "writes": [asdict(place) for place in dictionary.writes],
        "said": said,
        "notes": list(dictionary.notes),
        "tensors": sorted(dictionary.tensors()),
    }


def files_of(folder: Path) -> tuple[Path, Path]:
    """The two files of a dictionary in a folder."""
    return folder / TENSORS, folder / SAYS


FORMATS = (Format(NAME, "Cutaway's own, for every form of dictionary", _known, read, write),)
