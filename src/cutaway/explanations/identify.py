"""Find a small set of parts that carries a behaviour, on discovery data only.

Three steps, all deterministic:

1. *Start.* Parts are ranked by the larger of their two single effects (restoring, corrupting). The shortest
   beginning of that list is taken that, kept alone, holds the metric near its clean value. A part that only works
   together with another one is found that way, too: both lose much when corrupted.
2. *Drop.* Members are dropped, those first whose loss costs least, until none can go without falling below the target.
3. *Back up.* If the behaviour survives the removal of the set, other parts stand in for it. They are added, the
   one that lowers the remainder most first, until little is left.

The result is small and irreducible (no single member can go), not proven to be the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.explanations.limits import SearchLimits
from cutaway.network.parts import Part, in_order, listing, parts_of
from cutaway.trials import Bench, PartSet
from cutaway.trials.trial import fit

if TYPE_CHECKING:
    from cutaway.network import Network

_WORTH_ADDING = 0.02


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

    @property
    def members(self) -> tuple[Part, ...]:
        """Core and backup, in forward order."""
        return in_order((*self.core, *self.backup))

    def candidate(self, net: Network) -> PartSet:
        """The whole set as a candidate of this network's parts."""
        return PartSet(self.members, parts_of(net))

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
    backup = _back_up(bench, core, limits, steps)
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
    shares = _kept(bench, beginnings, "growing the set")
    good = np.flatnonzero(fit(shares) >= limits.target)
    size = int(good[0]) + 1 if len(good) else len(order)
    action = f"start with the {size} strongest single effects"
    steps.append(SearchStep(action, tuple(order[:size]), float(shares[size - 1])))
    return list(order[:size])


def _drop(bench: Bench, members: list[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """Drop members while the rest reaches the target; many at once as long as that holds."""
    while len(members) > 1:
        singly = fit(_kept(bench, _each_gone(members), "dropping"))
        cheapest = [members[i] for i in np.argsort(-singly, kind="stable")]
        smaller = [[m for m in members if m not in cheapest[:size]] for size in range(1, len(members))]
        shares = _kept(bench, smaller, "dropping")
        good = np.flatnonzero(fit(shares) >= limits.target)
        if not len(good):
            break
        most = int(good[-1])
        members = smaller[most]
        dropped = listing(cheapest[: most + 1])
        steps.append(SearchStep(f"drop {dropped}", tuple(members), float(shares[most])))
    return members


def _back_up(bench: Bench, core: list[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """Add what stands in for the core until its removal leaves little, up to the size at which a set explains nothing."""
    added: list[Part] = []
    left = float(_left(bench, [core])[0])
    cap = int(limits.largest * len(bench.parts))
    while left > limits.left_target and len(core) + len(added) < cap:
        rest = [c for c in bench.parts if c not in core and c not in added]
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
