"""The scale on which every candidate is measured: 0 where all is replaced, 1 where nothing is, and shares in between."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.statistics import Estimate, ratio_of

#: A gap below this many standard errors of itself is not told from zero.
_ERRORS = 0.5
NO_GAP = "The gap itself is not told from zero: no share of it means much."


@dataclass(frozen=True, eq=False)
class GapScale:
    """Both ends of a behaviour's metric, example by example, and what a metric in between is as a share of their gap.

    Attributes:
        empty: metric [n] where everything is replaced: 0.
        whole: metric [n] of the network as it is: 1.
        clusters: what intervals draw together [n]; None for single examples.
        level: of the intervals.
    """

    empty: np.ndarray
    whole: np.ndarray
    clusters: Sequence[str] | None = None
    level: float = 0.95

    @property
    def gap(self) -> float:
        """The unit of every share: mean of the whole less mean of the empty."""
        return float(self.whole.mean() - self.empty.mean())

    @property
    def told(self) -> bool:
        """Does the standard error of the paired difference leave the gap at all? If not, nothing may be supported."""
        spread = float(np.std(self.whole - self.empty)) / max(1.0, len(self.whole) ** 0.5)
        return abs(self.gap) > _ERRORS * spread

    @property
    def caps(self) -> tuple[str, ...]:
        """Why nothing may be supported on this scale; empty where it may."""
        return () if self.told else (NO_GAP,)

    def share(self, metric: np.ndarray) -> Estimate:
        """A metric [n] as a share of the gap, with an interval in which the gap is uncertain, too."""
        return self._ratio(metric - self.empty)

    def difference(self, first: np.ndarray, second: np.ndarray) -> Estimate:
        """The share of `first` less that of `second` (metrics [n]), paired by example."""
        return self._ratio(first - second)

    def shares(self, metrics: np.ndarray) -> np.ndarray:
        """Metrics [k n] as mean shares [k]."""
        return (metrics.mean(-1) - self.empty.mean()) / self.gap

    def _ratio(self, part: np.ndarray) -> Estimate:
        return ratio_of(part, self.whole - self.empty, self.clusters, self.level)


def other_rows(groups: Sequence[Hashable], rng: np.random.Generator | None = None) -> np.ndarray:
    """[n] row numbers: for each row another one of its group; itself only where it is alone.

    groups: what rows must have in common, such as their length. rng: draws them; without one it is the next of the group.

    >>> other_rows([5, 7, 5, 5]).tolist()
    [2, 1, 3, 0]
    """
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    order = np.arange(len(groups))
    for group in sorted(members):  # type: ignore[type-var]
        rows = members[group]
        if len(rows) == 1:
            continue
        turned = np.array(rows[::-1]) if rng is None else rng.permutation(rows)
        order[turned] = np.roll(turned, 1)
    return order
