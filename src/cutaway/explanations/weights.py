"""How much a member of a set weighs: alone in the whole network, and within the set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cutaway.effects import Effects
from cutaway.explanations.identify import Mechanism
from cutaway.explanations.limits import SearchLimits
from cutaway.explanations.localise import single_effect
from cutaway.network.parts import Part

Weight = Literal["major", "minor", "redundant"]


def weight(maps: Mapping[str, Effects], mechanism: Mechanism, member: Part, limits: SearchLimits) -> Weight:
    """`major` where corrupting the member alone costs much; else `redundant` where the set misses it more than the whole
    network does (others stand in for it there), or `minor`.
    """
    cell = single_effect(maps, member, "corrupt")
    alone = abs(cell["mean"]) if cell is not None else 0.0
    if alone >= limits.minor:
        return "major"
    return "redundant" if mechanism.loss[member] - alone >= limits.minor else "minor"
