"""How well scores tell what is known from what is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def auroc(scores: Sequence[float] | np.ndarray, known: Sequence[bool] | np.ndarray) -> float:
    """Area under the ROC curve; ties count a half.

    >>> auroc((0.9, 0.1, 0.0), (True, False, False))
    1.0
    """
    values, truth = np.asarray(scores, float), np.asarray(known, bool)
    if truth.all() or not truth.any():
        return float("nan")
    above = values[truth][:, None] - values[~truth][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())
