"""Rows to train on: values of places at the tokens of many texts, chunk by chunk, the same again from any chunk on.

A chunk is a slab of windows run through the network (all places from one forward, which ends behind the last of them), a
block of rows on disk, or a block of an array. The first tokens of each window, special tokens and padding are left out.
Every twentieth text is never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, SiteUnavailable
from cutaway.features.texts import Count, TextsLike, TextWindow, batches, windows_of
from cutaway.network.sites import Site
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.features.activations import Activations
    from cutaway.network import Network

#: Of so many texts, the first is held out.
HELD_OUT = 20
#: Rows on which what was trained is measured.
HELD_ROWS = 16_384
#: Tokens at the beginning of each window that are left out: many networks rest on the first one.
SKIP = 1


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that are in memory at once.

    Attributes:
        epoch: how often all texts were read before.
        number: of the chunk in its epoch.
        values: [n d] of each place, in single precision.
        texts: [n], the text that each row is of.
    """

    epoch: int
    number: int
    values: dict[str, Tensor]
    texts: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, n: int) -> Chunk:
        """Its first rows."""
        return replace(self, values={p: v[:n] for p, v in self.values.items()}, texts=self.texts[:n])


@dataclass(frozen=True)
class ChunkSizes:
    """What decides which rows are together; kept beside a training, so that it goes on with the same.

    Attributes:
        chunk: rows of a chunk, about.
        batch: windows that are run together at most.
        length: tokens of a window.
        skip: tokens at the beginning of each window that are left out.
    """

    chunk: int
    batch: int
    length: int
    skip: int = SKIP


class RowSource(Protocol):
    """Where rows come from.

    Attributes:
        sizes: what is together.
        widths: numbers of a row at each place.
        per_epoch: rows that are trained on before they come again; None where nobody knows.
        endless: can they be read only once?
    """

    sizes: ChunkSizes

    @property
    def widths(self) -> dict[str, int]: ...  # noqa: D102
    @property
    def per_epoch(self) -> int | None: ...  # noqa: D102
    @property
    def endless(self) -> bool: ...  # noqa: D102

    def chunks(self, epoch: int, number: int) -> Iterator[Chunk]:
        """From one chunk on, without end unless rows can be read only once."""
        ...

    def held(self, most: int) -> Chunk:
        """Rows that are never trained on."""
        ...


def is_held_out(text: int) -> bool:
    """Is this text never trained on?

    >>> [number for number in range(50) if is_held_out(number)]
    [0, 20, 40]
    """
    return text % HELD_OUT == 0


