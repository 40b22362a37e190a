"""What a reconstruction leaves unexplained, defined once: squared error over squared distance from the mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

#: What is left of a perfect reconstruction in single precision, so that ratios to it are numbers.
_ROUNDING = 1e-10


def squares(made: Tensor, wanted: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of each row: squared error of its reconstruction, and squared distance from the mean of all rows.

    made, wanted: [n d]; mean: [d] of all rows, where these are some of them. Returns two [n] in double precision.
    """
    wanted = wanted.double()
    mean = wanted.mean(0) if mean is None else mean
    return (made.double() - wanted).square().sum(1), (wanted - mean).square().sum(1)


def fvu(error: NDArray[Any], spread: NDArray[Any]) -> NDArray[Any]:
    """Fraction of the variance unexplained, of sums [...] of squared errors and of squared distances from the mean.

    It is not below what rounding leaves, and one or more where nothing is explained.
    """
    spread = np.maximum(spread, 1e-300)
    return np.maximum(error, _ROUNDING * spread) / spread


def by_text(values: Tensor, owner: NDArray[Any]) -> NDArray[Any]:
    """Sums [t] over the rows of each text, of one value a row [n]; texts in ascending order."""
    texts, index = np.unique(owner, return_inverse=True)
    return np.bincount(index, weights=values.double().cpu().numpy(), minlength=len(texts))
