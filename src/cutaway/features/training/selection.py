"""Which latents fire: exact selection from the encoder's product, chunk by chunk, without sorting rows.

Every rule comes to a comparison with a number that is *proved* to let all that is looked for pass, and to an exact choice
among the few that passed. The k-th largest of a row is at least the k-th largest of its block maxima (k blocks have a
maximum of at least that, so there are k numbers of at least that), and maxima are taken quickly. Only positive
pre-activations fire, so zero bounds everything. The product is never held whole: a chunk of rows stays in the processor's
cache.

Ties: among equal pre-activations the latent with the smaller number wins; in a batch the earlier row, then the smaller
number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

#: Numbers of the product that are held at a time, and the least rows of a chunk.
_CHUNK, _ROWS = 2**20, 256
#: Numbers of a chunk for which one more thread is worth its while.
_SHARE = 2**19
#: How many more than wanted the first guess of a batch's bound lets pass.
_SPARE = 1.25


@dataclass(frozen=True, eq=False)
class Rule:
    """Which pre-activations are looked for.

    Attributes:
        kind: "rows": the k largest of each row; "batch": the k * rows largest of the batch; "groups": the largest of each of
            k groups of neighbouring latents; "above": all above their latent's threshold. Of the first three only those
            above zero.
        k: how many; not read by "above".
        threshold: [F] or [], of "above".
    """

    kind: Literal["rows", "batch", "groups", "above"]
    k: int = 0
    threshold: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Picked:
    """What a rule chose.

    Attributes:
        flat: [n] ascending, row * F + latent.
        values: [n], the pre-activations there.
    """

    flat: Tensor
    values: Tensor


def chunks(n_rows: int, size: int) -> Iterator[slice]:
    """Slices of rows whose product with `size` latents is taken at a time."""
    step = max(_ROWS, _CHUNK // max(size, 1))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


@torch.no_grad()
def scan(rows: Tensor, weight: Tensor, bias: Tensor, rule: Rule, limit: float = 1.0) -> Picked | None:
    """Choose among rows [N d] @ weight [F d].T + bias [F] by a rule.

    limit: the share of all entries from which on a list is no use; only rules without a count can exceed it.

    Returns None where, in the first chunk of rows, more than that share passed.
    """
    size = weight.shape[0]
    buffer: Tensor | None = None

    def product(at: slice) -> Tensor:
        nonlocal buffer
        count = at.stop - at.start
        if buffer is None:
            buffer = rows.new_empty(count, size)
        return torch.addmm(bias, rows[at], weight.T, out=buffer[:count])

    parts = list(chunks(rows.shape[0], size))
    if rule.kind == "batch":
        return _of_batch(product, parts, size, rule.k * rows.shape[0])
    flats, values = [], []
    for at in parts:
        pre = product(at)
        if rule.kind == "above":
            assert rule.threshold is not None
            flat = reaching(pre, rule.threshold, strictly=True)
            if at.start == 0 and flat.numel() > limit * pre.numel():
                return None
        elif rule.kind == "groups":
            flat = _of_groups(pre, rule.k)
        else:
            flat = reaching(pre, lower_bound(pre, rule.k).clamp_(min=0)[:, None])
        values.append(pre.view(-1).index_select(0, flat))
        flats.append(flat + at.start * size if at.start else flat)
    flat, value = torch.cat(flats), torch.cat(values)
    if rule.kind == "above":
        return Picked(flat, value)
    keep = value > 0
    if rule.kind == "rows":
        keep &= _largest(torch.div(flat, size, rounding_mode="floor"), value, rule.k, rows.shape[0])
    return _kept(flat, value, keep)


def _kept(flat: Tensor, values: Tensor, keep: Tensor) -> Picked:
    if bool(keep.all()):
        return Picked(flat, values)
    at = nonzero(keep)
    return Picked(flat.index_select(0, at), values.index_select(0, at))


def _of_groups(pre: Tensor, k: int) -> Tensor:
    """Flat places [C k] ascending of the largest number of each of k equal groups of neighbours in each row of pre [C F]."""
    width = pre.shape[1] // k
    groups = pre.view(pre.shape[0] * k, width)
    if pre.device.type == "cpu":
        at = torch.from_numpy(groups.numpy().argmax(1))
    else:
        at = (groups == groups.amax(1, keepdim=True)).to(torch.uint8).argmax(1)
    return at + torch.arange(groups.shape[0], device=pre.device) * width


def lower_bound(pre: Tensor, k: int) -> Tensor:
    """A number [C] for each row of pre [C F] that at least k of its numbers reach: the k-th largest of block maxima."""
    return kth_largest(_maxima(pre, 4 * k), k)


def _maxima(pre: Tensor, least: int) -> Tensor:
    """The maxima [C G] of blocks of numbers of each row of pre [C F], as large ones as there are `least` of; each number
    where F is not above that. Number b + j * G is in block b; what does not fit in is left out."""
    size, width = pre.shape[1], 1
    while size // (2 * width) >= least:
        width *= 2
    count = size // width
    return pre if width == 1 else pre[:, : width * count].unflatten(1, (width, count)).amax(1)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest number [C] of each row of values [C n], or [] of values [n]."""
    if values.device.type == "cpu":
        at = values.shape[-1] - k
        return torch.from_numpy(np.partition(values.detach().numpy(), at, axis=-1))[..., at].clone()
    return values.topk(k, dim=-1).values[..., -1]


