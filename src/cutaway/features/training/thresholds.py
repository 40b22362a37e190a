"""Thresholds for a dictionary that was trained by rank, one for each source, set so that as many latents fire as before.

In training the largest of a row (topk) or of a batch (batchtopk) fire; a row that comes alone has no batch. Afterwards a
latent fires where it is above a threshold, found by bisection on rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cutaway.features.dictionaries import Dictionary, Encoder, JumpReLU, TopK
from cutaway.features.unexplained import fvu, squares

#: Of each row so many times k of the strongest latents are looked at, and so many rows are in memory at once.
_LOOKED_AT, _AT_ONCE = 8, 512
#: The bisection ends within this share of the wanted number, or after so many halvings.
_CLOSE, _HALVINGS = 1e-3, 60


@dataclass(frozen=True)
class Calibration:
    """What setting thresholds did, on the rows on which they were set.

    Attributes:
        rows: how many.
        wanted: latents of a source that are to fire on a row.
        l0_before, fvu_before: with the largest of each row or batch, as in training.
        l0, fvu: with thresholds.
        thresholds: one for each source.
    """

    rows: int
    wanted: int
    l0_before: float
    fvu_before: float
    l0: float
    fvu: float
    thresholds: tuple[float, ...]

    @property
    def kept(self) -> bool:
        """Do as many fire within 1 %, and is the reconstruction no worse than 1 % of what it left unexplained?"""
        return abs(self.l0 - self.wanted) <= 0.01 * self.wanted and self.fvu <= 1.01 * self.fvu_before


def sources_of(dictionary: Dictionary, reads: Sequence[Tensor]) -> list[Tensor | list[Tensor]]:
    """The values of all places that are read, source by source."""
    found: list[Tensor | list[Tensor]] = []
    start = 0
    for places in dictionary.reads:
        mine = list(reads[start : start + len(places)])
        found.append(mine[0] if len(mine) == 1 else mine)
        start += len(places)
    return found


def rebuilt(dictionary: Dictionary, reads: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Latents [n F] of all sources and reconstructions [n d] of all targets, of rows of all places that are read."""
    rows = sources_of(dictionary, reads)
    latents = [dictionary.encode(row, source) for source, row in enumerate(rows)]
    own = [rows[min(target, len(rows) - 1)] for target in range(len(dictionary.writes))]
    outs = [dictionary.decode(latents, own[target], target) for target in range(len(dictionary.writes))]
    return latents, outs


