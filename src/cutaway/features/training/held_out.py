"""What a trained dictionary does on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cutaway.features.dictionaries import Dictionary
from cutaway.features.training.thresholds import rebuilt
from cutaway.features.unexplained import by_text, fvu, squares
from cutaway.statistics import Estimate, statistic_of

_AT_ONCE = 512
#: Rows are put together into so many groups at most, over which intervals are taken.
_GROUPS = 200


@dataclass(frozen=True)
class HeldOutFigures:
    """Figures on rows that were never trained on.

    Attributes:
        rows, texts: how many, and of how many texts.
        fvu: fraction of the variance unexplained: squared error over squared distance from the mean of these rows; the mean
            over targets where there are several. Its interval is over texts.
        l0: latents of a source that fire on a row, mean.
        silent: share of latents that fire on none of these rows.
        nothing: share of rows on which no latent fires.
        by_target: fvu of each target.
        errors, spreads: [texts targets], the sums that fvu is made of.
    """

    rows: int
    texts: int
    fvu: Estimate
    l0: float
    silent: float
    nothing: float
    by_target: dict[str, float]
    errors: np.ndarray = field(repr=False)
    spreads: np.ndarray = field(repr=False)

    def better_than(self, other: HeldOutFigures) -> Estimate:
        """The other's fvu less this one's, with an interval over the same texts."""
        n = len(self.errors)
        difference = statistic_of(
            lambda w: (_fvu(w, other.errors, other.spreads) - _fvu(w, self.errors, self.spreads))[:, None], n
        )
        return difference[0]


def _fvu(weights: np.ndarray, errors: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """[b] mean over targets, of texts that count so often [b texts]."""
    return fvu(weights @ errors, weights @ spreads).mean(1)


def measured(
    dictionary: Dictionary, reads: Sequence[Tensor], writes: Sequence[Tensor], texts: Tensor, seed: int = 0
) -> HeldOutFigures:
    """Figures of a dictionary on rows [n d] of all places that it reads and writes; texts: [n], what each row is of."""
    names, owner = np.unique(texts.numpy(), return_inverse=True)
    count = len(names)
    if count > _GROUPS:
        owner, count = owner * _GROUPS // count, _GROUPS
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in writes]
    fires = [torch.zeros(size, dtype=torch.bool) for size in dictionary.sizes]
    fired = nothing = 0.0
    means = [w.double().mean(0) for w in writes]
    for start in range(0, len(texts), _AT_ONCE):
        end = start + _AT_ONCE
        latents, outs = rebuilt(dictionary, [r[start:end] for r in reads])
        active = [z != 0 for z in latents]
        fired += sum(float(a.sum()) for a in active) / len(active)
        nothing += float((~torch.stack([a.any(1) for a in active]).any(0)).sum())
        fires = [f | a.any(0) for f, a in zip(fires, active, strict=True)]
        for t, out in enumerate(outs):
            found[t].append(squares(out, writes[t][start:end], means[t]))
    errors, spreads = (
        np.stack([by_text(torch.cat([pair[i] for pair in mine]), owner) for mine in found], 1) for i in (0, 1)
    )
    estimate = statistic_of(lambda w: _fvu(w, errors, spreads)[:, None], count, seed=seed)[0]
    silent = sum(int((~f).sum()) for f in fires) / sum(dictionary.sizes)
    each = fvu(errors.sum(0), spreads.sum(0))
    by_target = {
        f"{i} {place}".strip(): float(v)
        for i, (place, v) in enumerate(zip(dictionary.writes, each, strict=True))
    }
    rows = len(texts)
    return HeldOutFigures(
        rows, len(names), estimate, fired / rows, silent, nothing / rows, by_target, errors, spreads
    )
