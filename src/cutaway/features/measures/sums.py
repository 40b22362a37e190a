"""What is summed of a dictionary over the rows of each text, from which every figure and every interval is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.features.dictionaries import Dictionary
from cutaway.features.unexplained import by_text

#: Numbers that are encoded together.
_TOGETHER = 2**24


@dataclass(frozen=True, eq=False)
class RowSums:
    """Sums over the rows of each text [t], and how often each latent fires.

    Attributes:
        error: squared error of the reconstruction.
        spread: squared distance from the mean of all rows.
        cosine: of the reconstruction with the row.
        l0: latents that fire.
        silent: rows on which none fires.
        rows: how many there are.
        fires: [F] on how many rows each latent fires.
    """

    error: np.ndarray
    spread: np.ndarray
    cosine: np.ndarray
    l0: np.ndarray
    silent: np.ndarray
    rows: np.ndarray
    fires: np.ndarray


def reconstructed(dictionary: Dictionary, rows: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Activations [m F] and reconstructions [m d] of rows [n d], so many at a time as fit."""
    step = max(1, _TOGETHER // max(1, dictionary.sizes[0]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        latents = dictionary.encode(part)
        yield slice(start, start + len(part)), latents, dictionary.decode(latents, part)


def row_sums(dictionary: Dictionary, read: Tensor, wanted: Tensor, owner: np.ndarray) -> RowSums:
    """Of the rows [n d] that a dictionary reads and those [n e] that it is to reconstruct, by the text of each [n]."""
    n = len(wanted)
    mean = wanted.double().mean(0)
    error, spread, cosine, l0 = (torch.zeros(n, dtype=torch.float64) for _ in range(4))
    fires = torch.zeros(dictionary.sizes[0], dtype=torch.float64)
    for at, latents, made in reconstructed(dictionary, read):
        target = wanted[at].double()
        error[at] = (made.double() - target).square().sum(1)
        spread[at] = (target - mean).square().sum(1)
        cosine[at] = torch.nn.functional.cosine_similarity(made.double(), target, dim=1)
        active = latents != 0
        l0[at] = active.double().sum(1)
        fires += active.double().sum(0).cpu()
    return RowSums(
        by_text(error, owner), by_text(spread, owner), by_text(cosine, owner), by_text(l0, owner),
        by_text((l0 == 0).double(), owner), by_text(torch.ones(n), owner), fires.numpy(),
    )  # fmt: skip