class TextRows:
    """Rows from texts through a network."""

    def __init__(
        self, net: Network, texts: TextsLike, sites: Sequence[Site], widths: Mapping[Site, int], sizes: ChunkSizes,
        work: Work, tokens: int | None = None,
    ) -> None:  # fmt: skip
        """tokens: how many will be trained on; None for all that there are, which are then counted beforehand.

        Raises `BadInput` for an iterator without a number of tokens, and for fewer than two texts.
        """
        self.net, self.texts, self.sites, self.sizes = net, texts, tuple(sites), sizes
        self.work = replace(work, listener=None)
        self.widths = {str(site): widths[site] for site in sites}
        self.endless = isinstance(texts, Iterator)
        self.per_epoch: int | None = None
        self.windows = self.counted = (
            0  # windows that are trained on, of those that were counted, and their rows
        )
        self.some: list[TextWindow] = []
        self.special = frozenset(getattr(net.tokenizer, "all_special_ids", None) or ())
        self._held: list[TextWindow] = []
        self._held_rows = 0
        if not self.endless:
            self._survey(tokens)
        elif tokens is None:
            raise BadInput(
                "How many tokens an iterator gives is not known beforehand.",
                "Say how many: tokens=1_000_000.",
            )

    def _survey(self, tokens: int | None) -> None:
        """Count what there is, as far as it is needed, and choose what is held out."""
        for window in self._windows():
            if tokens is not None and self.counted >= tokens and self._held_rows >= HELD_ROWS:
                return
            if is_held_out(window.text):
                self._hold(window)
            elif mine := self._rows_of(window):
                self.counted, self.windows = self.counted + mine, self.windows + 1
                self.some += [window] if len(self.some) < 16 else []
        if not self.counted or not self._held_rows:
            raise BadInput(
                "These texts are too few to train on: one of them is held out, and no token is left.",
                f"Give several texts of more than {self.sizes.skip} tokens.",
            )
        self.per_epoch = self.counted

    def windows_of(self, rows: int) -> float:
        """How many windows hold so many rows, by those that were counted."""
        if self.counted:
            return self.windows * rows / self.counted
        return rows / max(1, self.sizes.length - self.sizes.skip)

    def _windows(self) -> Iterator[TextWindow]:
        return windows_of(self.net, self.texts, self.sizes.length, Count())

    def _rows_of(self, window: TextWindow) -> int:
        return sum(i not in self.special for i in window.ids[self.sizes.skip :])

    def _hold(self, window: TextWindow) -> None:
        if self._held_rows < HELD_ROWS and (found := self._rows_of(window)):
            self._held.append(window)
            self._held_rows += found

    @property
    def fits(self) -> bool:
        """Is everything there is one chunk, which then need not be run again?"""
        return self.per_epoch is not None and self.per_epoch <= self.sizes.chunk

    @property
    def held_rows(self) -> int:
        """How many rows are held out; `HELD_ROWS` where that is more, or not counted."""
        return HELD_ROWS if self.endless else min(HELD_ROWS, self._held_rows)

    def chunks(self, epoch: int, number: int) -> Iterator[Chunk]:
        """From one chunk on."""
        while True:
            chunk: Chunk | None = None
            for at, windows in enumerate(self._slabs(epoch)):
                if at >= number:
                    chunk = self._run(windows, epoch, at)
                    yield chunk
            if self.endless or (chunk is None and not number):
                return
            while chunk is not None and self.fits:
                chunk = replace(chunk, epoch=chunk.epoch + 1)
                yield chunk
            epoch, number = epoch + 1, 0

    def slabs(self) -> Iterator[list[TextWindow]]:
        """Windows that are trained on, a chunk's at a time, again and again unless they can be read only once."""
        while not self.endless:
            yield from self._slabs(0)

    def _slabs(self, epoch: int) -> Iterator[list[TextWindow]]:
        slab: list[TextWindow] = []
        rows = 0
        for window in self._windows():
            if is_held_out(window.text):
                if self.endless and epoch == 0:
                    self._hold(window)
                continue
            if not (mine := self._rows_of(window)):
                continue
            slab.append(window)
            rows += mine
            if rows >= self.sizes.chunk:
                yield slab
                slab, rows = [], 0
        if slab:
            yield slab

    def _run(self, windows: Sequence[TextWindow], epoch: int, number: int) -> Chunk:
        parts: dict[str, list[Tensor]] = {str(site): [] for site in self.sites}
        owner: list[Tensor] = []
        sizes = self.sizes
        for batch in batches(self.net, windows, self.sites, sizes.length, self.work, "reading", sizes.batch):
            chosen = batch.ordinary.clone()
            chosen[:, : sizes.skip] = False
            row, column = chosen.nonzero(as_tuple=True)
            texts = torch.tensor([w.text for w in batch.windows])[row]
            for site in self.sites:
                value = batch.run[site].detach()
                value = value[row.to(value.device), column.to(value.device)].flatten(1).float().cpu()
                _finite(value, str(site), texts)
                parts[str(site)].append(value)
            owner.append(texts)
            del batch
        return Chunk(
            epoch, number, {place: torch.cat(parts.pop(place)) for place in list(parts)}, torch.cat(owner)
        )

    def held_out(self, most: int) -> list[TextWindow]:
        """Windows of the texts that are held out, of so many rows."""
        chosen: list[TextWindow] = []
        rows = 0
        for window in self._held:
            if rows >= most:
                break
            chosen.append(window)
            rows += self._rows_of(window)
        return chosen

    def held(self, most: int) -> Chunk:
        """Rows of the texts that are held out."""
        if not (chosen := self.held_out(most)):
            raise BadInput("No text was held out: there were too few.", "Give more texts.")
        self.work = Work()  # also after a stop
        return self._run(chosen, 0, 0).first(most)


class StoredRows:
    """Rows from activations on disk."""

    def __init__(
        self, store: Activations, places: Sequence[str], sizes: ChunkSizes, special: frozenset[int]
    ) -> None:
        """Raises `BadAddress` for a place that is not stored, `BadInput` where too little is left to train on."""
        self.store, self.sizes, self.special = store, sizes, special
        self.widths = {p: int(np.prod(store.array(p).shape[1:])) for p in places}
        self.endless = False
        text = _index(store, "text")
        counted = (_index(store, "position") % store.length) >= sizes.skip
        if special:
            counted &= ~torch.isin(_index(store, "token_id"), torch.tensor(sorted(special)))
        held = text % HELD_OUT == 0
        self.mine, self._held_at = (counted & ~held).nonzero()[:, 0], (counted & held).nonzero()[:, 0]
        self.per_epoch = len(self.mine)
        if not self.per_epoch or not len(self._held_at):
            raise BadInput(
                f"{store.folder} holds too few texts to train on: one is held out, and no token is left.",
                "Store more texts.",
            )

    def _read(self, at: Tensor, epoch: int, number: int) -> Chunk:
        rows = at.tolist()
        texts = self.store.source.read("text", rows)
        values = {p: self.store.source.read(p, rows).flatten(1).float() for p in self.widths}
        for place, value in values.items():
            _finite(value, place, texts)
        return Chunk(epoch, number, values, texts)

    def chunks(self, epoch: int, number: int) -> Iterator[Chunk]:
        """From one chunk on."""
        blocks = self.mine.split(self.sizes.chunk)
        while True:
            for at in range(number, len(blocks)):
                yield self._read(blocks[at], epoch, at)
            epoch, number = epoch + 1, 0

    def held(self, most: int) -> Chunk:
        """Rows of the texts that are held out."""
        return self._read(self._held_at[:most], 0, 0)


