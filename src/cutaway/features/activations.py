"""Activations of a data set, streamed to disk and read back without loading it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from cutaway.errors import (
    BadAddress,
    BadFormat,
    BadInput,
    NotFinite,
    SaveFailed,
    Stopped,
    did_you_mean,
)
from cutaway.features.shards import INDEX, Shard, Shards, SiteArray, chosen_rows
from cutaway.features.texts import (
    Count,
    TextsLike,
    TextWindow,
    announce_windows,
    batches,
    window_length,
    windows_of,
)
from cutaway.figures import Bar, bars
from cutaway.network.memory import budget_bytes, numbers_of
from cutaway.network.sites import Site, SiteLike
from cutaway.reports import Figure, Page, display_result, page_of, table_of
from cutaway.results import (
    MANIFEST,
    Provenance,
    Work,
    atomic_write,
    copy_saved,
    described,
    head,
    kind_of,
    read_manifest,
    strict,
    working,
    write_manifest,
)  # fmt: skip

if TYPE_CHECKING:
    from cutaway.network import Network

#: Bytes of a token's place; of a site's value as a double, in multiples of it.
_INDEX_BYTES, _DOUBLE = 24, 2
#: Share of the budget that one shard may take, and bytes beyond which it is not made larger.
_SHARE, _LARGEST = 8, 256 << 20
_WORDS = "tokens.json"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Activations:
    """The values of sites at every token of many texts, in a folder.

    Attributes:
        folder: where they lie.
        shapes: name of a site -> what one token has there.
        dtype: of the numbers.
        shards: the files.
        texts: how many texts were read.
        empty: how many were left out because they held no token.
        length: tokens that were run at once; longer texts were cut into pieces.
        special: do special tokens count?
        mean_length: by site, the mean length of a token's value.
        complete: were all texts read?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "activations"

    folder: Path
    shapes: dict[str, tuple[int, ...]]
    dtype: str
    shards: tuple[Shard, ...]
    texts: int
    empty: int
    length: int
    special: bool
    mean_length: dict[str, float]
    complete: bool
    provenance: Provenance
    _source: list[Shards] = field(default_factory=list, repr=False)

    @property
    def source(self) -> Shards:
        """The shards, checked as they are read."""
        if not self._source:
            self._source.append(Shards(self.folder, self.shards))
        return self._source[0]

    def __len__(self) -> int:
        return self.source.rows

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that are there."""
        return tuple(self.shapes)

    def array(self, site: SiteLike) -> SiteArray:
        """The values of one site [tokens ...], read from disk where it is indexed.

        Raises `BadAddress` for a site that is not there.
        """
        name = f"{site[0]}.{site[1]}" if isinstance(site, tuple) else str(site)
        if name not in self.shapes:
            raise BadAddress(f"There are no activations at {name}.", did_you_mean(name, self.shapes, 3))
        return SiteArray(name, (len(self), *self.shapes[name]), _DTYPES[self.dtype], self.source)

    def rows(self, which: Any = None) -> pd.DataFrame:
        """Where rows come from: the number of the text, the position in it, the token's id and the token itself.

        which: a row, a slice, a list or a boolean mask; default all.

        Raises `BadAddress` for a row that is not there.
        """
        chosen = chosen_rows(which, len(self))
        table: dict[str, Any] = {name: self.source.read(name, chosen).numpy() for name in INDEX}
        words = json.loads((self.folder / _WORDS).read_text(encoding="utf-8"))
        table["token"] = [words[str(i)] for i in table["token_id"]]
        return pd.DataFrame(table, index=chosen)

    def verify(self) -> None:
        """Read every file and compare it with its checksum; `CorruptFile` names the first that was changed."""
        for shard in self.shards:
            Shards(self.folder, (shard,)).check(shard)

    def to_pandas(self) -> pd.DataFrame:
        """One row per site: what one token has there, how many bytes all take, and the mean length."""
        size = _DTYPES[self.dtype].itemsize
        rows = [
            (name, " ".join(map(str, shape)), len(self) * int(np.prod(shape)) * size, self.mean_length[name])
            for name, shape in self.shapes.items()
        ]
        return pd.DataFrame(rows, columns=["site", "shape", "bytes", "mean_length"])

    def plot(self) -> Any:
        """The mean length of a token's value, by site."""
        return bars([Bar.of(name, value) for name, value in self.mean_length.items()], unit="mean length")

    @property
    def headline(self) -> str:
        """What there is, in a sentence."""
        counts = ((self.texts, "text"), (len(self.shapes), "site"), (len(self.shards), "file"))
        texts, sites, files = (f"{n} {word}{'s' * (n != 1)}" for n, word in counts)
        left = "" if self.complete else ", stopped before the end"
        return f"{len(self)} tokens of {texts} at {sites}, in {files}{left}"

    def page(self) -> Page:
        """What is in the folder."""
        blocks = [
            table_of(
                self.to_pandas().rename(columns={"mean_length": "mean length"}),
                "What one token has at each site.",
            ),
            Figure(self.plot(), "The mean length of a token's value at each site."),
        ]
        return page_of(self, "Cutaway · activations", f"Activations of {self.provenance.network}.", blocks)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: what is there, not the numbers."""
        return described(self, "shapes", "dtype", "texts", "empty", "length", "special", "complete", folder=str(self.folder),
                         tokens=len(self), mean_length=self.mean_length)  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the folder to another place; where it is the same, nothing is done.

        Raises `SaveFailed` where something else lies there.
        """
        return copy_saved(self.folder, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Activations:
        """Open a folder of activations; its files are checked when they are read.

        Raises `BadFormat` where it is none, `CorruptFile` where the manifest was changed.
        """
        folder = Path(path)
        manifest, listing = read_manifest(folder)
        if kind_of(manifest)[0] != cls.kind:
            raise BadFormat(f"{folder} holds no activations.", "Open it with cutaway.load(...).")
        content = manifest["content"]
        shards = tuple(Shard(**shard) for shard in content["shards"])
        if any(
            listing.get(shard.file) != shard.sha256 or Path(shard.file).name != shard.file for shard in shards
        ):
            raise BadFormat(
                f"{folder / MANIFEST} names files that it does not list.", "Make the activations again."
            )
        shapes = {name: tuple(map(int, shape)) for name, shape in content["shapes"].items()}
        return cls(
            folder, shapes, str(content["dtype"]), shards, int(content["texts"]), int(content["empty"]),
            int(content["length"]), bool(content["special"]), dict(content["mean_length"]), bool(content["complete"]),
            Provenance.from_dict(manifest["provenance"]),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Activations({self.headline})"

    def _repr_html_(self) -> str:
        return display_result(self, [str(self.folder)], self.to_pandas())


@strict
def activations(
    net: Network,
    texts: TextsLike,
    *,
    at: Sequence[SiteLike] | SiteLike,
    folder: str | os.PathLike[str],
    dtype: str | None = None,
    special: bool = False,
    length: int | None = None,
    work: Work | None = None,
) -> Activations:
    """Write the values of sites at every token of many texts to a folder, file by file, within the memory budget.

    Called again with the same question on the same folder, it goes on where it was stopped.

    Args:
        net: the network.
        texts: a list or iterator of texts, rows of a data set with a field text, or a path (.txt, one a line; .jsonl).
        at: sites that have a value for each token; without a layer, all layers.
        folder: where to write; new, empty, or of the same question.
        dtype: of the numbers on disk: float32, float16 or bfloat16; default as the network computes.
        special: write special tokens (beginning of text, separators) as well; padding is never written.
        length: tokens that are run at once; longer texts are cut into pieces.
        work: may stop it; what is finished stays in the folder, and comes back marked as not complete.

    Raises:
        SaveFailed: where the folder holds anything else, which stays as it is.
        BadInput: for texts without a token, a site without a value for each token, or other texts than were begun with.
        NotFinite: for a value of NaN or infinity.
    """
    began, work = time.monotonic(), working(work)
    place = Path(folder)
    one = isinstance(at, str | Site) or (isinstance(at, tuple) and len(at) == 2 and isinstance(at[1], int))
    specs: list[Any] = [at] if one else list(at)  # type: ignore[list-item,arg-type]
    sites = list(dict.fromkeys(site for spec in specs for site in net.resolve(spec)))
    if not sites:
        raise BadInput("No site is named.", 'Write at=["resid_post.5"].')
    shapes = _shapes(net, sites)
    length = window_length(net, length)
    kind = dtype or str(net.dtype).removeprefix("torch.")
    kind = "float32" if kind == "float64" and dtype is None else kind
    if kind not in _DTYPES:
        raise BadInput(f"dtype={kind!r} is not known.", did_you_mean(kind, _DTYPES))
    asked = {
        "shapes": {n: list(s) for n, s in shapes.items()},
        "dtype": kind,
        "special": special,
        "length": length,
    }
    before = _begun(place, asked, net)
    done = 0 if before is None else sum(shard.windows for shard in before.shards)
    writing = _Writing(net, place, sites, asked, before, began, work)
    announce_windows(net, texts, length, sites, work, "writing activations", done, writing.held)
    return writing.all(windows_of(net, texts, length, writing.count))


def _shapes(net: Network, sites: Sequence[Site]) -> dict[str, tuple[int, ...]]:
    """What one token has at each site. Raises `BadInput` for a site without a value for each token."""
    for site in sites:
        if not site.module and site.axes[:2] != ("batch", "pos"):
            raise BadInput(
                f"{site} has no value for each token.", "Name sites of the stream, of heads or of neurons."
            )
    run = net.run([[0, 0]], keep=list(sites), logits=False)
    for site in sites:
        if run[site].ndim < 3 or run[site].shape[:2] != (1, 2):
            raise BadInput(
                f"{site} has no value for each token.", "Name sites of the stream, of heads or of neurons."
            )
    return {str(site): tuple(run[site].shape[2:]) for site in sites}


def _begun(place: Path, asked: dict[str, Any], net: Network) -> Activations | None:
    """What was begun in a folder; None where it is new or empty. `SaveFailed` where it holds anything else."""
    if not place.exists():
        return None
    if not place.is_dir():
        raise SaveFailed(f"{place} is a file.", "Choose a new folder.")
    if not any(place.iterdir()):
        return None
    refused = SaveFailed(
        f"{place} exists and holds something else.", "Choose a new folder; nothing in it was touched."
    )
    if not (place / MANIFEST).is_file():
        raise refused
    try:
        found = Activations.load(place)
    except (BadFormat, KeyError, TypeError, ValueError) as error:
        raise refused from error
    same = {"shapes": {n: list(s) for n, s in found.shapes.items()}, "dtype": found.dtype, "special": found.special,
            "length": found.length}  # fmt: skip
    other = [name for name, value in asked.items() if same[name] != value]
    if found.provenance.network_hash != net.hash:
        other.append("network")
    if other:
        raise SaveFailed(
            f"{place} holds activations with another {', another '.join(other)}.", "Choose a new folder."
        )
    return found


class _Writing:
    """Windows of text to shards, with a manifest that is right after each."""

    def __init__(
        self, net: Network, place: Path, sites: Sequence[Site], asked: dict[str, Any], before: Activations | None,
        began: float, work: Work,
    ) -> None:  # fmt: skip
        self.net, self.place, self.sites, self.asked, self.work, self.began = (
            net,
            place,
            sites,
            asked,
            work,
            began,
        )
        self.count, self.digest = Count(), hashlib.sha256()
        self.read = (0, 0) if before is None else (before.texts, before.empty)
        self.shards: list[Shard] = [] if before is None else list(before.shards)
        self.before = before
        rows = sum(shard.rows for shard in self.shards)
        names = list(asked["shapes"])
        self.lengths = {n: 0.0 if before is None else before.mean_length[n] * rows for n in names}
        self.words: dict[str, str] = {}
        if before is not None and (place / _WORDS).is_file():
            self.words = json.loads((place / _WORDS).read_text(encoding="utf-8"))
        self.token = sum(numbers_of(net, site, 1) for site in sites) * _DTYPES[asked["dtype"]].itemsize
        fits = min(_LARGEST, budget_bytes(net, work) // _SHARE) // max(1, self.token * asked["length"])
        self.windows = max(1, fits)

    def held(self, lengths: Sequence[int], size: int, batch: int) -> int:
        """Bytes at the peak: a file's tokens beside a batch that is run, or read, or beside one site's put together.

        lengths: of all windows. size: how many are run together at most. batch: bytes that so many take.
        """
        sites, each = max(1, len(self.asked["shapes"])), self.windows
        tokens = max(sum(lengths[start : start + each]) for start in range(0, len(lengths), each))
        file, together = tokens * (self.token + _INDEX_BYTES), min(size, each)  # no batch goes beyond a file
        batch, kept = batch * together // size, together * max(lengths) * self.token
        return max(batch + max(0, file - kept), file + kept + _DOUBLE * kept // sites, file + file // sites)

    def all(self, windows: Iterator[TextWindow]) -> Activations:
        """Skip what is there, write the rest."""
        try:
            for shard in self.shards:
                skipped = list(islice(windows, shard.windows))
                self._hash(skipped)
                if len(skipped) < shard.windows or self.digest.hexdigest() != shard.digest:
                    raise BadInput(
                        f"{self.place} was begun with other texts.",
                        "Choose a new folder, or give the same texts.",
                    )
            while part := list(islice(windows, self.windows)):
                self._shard(part)
                self._manifest(complete=False)
        except Stopped:
            if not self.shards:
                raise
            return self._manifest(complete=False)
        if not self.shards:
            raise BadInput("No token of these texts counts: they are special tokens.", "Use special=True.")
        if self.before is not None and self.before.complete and len(self.before.shards) == len(self.shards):
            return self.before
        self.read = self.count.texts, self.count.empty
        return self._manifest(complete=True)

    def _hash(self, windows: Sequence[TextWindow]) -> None:
        for window in windows:
            self.digest.update(repr((window.text, window.start, window.ids)).encode())

    def _shard(self, windows: list[TextWindow]) -> None:
        lengths = dict.fromkeys(self.asked["shapes"], 0.0)
        parts: dict[str, list[Tensor]] = {name: [] for name in (*self.asked["shapes"], *INDEX)}
        for batch in batches(
            self.net, windows, self.sites, self.asked["length"], self.work, "writing activations"
        ):
            counted = batch.tokens.mask if self.asked["special"] else batch.ordinary
            row, column = counted.nonzero(as_tuple=True)
            for site in self.sites:
                value = batch.run[site].detach()[row.to(self.net.device), column.to(self.net.device)].cpu()
                if not bool(torch.isfinite(value).all()):
                    raise NotFinite(
                        f"{site} holds NaN or infinity in text {windows[0].text} or after it.", "Use float32."
                    )
                lengths[str(site)] += float(value.double().flatten(1).norm(dim=1).sum())
                parts[str(site)].append(value.to(_DTYPES[self.asked["dtype"]]))
            starts = torch.tensor([window.start for window in batch.windows])
            texts = torch.tensor([window.text for window in batch.windows])
            found = texts[row], starts[row] + column, batch.tokens.ids[row, column]
            for name, value in zip(INDEX, found, strict=True):
                parts[name].append(value)
            del batch, value, found  # what was run is let go before the file is put together
        self._hash(windows)
        self.read = self.count.texts, self.count.empty
        self.lengths = {name: total + lengths[name] for name, total in self.lengths.items()}
        tensors = {name: torch.cat(parts.pop(name)).contiguous() for name in list(parts)}
        for token in tensors["token_id"].unique().tolist():
            if str(token) not in self.words:
                self.words[str(token)] = self.net.token_strings([token])[0]
        content = to_bytes(tensors)
        name = f"shard-{len(self.shards):05d}.safetensors"
        atomic_write(self.place / name, content)
        rows = len(tensors["token_id"])
        self.shards.append(
            Shard(name, rows, len(windows), self.digest.hexdigest(), hashlib.sha256(content).hexdigest())
        )

    def _manifest(self, complete: bool) -> Activations:
        rows = max(1, sum(shard.rows for shard in self.shards))
        words = json.dumps(self.words, ensure_ascii=False)
        atomic_write(self.place / _WORDS, words)
        provenance = replace(
            Provenance.of(self.net, self.digest.hexdigest(), 0, time.monotonic() - self.began)
        )
        content = {
            **self.asked, "shards": [asdict(shard) for shard in self.shards], "texts": self.read[0],
            "empty": self.read[1], "mean_length": {n: v / rows for n, v in self.lengths.items()}, "complete": complete,
        }  # fmt: skip
        listing = {shard.file: shard.sha256 for shard in self.shards}
        listing[_WORDS] = hashlib.sha256(words.encode()).hexdigest()
        write_manifest(self.place, head(Activations.kind, provenance, content=content), listing)
        return Activations.load(self.place)
