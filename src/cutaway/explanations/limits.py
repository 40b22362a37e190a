"""What an explanation must reach, fixed before anything is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials import Limits
from cutaway.trials.limits import POSITIVE, SHARE


@dataclass(frozen=True)
class SearchLimits(Limits):
    """The limits of every trial, and the targets of the search for a set of parts.

    Attributes:
        target: on discovery data, members are dropped as long as the rest alone keeps the metric within `1 - target` of
            its clean value (too much counts like too little).
        left_target: on discovery data, parts are added until at most this share is left without the set.
        minor: a single effect below this share is small. A member with a small effect is redundant if the set loses that
            much more without it than the whole network does, else minor.
        q: significance of single effects, after Benjamini-Hochberg.
        operations: floating-point operations that one sweep over the channels of a network's maps may take; fewer pairs, or
            whole maps, are searched where it would take more. A sweep of this price takes about 15 seconds on one core.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = Limits.bounds | {
        "target": SHARE, "left_target": SHARE, "minor": SHARE, "q": SHARE, "operations": POSITIVE,
    }  # fmt: skip

    target: float = 0.85
    left_target: float = 0.15
    minor: float = 0.10
    q: float = 0.05
    operations: float = 4e11
