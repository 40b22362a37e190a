"""What readers and writers of formats with several layers share: keys that must be there, shapes, folding, whole folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput, CorruptFile, UnsafeFile, did_you_mean
from cutaway.features.dictionaries import Dictionary, Encoder, Place
from cutaway.features.formats.checks import left_over, types_of, whole_of, wider
from cutaway.features.formats.source import DictionaryFiles
from cutaway.results.atomic import atomic_folder

_T = TypeVar("_T")
_OTHER = "The file may be of another format, or damaged; fetch it again."


def numbered(source: DictionaryFiles, pattern: str) -> dict[int, str]:
    """Files of a source's own folder whose name fits a pattern with one group of digits, by that number.

    >>> numbered(DictionaryFiles(Path(), Path(), ("layer_1.safetensors", "layer_0.safetensors")),
    ...          r"layer_(\\d+)\\.safetensors")
    {0: 'layer_0.safetensors', 1: 'layer_1.safetensors'}
    """
    found = ((re.fullmatch(pattern, name), name) for name in source.files)
    return dict(sorted((int(match[1]), name) for match, name in found if match))


def keys_in(source: DictionaryFiles, name: str) -> frozenset[str]:
    """The keys of a file; none where it is a pickle that only running its code would read, as the state of a trainer."""
    if name.endswith(".safetensors"):
        return source.keys(name)
    try:
        return source.keys(name)
    except (UnsafeFile, CorruptFile, BadFormat):
        return frozenset()


def holding(source: DictionaryFiles, *keys: str) -> str | None:
    """The first file of tensors that holds all these keys, or None."""
    return next((name for name in source.tensor_files if keys_in(source, name).issuperset(keys)), None)


def must(found: _T | None, source: DictionaryFiles, format_name: str) -> _T:
    """What was found. Raises `BadFormat` where nothing was, in a source that was said to be of a format; or why not."""
    if found:
        return found
    for name in source.tensor_files:
        source.keys(name)  # what cannot be read says so
    files = ", ".join(source.files[:6])
    raise BadFormat(
        f"{source.path} holds no {format_name}: there are {files}.",
        "Leave format= out to have it recognised.",
    )


def need(held: Mapping[str, Any], key: str, *shape: int | None, where: str) -> Tensor:
    """A tensor of numbers, of a shape in which None stands for any size.

    Raises `BadFormat` where it is missing, no tensor of floating-point numbers, or of another shape.
    """
    value = held.get(key) if key in held else None
    if value is None:
        raise BadFormat(f"{where} holds no {key}.", did_you_mean(key, list(held)) or _OTHER)
    if not torch.is_tensor(value) or not value.is_floating_point():
        said = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise BadFormat(f"{key} in {where} is {said}, not floating-point numbers.", _OTHER)
    if len(value.shape) != len(shape) or any(
        a is not None and a != b for a, b in zip(shape, value.shape, strict=True)
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise BadFormat(
            f"{key} in {where} is of shape {list(value.shape)}, where [{wanted}] is needed.", _OTHER
        )
    return value


def maybe(held: Mapping[str, Any], key: str, *shape: int | None, where: str) -> Tensor | None:
    """As `need`; None where the key is not there."""
    return need(held, key, *shape, where=where) if key in held else None


def only(held: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise `BadFormat` where a file holds keys that this format does not have, which would be left out in silence."""
    others = sorted(set(held) - set(known))
    if others:
        raise BadFormat(
            f"{where} also holds {', '.join(others[:4])}, which this format does not have.",
            "Say what it is with format=, or fetch the file again.",
        )


def number(config: Mapping[str, Any], key: str, where: str) -> int:
    """A whole number above zero of a configuration. Raises `BadFormat` where it is none."""
    found = whole_of(config.get(key))
    if found is None:
        raise BadFormat(f"{key} is {config.get(key)!r} in {where}, which is no number of things.", _OTHER)
    return found


def word(config: Mapping[str, Any], key: str, choices: Sequence[str], default: str, where: str) -> str:
    """One of several words of a configuration. Raises `BadFormat` for another one."""
    value = config.get(key, default)
    if value not in choices:
        raise BadFormat(
            f"{key} is {value!r} in {where}, which is not known.", f"Known are {', '.join(choices)}."
        )
    return str(value)


def agree(config: Mapping[str, Any], where: str, **sizes: int) -> None:
    """Raise `BadFormat` where a configuration says another size than the weights have."""
    for key, size in sizes.items():
        if config.get(key, size) != size:
            raise BadFormat(
                f"{where} says {key} {config[key]!r}, and the weights have {size}.",
                "Fetch all files of one and the same run.",
            )


def extras(config: Mapping[str, Any], understood: Iterable[str], where: str) -> tuple[str, ...]:
    """A note of what a configuration says and nobody here understands; none where all is understood."""
    unknown = left_over(config, understood)
    return (f"{where} also says {', '.join(unknown)}, which is not used.",) if unknown else ()


def type_notes(dictionary: Dictionary) -> Dictionary:
    """The same, with a note where its weights and thresholds are of several types."""
    held = dictionary.tensors().items()
    types = types_of(
        t for name, t in held if name.endswith(".weight") or "threshold" in name or "decoders" in name
    )
    if len(types) < 2:
        return dictionary
    return replace(
        dictionary, notes=(*dictionary.notes, f"Its numbers are of several types: {', '.join(types)}.")
    )