def _index(store: Activations, name: str) -> Tensor:
    """One of the numbers that say where rows come from, of all of them."""
    parts = []
    for shard in store.shards:
        with safe_open(store.source.check(shard), framework="pt") as file:
            parts.append(file.get_tensor(name))
    return torch.cat(parts)


class PlainRows:
    """Rows that are given as they are; every twentieth is held out."""

    def __init__(self, values: Mapping[str, Any], sizes: ChunkSizes, texts: Any = None) -> None:
        """texts: [n], what belongs together and is held out together; default each row by itself.

        Raises `BadInput` for what is no [n d] of floating-point numbers, or too little of it.
        """
        self.values = {place: _matrix(value, place) for place, value in values.items()}
        lengths = {len(value) for value in self.values.values()}
        if len(lengths) != 1:
            raise BadInput(
                f"The places have {sorted(lengths)} rows.", "Give as many for each, in the same order."
            )
        n = lengths.pop()
        self.texts = torch.arange(n) if texts is None else torch.as_tensor(np.asarray(texts)).long()
        if len(self.texts) != n:
            raise BadInput(f"{len(self.texts)} texts are named for {n} rows.", "Name one for each row.")
        held = self.texts % HELD_OUT == 0
        self.mine, self._held_at = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        if not len(self.mine) or not len(self._held_at):
            raise BadInput(f"{n} rows are too few: a twentieth is held out.", "Give more rows.")
        self.sizes, self.endless, self.per_epoch = sizes, False, len(self.mine)
        self.widths = {place: int(value.shape[1]) for place, value in self.values.items()}

    def _take(self, at: Tensor, epoch: int, number: int) -> Chunk:
        values = {place: value[at].float() for place, value in self.values.items()}
        for place, value in values.items():
            _finite(value, place, self.texts[at])
        return Chunk(epoch, number, values, self.texts[at])

    def chunks(self, epoch: int, number: int) -> Iterator[Chunk]:
        """From one chunk on."""
        blocks = self.mine.split(self.sizes.chunk)
        while True:
            for at in range(number, len(blocks)):
                yield self._take(blocks[at], epoch, at)
            epoch, number = epoch + 1, 0

    def held(self, most: int) -> Chunk:
        """Rows that are held out."""
        return self._take(self._held_at[:most], 0, 0)

    @property
    def digest(self) -> str:
        """A hash of all rows."""
        digest = hashlib.sha256(self.texts.numpy().tobytes())
        for place, value in self.values.items():
            digest.update(f"{place}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _matrix(value: Any, place: str) -> Tensor:
    try:
        found = value.detach().cpu() if torch.is_tensor(value) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise BadInput(f"The rows of {place} are no numbers.", "Give an array [n d].") from error
    if found.ndim != 2 or not found.is_floating_point() or not found.numel():
        raise BadInput(
            f"The rows of {place} are {found.dtype} of shape {tuple(found.shape)}.",
            "Give floating-point numbers [n d].",
        )
    return found


def _finite(value: Tensor, place: str, texts: Tensor) -> None:
    """Raise `NotFinite` where a row holds NaN or infinity, with the number of its text."""
    bad = ~torch.isfinite(value).all(1)
    if bool(bad.any()):
        text = int(texts[int(bad.nonzero()[0])])
        raise NotFinite(
            f"{place} holds NaN or infinity in text {text}.",
            "Open the network in float32, or leave that text out.",
        )


def order(n: int, seed: int, epoch: int, number: int) -> Tensor:
    """The order [n] in which the rows of a chunk are taken.

    >>> order(4, 0, 0, 1).tolist() == order(4, 0, 0, 1).tolist() != order(4, 0, 1, 1).tolist()
    True
    """
    digest = hashlib.sha256(f"{seed} {epoch} {number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randperm(n, generator=generator)


def widths_at(net: Network, sites: Sequence[Site]) -> dict[Site, int]:
    """How many numbers a token has at each site.

    Raises `SiteUnavailable` for a site that has no value for each token.
    """
    run = net.run([[0, 0, 0]], keep=list(sites), logits=False)
    found = {}
    for site in sites:
        shape = tuple(run[site].shape)
        if len(shape) < 3 or shape[:2] != (1, 3) or (site.axes and site.axes[:2] != ("batch", "pos")):
            raise SiteUnavailable(
                f"{site} has no value for each token.",
                "Name sites of the stream, of sublayers, heads or neurons.",
            )
        found[site] = int(np.prod(shape[2:]))
    return found
