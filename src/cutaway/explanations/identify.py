"""Find a small set of parts that carries a behaviour, on discovery data only.

Three steps, all deterministic:

1. *Start.* Parts are ranked by the larger of their two single effects (restoring, corrupting). The shortest
   beginning of that list is taken that, kept alone, holds the metric near its clean value. A part that only works
   together with another one is found that way, too: both lose much when corrupted. With hundreds of parts the beginnings
   that are tried lie a twentieth apart, and all those between the last that falls short and the first that does not.
2. *Drop.* Members are dropped, those first whose loss costs least, until none can go without falling below the target. Of
   hundreds they go in groups, which are halved where a group cannot go, until going through all of them drops hardly any.
3. *Back up.* If the behaviour survives the removal of the set, other parts stand in for it. They are added, the
   one that lowers the remainder most first, until little is left; of hundreds, the strongest are tried.

The result is small, not proven to be the smallest. Of up to a few hundred parts it is irreducible: no single member can go;
of more, `Mechanism.spare` names those that still could.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.explanations.limits import SearchLimits
from cutaway.network.listing import listing
from cutaway.network.parts import Part, in_order
from cutaway.results import brief
from cutaway.trials import Bench, PartSet
from cutaway.trials.trial import fit

_WORTH_ADDING = 0.02
#: With more sets than this, or more parts to add, not every one is tried.
_ALL = 256
_SPACING = 1.05
_POOL = 64
#: Going through hundreds of members again is not worth it where the last time dropped a smaller share of them.
_WORTH_A_PASS = 0.05


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


def identify(bench: Bench, scores: Mapping[Part, float], limits: SearchLimits) -> Mechanism:
    """Search a small set that carries the behaviour on this bench's data.

    Args:
        bench: discovery data.
        scores: part -> strength of its single effects.
        limits: target shares.
    """
    order = sorted(bench.parts, key=lambda part: (-scores.get(part, 0.0), part.order))
    steps: list[SearchStep] = []
    core = _start(bench, order, limits, steps)
    core = _drop(bench, core, limits, steps)
    backup = _back_up(bench, core, order, limits, steps)
    members = [*core, *backup]
    kept, left = float(_kept(bench, [members])[0]), float(_left(bench, [members])[0])
    without = _kept(bench, _each_gone(members), "weighing members")
    loss = {member: kept - float(share) for member, share in zip(members, without, strict=True)}
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


def _start(bench: Bench, order: Sequence[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """The shortest beginning of the ranking that reaches the target (all components keep everything, so one does)."""
    beginnings = [order[:size] for size in range(1, len(order) + 1)]
    found = _smallest(bench, beginnings, limits)
    start = order if found is None else beginnings[found]
    share = float(_kept(bench, [start])[0])
    steps.append(SearchStep(f"start with the {len(start)} strongest single effects", tuple(start), share))
    return list(start)


def _smallest(bench: Bench, growing: Sequence[Sequence[Part]], limits: SearchLimits) -> int | None:
    """Which is the first of some growing sets that reaches the target, of those that are tried; None where none does."""
    label, tried = "growing the set", _spaced(len(growing))
    good = np.flatnonzero(fit(_kept(bench, [growing[i] for i in tried], label)) >= limits.target)
    if not len(good):
        return None
    first = tried[good[0]]
    between = list(range(tried[good[0] - 1] + 1 if good[0] else 0, first))
    if between:
        sooner = np.flatnonzero(fit(_kept(bench, [growing[i] for i in between], label)) >= limits.target)
        first = between[sooner[0]] if len(sooner) else first
    return first


def _spaced(n: int) -> list[int]:
    """The numbers below n: all of a few hundred; of more, ever wider apart, the last among them.

    >>> _spaced(3), len(_spaced(1000)), _spaced(1000)[-1]
    ([0, 1, 2], 112, 999)
    """
    if n <= _ALL:
        return list(range(n))
    numbers = [0]
    while numbers[-1] < n - 1:
        numbers.append(min(n - 1, max(numbers[-1] + 1, int(numbers[-1] * _SPACING))))
    return numbers


def _drop(bench: Bench, members: list[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """Drop members while the rest reaches the target; many at once as long as that holds."""
    many = len(bench.parts) > _ALL
    while len(members) > 1:
        singly = fit(_kept(bench, _each_gone(members), "dropping"))
        cheapest = [members[i] for i in np.argsort(-singly, kind="stable")]
        spare = cheapest[: int((singly >= limits.target).sum())]
        rest = (
            _without_groups(bench, members, spare, limits)
            if many
            else _without_prefix(bench, members, cheapest, limits)
        )
        gone = set(members) - set(rest)
        if not gone:
            break
        hardly_any = many and len(gone) < _WORTH_A_PASS * len(members)
        members = rest
        steps.append(SearchStep(f"drop {listing(gone)}", tuple(members), float(_kept(bench, [members])[0])))
        if hardly_any:
            break
    return members


def _without_prefix(
    bench: Bench, members: list[Part], cheapest: Sequence[Part], limits: SearchLimits
) -> list[Part]:
    """The members without as many of the cheapest as can go together."""
    smaller = [[m for m in members if m not in cheapest[:size]] for size in range(1, len(members))]
    good = np.flatnonzero(fit(_kept(bench, smaller, "dropping")) >= limits.target)
    return smaller[good[-1]] if len(good) else members


def _without_groups(
    bench: Bench, members: list[Part], cheapest: Sequence[Part], limits: SearchLimits
) -> list[Part]:
    """The members without all that can go in one pass from the cheapest on, in groups that halve where one cannot go and
    double where it can: about as many sets as members, instead of the square of that.
    """
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
    pool = bench.parts if len(bench.parts) <= _ALL else [part for part in order if part not in core][:_POOL]
    while left > limits.left_target and len(core) + len(added) < cap:
        rest = [c for c in pool if c not in core and c not in added]
        if not rest:
            break
        shares = _left(bench, [[*core, *added, extra] for extra in rest], "looking for backup")
        best = int(np.argmin(shares))
        if shares[best] > left - _WORTH_ADDING:
            break
        added.append(rest[best])
        left = float(shares[best])
        kept = float(_kept(bench, [[*core, *added]])[0])
        action = f"add {rest[best].words}, which stands in when the others are gone"
        steps.append(SearchStep(action, (*core, *added), kept, left))
    return added