def single(value: Tensor) -> Tensor:
    """In at least single precision, for arithmetic on what a file holds in half."""
    return value.to(wider(value))


def above_zero(threshold: Tensor) -> Tensor:
    """A threshold for formats that also demand a positive pre-activation."""
    return threshold if bool((threshold >= 0).all()) else threshold.clamp(min=0)


def from_log(log: Tensor) -> Tensor:
    """exp of a stored logarithm, to the nearest number of its own type."""
    return log.double().exp().to(log.dtype)


def over_lengths(threshold: Tensor, lengths: Tensor) -> Tensor:
    """A threshold for pre-activations, of one for them times the lengths of decoders; never passed at length 0."""
    largest = torch.finfo(threshold.dtype).max
    return torch.where(lengths > 0, threshold / lengths, largest).clamp(max=largest).to(threshold.dtype)


def spread_bias(bias: Tensor, scale: float) -> Tensor:
    """A bias that is multiplied by a gain later, in double precision: bias / scale."""
    return bias.double() / scale


def even_gain(size: int, scale: float) -> Tensor:
    """One gain for all latents, in double precision."""
    return torch.full((), scale, dtype=torch.float64).expand(size)


def folded(dictionary: Dictionary) -> Dictionary:
    """The same function without `centre` and `gain`, which are multiplied into weights and biases: for formats without them.

    Activations are the same to rounding, in the type of the weights.
    """
    encoders = tuple(_folded(encoder) for encoder in dictionary.encoders)
    return replace(dictionary, encoders=encoders, notes=(*dictionary.notes, "Centre and gain are folded in."))


def _folded(encoder: Encoder) -> Encoder:
    if encoder.gate is not None:
        raise BadInput("A gated linear unit cannot be folded.", "Choose a format that has one.")
    weight, bias = encoder.weight.double(), encoder.bias
    bias = torch.zeros(encoder.size, dtype=torch.float64) if bias is None else bias.double()
    if encoder.centre is not None:
        bias = bias - encoder.centre.double() @ weight
    if encoder.gain is not None:
        weight, bias = weight * encoder.gain.double(), bias * encoder.gain.double()
    dtype = encoder.weight.dtype
    return replace(encoder, weight=weight.to(dtype), bias=bias.to(dtype), centre=None, gain=None)


def plain(dictionary: Dictionary, format_name: str, *, gates: bool = False) -> None:
    """Raise `BadInput` where an encoder does more than weight, bias and activation."""
    for encoder in dictionary.encoders:
        if encoder.norm != "none":
            raise BadInput(
                f"{format_name} has no {encoder.norm} of rows.", "Choose a format that has one, as saelens."
            )
        if encoder.centre is not None or encoder.gain is not None:
            raise BadInput(
                f"{format_name} takes nothing from rows and multiplies nothing.",
                "Fold it first: cutaway.features.formats.layered.folded(dictionary).",
            )
        if encoder.gate is not None and not gates:
            raise BadInput(f"{format_name} has no gated linear unit.", "Choose llamascopium.")


def hooks_of(places: Sequence[Place], format_name: str) -> tuple[list[int], str]:
    """Layers and the common TransformerLens hook of the places of a dictionary; ([0, 1, ...], "") where nothing is said.

    Raises `BadInput` for places that are named in another way, or that have several hooks.
    """
    if not any(place.said for place in places):
        return list(range(len(places))), ""
    found = [re.fullmatch(r"blocks\.(\d+)\.(.+)", place.said) for place in places]
    hooks = {match[2] for match in found if match}
    if not all(found) or len(hooks) != 1:
        said = ", ".join(place.said or "nothing" for place in places)
        raise BadInput(
            f"{format_name} names one hook of TransformerLens for all layers, not {said}.",
            "Give places said so: blocks.3.hook_resid_mid, ...",
        )
    return [int(match[1]) for match in found if match], hooks.pop()


def write_folder(
    folder: str | Path, tensors: Iterable[tuple[str, Mapping[str, Tensor]]], texts: Mapping[str, str],
    ours: Sequence[str],
) -> None:  # fmt: skip
    """Write files of tensors (safetensors), one after another, and of text to a folder, whole or not at all.

    ours: patterns of names of this format, which are replaced where the folder is there; all else in it stays.
    """
    from safetensors.torch import save_file

    def replaced(old: Path, _: Path) -> list[str]:
        return [p.name for p in old.iterdir() if any(fnmatchcase(p.name, pattern) for pattern in ours)]

    with atomic_folder(folder, replaced) as work:
        for name, held in tensors:
            save_file({key: _own(value.detach()) for key, value in held.items()}, work / name)
        for name, text in texts.items():
            (work / name).write_text(text, encoding="utf-8")


def _own(value: Tensor) -> Tensor:
    return value.clone() if value.is_contiguous() else value.contiguous()


def as_json(config: Mapping[str, Any]) -> str:
    """A configuration as indented JSON."""
    return json.dumps(dict(config), indent=2) + "\n"


def as_yaml(config: Mapping[str, Any]) -> str:
    """A configuration as YAML."""
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False)
