"""Sparse activations by columns: rows and activations of each feature, in order of rows; parts put together by features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows are numbered in four bytes, which sparse matrices read as signed numbers.
MOST_ROWS = 2**31 - 1
#: What is too small for half precision, yet not zero, is kept as the smallest number that it has.
_LEAST = float(np.finfo(np.float16).smallest_subnormal)


@dataclass(frozen=True, eq=False)
class Entries:
    """The activations of features that are not zero.

    Attributes:
        starts: [F + 1] where the entries of each feature begin, and where the last end.
        rows: [n] uint32, ascending within a feature.
        values: [n] float16 or float32, none of them zero.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    values: NDArray[Any]

    @property
    def size(self) -> int:
        """How many features."""
        return len(self.starts) - 1

    def of(self, feature: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and activations of one feature."""
        part = slice(int(self.starts[feature]), int(self.starts[feature + 1]))
        return self.rows[part].astype(np.int64), self.values[part].astype(np.float32)

    def matrix(self, n: int) -> Any:
        """All as a sparse matrix [n F] by columns, in single precision; nothing is copied that need not be."""
        from scipy.sparse import csc_array  # half a second of import, for who asks only

        rows = np.ascontiguousarray(self.rows).view(np.int32)
        values = self.values.astype(np.float32, copy=False)
        made = csc_array((values, rows, self.starts), shape=(n, self.size))
        made.has_sorted_indices = True
        return made


def of_rows(
    which: NDArray[Any], feature: NDArray[Any], values: NDArray[Any], size: int, half: bool
) -> Entries:
    """Entries given in order of rows (`which` ascending), put in order of features.

    half: keep them in half precision.
    """
    order = np.argsort(feature, kind="stable")
    starts = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(feature, minlength=size), out=starts[1:])
    kept = values[order]
    if half:
        small = np.abs(kept) < _LEAST
        kept = np.where(small, np.copysign(_LEAST, kept), kept).astype(np.float16)
    return Entries(starts, which[order].astype(np.uint32), kept)


def blocks_of(counts: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Features cut into runs of at most so many entries each; a feature of more stands alone.

    >>> blocks_of(np.array([3, 3, 9, 1, 1]), 6)
    [(0, 2), (2, 3), (3, 5)]
    """
    found, first, held = [], 0, 0
    for i, count in enumerate(counts.tolist()):
        if i > first and held + count > most:
            found.append((first, i))
            first, held = i, 0
        held += count
    return [*found, (first, len(counts))]


def merged(parts: Iterable[Entries], counts: NDArray[np.int64], half: bool) -> Entries:
    """The entries of some features from parts of the rows, in order of rows, numbered over all parts.

    counts: [F] entries of each of these features in all parts together.
    """
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    rows = np.empty(int(starts[-1]), np.uint32)
    values = np.empty(int(starts[-1]), np.float16 if half else np.float32)
    free = starts[:-1].copy()
    for part in parts:
        here = np.diff(part.starts)
        to = np.arange(len(part.rows)) + np.repeat(free - part.starts[:-1], here)
        rows[to], values[to] = part.rows, part.values
        free += here
    return Entries(starts, rows, values)


def some_features(entries: Entries, first: int, end: int) -> Entries:
    """The entries of features first to end."""
    begin, stop = int(entries.starts[first]), int(entries.starts[end])
    return Entries(
        entries.starts[first : end + 1] - begin, entries.rows[begin:stop], entries.values[begin:stop]
    )
