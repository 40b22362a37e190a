"""Parts whose effect grows when others are removed: looked for on discovery pairs, tested on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.algorithms.backups.limits import BackupLimits
from cutaway.algorithms.backups.removing import RemovalBench
from cutaway.effects.baselines import Resampling
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.statistics import Estimate, benjamini_hochberg, sign_flip_p


@dataclass(frozen=True, eq=False)
class Removed:
    """A part removed after others, in units of what all parts bring.

    Attributes:
        bench: on which.
        alone: metric [n] without the part.
        others: without the others.
        both: without all of these.
    """

    bench: RemovalBench
    alone: np.ndarray
    others: np.ndarray
    both: np.ndarray

    @property
    def _whole(self) -> np.ndarray:
        return self.bench.ends.clean.metric

    @property
    def before(self) -> Estimate:
        """What is lost without the part, nothing else being removed."""
        return self.bench.scale.difference(self._whole, self.alone)

    @property
    def after(self) -> Estimate:
        """What is lost by removing the part once the others are removed."""
        return self.bench.scale.difference(self.others, self.both)

    @property
    def back(self) -> Estimate:
        """What is lost by removing the others once the part is removed."""
        return self.bench.scale.difference(self.alone, self.both)

    @property
    def grows(self) -> Estimate:
        """By how much more is lost than before: 0 where what the two do adds up."""
        return self.bench.scale.difference(self.grown, np.zeros_like(self.grown))

    @property
    def grown(self) -> np.ndarray:
        """The same of each pair, in the metric's units [n]."""
        return self.others - self.both - self._whole + self.alone

    @property
    def lost_by_others(self) -> Estimate:
        """What is lost without the others."""
        return self.bench.scale.difference(self._whole, self.others)

    def stands_out(self, limits: BackupLimits) -> bool:
        """Are the three means as large as is asked for?"""
        return min(self.grows.value, self.after.value, self.back.value) >= limits.grows

    def p(self, seed: int) -> float:
        """Significance of the growth, uncorrected."""
        if not self.grown.any():
            return 1.0
        return float(sign_flip_p(self.grown, Resampling.of(self.bench.behaviour.template).signs, seed=seed))


@dataclass(frozen=True, eq=False)
class RemovalStep:
    """One step of removing part after part.

    Attributes:
        removed: the parts that are removed by now, in order.
        left: what is left without them.
        growing: the parts whose effect grew by that, the most first.
    """

    removed: tuple[Part, ...]
    left: Estimate
    growing: tuple[Part, ...]


def begin_with(singles: Mapping[str, np.ndarray], parts: Sequence[Part], limits: BackupLimits) -> list[Part]:
    """The parts with the largest effects, of whichever kind: those with half of what a growth must have, or the first one.

    singles: mean effects [parts] by kind.
    """
    size = np.max([np.abs(effect) for effect in singles.values()], axis=0)
    order = np.argsort(-size, kind="stable")[: int(limits.first)]
    return [parts[int(i)] for place, i in enumerate(order) if place == 0 or size[i] >= limits.grows / 2]


def removals(
    bench: RemovalBench, alone: Mapping[Part, np.ndarray], starts: Sequence[Part], limits: BackupLimits, seed: int,
    work: Work,
) -> tuple[list[list[RemovalStep]], dict[tuple[tuple[Part, ...], Part], Removed]]:  # fmt: skip
    """From each of these parts on, remove part after part: next the one whose effect grew most.

    It ends where no effect grows, the behaviour is lost, or so many are removed as the limits say.

    Returns the steps of each, and what stood out, by (removed, part), corrected for all parts tried in all first steps.
    """
    parts = list(alone)
    first: dict[tuple[Part, Part], Removed] = {}
    pairs = [(a, b) for a in starts for b in parts if b != a]
    both = bench.without([(a, b) for a, b in pairs], work, f"removing after removing ({bench.how})")
    for (a, b), value in zip(pairs, both, strict=True):
        first[a, b] = Removed(bench, alone[b], alone[a], value)
    q = dict(zip(first, benjamini_hochberg([one.p(seed) for one in first.values()]).tolist(), strict=True))
    standing: dict[tuple[tuple[Part, ...], Part], Removed] = {}
    chains = []
    for a in starts:
        found = [b for b in parts if b != a and first[a, b].stands_out(limits) and q[a, b] <= limits.alpha]
        found.sort(key=lambda b: -first[a, b].grows.value)
        standing |= {((a,), b): first[a, b] for b in found}
        steps = [RemovalStep((a,), bench.scale.share(alone[a]), tuple(found))]
        while found and len(steps[-1].removed) < limits.depth and steps[-1].left.value > limits.lost:
            now = (*steps[-1].removed, found[0])
            rest = [b for b in parts if b not in now]
            metric = bench.without([now, *((*now, b) for b in rest)], work, "removing part after part")
            tried = {
                b: Removed(bench, alone[b], metric[0], value)
                for b, value in zip(rest, metric[1:], strict=True)
            }
            told = benjamini_hochberg([one.p(seed) for one in tried.values()]).tolist()
            grown = [
                b
                for b, p in zip(tried, told, strict=True)
                if tried[b].stands_out(limits) and p <= limits.alpha
            ]
            found = sorted(grown, key=lambda b: -tried[b].grows.value)
            standing |= {(now, b): tried[b] for b in found}
            steps.append(RemovalStep(now, bench.scale.share(metric[0]), tuple(found)))
        chains.append(steps)
    return chains, standing


def once_each(
    standing: Mapping[tuple[tuple[Part, ...], Part], Removed], most: int
) -> list[tuple[tuple[Part, ...], Part]]:
    """What stood out, each set of parts once, the most grown first: of two orders the one whose part comes last.

    A part can stand in only for what is computed before it, or beside it.
    """
    best: dict[frozenset[Part], tuple[tuple[Part, ...], Part]] = {}
    for removed, part in standing:
        members = frozenset((*removed, part))
        if len(removed) == 1:
            removed, part = ((removed[0],), part) if removed[0].order <= part.order else ((part,), removed[0])
        best.setdefault(members, (removed, part))
    growth = {frozenset((*removed, part)): one.grows.value for (removed, part), one in standing.items()}
    return sorted(best.values(), key=lambda key: -growth[frozenset((*key[0], key[1]))])[:most]
