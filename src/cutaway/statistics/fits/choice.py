"""What a penalty is chosen by: sums over left-out examples.

With the centred target y, fitted values f, leverages h (without the intercept's) and k = n / (n - 1), example i lies
c_i = k y_i above the mean of the others, and the fit to the others predicts for it, above that mean,

    q_i = k (f_i - k h_i y_i) / (1 - k h_i) = (f_i - k h_i y_i) / (1 - 1/n - h_i).

(For left-out groups c and q are found by `grouped`.) Two sums tell all that follows: Σ c q and Σ q².

- *error*: the mean squared error of c - q.
- *correlation*: of q with c. What counts is the order of the examples, not the scale of the outputs. Squared error shrinks
  weights to get the scale right, and where a label is hard to read it shrinks far beyond what serves the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

By = Literal["error", "correlation"]
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Sums over n left-out examples at every penalty, for every target (NaN where they were not computed).

    Attributes:
        with_label: Σ c q [a t].
        squares: Σ q² [a t].
        total: Σ c² [t].
        n: how many examples.
    """

    with_label: Tensor
    squares: Tensor
    total: Tensor
    n: int

    def shared(self, groups: list[int] | None) -> LeftOut:
        """Every target's sums become those over its group; groups: [t] numbers, or None for each its own."""
        if groups is None:
            return self
        number, where = torch.as_tensor(groups).unique(return_inverse=True)
        sums = torch.cat([self.with_label, self.squares, self.total[None]])
        summed = torch.zeros(len(sums), len(number), dtype=sums.dtype).index_add(1, where, sums)[:, where]
        with_label, squares = summed[:-1].chunk(2)
        return LeftOut(with_label, squares, summed[-1], self.n)

    @property
    def errors(self) -> Tensor:
        """Mean squared error [a t] of left-out predictions; NaN where it was not computed."""
        return (self.total - 2 * self.with_label + self.squares) / self.n

    @property
    def correlations(self) -> Tensor:
        """Correlation [a t] of left-out predictions with the label; NaN where not computed, 0 for a constant target."""
        return self.with_label / (self.squares * self.total).sqrt().clamp(min=_TINY)

    def losses(self, by: By) -> Tensor:
        """What the best penalty has least of: the error, or one less the correlation (one where that is negative).
        Infinite where it was not computed."""
        losses = self.errors if by == "error" else 1 - self.correlations.clamp(min=0.0)
        return losses.nan_to_num(torch.inf, posinf=torch.inf)


def choose(losses: Tensor, penalties: Tensor) -> Tensor:
    """Index [t] of the penalty with the least loss [a t]; of several, the largest penalty.

    >>> choose(torch.tensor([[0.5, 1.0], [0.2, 1.0], [0.3, 1.0]]), torch.tensor([1.0, 2.0, 3.0])).tolist()
    [1, 2]
    """
    least = losses == losses.amin(0)
    return torch.where(least, penalties[:, None], -torch.inf).argmax(0)
