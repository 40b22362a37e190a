"""What a place must reach before it is said to carry a variable, fixed before anything is looked at, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials.limits import COUNT, SHARE, FixedLimits


@dataclass(frozen=True)
class CarriedLimits(FixedLimits):
    """The limits of `carried`. Shares are of the effect of exchanging the variable itself: 0 nothing, 1 as if it had been.

    Attributes:
        stands_out: on discovery pairs, a place with at least this share is tested on held-out pairs: less says little of
            where a variable is, and many parts do a little.
        carries: on held-out pairs, the whole interval of a place's share must lie above this.
        nothing: of another variable, the whole interval must lie between minus this and this, for a place to carry the one
            variable alone.
        most: so many places of each variable are tested, those with the largest shares.
        alpha: of the tests, corrected for all places and variables.
        shuffled: how often values are shuffled between pairs.
        shuffled_found: in at most so many of these may any place stand out.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "stands_out": SHARE, "carries": SHARE, "nothing": SHARE, "most": (1, COUNT[1]), "alpha": SHARE,
        "shuffled": COUNT, "shuffled_found": COUNT,
    }  # fmt: skip

    stands_out: float = 0.10
    carries: float = 0.20
    nothing: float = 0.10
    most: int = 8
    alpha: float = 0.05
    shuffled: int = 10
    shuffled_found: int = 1