def reaching(pre: Tensor, floor: Tensor, strictly: bool = False) -> Tensor:
    """Flat places [n] ascending of the numbers of pre [C F] that are at least a floor, [C 1], [F] or []; or above it."""
    if pre.device.type != "cpu":
        return nonzero(pre > floor if strictly else pre >= floor)
    compare = np.greater if strictly else np.greater_equal
    values, level, (n_rows, size) = pre.numpy(), floor.numpy(), pre.shape

    def some(start: int, stop: int) -> np.ndarray:
        own = level[start:stop] if level.ndim == 2 else level
        found = _places(compare(values[start:stop], own))
        return found + start * size if start else found

    threads = min(torch.get_num_threads(), n_rows, 1 + pre.numel() // _SHARE)
    if threads == 1:
        return torch.from_numpy(some(0, n_rows))
    cuts = [n_rows * i // threads for i in range(threads + 1)]
    helpers = _helpers(threads - 1, os.getpid())
    others = [helpers.submit(some, *cut) for cut in zip(cuts[1:-1], cuts[2:], strict=True)]
    return torch.from_numpy(np.concatenate([some(0, cuts[1]), *(other.result() for other in others)]))


@lru_cache
def _helpers(count: int, process: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """Threads for what NumPy does with one alone, holding up no others; a forked process has none of its parent's."""
    return ThreadPoolExecutor(count, thread_name_prefix="cutaway-selection")


def nonzero(mask: Tensor) -> Tensor:
    """Flat places [n] ascending of what is true."""
    if mask.device.type == "cpu":
        return torch.from_numpy(_places(mask.numpy()))
    return mask.reshape(-1).nonzero().squeeze(1)


def _places(mask: np.ndarray) -> np.ndarray:
    """Flat places of what is true. Where that is little: eight are looked at together, as one word."""
    flat = mask.reshape(-1)
    if not flat.size % 8:
        words = flat.view(np.uint64)
        some = np.flatnonzero(words != 0)
        if some.size * 4 < words.size:
            within = np.flatnonzero(words.take(some).view(np.bool_))
            return (some.take(within >> 3) << 3) + (within & 7)
    return np.flatnonzero(flat)


def _largest(rows: Tensor, values: Tensor, k: int, n_rows: int) -> Tensor:
    """Of a list in the order of its rows [n], the k largest values of each row, as a mask [n]."""
    counts = torch.bincount(rows, minlength=n_rows)
    width = int(counts.max()) if counts.numel() else 0
    if width <= k:
        return torch.ones_like(rows, dtype=torch.bool)
    starts = counts.cumsum(0) - counts
    places = torch.arange(rows.numel(), device=rows.device) + (
        torch.arange(n_rows, device=rows.device) * width - starts
    ).index_select(0, rows)
    padded = values.new_full((n_rows * width,), -torch.inf).index_copy_(0, places, values)
    least = kth_largest(padded.view(n_rows, width), k).index_select(0, rows)
    keep = values >= least
    if int(keep.sum()) <= int(counts.clamp(max=k).sum()):
        return keep
    above, equal = values > least, values == least
    free = k - torch.bincount(rows[above], minlength=n_rows)
    rank = equal.cumsum(0)
    before = torch.cat([rank.new_zeros(1), rank])[starts]
    return above | (equal & (rank - before[rows] <= free[rows]))


def _of_batch(product: Callable[[slice], Tensor], parts: list[slice], size: int, count: int) -> Picked:
    """The `count` largest positive numbers of all rows. The bound is guessed from the first rows; that enough passed is
    checked, and if not it is lowered, at last to zero."""
    first: Tensor | None = product(parts[0])
    bound = _guess(first, count, parts)
    while True:
        flats, values = [], []
        for at in parts:
            pre = product(at) if first is None else first
            first = None
            flat = reaching(pre, torch.tensor(bound, dtype=pre.dtype))
            values.append(pre.view(-1).index_select(0, flat))
            flats.append(flat + at.start * size if at.start else flat)
        flat, value = torch.cat(flats), torch.cat(values)
        if bound == 0 or flat.numel() >= count:
            break
        bound = bound / 2 if flat.numel() * 4 > count else 0.0
    keep = value > 0
    if flat.numel() > count:
        least = kth_largest(value, count)
        over = value >= least
        if int(over.sum()) > count:
            above, equal = value > least, value == least
            over = above | (equal & (equal.cumsum(0) <= count - above.sum()))
        keep &= over
    return _kept(flat, value, keep)


def _guess(first: Tensor, count: int, parts: list[slice]) -> float:
    """What about `count` numbers of the batch reach, judged by its first rows; a true bound where these are all rows."""
    share = first.shape[0] / parts[-1].stop * (1.0 if len(parts) == 1 else _SPARE)
    wanted = int(share * count) + 1
    maxima = _maxima(first, -(-4 * wanted // first.shape[0]))
    if maxima.numel() < wanted:
        return 0.0
    return max(0.0, float(kth_largest(maxima.reshape(-1), wanted)))
