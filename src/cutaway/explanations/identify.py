"""Find a small set of parts that carries a behaviour, on discovery data only.

Three steps, all deterministic:

1. *Start.* Parts are ranked by the larger of their two single effects (restoring, corrupting). A beginning of that list is
taken that, kept alone, holds the metric near its clean value: of lengths that double the first that does, made shorter by
halving. A part that only works together with another one is found that way, too: both lose much when corrupted.
2. *Drop.* One gradient, taken while all others are replaced, says what the set would lose without each member. As many of
the cheapest go as can go together, found by halving; that is repeated, and then every member is tried by itself, until none
can go without falling below the target.
3. *Back up.* If the behaviour survives the removal of the set, other parts stand in for it. A gradient, taken while the set
is replaced, says which; the likeliest are tried by themselves and together, and added until little is left.

What a gradient says decides only in which order sets are tried: each set that is kept was run. The result is small, not
proven to be the smallest. Of up to `_WEIGHED` members it is irreducible: no single member can go; of more, members were
weighed in groups, and `Mechanism.spare` names those that still could.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.explanations.limits import SearchLimits
from cutaway.network.listing import listing
from cutaway.network.parts import Part, in_order
from cutaway.results import brief
from cutaway.trials import Bench, PartSet
from cutaway.trials.slopes import slopes
from cutaway.trials.trial import fit

_WORTH_ADDING = 0.02
#: Members up to which each is tried by itself; of more, groups are, and each is weighed on fewer pairs.
_WEIGHED = 48
#: More members are weighed on so few pairs that it takes about as many runs of a pair as this, but on four at least.
_RUNS, _FEWEST = 1024, 4
#: Parts that are tried as backup at once, the likeliest by a gradient.
_TRIED = 8


@dataclass(frozen=True)
class SearchStep:
    """One step of the search.

    Attributes:
        action: what was done.
        members: the set after it.
        kept: the share that it then keeps alone.
        left: the share that is left when it is removed; None where that was not tried.
    """

    action: str
    members: tuple[Part, ...]
    kept: float
    left: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"members": [str(m) for m in self.members]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SearchStep:
        """The inverse of `to_dict`."""
        return cls(data["action"], tuple(map(Part.parse, data["members"])), data["kept"], data["left"])


@dataclass(frozen=True)
class Mechanism:
    """The set that was found.

    Attributes:
        core: members needed to keep the behaviour.
        backup: members added because the behaviour survived without the core.
        total: number of parts of the network.
        kept: share on discovery data with only the whole set.
        left: share on discovery data without it.
        loss: member -> what the set loses, kept alone without it (discovery data).
        steps: how it was found.
    """

    core: tuple[Part, ...]
    backup: tuple[Part, ...]
    total: int
    kept: float
    left: float
    loss: Mapping[Part, float]
    steps: tuple[SearchStep, ...]

    __repr__ = brief

    @property
    def members(self) -> tuple[Part, ...]:
        """Core and backup, in forward order."""
        return in_order((*self.core, *self.backup))

    def spare(self, target: float) -> tuple[Part, ...]:
        """Members of which each alone could go, the rest still reaching the target on discovery data."""
        after = {member: self.kept - self.loss[member] for member in self.members if len(self.members) > 1}
        return tuple(
            m for m, share in after.items() if fit(np.array(share)) >= target and m not in self.backup
        )

    def candidate(self, everything: Sequence[Part]) -> PartSet:
        """The whole set as a candidate among everything that could have been in it."""
        return PartSet(self.members, tuple(everything))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "core": [str(m) for m in self.core],
            "backup": [str(m) for m in self.backup],
            "components_in_all": self.total,
            "discovery": {"kept": self.kept, "left": self.left},
            "loss_without": {str(m): loss for m, loss in self.loss.items()},
            "steps": [step.to_dict() for step in self.steps],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Mechanism:
        """The inverse of `to_dict`; names of the version before (`head 3.1`) are understood, too."""
        core, backup = (tuple(map(Part.parse, data[name])) for name in ("core", "backup"))
        kept, left = data["discovery"]["kept"], data["discovery"]["left"]
        loss = {Part.parse(name): loss for name, loss in data["loss_without"].items()}
        steps = tuple(map(SearchStep.from_dict, data["steps"]))
        return cls(core, backup, data["components_in_all"], kept, left, loss, steps)

    def __str__(self) -> str:
        return f"{listing(self.members)} ({len(self.members)} of {self.total})"


def identify(
    bench: Bench, scores: Mapping[Part, float], limits: SearchLimits, few: int | None = None
) -> Mechanism:
    """Search a small set that carries the behaviour on this bench's data.

    Args:
        bench: discovery data.
        scores: part -> strength of its single effects.
        limits: target shares.
        few: search on so many examples first; only where what is found misses a target on all of them is the search gone on
            with on all, from there.
    """
    some = bench if few is None else bench.first(few)
    found = _searched(some if some.scale.told else bench, scores, limits)
    if len(some.chosen) == len(bench.chosen) or not some.scale.told:
        return found
    kept, left = float(_kept(bench, [found.members])[0]), float(_left(bench, [found.members])[0])
    if fit(np.array(kept)) >= limits.target and (
        left <= limits.left_target or found.left > limits.left_target
    ):
        return found
    return _searched(bench, scores, limits, found)


def _searched(
    bench: Bench, scores: Mapping[Part, float], limits: SearchLimits, begun: Mechanism | None = None
) -> Mechanism:
    """The search on this bench's examples; begun: from a set that was found on fewer."""
    order = sorted(bench.parts, key=lambda part: (-scores.get(part, 0.0), part.order))
    steps: list[SearchStep] = []
    if begun is not None:
        steps += begun.steps
        order = [*begun.members, *(part for part in order if part not in set(begun.members))]
    core = _start(bench, order, limits, steps, 1 if begun is None else len(begun.members))
    core = _drop(bench, core, limits, steps)
    backup = _back_up(bench, core, order, limits, steps)
    members = [*core, *backup]
    kept, left = float(_kept(bench, [members])[0]), float(_left(bench, [members])[0])
    some = bench if len(members) <= _WEIGHED else bench.first(max(_FEWEST, _RUNS // len(members)))
    without = _kept(some, _each_gone(members), "weighing members")
    whole = float(_kept(some, [members])[0])
    loss = {member: whole - float(share) for member, share in zip(members, without, strict=True)}
    return Mechanism(in_order(core), in_order(backup), len(order), kept, left, loss, tuple(steps))


def _kept(bench: Bench, sets: Sequence[Sequence[Part]], label: str = "keeping sets") -> np.ndarray:
    """The share that each set keeps alone."""
    return bench.scale.shares(bench.keep_only(sets, label))


def _left(bench: Bench, sets: Sequence[Sequence[Part]], label: str = "removing sets") -> np.ndarray:
    """The share that is left without each set."""
    return bench.scale.shares(bench.remove(sets, label))


def _each_gone(members: Sequence[Part]) -> list[list[Part]]:
    """For each member the others."""
    return [[m for m in members if m != gone] for gone in members]


def _halving(good: Callable[[Sequence[int]], np.ndarray], most: int) -> int | None:
    """The least of 1 .. most that is good, of those that are tried: numbers that double, then halves of what is between.

    good: says of several numbers at once whether they are; None is returned where none of those that double, or `most`, is.

    >>> _halving(lambda sizes: np.array(sizes) >= 11, 40), _halving(lambda sizes: np.array(sizes) > 99, 40)
    (11, None)
    """
    tried = [*(1 << k for k in range(most.bit_length()) if 1 << k < most), most]
    hits = np.flatnonzero(good(tried))
    if not len(hits):
        return None
    low, high = (tried[hits[0] - 1] if hits[0] else 0), tried[hits[0]]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bool(good([middle])[0]) else (middle, high)
    return high


def _start(
    bench: Bench, order: Sequence[Part], limits: SearchLimits, steps: list[SearchStep], least: int = 1
) -> list[Part]:
    """A short beginning of the ranking, of at least so many, that reaches the target (all parts keep everything, so one
    does).
    """
    before = least - 1

    def reaches(sizes: Sequence[int]) -> np.ndarray:
        return (
            fit(_kept(bench, [order[: before + size] for size in sizes], "growing the set")) >= limits.target
        )

    start = order[: before + (_halving(reaches, len(order) - before) or len(order))]
    share = float(_kept(bench, [start])[0])
    said = f"start with the {len(start)} strongest single effects"
    if before:
        said = f"on all pairs, add the {len(start) - least} strongest of the others"
    if len(start) > before + 1 or not before:
        steps.append(SearchStep(said, tuple(start), share))
    return list(start)


def _drop(bench: Bench, members: list[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """Drop members while the rest reaches the target; many at once as long as that holds."""
    while len(members) > 1:
        rest = _without_cheapest(bench, members, limits)
        if rest is None:
            rest = _without_groups(bench, members, limits)
        gone = set(members) - set(rest)
        if not gone:
            break
        members = rest
        steps.append(SearchStep(f"drop {listing(gone)}", tuple(members), float(_kept(bench, [members])[0])))
    return members


def _without_cheapest(bench: Bench, members: list[Part], limits: SearchLimits) -> list[Part] | None:
    """The members without as many of the cheapest, by a gradient, as can go together; None where not even one can so."""
    outside = [part for part in bench.parts if part not in set(members)]
    found = slopes(bench, outside, members)
    if found is None:
        return None
    cheapest = [members[i] for i in np.argsort(np.abs(found.mean(1)), kind="stable")]
    rests = [[m for m in members if m not in set(cheapest[:size])] for size in range(len(members))]

    def fails(sizes: Sequence[int]) -> np.ndarray:
        return fit(_kept(bench, [rests[size] for size in sizes], "dropping")) < limits.target

    first = _halving(fails, len(members) - 1)
    can = len(members) - 1 if first is None else first - 1
    return rests[can] if can else None


def _without_groups(bench: Bench, members: list[Part], limits: SearchLimits) -> list[Part]:
    """The members without all that can go in one pass from the cheapest on, in groups that halve where one cannot go and
    double where it can. Of up to `_WEIGHED` members each is tried by itself first, and only those go that can.
    """
    some = bench if len(members) <= _WEIGHED else bench.first(max(_FEWEST, _RUNS // len(members)))
    singly = fit(_kept(some, _each_gone(members), "dropping"))
    order = [members[i] for i in np.argsort(-singly, kind="stable")]
    cheapest = order[: int((singly >= limits.target).sum())]
    first, size = 0, max(1, len(cheapest) // 2)
    while first < len(cheapest):
        group = set(cheapest[first : first + size])
        rest = [m for m in members if m not in group]
        label = f"dropping, {len(members)} left"
        if rest and fit(_kept(bench, [rest], label))[0] >= limits.target:
            members, first, size = rest, first + size, 2 * size
        elif size > 1:
            size //= 2
        else:
            first += 1
    return members


def _back_up(
    bench: Bench, core: list[Part], order: Sequence[Part], limits: SearchLimits, steps: list[SearchStep]
) -> list[Part]:
    """Add what stands in for the core until its removal leaves little, up to the size at which a set explains nothing."""
    added: list[Part] = []
    left = float(_left(bench, [core])[0])
    cap = int(limits.largest * len(bench.parts))
    while left > limits.left_target and len(core) + len(added) < cap:
        likely = _likeliest(bench, [*core, *added], order)[: min(_TRIED, cap - len(core) - len(added))]
        if not likely:
            break
        shares = _left(bench, [[*core, *added, extra] for extra in likely], "looking for backup")
        ranked = [likely[i] for i in np.argsort(shares, kind="stable")]
        growing = [ranked[:size] for size in range(1, len(ranked) + 1)]
        if shares.min() <= limits.left_target:
            growing = growing[:1]
        together = _left(bench, [[*core, *added, *some] for some in growing], "looking for backup")
        reach = np.flatnonzero(together <= limits.left_target)
        best = int(reach[0]) if len(reach) else int(np.argmin(together))
        if together[best] > left - _WORTH_ADDING:
            break
        added += growing[best]
        left = float(together[best])
        kept = float(_kept(bench, [[*core, *added]])[0])
        stand = "which stands in when the others are" if best == 0 else "which stand in when the others are"
        steps.append(SearchStep(f"add {listing(growing[best])}, {stand} gone", (*core, *added), kept, left))
    return added


def _likeliest(bench: Bench, gone: Sequence[Part], order: Sequence[Part]) -> list[Part]:
    """The other parts, those first of which a gradient says that the metric falls most without them, too."""
    rest = [part for part in order if part not in set(gone)]
    found = slopes(bench, gone, rest) if rest else None
    return rest if found is None else [rest[i] for i in np.argsort(found.mean(1), kind="stable")]
