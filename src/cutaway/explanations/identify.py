"""Find a small set of components that carries a behaviour, on discovery data only.

Three steps, all deterministic:

1. *Start.* Components are ranked by the larger of their two single effects (restoring, corrupting). The shortest
   beginning of that list is taken that, kept alone, holds the metric near its clean value. A part that only works
   together with another one is found that way, too: both lose much when corrupted.
2. *Drop.* Members are dropped, those first whose loss costs least, until none can go without falling below the target.
3. *Back up.* If the behaviour survives the removal of the set, other components stand in for it. They are added, the
   one that lowers the remainder most first, until little is left.

The result is small and irreducible (no single member can go), not proven to be the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.explanations.bench import Bench
from cutaway.explanations.thresholds import Thresholds
from cutaway.network.parts import Part, in_order, listing

_WORTH_ADDING = 0.02


@dataclass(frozen=True)
class Step:
    """One step of the search: what was done, and the share that the set then keeps alone and leaves when removed."""

    action: str
    members: tuple[Part, ...]
    kept: float
    left: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "action": self.action,
            "members": [m.words for m in self.members],
            "kept": self.kept,
            "left": self.left,
        }


@dataclass(frozen=True)
class Mechanism:
    """The set that was found.

    Attributes:
        core: members needed to keep the behaviour.
        backup: members added because the behaviour survived without the core.
        total: number of components of the network.
        kept, left: shares on discovery data with only / without the whole set.
        loss: member -> what the set loses, kept alone without it (discovery data).
        steps: how it was found.
    """

    core: tuple[Part, ...]
    backup: tuple[Part, ...]
    total: int
    kept: float
    left: float
    loss: Mapping[Part, float]
    steps: tuple[Step, ...]

    @property
    def members(self) -> tuple[Part, ...]:
        """Core and backup, in forward order."""
        return in_order((*self.core, *self.backup))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "core": [m.words for m in self.core],
            "backup": [m.words for m in self.backup],
            "components_in_all": self.total,
            "discovery": {"kept": self.kept, "left": self.left},
            "loss_without": {m.words: loss for m, loss in self.loss.items()},
            "steps": [step.to_dict() for step in self.steps],
        }

    def __str__(self) -> str:
        return f"{listing(self.members)} ({len(self.members)} of {self.total})"


def fit(shares: np.ndarray) -> np.ndarray:
    """How near a share is to the whole: 1 at 1, less on either side.

    >>> fit(np.array([0.9, 1.1, 0.0])).round(3).tolist()
    [0.9, 0.9, 0.0]
    """
    return 1.0 - np.abs(1.0 - shares)


def identify(bench: Bench, scores: Mapping[Part, float], thresholds: Thresholds) -> Mechanism:
    """Search a small set that carries the behaviour on this bench's data.

    Args:
        bench: discovery data.
        scores: component -> strength of its single effects.
        thresholds: target shares.
    """
    order = sorted(bench.components, key=lambda c: (-scores.get(c, 0.0), c.order))
    steps: list[Step] = []
    core = _start(bench, order, thresholds, steps)
    core = _drop(bench, core, thresholds, steps)
    backup = _back_up(bench, core, thresholds, steps)
    members = [*core, *backup]
    kept = float(bench.shares(bench.keep_only([members]))[0])
    left = float(bench.shares(bench.remove([members]))[0])
    without = bench.shares(
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


def _start(bench: Bench, order: Sequence[Part], thresholds: Thresholds, steps: list[Step]) -> list[Part]:
    """The shortest beginning of the ranking that reaches the target (all components keep everything, so one does)."""
    beginnings = [order[:size] for size in range(1, len(order) + 1)]
    shares = bench.shares(bench.keep_only(beginnings, "growing the set"))
    good = np.flatnonzero(fit(shares) >= thresholds.target)
    size = int(good[0]) + 1 if len(good) else len(order)
    chosen = list(order[:size])
    steps.append(
        Step(f"start with the {size} strongest single effects", tuple(chosen), float(shares[size - 1]))
    )
    return chosen


def _drop(bench: Bench, members: list[Part], thresholds: Thresholds, steps: list[Step]) -> list[Part]:
    """Drop members while the rest reaches the target; many at once as long as that holds."""
    while len(members) > 1:
        singly = fit(
            bench.shares(bench.keep_only([[m for m in members if m != gone] for gone in members], "dropping"))
        )
        cheapest = [members[i] for i in np.argsort(-singly, kind="stable")]
        smaller = [[m for m in members if m not in cheapest[:size]] for size in range(1, len(members))]
        shares = bench.shares(bench.keep_only(smaller, "dropping"))
        good = np.flatnonzero(fit(shares) >= thresholds.target)
        if not len(good):
            break
        members = smaller[int(good[-1])]
        steps.append(
            Step(f"drop {listing(cheapest[: int(good[-1]) + 1])}", tuple(members), float(shares[good[-1]]))
        )
    return members


def _back_up(bench: Bench, core: list[Part], thresholds: Thresholds, steps: list[Step]) -> list[Part]:
    """Add what stands in for the core until its removal leaves little, up to the size at which a set explains nothing."""
    added: list[Part] = []
    left = float(bench.shares(bench.remove([core]))[0])
    cap = int(thresholds.largest * len(bench.components))
    while left > thresholds.left_target and len(core) + len(added) < cap:
        rest = [c for c in bench.components if c not in core and c not in added]
        shares = bench.shares(bench.remove([[*core, *added, extra] for extra in rest], "looking for backup"))
        best = int(np.argmin(shares))
        if shares[best] > left - _WORTH_ADDING:
            break
        added.append(rest[best])
        left = float(shares[best])
        kept = float(bench.shares(bench.keep_only([[*core, *added]]))[0])
        steps.append(
            Step(f"add {rest[best]}, which stands in when the others are gone", (*core, *added), kept, left)
        )
    return added
