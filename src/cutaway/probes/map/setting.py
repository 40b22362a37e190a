"""What all fits to one label share, and the figures that are made of their held-out outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import Families, assign_folds, families
from cutaway.probes.data.permutations import ExchangeRule, permutations
from cutaway.probes.fits.cross_validation import HeldOut, cross_validate
from cutaway.probes.fits.kinds import Fitting, Labellings
from cutaway.probes.fits.scores import chance, score, weighted_score
from cutaway.probes.map.options import ProbeOptions
from cutaway.statistics import Estimate, Interval, statistic_of


@dataclass(frozen=True, eq=False)
class Setting:
    """One label's examples, how they are split, how their labels may be exchanged, and how probes are fitted to them.

    Every figure of a map comes from one setting, so that figures of different places, of controls and of rivals are of
    the same folds and the same resamples.

    Attributes:
        data: the labelled examples.
        options: how probing is done.
        seed: of folds, permutations and resamples.
        family: which examples belong together.
        folds: fold number of each example [n].
        drawn: family number of each example, in random order [n].
        permuted: exchanges of the labels [b n].
    """

    data: ProbeData
    options: ProbeOptions
    seed: int
    family: Families
    folds: np.ndarray
    drawn: np.ndarray
    permuted: np.ndarray

    @classmethod
    def of(cls, data: ProbeData, options: ProbeOptions, seed: int = 0) -> Setting:
        """Families, grouped folds and permutations for these data. Raises `BadInput` as `folds.assign_folds`."""
        family = families(data)
        rule = ExchangeRule.of(data.labels, family, options.folds)
        folds = assign_folds(data, family, options.folds, seed, rule.blind)
        drawn = np.random.default_rng(seed + 1).permutation(family.count)[family.of]
        permuted = permutations(data.labels, family, options.permutations, seed, rule, folds)
        return cls(data, options, seed, family, folds, drawn, permuted)

    def relabelled(self, labels: np.ndarray) -> Setting:
        """The same examples and folds, labelled otherwise."""
        return replace(self, data=self.data.with_labels(labels))

    @property
    def labels(self) -> Tensor:
        """The real labels [n] (or [n l])."""
        return torch.as_tensor(self.data.labels)

    def labellings(self, tasks: np.ndarray | None = None, most: int | None = None) -> Labellings:
        """The real labels, then the control tasks [k n ...], then the labels under each exchange (the first `most`)."""
        data, exchanges = self.data, self.permuted[:most]
        parts = [data.labels[None], *([] if tasks is None else [tasks])]
        parts += [data.labels[exchanges]] if len(exchanges) else []
        return Labellings(torch.as_tensor(np.concatenate(parts)), data.kind, data.n_classes)

    @property
    def real(self) -> Labellings:
        """The real labels alone."""
        return self.labellings(most=0)

    def held_out(
        self, features: Tensor, labellings: Labellings | None = None, fitting: Fitting | None = None
    ) -> HeldOut:
        """Held-out outputs of probes on features [n d], for the real labels or for several labellings at once."""
        fitting = fitting or self.options.fitting
        return cross_validate(features, labellings or self.real, self.folds, fitting, self.drawn)

    def baseline(self, table: Tensor | None) -> HeldOut | None:
        """The held-out outputs of a ridge probe on other features [n k]; None where there are none."""
        return None if table is None else self.held_out(table, fitting=Fitting(standardise=False))

    def score(self, outputs: Tensor) -> float:
        """The score of held-out outputs [n c]."""
        return float(score(self.data.kind, outputs, self.labels, self.data.n_classes))

    def figure(self, outputs: Tensor) -> Estimate:
        """The score of held-out outputs [n c], with its 95 % interval: bootstrap over families."""
        low, high = self.interval(outputs)
        return estimate(self.score(outputs), low, high, self.data.n)

    def interval(self, outputs: Tensor) -> tuple[float, float]:
        """The interval of `figure` alone."""
        _, low, high = self._resampled((outputs,), self.seed)
        return low, high

    def lead(self, outputs: Tensor, rival: Tensor) -> Estimate:
        """The score of held-out outputs [n c] minus that of a rival's, resampled for both alike.

        A rival that does worse than a constant guess is taken for one: to be worse than nothing is no credit to the other.
        """
        if self.score(rival) >= (least := self.chance):
            return estimate(*self._resampled((outputs, rival), self.seed + 1), self.data.n)
        value, low, high = self._resampled((outputs,), self.seed + 1)
        return estimate(value - least, low - least, high - least, self.data.n)

    @property
    def chance(self) -> float:
        """The score of a constant guess."""
        return chance(self.data.kind, self.data.n_classes)

    def _resampled(self, outputs: tuple[Tensor, ...], seed: int) -> tuple[float, float, float]:
        """Score (or difference of two scores) and the ends of its interval over families."""
        data, labels = self.data, self.labels

        def statistic(weights: np.ndarray) -> np.ndarray:
            drawn = torch.from_numpy(weights)
            scores = [weighted_score(data.kind, o, labels, drawn, data.n_classes) for o in outputs]
            return (scores[0] if len(scores) == 1 else scores[0] - scores[1])[:, None]

        scale = "share" if len(outputs) == 1 and data.kind != "continuous" else "any"
        drawn = statistic_of(statistic, data.n, self.family.of, self.options.n_boot, seed, scale=scale)
        return float(drawn.value[0]), float(drawn.low[0]), float(drawn.high[0])


def estimate(value: float, low: float, high: float, n: int) -> Estimate:
    """A figure with its cluster-bootstrap interval; none where that is not a number."""
    interval = None if low != low else Interval(low, high, 0.95, "cluster bootstrap")
    return Estimate(value, interval, n)
