"""What is shown of one feature of an index: its examples, their neighbours, its histogram; read from the entries once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cutaway.features.index import FeatureIndex

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Bars of a histogram.
BINS = 40


@dataclass(frozen=True)
class ViewSizes:
    """How much is shown of each feature.

    Attributes:
        k: strongest examples, one of each window of text at most.
        quantiles: equal shares of the entries.
        each: examples drawn from each share.
        context: tokens on either side.
        seed: of what is drawn.
    """

    k: int = 12
    quantiles: int = 5
    each: int = 4
    context: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FeatureView:
    """One feature.

    Attributes:
        number: in the index.
        rows: [n] at which it is active, ascending.
        values: [n] its activation at each.
        top: rows of the strongest, the strongest first.
        shares: for each share of the entries, the strongest share first: its ends, how many entries it has, rows drawn.
        low, high: ends of the histogram.
        bars: [bins] entries in each.
    """

    number: int
    rows: Rows
    values: Floats
    top: Rows
    shares: tuple[tuple[float, float, int, Rows], ...]
    low: float
    high: float
    bars: Rows

    @property
    def mean(self) -> float:
        """The mean of the entries; NaN where there are none."""
        return float(self.values.mean()) if len(self.values) else float("nan")


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Some rows with their neighbours.

    Attributes:
        ids: [m 2c + 1] tokens; -1 beyond the window.
        values: [m 2c + 1] the activation at each; 0 where there is no entry.
        text, position: [m] where each row stands.
    """

    ids: Rows
    values: Floats
    text: Rows
    position: Rows


class FeatureViews:
    """What is shown of the features of an index, one after the other."""

    def __init__(self, index: FeatureIndex, sizes: ViewSizes) -> None:
        self.sizes, self.index, self.table = sizes, index, index.rows

    def __call__(self, i: int) -> FeatureView:
        """What is shown of feature i."""
        rows, read = self.index.entries(i)
        values, sizes = read.astype(np.float64), self.sizes
        rising = np.argsort(values, kind="stable")
        falling = np.argsort(-values, kind="stable")
        _, first = np.unique(self.table.window[rows[falling]], return_index=True)
        top = rows[falling[np.sort(first)[: sizes.k]]]
        generator = np.random.default_rng([sizes.seed, i])
        shares = []
        for part in np.array_split(rising, sizes.quantiles):
            drawn = np.sort(generator.permutation(part)[: sizes.each])
            if len(part):
                shares.append((float(values[part[0]]), float(values[part[-1]]), len(part), rows[drawn]))
        low, high = min(0.0, float(values.min(initial=0.0))), max(0.0, float(values.max(initial=0.0)))
        bars, _ = np.histogram(values, BINS, (low, high if high > low else 1.0))
        return FeatureView(i, rows, values, top, tuple(shares[::-1]), low, high if high > low else 1.0, bars)

    def around(self, view: FeatureView, rows: Sequence[int] | Rows) -> Surroundings:
        """Some rows with their neighbours, and what was read at each."""
        chosen, table = np.asarray(rows, np.int64), self.table
        at = table.counted[chosen][:, None] + np.arange(-self.sizes.context, self.sizes.context + 1)
        window = table.window[chosen][:, None]
        inside = (at >= table.starts[window]) & (at < table.starts[window + 1])
        ids = np.where(inside, table.ids[np.clip(at, 0, max(0, len(table.ids) - 1))], -1).astype(np.int64)
        own = table.counted[view.rows]
        found = np.minimum(np.searchsorted(own, at), max(0, len(own) - 1))
        there = inside & (own[found] == at) if len(own) else np.zeros(at.shape, bool)
        values = np.where(there, view.values[found], 0.0) if len(own) else np.zeros(at.shape)
        return Surroundings(ids, values, table.texts[chosen], table.positions[chosen])


def figure(value: float, digits: int = 4) -> Any:
    """A number as a page keeps it: so many digits, None where there is none.

    >>> figure(0.123456), figure(float("nan")), figure(-0.0)
    (0.1235, None, 0.0)
    """
    return float(f"{value:.{digits}g}") + 0.0 if np.isfinite(value) else None