def unexplained(
    dictionary: Dictionary, reads: Sequence[Tensor], writes: Sequence[Tensor]
) -> tuple[float, float]:
    """Fraction of the variance unexplained (mean over targets), and latents of a source that fire on a row."""
    return _sums([dictionary] * -(-len(reads[0]) // _AT_ONCE), reads, writes, _AT_ONCE)


def _sums(
    each: Sequence[Dictionary], reads: Sequence[Tensor], writes: Sequence[Tensor], size: int
) -> tuple[float, float]:
    """The same with a dictionary of its own for each `size` rows."""
    errors, spreads = np.zeros(len(writes)), np.zeros(len(writes))
    means = [w.double().mean(0) for w in writes]
    fired = 0.0
    for number, dictionary in enumerate(each):
        for start in range(number * size, min((number + 1) * size, len(reads[0])), _AT_ONCE):
            end = min(start + _AT_ONCE, (number + 1) * size)
            latents, outs = rebuilt(dictionary, [r[start:end] for r in reads])
            fired += sum(float((z != 0).sum()) for z in latents) / len(latents)
            for t, out in enumerate(outs):
                error, spread = squares(out, writes[t][start:end], means[t])
                errors[t] += float(error.sum())
                spreads[t] += float(spread.sum())
    return float(fvu(errors, spreads).mean()), fired / max(1, len(reads[0]))


def calibrated(
    dictionary: Dictionary, reads: Sequence[Tensor], writes: Sequence[Tensor], k: int, batch: int
) -> tuple[Dictionary, Calibration]:
    """The dictionary with thresholds, set so that k latents of each source fire on a row, and what that did.

    Args:
        dictionary: trained by rank.
        reads, writes: rows [n d] of every place that is read, and of every target.
        k: how many are to fire.
        batch: rows among which the largest were taken in training; 1 where each row was taken alone.
    """
    ranks = [
        _ranks(encoder, rows, k)
        for encoder, rows in zip(dictionary.encoders, sources_of(dictionary, reads), strict=True)
    ]
    cuts = tuple(_bisected(found, k) for found, _ in ranks)
    made = _cut(dictionary, cuts, [by for _, by in ranks])
    n = len(reads[0])
    if batch == 1:
        fvu_before, l0_before = unexplained(_topk(dictionary, k), reads, writes)
    else:
        blocks = range(0, n, batch)
        each = [
            _cut(
                dictionary, [_largest(found[s : s + batch], k) for found, _ in ranks], [by for _, by in ranks]
            )
            for s in blocks
        ]
        fvu_before, l0_before = _sums(each, reads, writes, batch)
    fvu_after, l0 = unexplained(made, reads, writes)
    return made, Calibration(n, k, l0_before, fvu_before, l0, fvu_after, cuts)


def _factor(encoder: Encoder) -> Tensor:
    """[F], with which pre-activations are multiplied to be ranked."""
    activation = encoder.activation
    if isinstance(activation, TopK) and activation.by is not None:
        return activation.by
    if (
        isinstance(activation, JumpReLU)
        and activation.threshold.ndim
        and bool((activation.threshold > 0).all())
    ):
        return activation.threshold.mean() / activation.threshold
    return torch.ones(encoder.size, dtype=encoder.weight.dtype)


def _ranks(encoder: Encoder, rows: Tensor | list[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The largest ranks [n m] of each row, none below zero, and the factor [F]."""
    by = _factor(encoder)
    wide = rows if torch.is_tensor(rows) else torch.cat(list(rows), -1)
    most = min(encoder.size, _LOOKED_AT * k)
    parts = [
        (encoder.pre(encoder.normed(part.to(encoder.weight.dtype))[0]) * by).relu().topk(most, dim=1).values
        for part in wide.split(_AT_ONCE)
    ]
    return torch.cat(parts), by


def _bisected(ranks: Tensor, k: int) -> float:
    """The threshold above which k of each row's ranks lie, on average; 0 where fewer are above zero."""

    def above(cut: float) -> float:
        return float((ranks > cut).sum()) / len(ranks)

    low, high = 0.0, float(ranks.max())
    if above(low) <= k:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = above(middle)
        if abs(found - k) <= _CLOSE * k:
            return middle
        low, high = (middle, high) if found > k else (low, middle)
    return (low + high) / 2


def _largest(ranks: Tensor, k: int) -> float:
    """The threshold above which the k * n largest of all ranks of a batch lie."""
    flat = ranks.flatten()
    wanted = k * len(ranks)
    if wanted >= flat.numel():
        return 0.0
    two = flat.topk(wanted + 1).values[-2:]
    return max(0.0, float(two.mean()))


def _cut(dictionary: Dictionary, cuts: Sequence[float], factors: Sequence[Tensor]) -> Dictionary:
    encoders = tuple(
        replace(encoder, activation=JumpReLU((cut / by).to(encoder.weight.dtype)))
        for encoder, cut, by in zip(dictionary.encoders, cuts, factors, strict=True)
    )
    return replace(dictionary, encoders=encoders)


def _topk(dictionary: Dictionary, k: int) -> Dictionary:
    encoders = tuple(
        e if isinstance(e.activation, TopK) else replace(e, activation=TopK(k, _factor(e)))
        for e in dictionary.encoders
    )
    return replace(dictionary, encoders=encoders)
