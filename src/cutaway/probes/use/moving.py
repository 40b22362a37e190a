"""A place that is moved, with the prompts on which it is measured what that does to the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.reading.beds import Bed
from cutaway.probes.reading.spots import Spot, features, moved, plain
from cutaway.probes.use.directions import Along, Move
from cutaway.probes.use.result import MoveEffect
from cutaway.results import Work
from cutaway.statistics import Estimate, mean_of, statistic_of

if TYPE_CHECKING:
    from cutaway.network import Network

#: Numbers of the steps that are laid out at once: little beside any network, and fixed, so that results repeat.
_STEPS_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class Moving:
    """A place, the prompts on which it is moved, and their unmoved state.

    Attributes:
        net: the network.
        bed: n prompts with their metric.
        spot: the place.
        features: the activations there [n d].
        seed: of which unrelated texts are taken.
        work: who hears of progress.
    """

    net: Network
    bed: Bed
    spot: Spot
    features: Tensor
    seed: int
    work: Work

    @classmethod
    def of(cls, net: Network, bed: Bed, spot: Spot, seed: int, work: Work) -> Moving:
        """Read the activations, too."""
        return cls(net, bed, spot, features(net, spot, bed.tokens, bed.edit, work), seed, work)

    def metric(self, steps: Tensor) -> np.ndarray:
        """The metric [s n] of each prompt moved by steps [s n d] (or [s 1 d], the same for every prompt)."""
        steps = steps.expand(-1, self.bed.n, -1)
        per = max(1, _STEPS_AT_ONCE // max(1, steps[0].numel()))
        place = (self.net, self.bed, self.spot)
        return np.concatenate([moved(*place, part, self.work) for part in steps.split(per)])

    def along_each(self, far: Tensor, others: Tensor) -> np.ndarray:
        """The metric [s n] with every prompt moved as far as `far` [n] says, along each of the other directions [s d]."""
        per = max(1, _STEPS_AT_ONCE // max(1, far.numel() * others.shape[1]))
        return np.concatenate([self.metric(part[:, None] * far[None, :, None]) for part in others.split(per)])

    def effects(
        self, alongs: Sequence[Along], moves: Sequence[Move], others: Tensor, strengths: Sequence[float]
    ) -> list[MoveEffect]:
        """Every effect: the moves, with what other directions do, and graded additions along the directions."""
        bed = self.bed
        base, sign = plain(self.net, bed), bed.sign.numpy()
        gap = _gap(base, bed)
        firm = gap.above(0.0) is not None
        unit = gap.value if firm else 2 * max(float(base.std()), 1e-12)
        total, effects = len(moves) + len(alongs), []
        for move in moves:
            own, other = self.work.once(
                f"move {move.name} {move.along}",
                lambda move=move: (
                    self.metric((move.far[:, None] * move.vector)[None])[0],
                    self.along_each(move.far, others),
                ),
                lambda pair: {"own": pair[0], "other": pair[1]},
                lambda kept: (kept["own"], kept["other"]),
                lambda move=move: [self.net.hash, bed.tokens.ids, move.vector, move.far, others],
            )
            values, means = sign * (base - own) / unit, (sign * (base - other) / unit).mean(1)
            p = max(_share(values.mean(), kind) for kind in np.array_split(means, 2))
            share = mean_of(values, bed.clusters)
            effects.append(MoveEffect(move.name, move.along, None, share, means, p, gap, firm))
            self.work.step("moving", len(effects), total)
        for done, along in enumerate(alongs, len(moves) + 1):
            steps = torch.stack([(s * along.gap * along.vector)[None] for s in strengths])
            for strength, after in zip(strengths, self.metric(steps), strict=True):
                change = mean_of((after - base) / unit, bed.clusters)
                effects.append(MoveEffect("add", along.name, strength, change, np.zeros(0), 1.0, gap, firm))
            self.work.step("moving", done, total)
        return effects


def _share(value: float, others: np.ndarray) -> float:
    """Share of others, counting the value itself, that are as far from zero."""
    return float((1 + (np.abs(others) >= abs(value)).sum()) / (len(others) + 1))


def _gap(base: np.ndarray, bed: Bed) -> Estimate:
    """Mean metric of class 1 minus that of class 0, with its interval."""
    one = bed.classes.numpy().astype(float)

    def statistic(w: np.ndarray) -> np.ndarray:
        high, low = (w * one).sum(1), (w * (1 - one)).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return ((w @ (one * base)) / high - (w @ ((1 - one) * base)) / low)[:, None]

    return statistic_of(statistic, bed.n, bed.clusters, 500)[0]
