"""What writers of formats share: a dictionary of one source in the terms of most formats, and files that appear together."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import save
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.dictionaries import (
    Dictionary,
    Encoder,
    JumpReLU,
    Nonlinearity,
    Place,
)
from cutaway.features.formats.reading import times
from cutaway.results.atomic import atomic_folder, atomic_write


@dataclass(frozen=True, eq=False)
class Plain:
    """A dictionary of one source and one target, its gain multiplied out.

    Attributes:
        encoder: [d F].
        bias: [F].
        decoder: [F d_out].
        out: [d_out], what is added to the reconstruction.
        centred: is `out` taken from each row before it is encoded?
        skip: [d_out d]; None for none.
        activation: what pre-activations go through.
        norm: how rows are normed.
        reads: where it reads.
        writes: where it writes.
        transcodes: does it write elsewhere than it reads?
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    out: Tensor
    centred: bool
    skip: Tensor | None
    activation: Nonlinearity
    norm: str
    reads: Place
    writes: Place
    transcodes: bool

    @property
    def sizes(self) -> tuple[int, int, int]:
        """d, F and d_out."""
        return int(self.encoder.shape[0]), int(self.encoder.shape[1]), int(self.decoder.shape[1])


def plain(dictionary: Dictionary, format: str) -> Plain:
    """A dictionary in these terms. Raises `BadInput` for what no format of single autoencoders and transcoders holds."""
    if not dictionary.single or len(dictionary.reads[0]) != 1 or len(dictionary.decoders) != 1:
        refuse(
            format,
            f"a {dictionary.kind} of {len(dictionary.encoders)} sources and {len(dictionary.writes)} targets",
        )
    encoder = dictionary.encoders[0]
    if encoder.gate is not None:
        refuse(format, "an encoder with a gated linear unit")
    weight, bias, decoder = encoder.weight, encoder.bias, dictionary.decoders[0].weight
    if encoder.gain is not None:
        weight = times(weight, encoder.gain)
        bias = None if bias is None else times(bias, encoder.gain)
    out = dictionary.biases[0]
    centre = encoder.centre
    if centre is not None and (out is None or not torch.equal(centre, out.to(centre))):
        refuse(format, "an encoder that takes something else from its rows than its reconstruction adds")
    return Plain(
        weight, weight.new_zeros(encoder.size) if bias is None else bias, decoder,
        decoder.new_zeros(decoder.shape[1]) if out is None else out, centre is not None, dictionary.skips[0],
        encoder.activation, _norm(encoder), dictionary.reads[0][0], dictionary.writes[0], dictionary.kind == "transcoder",
    )  # fmt: skip


def _norm(encoder: Encoder) -> str:
    return encoder.norm if encoder.restores or encoder.norm == "none" else f"{encoder.norm}, not undone"


def refuse(format: str, what: str) -> NoReturn:
    """Raise `BadInput`: this format does not hold that."""
    raise BadInput(f"The format {format} does not hold {what}.", "Write it in another format.")


def thresholds(activation: JumpReLU, size: int, format: str) -> Tensor:
    """Thresholds [F], one for each latent. Raises `BadInput` where one is below zero: packages compute a ReLU first."""
    if bool((activation.threshold < 0).any()):
        refuse(format, "thresholds below zero, which let negative activations through")
    return activation.threshold.expand(size)


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files of a folder together or not at all; others in it stay. Raises `SaveFailed` where one is in the way."""

    def ours(old: Path, _: Path) -> tuple[str, ...]:
        return tuple(files) if all((old / name).is_file() for name in files) else ()

    with atomic_folder(folder, ours) as work:
        for name, content in files.items():
            atomic_write(work / name, content)


def safetensors(tensors: Mapping[str, Tensor | None]) -> bytes:
    """The bytes of a safetensors file of these tensors, None left out."""
    return save({name: value.detach().contiguous() for name, value in tensors.items() if value is not None})


def torch_file(values: Mapping[str, Any]) -> bytes:
    """The bytes of a file of torch.save."""
    stream = io.BytesIO()
    torch.save(dict(values), stream)
    return stream.getvalue()


def text(config: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file."""
    return (json.dumps(config, indent=1) + "\n").encode()


def word(dtype: torch.dtype) -> str:
    """The name of a type in configurations.

    >>> word(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")


def inverse_exp(values: Tensor) -> Tensor:
    """Logarithms whose exponentials are exactly these numbers, where such exist: log(values), moved by a few units in the
    last place where rounding asks for it.
    """
    best = values.log()
    for _ in range(4):
        over, under = best.exp() > values, best.exp() < values
        up = torch.nextafter(best, torch.full_like(best, float("inf")))
        down = torch.nextafter(best, torch.full_like(best, float("-inf")))
        best = torch.where(over, down, torch.where(under, up, best))
    return best
