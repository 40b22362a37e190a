"""What tests of formats with several layers share: all their cases, opened and compared."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.features.formats.packing import about, unpacked
from torch import Tensor

from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import (
    DictionaryFiles,
    Format,
    circuit_tracer,
    clt_forge,
    crosscoders,
    crosslayer_coding,
    crosslayer_transcoder,
    gemma_clt,
    llamascopium,
    lorsa,
    recognised,
)

MODULES = (
    circuit_tracer,
    gemma_clt,
    llamascopium,
    clt_forge,
    crosslayer_transcoder,
    crosslayer_coding,
    crosscoders,
    lorsa,
)
FORMATS: dict[str, Format] = {row.name: row for module in MODULES for row in module.FORMATS}
FAMILIES = (
    "circuit_tracer",
    "llamascopium",
    "gemma_clt",
    "clt_forge",
    "crosslayer_transcoder",
    "crosslayer_coding",
    "crosscoders",
    "crosscoders_learned",
)
ABOUT = {family: about(family) for family in FAMILIES}
CASES = [(family, case) for family in FAMILIES for case in ABOUT[family]["cases"]]


def opened(folder: Path) -> Dictionary:
    """The dictionary of a folder, by the one format that knows it."""
    source = DictionaryFiles.of(folder)
    return recognised(source, FORMATS).read(source).checked()


def case(family: str, name: str, into: Path) -> tuple[Dictionary, dict[str, Tensor], Path]:
    """A case's dictionary, what is expected of it, and its folder."""
    folder, expected = unpacked(family, name, into)
    return opened(folder), expected, folder


def values(family: str, name: str, expected: dict[str, Tensor], source: int) -> Tensor:
    """What one source reads, side by side."""
    reads = ABOUT[family]["cases"][name]["reads"][source]
    return torch.cat([expected[f"x.{i}"] for i in reads], -1)


def tolerance(value: Tensor) -> float:
    """Of the largest number: 1e-6 in single precision, 1e-12 in double."""
    return (1e-12 if value.dtype == torch.float64 else 1e-6) * max(1.0, float(value.abs().max()))


def same(one: Dictionary, other: Dictionary) -> bool:
    """Are all their tensors the same bit for bit, type for type?"""
    left, right = one.tensors(), other.tensors()
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left
    )
