"""The files of an index: each a safetensors file with its checksum, mapped into memory and read where it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from cutaway.errors import CorruptFile
from cutaway.features.index.entries import Entries
from cutaway.features.shards import file_hash
from cutaway.results import atomic_write


@dataclass(frozen=True)
class EntryFile:
    """One file of entries.

    Attributes:
        file: its name in the folder.
        first, end: the features that it holds.
        size: how many entries.
        sha256: of the file.
    """

    file: str
    first: int
    end: int
    size: int
    sha256: str


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write arrays to a file, whole or not at all; its SHA-256."""
    content = to_bytes(
        {
            name: torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)
            for name, value in arrays.items()
        }
    )
    atomic_write(path, content)
    return hashlib.sha256(content).hexdigest()


def write_entries(folder: Path, name: str, entries: Entries, first: int) -> EntryFile:
    """Write the entries of features first and on."""
    digest = write_arrays(
        folder / name, {"starts": entries.starts, "rows": entries.rows, "values": entries.values}
    )
    return EntryFile(name, first, first + entries.size, len(entries.rows), digest)


@dataclass(frozen=True, eq=False)
class IndexStore:
    """Files of a folder, checked against their checksums when they are first read, and mapped.

    Attributes:
        folder: where they lie.
        listing: the checksum of each.
    """

    folder: Path
    listing: Mapping[str, str]
    _open: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict, repr=False)

    def check(self, name: str) -> Path:
        """The path of a file; `CorruptFile` where it is missing or was changed."""
        path = self.folder / name
        if path.is_symlink() or not path.is_file() or name not in self.listing:
            raise CorruptFile(f"{path} is missing.", "Copy the whole folder, or make the index again.")
        if file_hash(path) != self.listing[name]:
            raise CorruptFile(
                f"{path} is not as it was saved.", "Copy the folder again, or make the index again."
            )
        return path

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of a file, mapped into memory."""
        if name not in self._open:
            path = self.check(name)
            try:
                with safe_open(path, framework="pt") as file:
                    self._open[name] = {key: file.get_tensor(key).numpy() for key in file.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as error:
                raise CorruptFile(f"{path} cannot be read: {error}.", "Make the index again.") from error
        return self._open[name]

    def entries(self, name: str) -> Entries:
        """The entries of a file."""
        held = self.arrays(name)
        return Entries(held["starts"], held["rows"], held["values"])
