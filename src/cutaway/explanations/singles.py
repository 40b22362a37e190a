"""What each part does alone: restored in the corrupted run, corrupted in the clean one.

Of a network with few parts each is patched. Of one with many, a gradient says for every part what patching it would do
(two forward and two backward passes), and those that stand out are patched. The others are patched in groups: what moves
the metric by at most a hundredth of the gap together is dropped, the rest is patched, too (`groups`). A random sample of
what the groups let go is patched as well, and says how much they missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cutaway.effects import Effects
from cutaway.effects.question import Question
from cutaway.explanations.groups import SMALL, GroupTests, larger_effects, let_go
from cutaway.explanations.localise import key
from cutaway.explanations.sizes import Sizes
from cutaway.network.parts import Part, in_order
from cutaway.results import brief
from cutaway.statistics import Estimate, proportion
from cutaway.sweeps import CellState, CellValues
from cutaway.trials import Bench
from cutaway.trials.slopes import slopes


@dataclass(frozen=True)
class PartScreening:
    """Which parts were patched one by one, and what those that were not carry.

    Attributes:
        passed: parts that were patched because the gradient says that they matter.
        sampled: parts drawn at random from those that group tests let go, and patched as well.
        dropped: how many were not patched.
        cut: the least estimate of a part that passed, as a share of the gap.
        missed: share of the sampled parts that move the metric by more than a hundredth of the gap, with its interval.
        largest: the largest effect among the sampled parts, a share of the gap.
        n: pairs that this was measured on.
        estimates: part -> the larger of its two estimates.
        rescued: parts that the gradient would have dropped and that were patched, because no group with them was small.
        groups: how many groups were patched together, single parts among them; 0 in results of earlier versions, which
            trusted the gradient.
        restored: what all that were dropped bring back together, restored in the corrupted run, a share of the gap; None in
            results of earlier versions, as all that follows.
        lost: what is lost when they are corrupted together in the clean run.
        settled: did all groups of dropped parts that were to be tried move the metric by at most a hundredth of the gap?
    """

    passed: tuple[Part, ...]
    sampled: tuple[Part, ...]
    dropped: int
    cut: float
    missed: Estimate
    largest: float
    n: int
    estimates: Mapping[Part, float]
    rescued: tuple[Part, ...] = ()
    groups: int = 0
    restored: Estimate | None = None
    lost: Estimate | None = None
    settled: bool = False

    __repr__ = brief

    @property
    def sentence(self) -> str:
        """It in words."""
        told = (
            f"One gradient says for each of {len(self.estimates)} components what patching it would do. The "
            f"{len(self.passed)} strongest were patched on {self.n} pairs"
        )
        if self.restored is None or self.lost is None:
            return f"{told}, and {len(self.sampled)} others drawn at random: {self._sample}"
        rescued = f"{len(self.rescued)} had to be patched, too" if self.rescued else "that went for all"
        told += (
            f", the others in groups ({self.groups} were tried), to drop those that together move the metric by at most 1 % "
            f"of the gap: {rescued}."
        )
        if not self.dropped:
            return f"{told} None was dropped."
        told += (
            f" The {self.dropped} that were dropped bring back {_percent(self.restored)} of the gap together, and lose "
            f"{_percent(self.lost)} (on {self.restored.n} pairs)"
        )
        if not self.settled:
            told += "; there were not tests enough to make that, and what parts of them do together, small"
        if not self.sampled:
            return f"{told}."
        return (
            f"{told}. {len(self.sampled)} more, drawn at random, were patched to check that: {self._sample}"
        )

    @property
    def _sample(self) -> str:
        count = round(self.missed.value * len(self.sampled))
        moves = "move" if count > 1 else "moves"
        return (
            f"{count or 'none'} of these {moves} the metric by more than 1 % of the gap (at most "
            f"{100 * self.largest:.1f} %), so at most {100 * self.missed.ends(0.0)[1]:.0f} % of the {self.dropped} that "
            "were not patched may."
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        named = {name: [str(p) for p in getattr(self, name)] for name in _PARTS}
        figures = {name: e.to_dict() for name in _FIGURES if (e := getattr(self, name)) is not None}
        estimates = {str(part): value for part, value in self.estimates.items()}
        return vars(self) | named | figures | {"estimates": estimates}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PartScreening:
        """The inverse of `to_dict`; those of earlier versions know of no groups."""
        named = {name: tuple(map(Part.parse, data[name])) for name in _PARTS if name in data}
        figures = {name: Estimate.from_dict(data[name]) for name in _FIGURES if data.get(name) is not None}
        estimates = {Part.parse(name): value for name, value in data["estimates"].items()}
        return cls(**{**data, **named, **figures, "estimates": estimates})


_PARTS, _FIGURES = ("passed", "sampled", "rescued"), ("missed", "restored", "lost")


def _percent(share: Estimate) -> str:
    low, high = share.ends()
    return f"{100 * share.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def single_effects(bench: Bench, sizes: Sizes, seed: int, maps: dict[str, Effects]) -> PartScreening | None:
    """What every part does alone, restored and corrupted, and how the parts were screened (None where all were patched).

    bench: discovery data. maps: the effects are added here by the name of the site and the direction, those of restoring as
    soon as they are there. Cells of parts that were not patched are marked as not run.
    """
    few = bench.first(sizes.single)
    chosen, screening = list(bench.parts), None
    if len(bench.parts) > sizes.tried and (estimates := estimated(few)) is not None:
        screening = screened(bench, estimates, sizes, seed)
        chosen = [*screening.passed, *screening.rescued, *screening.sampled]
    for direction, run in (("restore", few.restore), ("corrupt", few.remove)):
        label = "restoring each part" if direction == "restore" else "corrupting each part"
        values = run([[part] for part in chosen], label)
        for site in dict.fromkeys(part.site.name for part in bench.parts if part.site is not None):
            maps[key(site, direction)] = _map(few, site, direction, chosen, values, seed)
    return screening if screening is None else _missed(few, screening)


def estimated(bench: Bench) -> dict[Part, float] | None:
    """For each part the larger of what two gradients say, restoring and corrupting it: mean size over pairs, in shares."""
    found = [slopes(bench, (), bench.parts, back) for back in (False, True)]
    if any(f is None for f in found):
        return None
    sizes = np.max([np.abs(f).mean(1) for f in found if f is not None], 0)
    return dict(zip(bench.parts, sizes.tolist(), strict=True))


def screened(bench: Bench, estimates: Mapping[Part, float], sizes: Sizes, seed: int) -> PartScreening:
    """Which parts are to be patched one by one, and what all others do together, on all of this bench's pairs.

    What the sample says (`missed`, `largest`) is left blank, as it is not patched yet.
    """
    few = bench.first(sizes.single)
    order = sorted(bench.parts, key=lambda part: (-estimates[part], part.order))
    passed, rest = order[: sizes.tried], order[sizes.tried :]
    drawn = [rest[i] for i in np.random.default_rng([seed, 11]).permutation(len(rest))]
    tests = GroupTests(bench, few, sizes.groups)
    found = let_go(tests, rest, drawn, sizes.sampled)
    return PartScreening(
        passed=in_order(passed),
        sampled=in_order(found.sampled),
        dropped=len(found.dropped),
        cut=estimates[passed[-1]],
        missed=Estimate(0.0, None, 0),
        largest=0.0,
        n=len(few.chosen),
        estimates=estimates,
        rescued=in_order(found.singly),
        groups=tests.tried,
        restored=bench.scale.share(bench.restore([found.dropped])[0]),
        lost=bench.scale.difference(bench.scale.whole, bench.remove([found.dropped])[0]),
        settled=found.settled,
    )


def _missed(bench: Bench, screening: PartScreening) -> PartScreening:
    """The same with what was missed: the effects of the sampled parts, by patching them."""
    if not screening.sampled:
        return screening
    effects = larger_effects(bench, [[part] for part in screening.sampled])
    missed = proportion(int((effects > SMALL).sum()), len(effects))
    return replace(screening, missed=missed, largest=float(effects.max()))


def _map(
    bench: Bench, site: str, direction: str, chosen: Sequence[Part], values: np.ndarray, seed: int
) -> Effects:
    """The effects of the parts at one site, as `patch` would give them; what was not patched is marked as not run."""
    rows = bench.chosen.tolist()
    pairs, ends = bench.behaviour.take(rows), bench.ends.take(rows)
    members = [part for part in bench.parts if part.site is not None and part.site.name == site]
    axis = members[0].row.axis
    dims: dict[str, list[int]] = {"layer": sorted({int(part.layer or 0) for part in members})}
    if axis:
        dims[axis] = sorted({int(part.index or 0) for part in members})
    shape = tuple(len(labels) for labels in dims.values())
    table = np.full((*shape, len(rows)), np.nan)
    states = np.full((*shape, len(rows)), CellState.ABSENT, np.int8)
    run = dict(zip(chosen, values, strict=True))
    for part in members:
        place = (
            dims["layer"].index(int(part.layer or 0)),
            *((dims[axis].index(int(part.index or 0)),) if axis else ()),
        )
        states[place] = CellState.RUN if part in run else CellState.NOT_RUN
        table[place] = run.get(part, np.nan)
    base = ends.corrupted if direction == "restore" else ends.clean
    question = Question(bench.net, pairs, ends, base, site, direction, dims, seed=seed)
    cells = int(np.prod(shape))
    return question.effects(CellValues(table.reshape(cells, -1), states.reshape(cells, -1), False))
