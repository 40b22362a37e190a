"""How well scores tell the positive from the negative: areas under the ROC and the precision-recall curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cutaway.errors import BadInput
from cutaway.statistics.estimate import Floats


def auroc(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, ties counting half.

    This is the Mann-Whitney statistic from midranks (Hanley and McNeil 1982), so it does not depend on how ties are
    sorted. A whole table of scores is done at once: examples are along the last axis, so put it there
    (`auroc(table.T, labels)` gives one value for each column of a table [n c]).

    Args:
        scores: [... n], higher for what is thought positive; not NaN.
        labels: [... n] of 0 and 1 or bool; they broadcast against the scores.

    Returns:
        [...], float64; NaN where there are only positives or only negatives.

    >>> float(auroc([1.0, 1.0, 2.0], [0, 1, 1]))
    0.75
    """
    from scipy.stats import rankdata  # half a second of import, which only who ranks waits for

    ranks = rankdata(np.asarray(scores), axis=-1)
    positive = np.broadcast_to(np.asarray(labels, dtype=np.float64), ranks.shape)
    ones = positive.sum(-1)
    zeros = ranks.shape[-1] - ones
    pairs = (ranks * positive).sum(-1) - ones * (ones + 1) / 2
    both = ones * zeros
    return np.where(both > 0, pairs / np.where(both > 0, both, 1), np.nan)[()]


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the precision-recall curve: the mean precision at the rank of every positive.

    All of a tie enter together. NaN where nothing is positive.

    Args:
        scores: [n], higher for what is thought positive.
        labels: [n] of 0 and 1 or bool.

    >>> average_precision([0.9, 0.8, 0.1], [True, False, True])
    0.8333333333333333
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if values.ndim != 1 or values.shape != positive.shape:
        raise BadInput(
            f"Scores {list(values.shape)} and labels {list(positive.shape)} are not two rows of one length.",
            "Pass two arrays [n].",
        )
    if not positive.any():
        return float("nan")
    _, tie = np.unique(-values, return_inverse=True)
    size, hits = np.bincount(tie), np.bincount(tie, weights=positive)
    return float((np.cumsum(hits) / np.cumsum(size) * hits).sum() / positive.sum())
