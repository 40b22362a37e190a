"""Activations on disk: shards of safetensors, each with its checksum, read only where they are asked for."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cutaway.errors import BadAddress, BadInput, CorruptFile
from cutaway.network.indices import indices

#: What every shard holds beside the sites: where each row comes from.
INDEX = ("text", "position", "token_id")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Shard:
    """One file of rows.

    Attributes:
        file: its name in the folder.
        rows: how many tokens it holds.
        windows: how many windows of text these come from.
        digest: SHA-256 of all windows of text up to its end.
        sha256: of the file.
    """

    file: str
    rows: int
    windows: int
    digest: str
    sha256: str


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of a folder, opened when they are read, each checked against its checksum the first time.

    Attributes:
        folder: where they lie.
        shards: in order.
    """

    folder: Path
    shards: tuple[Shard, ...]
    _checked: set[str] = field(default_factory=set, repr=False)

    @property
    def rows(self) -> int:
        """Tokens in all shards."""
        return sum(shard.rows for shard in self.shards)

    def check(self, shard: Shard) -> Path:
        """The file of a shard; `CorruptFile` where it is missing or was changed."""
        path = self.folder / shard.file
        if path.is_symlink() or not path.is_file():
            raise CorruptFile(f"{path} is missing.", "Copy the whole folder, or make the activations again.")
        if shard.file not in self._checked:
            if file_hash(path) != shard.sha256:
                raise CorruptFile(
                    f"{path} is not as it was saved.", "Copy the folder again, or make them again."
                )
            self._checked.add(shard.file)
        return path

    def read(self, name: str, rows: Sequence[int]) -> Tensor:
        """Some rows of one tensor, in the order in which they are asked for; only the shards that hold them are read."""
        ends = list(accumulate(shard.rows for shard in self.shards))
        where: dict[int, list[tuple[int, int]]] = {}
        for at, row in enumerate(rows):
            number = bisect.bisect_right(ends, row)
            where.setdefault(number, []).append((at, row - (ends[number - 1] if number else 0)))
        parts: list[tuple[list[int], Tensor]] = []
        for number, wanted in where.items():
            places, inside = [at for at, _ in wanted], [i for _, i in wanted]
            first, end = min(inside), max(inside) + 1
            try:
                with safe_open(self.check(self.shards[number]), framework="pt") as file:
                    part = file.get_slice(name)[first:end]
            except (SafetensorError, OSError) as error:
                raise CorruptFile(
                    f"{self.folder / self.shards[number].file} cannot be read: {error}.", "Make it again."
                ) from error
            parts.append((places, part[[i - first for i in inside]]))
        out = parts[0][1].new_empty((len(rows), *parts[0][1].shape[1:]))
        for places, part in parts:
            out[places] = part
        return out


@dataclass(frozen=True, eq=False)
class SiteArray:
    """The values of one site at all tokens, on disk: index it as an array, and only what is asked for is read.

    Attributes:
        name: of the site.
        shape: tokens first.
        dtype: of the numbers.
        source: the shards.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    source: Shards = field(repr=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> Tensor:
        """Rows by number, slice, list or boolean mask; then further indices as in torch."""
        which, *rest = which if isinstance(which, tuple) else (which,)
        rows = chosen_rows(which, len(self))
        value = self.source.read(self.name, rows)
        if isinstance(which, int | np.integer) and not isinstance(which, bool):
            value = value[0]
            return value[tuple(rest)] if rest else value
        return value[(slice(None), *rest)] if rest else value

    def batches(self, size: int = 4096) -> Iterator[Tensor]:
        """The rows in order, so many at a time.

        Raises `BadInput` for a size below 1.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise BadInput(f"size={size!r} is no number of rows.", "Give one at least.")
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self[:]
        return (
            (value.float() if value.dtype == torch.bfloat16 else value)
            .numpy()
            .astype(dtype or None, copy=False)
        )


def chosen_rows(which: Any, n: int) -> list[int]:
    """Rows as numbers from 0. Raises `BadAddress` for one that is not there."""
    if which is None:
        return list(range(n))
    if n == 0:
        raise BadAddress("There are no rows.", "Read texts first.")
    return indices(which, n, "row", "this array")
