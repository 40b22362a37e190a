"""Texts in any number, one after the other: from lists, iterators, files and data sets to windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, did_you_mean
from cutaway.network import textsets
from cutaway.network.allocations import peak_of_rows
from cutaway.network.inputs import Tokens, pack
from cutaway.network.memory import numbers_of, rows_at_once
from cutaway.network.pricing import announce, until
from cutaway.network.sites import Site
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network, Run

#: Texts as a user gives them: a text, several, an iterator, rows of a data set with a field "text", or a file (.txt, one
#: text a line; .jsonl, one a line under "text"; both read line by line; .csv, .json).
TextsLike = str | Path | Iterable[str | Sequence[int] | Mapping[str, Any]]

#: Tokens of a window where nobody says how many.
LENGTH = 256
_GIVE = (
    "Give a list of texts, an iterator, a data set with a field text, or the path of a .txt or .jsonl file."
)


@dataclass(frozen=True)
class TextWindow:
    """A piece of one text that is run at once.

    Attributes:
        text: the number of the text.
        start: the position in it of the first token.
        ids: the tokens.
    """

    text: int
    start: int
    ids: tuple[int, ...]


@dataclass(eq=False)
class Count:
    """What was read so far.

    Attributes:
        texts: with at least one token.
        empty: left out because there was nothing in them.
    """

    texts: int = 0
    empty: int = 0


def texts_in(texts: TextsLike) -> Iterator[str | Sequence[int]]:
    """The texts one after the other; a file is read line by line.

    Raises `BadInput` or `BadFormat` for what holds no texts, `NotFound` for a file that is not there.
    """
    if isinstance(texts, Path):
        yield from _lines(texts)
        return
    if isinstance(texts, str):
        yield texts
        return
    if hasattr(texts, "columns") and hasattr(texts, "to_dict"):  # a frame
        yield from textsets.texts_in(texts)
        return
    if isinstance(texts, Mapping | bytes) or not isinstance(texts, Iterable):
        raise BadInput(f"{texts!r:.80} holds no texts.", _GIVE)
    for number, item in enumerate(texts):
        yield _text(item, f"Text {number}")


def _lines(path: Path) -> Iterator[str | Sequence[int]]:
    if path.suffix not in (".txt", ".jsonl"):  # not read line by line: the whole is a set of texts, or none
        yield from textsets.texts_in(path)
        return
    for number, item in textsets.lines_of(path):
        yield _text(item, f"Line {number} of {path}")


def _text(item: object, what: str) -> str | Sequence[int]:
    if isinstance(item, Mapping):
        if not isinstance(item.get("text"), str):
            raise BadInput(f"{what} has no field text.", did_you_mean("text", map(str, item)))
        return item["text"]
    if isinstance(item, str):
        return item
    if isinstance(item, Sequence | Tensor) and not isinstance(item, bytes):
        return [int(i) for i in item]
    raise BadInput(f"{what}, {item!r:.60}, is neither text nor token ids.", _GIVE)


def windows_of(net: Network, texts: TextsLike, length: int, count: Count) -> Iterator[TextWindow]:
    """The texts' tokens in windows of at most so many, in order; a longer text is cut, and each piece begins anew.

    Raises `BadInput` where no text holds a token.
    """
    for number, text in enumerate(texts_in(texts)):
        ids = (
            []
            if isinstance(text, str) and not text.strip()
            else net.tokens_of([text] if isinstance(text, str) else [list(text)])[0]
        )
        if not ids:
            count.empty += 1
            continue
        count.texts += 1
        if max(ids) >= (net.d_vocab_in or max(ids) + 1) or min(ids) < 0:
            raise BadInput(
                f"Text {number} holds a token id outside the vocabulary.",
                f"Use ids 0 to {(net.d_vocab_in or 1) - 1}.",
            )
        for start in range(0, len(ids), length):
            yield TextWindow(number, start, tuple(ids[start : start + length]))
    if not count.texts:
        raise BadInput("There is no text with a token in it.", _GIVE)


def window_length(net: Network, length: int | None) -> int:
    """How many tokens a window has: what was asked for, else `LENGTH`, at most the context.

    Raises `BadInput` for what is no such number.
    """
    most = net.n_ctx or 10**9
    if length is None:
        return min(LENGTH, most)
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= most:
        raise BadInput(f"length={length!r} is no length of a window.", f"Use 1 to {most}.")
    return length


def announce_windows(
    net: Network,
    texts: TextsLike,
    length: int,
    sites: Sequence[Site],
    work: Work,
    label: str,
    done: int = 0,
    held: Callable[[Sequence[int], int, int], int] = lambda _lengths, _size, batch: batch,
) -> None:
    """Say what reading these texts takes, where they can be counted beforehand.

    done: windows that are read already. held: from the lengths of all windows, how many are run together, and the bytes
    that running them takes, what is taken at the peak; default that.
    """
    if not work.priced or not isinstance(texts, str | Path | list | tuple):
        return
    windows = list(windows_of(net, texts, length, Count()))
    forwards = max(0, len(windows) - done) * until(net, sites)
    rows = [list(window.ids) for window in windows[:16]]
    longest = sorted((window.ids for window in windows), key=len)[-1:] * 4
    size = min(len(windows), batch_size(net, sites, length, work))

    def memory() -> int:
        batch = peak_of_rows(
            lambda rows: net.run(list(map(list, longest[:rows])), keep=list(sites), logits=False), size
        )
        return held([len(window.ids) for window in windows], size, batch)

    announce(
        net,
        rows,
        work,
        label,
        forwards,
        rows=len(windows),
        memory=memory,
        least=forwards / max(1, len(windows)),
    )


def batch_size(net: Network, sites: Sequence[Site], length: int, work: Work, read: int = 1) -> int:
    """How many windows are run together. read: positions of each whose logits are made."""
    kept = sum(numbers_of(net, site, 1) for site in sites)
    return rows_at_once(net, length, work, kept=kept, read=read)


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows that were run together.

    Attributes:
        windows: which.
        tokens: as rows.
        ordinary: BoolTensor [b p], real tokens that are no special ones (beginning of text, separators).
        make: runs them.
    """

    windows: tuple[TextWindow, ...]
    tokens: Tokens
    ordinary: Tensor = field(repr=False)
    make: Callable[[], Run] = field(repr=False)

    @cached_property
    def run(self) -> Run:
        """With the sites that were asked for; run when it is first asked for."""
        return self.make()


