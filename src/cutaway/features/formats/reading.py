"""What readers of formats share: tensors that must be there, what a file says in words, a dictionary of one source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, JumpReLU, Place
from cutaway.features.formats.checks import left_over, types_of, whole_of, wider
from cutaway.features.formats.source import DictionaryFiles

#: Types of numbers that a dictionary may be stored in.
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Stored:
    """The tensors of one file, asked for by name.

    >>> Stored("ae.pt", {"W_enc": torch.zeros(2, 3)}).matrix("W_enc").shape
    torch.Size([2, 3])
    """

    def __init__(self, file: str, values: Mapping[str, Any], prefix: str = "") -> None:
        self.file, self.values, self.prefix = file, values, prefix

    def __contains__(self, key: str) -> bool:
        return f"{self.prefix}{key}" in self.values

    def get(self, key: str, default: Any = None) -> Any:
        """What a key holds, a tensor or not."""
        return self.values[f"{self.prefix}{key}"] if key in self else default

    def _tensor(self, key: str, ndim: int) -> Tensor:
        if key not in self:
            raise BadFormat(
                f"{self.file} has no tensor {self.prefix}{key}: it holds {', '.join(sorted(self.values)[:8])}.",
                "The file may be of another format, or damaged.",
            )
        value = self.get(key)
        if not torch.is_tensor(value) or value.dtype not in FLOATS or value.ndim != ndim:
            what = f"{value.dtype}, {tuple(value.shape)}" if torch.is_tensor(value) else type(value).__name__
            raise BadFormat(
                f"{key} of {self.file} is {what}, not floating-point numbers on {ndim} axes.",
                "The file may be of another format, or quantised.",
            )
        return value.detach()

    def matrix(self, key: str) -> Tensor:
        """A tensor on two axes, as it is stored. Raises `BadFormat` where it is missing or something else."""
        return self._tensor(key, 2)

    def vector(self, key: str, needed: bool = True) -> Tensor | None:
        """A tensor on one axis; None where it is missing and not needed."""
        return self._tensor(key, 1) if needed or key in self else None

    def must(self, key: str) -> Tensor:
        """A tensor on one axis that must be there."""
        return self._tensor(key, 1)

    def number(self, key: str) -> float | None:
        """One number; None where it is missing."""
        value = self.get(key)
        return None if value is None else float(value)


def held(source: DictionaryFiles, file: str, prefix: str = "") -> Stored:
    """The tensors of a file of a source."""
    return Stored(file, source.tensors(file), prefix)


def above(source: DictionaryFiles, name: str, key: str) -> dict[str, Any]:
    """A configuration that a run of training keeps one or two folders above, if it has a key; {} where there is none."""
    for folder in list(source.folder.resolve().parents)[:2]:
        if (folder / name).is_file():
            found = DictionaryFiles(folder, folder, (name,)).config(name)
            if key in found:
                return found
    return {}


def keys_of(source: DictionaryFiles, file: str) -> frozenset[str]:
    """Keys of a file; the empty set where it is not there."""
    return source.keys(file) if source.has(file) else frozenset()


def shape_of(source: DictionaryFiles, file: str, key: str) -> tuple[int, ...]:
    """Shape of a tensor of a safetensors file, from its header alone; () where it is not there."""
    from cutaway.network.files import header_of

    return tuple(header_of(source.folder / file).get(key, {}).get("shape", ()))


def single(
    encoder: Encoder, decoder: Tensor, bias: Tensor | None, reads: Place, writes: Place | None = None, *,
    format: str, skip: Tensor | None = None, said: Mapping[str, Any], notes: Iterable[str] = (),
) -> Dictionary:  # fmt: skip
    """A dictionary of one source and one target: an autoencoder of one place, or a transcoder between two.

    encoder: [d F]. decoder: [F d_out]. Raises `BadInput` where shapes do not go together.
    """
    if skip is not None and skip.shape[1] != encoder.width:
        raise BadFormat(
            f"A skip connection of shape {tuple(skip.shape)} does not read rows of {encoder.width} numbers.",
            "The file may be of another format, or damaged.",
        )
    shown = tuple(note for note in notes if note) + mixed(encoder, decoder, bias, skip)
    return Dictionary(
        "autoencoder" if writes is None else "transcoder", (encoder,), (Decoder(0, 0, decoder),), (bias,),
        ((reads,),), (reads if writes is None else writes,), (skip,), format,
        {name: value for name, value in said.items() if value is not None}, shown,
    )  # fmt: skip


def mixed(encoder: Encoder, decoder: Tensor, bias: Tensor | None, skip: Tensor | None) -> tuple[str, ...]:
    """A note where numbers are stored in several types."""
    types = types_of([encoder.weight, encoder.bias, decoder, bias, skip])
    if len(types) < 2:
        return ()
    return (f"Its numbers are stored in several types ({', '.join(types)}); each is used as it is.",)


def jump(threshold: Tensor) -> JumpReLU:
    """relu(pre) * 1[pre > threshold], as most packages have it: a threshold below zero lets nothing negative through."""
    return JumpReLU(threshold.clamp(min=0))


def times(tensor: Tensor, factor: Tensor | float) -> Tensor:
    """A tensor multiplied, in at least single precision."""
    return tensor.to(wider(tensor)) * factor


def unused(config: Mapping[str, Any], understood: Iterable[str]) -> str:
    """A note that names the settings of a configuration that say nothing about how the dictionary is used."""
    left = left_over(config, understood)
    return f"Its configuration also says {', '.join(left)}, which is kept and not used." if left else ""


def whole(value: Any, name: str, file: str) -> int:
    """A whole number of at least one, such as k. Raises `BadFormat` for anything else."""
    found = whole_of(value)
    if found is None:
        said = value.item() if torch.is_tensor(value) and value.numel() == 1 else value
        raise BadFormat(f"{name} of {file} is {said!r}.", "It must be a whole number of at least 1.")
    return found


def flag(config: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A setting that is true or false, null like not said. Raises `BadFormat` for anything else.

    >>> flag({"transcode": True}, "transcode"), flag({}, "transcode")
    (True, False)
    """
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadFormat(
            f"{name} is {value!r}, which is neither true nor false.", "Fetch the configuration again."
        )
    return default if value is None else value


def positive(value: Any, name: str) -> float:
    """A factor above zero that a caller gives. Raises `BadInput` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BadInput(f"{name}={value!r} is no factor.", "Give a number above zero.")
    return float(value)


def matched(encoder: Tensor, decoder: Tensor, file: str, *vectors: Tensor | None) -> None:
    """Raise `BadFormat` unless an encoder [d F], a decoder [F d_out] and vectors [F] are of as many latents."""
    found = {
        int(encoder.shape[1]),
        int(decoder.shape[0]),
        *(len(value) for value in vectors if value is not None),
    }
    if len(found) > 1:
        raise BadFormat(
            f"The tensors of {file} are of {' and '.join(map(str, sorted(found)))} latents.",
            "Fetch it again.",
        )


def only(files: Iterable[str], source: DictionaryFiles) -> str:
    """The one file of several, or the one that was named. Raises `BadFormat` where it must be named."""
    found = sorted(files)
    if len(found) == 1:
        return found[0]
    raise BadFormat(
        f"{source.path} holds {len(found)} dictionaries: {', '.join(found[:6])}.",
        "Name the file of one of them.",
    )
