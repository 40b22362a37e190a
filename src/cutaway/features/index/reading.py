"""Texts through a network to sparse activations, one part after the other, each of them on disk before the next begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, Stopped
from cutaway.features.index.entries import MOST_ROWS, Entries, of_rows, some_features
from cutaway.features.index.store import IndexStore, write_arrays
from cutaway.features.index.token_rows import TokenRows
from cutaway.features.sets import FeatureSet, activations_of
from cutaway.features.texts import Batch, Count, TextWindow, batches
from cutaway.network.memory import budget_bytes
from cutaway.network.sites import Site
from cutaway.results import Work, atomic_write, to_json

if TYPE_CHECKING:
    from cutaway.network import Network

#: The journal of an index that is being made.
JOURNAL = "unfinished.json"
#: Tokens from which the floors of signed features are told; numbers that are encoded, or held for them, at once.
_CALIBRATED, _HELD = 4096, 1 << 24
#: Bytes of an entry while a part is put together; the share of the budget that a part may take; entries of the largest part.
_ENTRY, _SHARE, _LARGEST = 40, 8, 1 << 23
#: Half precision has no larger number.
_HALF_MOST = 65504.0


@dataclass(frozen=True)
class IndexPart:
    """One part on disk.

    Attributes:
        file: its name.
        sha256: of the file.
        windows: how many windows of text it is of.
        rows: how many tokens count.
        digest: SHA-256 of all windows up to its end.
        texts, empty: how many texts were read up to its end, and how many held nothing.
    """

    file: str
    sha256: str
    windows: int
    rows: int
    digest: str
    texts: int
    empty: int


class PartReader:
    """Reads windows, and writes parts to a folder.

    asked: the question, as plain data. beside: features that are read from the same runs, for correlations.
    """

    def __init__(
        self, net: Network, features: FeatureSet, beside: FeatureSet | None, place: Path, asked: dict[str, Any],
        count: Count, work: Work,
    ) -> None:  # fmt: skip
        self.net, self.features, self.beside, self.place = net, features, beside, place
        self.asked, self.count, self.work = asked, count, work
        self.half, self.skip, self.special = asked["dtype"] == "float16", asked["skip"], asked["special"]
        self.sites = list(dict.fromkeys([*features.sites, *(beside.sites if beside else ())]))
        self.digest = hashlib.sha256()
        self.parts: list[IndexPart] = []
        self.floors: NDArray[np.float32] | None = (
            None if features.signed else np.zeros(len(features), np.float32)
        )
        self.most = max(1, min(_LARGEST, budget_bytes(net, work) // _SHARE // _ENTRY))
        self.waiting: list[
            tuple[Batch, NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32] | None]
        ] = []
        self._empty()

    def _empty(self) -> None:
        self.windows: list[TextWindow] = []
        self.flags: list[NDArray[np.bool_]] = []
        self.found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self.rows = self.held = 0
        self.cross: NDArray[np.float64] | None = None
        if self.beside is not None:
            self.cross = np.zeros((len(self.features) + 2, len(self.beside)))

    # going on ----------------------------------------------------------------------------------------------------------

    def begun(self) -> int:
        """Take up what the folder's journal names; how many windows are done. `BadInput` where another question was."""
        path = self.place / JOURNAL
        if not path.is_file():
            return 0
        said = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in self.asked.items() if said["asked"].get(name) != value]
        if other:
            raise BadInput(
                f"{self.place} holds the beginning of another index: {', '.join(other)} differ.",
                "Choose a new folder, or ask the same question.",
            )
        self.parts = [IndexPart(**part) for part in said["parts"]]
        store = IndexStore(self.place, {part.file: part.sha256 for part in self.parts})
        if self.parts:
            self.floors = np.array(store.arrays(self.parts[0].file)["floors"])
        return sum(part.windows for part in self.parts)

    def all(self, windows: Iterator[TextWindow]) -> bool:
        """Read all that is not there yet; False where the work was stopped, after what is finished was written down."""
        for part in self.parts:
            skipped = list(islice(windows, part.windows))
            self._hash(skipped)
            if len(skipped) < part.windows or self.digest.hexdigest() != part.digest:
                raise BadInput(
                    f"{self.place} was begun with other texts.",
                    "Choose a new folder, or give the same texts.",
                )
        try:
            for batch in batches(
                self.net, windows, self.sites, self.asked["length"], self.work, "reading texts"
            ):
                self.take(batch)
        except Stopped:
            self._settle()
            self._write()
            if not self.parts:
                raise
            return False
        self._settle()
        self._write()
        return True

    def hashed(self, windows: Iterator[TextWindow]) -> str:
        """SHA-256 of all windows, none of which is run."""
        self._hash(windows)
        return self.digest.hexdigest()

    def _hash(self, windows: Iterable[TextWindow]) -> None:
        for window in windows:
            self.digest.update(repr((window.text, window.start, window.ids)).encode())

    # one batch ---------------------------------------------------------------------------------------------------------

    def take(self, batch: Batch) -> None:
        """Run a batch and take in its activations."""
        chosen = (batch.tokens.mask if self.special else batch.ordinary).clone()
        chosen[:, : self.skip] = False
        flags = chosen.numpy()
        row, column = chosen.nonzero(as_tuple=True)
        values = {site: self._value(batch, site, row, column) for site in self.sites}
        other = None
        if self.beside is not None:
            other = (
                activations_of(self.beside, [values[s] for s in self.beside.sites])
                .detach()
                .cpu()
                .float()
                .numpy()
            )
        step = max(1, _HELD // max(1, len(self.features)))
        slices = [slice(i, i + step) for i in range(0, len(row), step)]
        if self.floors is None:
            read = [self._read(values, part, batch, row) for part in slices]
            dense = np.concatenate(read) if read else np.zeros((0, len(self.features)), np.float32)
            self.waiting.append((batch, flags, dense, other))
            held = sum(len(entry[2]) for entry in self.waiting)
            if held >= min(_CALIBRATED, max(256, 4 * _HELD // len(self.features))):
                self._settle()
            return
        sparse = [(part.start, self._read(values, part, batch, row)) for part in slices]
        self._add(batch, flags, sparse, other)

    def _value(self, batch: Batch, site: Site, row: Tensor, column: Tensor) -> Tensor:
        value = batch.run[site]
        value = value.detach()[row.to(value.device), column.to(value.device)]
        if not bool(torch.isfinite(value).all()):
            raise NotFinite(
                f"{site} holds NaN or infinity in text {batch.windows[0].text} or after it.", "Use float32."
            )
        return value

    def _read(
        self, values: dict[Site, Tensor], part: slice, batch: Batch, row: Tensor
    ) -> NDArray[np.float32]:
        found = activations_of(self.features, [values[site][part] for site in self.features.sites])
        found = found.detach().cpu().float().numpy()
        good = np.isfinite(found)
        if not good.all():
            at, feature = map(int, np.argwhere(~good)[0])
            raise NotFinite(
                f"{self.features.names[feature]} is NaN or infinite in text {batch.windows[int(row[part][at])].text}.",
                "Look at the dictionary (Dictionary.checked), and run in float32.",
            )
        return found

    def _settle(self) -> None:
        """Decide on the floors of signed features, and take in what waited for them."""
        if self.floors is None and self.waiting:
            every = np.abs(np.concatenate([dense for _, _, dense, _ in self.waiting]))
            if len(every):
                self.floors = np.quantile(every, 1 - self.asked["share"], axis=0).astype(np.float32)
        for batch, flags, dense, other in self.waiting:
            self._add(batch, flags, [(0, dense)], other)
        self.waiting = []

    def _add(
        self, batch: Batch, flags: NDArray[np.bool_], read: Sequence[tuple[int, NDArray[np.float32]]],
        other: NDArray[np.float32] | None,
    ) -> None:  # fmt: skip
        rows = 0
        for start, dense in read:
            size = np.abs(dense) if self.features.signed else dense
            at, feature = np.nonzero(size > (0.0 if self.floors is None else self.floors))
            kept = dense[at, feature]
            if self.half and len(kept) and np.abs(kept).max() > _HALF_MOST:
                raise BadInput(
                    f"An activation of {np.abs(kept).max():.3g} does not fit half precision.",
                    "Use dtype='float32'.",
                )
            self.found.append((at + self.rows + start, feature.astype(np.int32), kept))
            self.held += len(kept)
            rows += len(dense)
            if self.cross is not None and other is not None:
                self._correlate(at, feature, kept, len(dense), other[start : start + len(dense)])
        self.rows += rows
        self.windows += batch.windows
        self.flags += [flags[i, : len(window.ids)] for i, window in enumerate(batch.windows)]
        if sum(part.rows for part in self.parts) + self.rows > MOST_ROWS:
            raise BadInput(f"An index holds {MOST_ROWS:,} tokens at most.", "Make several.")
        if self.held >= self.most:
            self._write()

    def _correlate(
        self,
        at: NDArray[Any],
        feature: NDArray[Any],
        kept: NDArray[Any],
        rows: int,
        other: NDArray[np.float32],
    ) -> None:
        """Add to the sums of products with the features beside: a row for each feature, one of sums, one of squares."""
        from scipy.sparse import csr_array  # half a second of import, for who asks only

        assert self.cross is not None
        wide = other.astype(np.float64)
        mine = csr_array((kept.astype(np.float64), (feature, at)), shape=(len(self.features), rows))
        self.cross[:-2] += mine @ wide
        self.cross[-2] += wide.sum(0)
        self.cross[-1] += (wide**2).sum(0)

    # one part ----------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if not self.windows:
            return
        self._hash(self.windows)
        joined = [np.concatenate(x) for x in zip(*self.found, strict=True)] if self.found else []
        which, feature, kept = joined or (
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
        )
        entries = of_rows(which, feature, kept, len(self.features), self.half)
        rows = TokenRows.of(self.windows, self.flags)
        floors = np.zeros(len(self.features), np.float32) if self.floors is None else self.floors
        arrays = {
            "floors": floors,
            "entry_starts": entries.starts,
            "rows": entries.rows,
            "values": entries.values,
        }
        arrays |= {name: getattr(rows, name) for name in ("ids", "starts", "text", "first", "counted")}
        if self.cross is not None:
            arrays["cross"] = self.cross
        name = f"part-{len(self.parts):05d}.safetensors"
        digest = write_arrays(self.place / name, arrays)
        self.parts.append(
            IndexPart(
                name,
                digest,
                len(self.windows),
                len(rows),
                self.digest.hexdigest(),
                self.count.texts,
                self.count.empty,
            )
        )
        self._empty()
        atomic_write(
            self.place / JOURNAL,
            to_json({"asked": self.asked, "parts": [asdict(part) for part in self.parts]}),
        )


def part_entries(arrays: dict[str, NDArray[Any]], first: int, end: int, before: int) -> Entries:
    """The entries of features first to end of a part, its rows numbered behind so many others."""
    held = Entries(arrays["entry_starts"], arrays["rows"], arrays["values"])
    some = some_features(held, first, end)
    return Entries(some.starts, some.rows + np.uint32(before), some.values)


def part_rows(arrays: dict[str, NDArray[Any]]) -> TokenRows:
    """The rows of a part."""
    return TokenRows(*(arrays[name] for name in ("ids", "starts", "text", "first", "counted")))
