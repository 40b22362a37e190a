"""From held-out scores under permuted labels to p-values: of each place, corrected over all, and of the best of them."""

from __future__ import annotations

import numpy as np

from cutaway.statistics import benjamini_hochberg


def significance(scores: np.ndarray, null: np.ndarray) -> dict[str, np.ndarray]:
    """Of observed scores [c] and scores under permuted labels [c b] (the same permutations in every cell). A permutation
    that gives no score counts as doing as well.

    With many cells and few permutations no single p-value could survive a correction, so q is computed from the null of
    all cells together, each brought to mean zero and deviation one first.

    Returns:
        p: share of permutations that score as well, counting the observed [c].
        q: corrected over all cells [c] (Benjamini and Hochberg 1995).
        p_best: share of permutations whose *best* cell does as well [c], which is what the best of many cells must be
            held against (Westfall and Young 1993).
        null, null_high: mean and 95 % point of the permuted scores [c].
    """
    cells, b = null.shape
    nothing, one = np.full(cells, np.nan), np.ones(cells)
    if b == 0 or not np.isfinite(null).any(1).all():
        least = one if b else nothing
        return {"p": least, "q": least, "p_best": least, "null": nothing, "null_high": nothing}
    mean, deviation = np.nanmean(null, 1), np.nanstd(null, 1).clip(min=1e-9)
    high = np.nanquantile(null, 0.95, axis=1)
    null = np.where(np.isnan(null), np.inf, null)
    p = (1 + (null >= scores[:, None]).sum(1)) / (b + 1)
    standard = ((null - mean[:, None]) / deviation[:, None]).ravel()
    seen = (scores - mean) / deviation
    ordered = np.sort(standard)
    beyond = len(ordered) - np.searchsorted(ordered, seen, side="left")
    pooled = (1 + beyond) / (len(ordered) + 1)
    best = (1 + (null.max(0)[None] >= scores[:, None]).sum(1)) / (b + 1)
    return {"p": p, "q": benjamini_hochberg(pooled), "p_best": best, "null": mean, "null_high": high}
