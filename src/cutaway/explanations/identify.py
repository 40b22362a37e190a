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
        return {
            "action": self.action,
            "members": [str(m) for m in self.members],
            "kept": self.kept,
            "left": self.left,
        }

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
        return cls(
            tuple(map(Part.parse, data["core"])),
            tuple(map(Part.parse, data["backup"])),
            data["components_in_all"],
            data["discovery"]["kept"],
            data["discovery"]["left"],
            {Part.parse(name): loss for name, loss in data["loss_without"].items()},
            tuple(map(SearchStep.from_dict, data["steps"])),
        )

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
    kept = float(bench.scale.shares(bench.keep_only([members]))[0])
    left = float(bench.scale.shares(bench.remove([members]))[0])
    without = bench.scale.shares(
        bench.keep_only([[m for m in members if m != gone] for gone in members], "weighing members")
    )
    loss = {member: kept - float(share) for member, share in zip(members, without, strict=True)}
    return Mechanism(
        in_order(core),
        in_order(backup),
        len(order),
        kept,
        left,
        loss,
        tuple(steps),
    )


def _start(bench: Bench, order: Sequence[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """The shortest beginning of the ranking that reaches the target (all components keep everything, so one does)."""
    beginnings = [order[:size] for size in range(1, len(order) + 1)]
    shares = bench.scale.shares(bench.keep_only(beginnings, "growing the set"))
    good = np.flatnonzero(fit(shares) >= limits.target)
    size = int(good[0]) + 1 if len(good) else len(order)
    chosen = list(order[:size])
    steps.append(
        SearchStep(f"start with the {size} strongest single effects", tuple(chosen), float(shares[size - 1]))
    )
    return chosen


def _drop(bench: Bench, members: list[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """Drop members while the rest reaches the target; many at once as long as that holds."""
    while len(members) > 1:
        singly = fit(
            bench.scale.shares(
                bench.keep_only([[m for m in members if m != gone] for gone in members], "dropping")
            )
        )
        cheapest = [members[i] for i in np.argsort(-singly, kind="stable")]
        smaller = [[m for m in members if m not in cheapest[:size]] for size in range(1, len(members))]
        shares = bench.scale.shares(bench.keep_only(smaller, "dropping"))
        good = np.flatnonzero(fit(shares) >= limits.target)
        if not len(good):
            break
        members = smaller[int(good[-1])]
        steps.append(
            SearchStep(
                f"drop {listing(cheapest[: int(good[-1]) + 1])}", tuple(members), float(shares[good[-1]])
            )
        )
    return members


def _back_up(bench: Bench, core: list[Part], limits: SearchLimits, steps: list[SearchStep]) -> list[Part]:
    """Add what stands in for the core until its removal leaves little, up to the size at which a set explains nothing."""
    added: list[Part] = []
    left = float(bench.scale.shares(bench.remove([core]))[0])
    cap = int(limits.largest * len(bench.parts))
    while left > limits.left_target and len(core) + len(added) < cap:
        rest = [c for c in bench.parts if c not in core and c not in added]
        shares = bench.scale.shares(
            bench.remove([[*core, *added, extra] for extra in rest], "looking for backup")
        )
        best = int(np.argmin(shares))
        if shares[best] > left - _WORTH_ADDING:
            break
        added.append(rest[best])
        left = float(shares[best])
        kept = float(bench.scale.shares(bench.keep_only([[*core, *added]]))[0])
        steps.append(
            SearchStep(
                f"add {rest[best].words}, which stands in when the others are gone",
                (*core, *added),
                kept,
                left,
            )
        )
    return added