def batches(
    net: Network, windows: Iterable[TextWindow], sites: Sequence[Site], length: int, work: Work, label: str,
    size: int | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Windows in batches that fit the budget, to be run keeping sites. A network that does not bear padding is given rows
    of one length at a time.

    size: how many are run together at most, where they must be the same whatever memory is free; default what fits.
    """
    size = size or batch_size(net, sites, length, work)
    special = torch.tensor(
        sorted(set(getattr(net.tokenizer, "all_special_ids", None) or ())), dtype=torch.long
    )
    pads = net.certificate.pads_right is not False and bool(net.certificate.pads_right or net.interface.masks)
    done, total = 0, len(windows) if isinstance(windows, Sized) else 0  # zero: nobody knows
    work.check()
    waiting: list[TextWindow] = []
    for window in windows:
        if waiting and (len(waiting) == size or (not pads and len(window.ids) != len(waiting[0].ids))):
            yield _run(net, waiting, sites, special)
            done += len(waiting)
            work.step(label, done, total)
            waiting = []
        waiting.append(window)
    if waiting:
        yield _run(net, waiting, sites, special)
        work.step(label, done + len(waiting), total)


def _run(net: Network, windows: Sequence[TextWindow], sites: Sequence[Site], special: Tensor) -> Batch:
    tokens = pack([window.ids for window in windows], net.pad_id)
    ordinary = tokens.mask & ~torch.isin(tokens.ids, special)
    make = partial(net.run, tokens, keep=list(sites), logits=False)
    return Batch(tuple(windows), tokens, ordinary, make)


def windows_up_to(net: Network, texts: TextsLike, most: int, skip: int, length: int) -> list[TextWindow]:
    """The first windows of texts, as many as hold so many tokens, of each of which the first `skip` do not count."""
    windows, count = [], 0
    for window in windows_of(net, texts, length, Count()):
        windows.append(window)
        count += max(0, len(window.ids) - skip)
        if count >= most:
            break
    return windows


def values_at(
    net: Network,
    texts: TextsLike,
    sites: Sequence[Site],
    most: int,
    work: Work,
    *,
    skip: int = 1,
    length: int | None = None,
) -> tuple[dict[Site, Tensor], np.ndarray]:
    """The values [n ...] of sites at the first so many ordinary tokens, and the number of the text that each belongs to.

    The first `skip` tokens of each window are left out: many networks rest on them, and they drown everything else.

    Raises `NotFinite` for NaN or infinity, `BadInput` where no token counts.
    """
    length = window_length(net, length)
    windows = windows_up_to(net, texts, most, skip, length)
    announce(net, [list(w.ids) for w in windows[:16]], work, "reading", len(windows) * until(net, sites))
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    owner: list[Tensor] = []
    for batch in batches(net, windows, sites, length, work, "reading"):
        chosen = batch.ordinary.clone()
        chosen[:, :skip] = False
        row, column = chosen.nonzero(as_tuple=True)
        owner.append(torch.tensor([w.text for w in batch.windows])[row])
        for site in sites:
            value = batch.run[site]
            if not bool(torch.isfinite(value).all()):
                raise NotFinite(f"{site} holds NaN or infinity on these texts.", "Use float32.")
            parts[site].append(value[row, column])
    held = {site: torch.cat(tensors)[:most] for site, tensors in parts.items()}
    texts_of = torch.cat(owner)[:most].numpy()
    if not len(texts_of):
        raise BadInput("No token of these texts counts: each has only its first ones.", "Give longer texts.")
    return held, texts_of
