"""Which penalties can be the best, told from bounds, so that leave-one-out is computed for those only.

The fitted values at one penalty cost a pass over the examples; their norms, and products with those at any other penalty
and with the label y, do not: they follow from the label's projections on the eigenvectors. With the values f0 at one likely
penalty, those at any other are f = b f0 + e, with e orthogonal to f0 and |e| known. The sums over left-out examples
(`choice`; u = 1 / (1 - 1/n - h)) then follow but for

    Σ (u - mean u) y e   and   2 Σ (g - m b f0 + m' k y) e,   g = u² (b f0 - k h y), m = mean u², m' = mean u² h,

each at most the norm of what stands before e, times |e| (Cauchy and Schwarz), and Σ u² e², at least min u² times |e|².
Every penalty that these bounds do not rule out has its sums computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.statistics.fits.choice import By, LeftOut, choose

#: What single precision may do to a squared norm, as a share of it.
_SLACK = 1e-6
_TINY = 1e-300
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Screening:
    """What is known of every penalty [a] without fitted values, for features in eigenvector coordinates.

    Attributes:
        y: centred targets [t n], in float32.
        scores: the features [n d], in float32.
        turned: y scores [t d], in float32.
        values: squared norms of the features [d].
        penalties: [a].
        shrink: what each coordinate of y scores is multiplied with to give coefficients [a d].
        leverage: of each example, without the intercept's [a n].
        total: squared norms of y [t].
        products: of the fitted values with y [a t].
        norms: squared norms of the fitted values [a t].
    """

    y: Tensor
    scores: Tensor
    turned: Tensor
    values: Tensor
    penalties: Tensor
    shrink: Tensor
    leverage: Tensor
    total: Tensor
    products: Tensor
    norms: Tensor

    @classmethod
    def of(cls, y: Tensor, scores: Tensor, values: Tensor, turned: Tensor, penalties: Tensor) -> Screening:
        """From centred targets [n t] and features in eigenvector coordinates [n d], their squared norms, and scores' y."""
        targets, projected = y.T.float().contiguous(), turned.T.float().contiguous()
        shrink = 1 / (values + penalties[:, None])
        leverage = (shrink.float() @ scores.square().T).double()
        power, total = projected.T.double().square(), y.square().sum(0, dtype=torch.float64)
        norms = (values * shrink.square()) @ power
        of_features = (scores, projected, values, penalties, shrink, leverage)
        return cls(targets, *of_features, total, shrink @ power, norms)

    @property
    def n(self) -> int:
        """How many examples."""
        return self.y.shape[1]

    @property
    def factor(self) -> Tensor:
        """What leaving out an example multiplies its residual with: [a n]."""
        return (1 - 1 / self.n - self.leverage).clamp(min=1e-6).reciprocal()

    def left_out(self, groups: list[int] | None, by: By, whole: int) -> LeftOut:
        """Leave-one-out sums of all penalties that can be the best (NaN for the others), and of all penalties for the
        first `whole` targets."""
        columns = torch.arange(len(self.y))
        sums = self._sums(*torch.full((2, *self.norms.shape), torch.nan, dtype=torch.float64))
        likely = choose(self._evened().shared(groups).losses(by), self.penalties)
        order = likely.argsort()
        fitted = self._fitted(likely[order], order)
        self._fill(sums, likely[order], order, fitted)
        least = self._most(likely, fitted[order.argsort()]).shared(groups).losses(by)
        known = sums.shared(groups).losses(by)[likely, columns]
        can = least < known
        can[self.penalties.argmax(), known >= 1] = True  # where no penalty correlates, the largest is chosen
        can[:, :whole] = True
        can[likely, columns] = False
        a, t = can.nonzero(as_tuple=True)
        for some, of in zip(a.split(_BATCH), t.split(_BATCH), strict=True):
            self._fill(sums, some, of, self._fitted(some, of))
        return sums

    def _sums(self, with_label: Tensor, squares: Tensor) -> LeftOut:
        """From the sums of y q and q² [a t]."""
        k = self.n / (self.n - 1)
        return LeftOut(k * with_label, squares, k * k * self.total, self.n)

    def _evened(self) -> LeftOut:
        """The sums as if all examples had the same leverage (generalised cross-validation)."""
        h = self.leverage.mean(1)[:, None]
        k, u = self.n / (self.n - 1), (1 - 1 / self.n - h).reciprocal()
        squares = self.norms - 2 * k * h * self.products + (k * h).square() * self.total
        return self._sums(u * (self.products - k * h * self.total), u.square() * squares.clamp(min=0))

    def _fitted(self, a: Tensor, t: Tensor) -> Tensor:
        """Fitted values [k n] at penalties a [k] of targets t [k]."""
        return (self.shrink.float()[a] * self.turned[t]) @ self.scores.T

    def _fill(self, sums: LeftOut, a: Tensor, t: Tensor, fitted: Tensor) -> None:
        """Fill in the sums of penalties a [k], in order, with targets t [k], from fitted values [k n]."""
        number, sizes = a.unique_consecutive(return_counts=True)
        k, factor = self.n / (self.n - 1), self.factor
        parts = (t.split(sizes.tolist()), fitted.split(sizes.tolist()))
        for i, of, values in zip(number.tolist(), *parts, strict=True):
            y, u = self.y[of], factor[i].float()
            q = torch.addcmul(values, y, self.leverage[i].float(), value=-k).mul_(u)
            sums.with_label[i, of] = k * torch.linalg.vecdot(y, q).double()
            sums.squares[i, of] = torch.linalg.vecdot(q, q).double()

    def _most(self, likely: Tensor, fitted: Tensor) -> LeftOut:
        """The greatest sum with the label and the least sum of squares that each penalty can have, from fitted values
        [t n] at the likely penalties [t]."""
        share, rest, with_y = self._rest(likely)
        k, u, y, f = self.n / (self.n - 1), self.factor, self.y.double(), fitted.double()
        y2, cross, f2 = y.square().T, (y * f).T, f.square().T
        h, w, wh = self.leverage, u.square(), u.square() * self.leverage
        even, middle, centre = (x - x.mean(1)[:, None] for x in (u, w, wh))
        with_label = share * (u @ cross) - k * (u * h) @ y2 + u.mean(1)[:, None] * with_y

        def squared(of_f: Tensor, both: Tensor, of_y: Tensor) -> Tensor:
            """Squares of b f0 - k y with weights [a n] of the square of f0, of their product and of the square of y."""
            return share.square() * (of_f @ f2) - 2 * k * share * (both @ cross) + k * k * of_y @ y2

        square = squared(w, wh, wh * h) - 2 * k * wh.mean(1)[:, None] * with_y
        loose = squared(middle.square(), middle * centre, centre.square()).clamp(min=0)
        return self._sums(
            with_label + (even.square() @ y2 * rest).sqrt(),
            (square - 2 * (loose * rest).sqrt() + w.amin(1)[:, None] * rest).clamp(min=0),
        )

    def _rest(self, likely: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fitted values at every penalty as b f0 + e, f0 those at the likely ones [t]: b, a bound of |e|², and the product
        of e with y, all [a t]."""
        at = likely, torch.arange(len(likely))
        power = (self.turned.double().square() * self.values * self.shrink[likely]).T
        product = self.shrink @ power
        share = product / self.norms[at].clamp(min=_TINY)
        rest = (self.norms - share * product).clamp(min=0) + _SLACK * self.norms
        return share, rest, self.products - share * self.products[at]
