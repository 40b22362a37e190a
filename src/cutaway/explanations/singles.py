"""What each part does alone: restored in the corrupted run, corrupted in the clean one.

Of a network with few parts each is patched. Of one with many, a gradient says for every part what patching it would do
(two forward and two backward passes); those that stand out are patched, and so is a random sample of the others, which says
how much the gradient missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.effects import Effects
from cutaway.effects.question import Question
from cutaway.explanations.localise import key
from cutaway.explanations.sizes import Sizes
from cutaway.network.parts import Part, in_order
from cutaway.results import brief
from cutaway.statistics import Estimate, proportion
from cutaway.sweeps import CellState, CellValues
from cutaway.trials import Bench
from cutaway.trials.slopes import slopes

#: A part that was not patched is missed where patching it moves the metric by more than this share of the gap.
MISSED = 0.01


@dataclass(frozen=True)
class PartScreening:
    """Which parts a gradient let through, and what that missed.

    Attributes:
        passed: parts that were patched because the gradient says that they matter.
        sampled: parts drawn at random from the others, and patched as well.
        dropped: how many were not patched.
        cut: the least estimate of a part that passed, as a share of the gap.
        missed: share of the sampled parts that move the metric by more than a hundredth of the gap, with its interval.
        largest: the largest effect among the sampled parts, a share of the gap.
        n: pairs that this was measured on.
        estimates: part -> the larger of its two estimates.
    """

    passed: tuple[Part, ...]
    sampled: tuple[Part, ...]
    dropped: int
    cut: float
    missed: Estimate
    largest: float
    n: int
    estimates: Mapping[Part, float]

    __repr__ = brief

    @property
    def sentence(self) -> str:
        """It in words."""
        count = round(self.missed.value * len(self.sampled))
        return (
            f"One gradient says for each of {len(self.estimates)} components what patching it would do. The "
            f"{len(self.passed)} strongest were patched on {self.n} pairs, and {len(self.sampled)} others drawn at random: "
            f"{count or 'none'} of these moves the metric by more than 1 % of the gap (at most {100 * self.largest:.1f} %), "
            f"so at most {100 * self.missed.ends(0.0)[1]:.0f} % of the {self.dropped} that were not patched may."
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        named = {name: [str(p) for p in getattr(self, name)] for name in ("passed", "sampled")}
        estimates = {str(part): value for part, value in self.estimates.items()}
        return vars(self) | named | {"missed": self.missed.to_dict(), "estimates": estimates}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PartScreening:
        """The inverse of `to_dict`."""
        named = {name: tuple(map(Part.parse, data[name])) for name in ("passed", "sampled")}
        estimates = {Part.parse(name): value for name, value in data["estimates"].items()}
        return cls(**{**data, **named, "missed": Estimate.from_dict(data["missed"]), "estimates": estimates})


def single_effects(bench: Bench, sizes: Sizes, seed: int, maps: dict[str, Effects]) -> PartScreening | None:
    """What every part does alone, restored and corrupted, and how the parts were screened (None where all were patched).

    bench: discovery data. maps: the effects are added here by the name of the site and the direction, those of restoring as
    soon as they are there. Cells of parts that were not patched are marked as not run.
    """
    few = bench.first(sizes.single)
    chosen, screened = list(bench.parts), None
    if len(bench.parts) > sizes.tried and (estimates := estimated(few)) is not None:
        chosen, screened = _screened(few, estimates, sizes, seed)
    values = {}
    for direction, run in (("restore", few.restore), ("corrupt", few.remove)):
        label = "restoring each part" if direction == "restore" else "corrupting each part"
        values[direction] = run([[part] for part in chosen], label)
        for site in dict.fromkeys(part.site.name for part in bench.parts if part.site is not None):
            maps[key(site, direction)] = _map(few, site, direction, chosen, values[direction], seed)
    return None if screened is None else _missed(few, screened, chosen, values)


def estimated(bench: Bench) -> dict[Part, float] | None:
    """For each part the larger of what two gradients say, restoring and corrupting it: mean size over pairs, in shares."""
    found = [slopes(bench, (), bench.parts, back) for back in (False, True)]
    if any(f is None for f in found):
        return None
    sizes = np.max([np.abs(f).mean(1) for f in found if f is not None], 0)
    return dict(zip(bench.parts, sizes.tolist(), strict=True))


def _screened(
    bench: Bench, estimates: Mapping[Part, float], sizes: Sizes, seed: int
) -> tuple[list[Part], PartScreening]:
    order = sorted(bench.parts, key=lambda part: (-estimates[part], part.order))
    passed, rest = order[: sizes.tried], order[sizes.tried :]
    drawn = np.random.default_rng([seed, 11]).permutation(len(rest))[: sizes.sampled]
    sampled = [rest[i] for i in sorted(drawn.tolist())]
    left = len(rest) - len(sampled)
    cut = estimates[passed[-1]]
    blank = Estimate(0.0, None, 0)
    screening = PartScreening(
        in_order(passed), in_order(sampled), left, cut, blank, 0.0, len(bench.chosen), estimates
    )
    return [*passed, *sampled], screening


def _missed(
    bench: Bench, screened: PartScreening, chosen: Sequence[Part], values: Mapping[str, np.ndarray]
) -> PartScreening:
    """The same with what was missed: the effects of the sampled parts, by patching them."""
    at = [chosen.index(part) for part in screened.sampled]
    restored = bench.scale.shares(values["restore"][at])
    lost = 1.0 - bench.scale.shares(values["corrupt"][at])
    effects = np.maximum(np.abs(restored), np.abs(lost))
    largest = float(effects.max(initial=0.0))
    missed = proportion(int((effects > MISSED).sum()), len(at))
    return PartScreening(**(vars(screened) | {"missed": missed, "largest": largest}))


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
