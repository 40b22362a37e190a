"""From parts by rows to files by features: entries merged, sums, nearest features, correlations with features beside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cutaway.features.index.entries import blocks_of, merged
from cutaway.features.index.reading import IndexPart, part_entries, part_rows
from cutaway.features.index.store import EntryFile, IndexStore, write_arrays, write_entries
from cutaway.features.index.together import FeatureSums, Nearest, correlation, joined_sums, nearest, sums_of
from cutaway.features.index.token_rows import TokenRows
from cutaway.results import Work, atomic_write

if TYPE_CHECKING:
    from cutaway.network import Network

ROWS, STATISTICS, WORDS = "rows.safetensors", "statistics.safetensors", "tokens.json"
#: Entries of one file at most.
_FILE = 1 << 23


@dataclass(frozen=True, eq=False)
class MergedIndex:
    """What was written.

    Attributes:
        files: of entries.
        listing: the checksum of every file.
        rows: the tokens.
        sums: of each feature.
    """

    files: tuple[EntryFile, ...]
    listing: dict[str, str]
    rows: TokenRows
    sums: FeatureSums


def merge(
    net: Network,
    place: Path,
    parts: Sequence[IndexPart],
    half: bool,
    neighbours: int,
    work: Work,
    most: int = _FILE,
) -> MergedIndex:
    """Write the files of an index from its parts; nothing of the parts is changed.

    neighbours: how many of the nearest of each feature are kept. most: entries of one file.
    """
    store = IndexStore(place, {part.file: part.sha256 for part in parts})
    held = [store.arrays(part.file) for part in parts]
    rows = TokenRows.joined([part_rows(arrays) for arrays in held])
    before = np.cumsum([0, *(part.rows for part in parts)])
    counts = np.sum([np.diff(arrays["entry_starts"]) for arrays in held], axis=0)
    files: list[EntryFile] = []
    sums: list[FeatureSums] = []
    cut = blocks_of(counts, most)
    for i, (first, end) in enumerate(cut):
        several = (
            part_entries(arrays, first, end, int(at)) for arrays, at in zip(held, before[:-1], strict=True)
        )
        entries = merged(several, counts[first:end], half)
        files.append(write_entries(place, f"entries-{i:05d}.safetensors", entries, first))
        sums.append(sums_of(entries, len(rows)))
        work.step("putting features together", i + 1, len(cut))
    listing = {file.file: file.sha256 for file in files}
    listing[ROWS] = write_arrays(
        place / ROWS, {name: getattr(rows, name) for name in ("ids", "starts", "text", "first", "counted")}
    )
    every = joined_sums(sums)
    written = IndexStore(place, listing)
    read = [(file.first, partial(written.entries, file.file)) for file in files]
    near = nearest(read, every, neighbours, work, "features together")
    beside = _beside(held, every, neighbours)
    floors = held[0]["floors"]
    listing[STATISTICS] = write_arrays(place / STATISTICS, _arrays(every, near, floors) | beside)
    listing[WORDS] = _words(net, rows, place)
    return MergedIndex(tuple(files), listing, rows, every)


def _arrays(sums: FeatureSums, near: Nearest, floors: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    found = {name: getattr(sums, name) for name in ("counts", "total", "squares", "maxima", "minima")}
    found |= {f"near_{name}": getattr(near, name) for name in ("which", "correlation", "jaccard", "both")}
    return found | {"floors": floors}


def _beside(held: Sequence[dict[str, NDArray[Any]]], sums: FeatureSums, k: int) -> dict[str, NDArray[Any]]:
    """The features beside with which each is most correlated, by the size of the correlation."""
    if "cross" not in held[0]:
        return {}
    cross = np.sum([arrays["cross"] for arrays in held], axis=0)
    n = max(1, sums.rows)
    mean = cross[-2] / n
    spread = np.sqrt(np.maximum(cross[-1] / n - mean**2, 0.0))
    r = correlation(
        cross[:-2], sums.rows, (sums.mean[:, None], mean[None]), (sums.spread[:, None], spread[None])
    )
    order = np.argsort(-np.abs(r), axis=1, kind="stable")[:, :k]
    return {"beside_which": order, "beside_correlation": np.take_along_axis(r, order, 1)}


def _words(net: Network, rows: TokenRows, place: Path) -> str:
    """Write down every token as text, by its number."""
    ids = np.unique(rows.ids).tolist()
    said = json.dumps(dict(zip(map(str, ids), net.token_strings(ids), strict=True)), ensure_ascii=False)
    atomic_write(place / WORDS, said)
    return hashlib.sha256(said.encode()).hexdigest()
