"""Standing in for another part: doing more while that one is ablated than while it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.algorithms.roles.acting import RoleActs, RoleLost
from cutaway.algorithms.roles.candidates import BACKUP, RoleCandidate
from cutaway.algorithms.roles.half import RoleHalf
from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.weights import RoleWeights
from cutaway.network.parts import Part
from cutaway.statistics import Estimate, mean_of


@dataclass(frozen=True, eq=False)
class StandingIn:
    """Heads ablated alone and two at a time on the pairs of one variable: cells of a sweep.

    Attributes:
        alone: the cell of each head.
        both: the cell of two heads.
    """

    alone: dict[Part, int]
    both: dict[frozenset[Part], int]

    @classmethod
    def enter(cls, acts: RoleActs, pairs: Sequence[tuple[Part, Part]]) -> StandingIn:
        """Enter the ablations of these pairs of parts."""
        every = dict.fromkeys(part for pair in pairs for part in pair)
        both = {frozenset(pair): acts.ablated(*pair) for pair in pairs}
        return cls({part: acts.ablated(part) for part in every}, both)

    def more(self, lost: RoleLost, part: Part, other: Part) -> np.ndarray:
        """[n] how much more is lost without a part while the other is ablated than while it is not."""
        shares = lost.shares
        return (
            shares[self.both[frozenset((part, other))]] - shares[self.alone[part]] - shares[self.alone[other]]
        )


def pairs_among(parts: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Every two heads, each once."""
    heads = [part for part in parts if part.kind == "head"]
    return [(one, other) for i, one in enumerate(heads) for other in heads[i + 1 :]]


def backups_by_score(
    half: RoleHalf, standing: StandingIn, lost: RoleLost, parts: Sequence[Part], limits: RoleLimits
) -> list[RoleCandidate]:
    """The heads that do more while another, no later one, is ablated; of several the one for which that is most."""
    heads = [part for part in parts if part.kind == "head"]
    found = []
    for part in heads:
        more = {
            o: standing.more(lost, part, o)
            for o in heads
            if o != part and (o.layer or 0) <= (part.layer or 0)
        }
        if not more or any(np.isnan(values).any() for values in more.values()):
            continue
        best = max(more, key=lambda other: float(more[other].mean()))
        rest = [values for other, values in more.items() if other != best]
        beside = np.mean(rest, 0) if rest else np.zeros(half.n)
        if more[best].mean() < limits.backup or not _above(more[best] - beside):
            continue
        unit = f"of the effect is lost without it beyond what is lost while {best.words} is there"
        found.append(
            RoleCandidate(
                part, BACKUP, half, str(best), mean_of(more[best]), mean_of(beside), unit, best.words
            )
        )
    return found


def _above(values: np.ndarray) -> bool:
    mean = mean_of(values)
    return bool(mean.above(0.0)) or (float(np.ptp(values)) == 0 and mean.value > 0)


def alike_beside(
    weights: RoleWeights, part: Part, other: Part, parts: Sequence[Part]
) -> tuple[Estimate, float]:
    """Of other heads, the share that the part is less like than the one that it stands in for; and how like that is."""
    own = weights.alike(part, other)
    rest = [weights.alike(part, head) for head in parts if head.kind == "head" and head not in (part, other)]
    share = float(np.mean([own > one for one in rest])) if rest else 0.5
    return Estimate(share, None, len(rest)), own
