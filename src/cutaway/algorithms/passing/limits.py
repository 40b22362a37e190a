"""What must be reached before a variable is said to pass from one place to another, fixed beforehand, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials.limits import COUNT, SHARE, FixedLimits


@dataclass(frozen=True)
class PassingLimits(FixedLimits):
    """The limits of `passing`. Shares are of the effect of exchanging the variable itself.

    Attributes:
        passes: on held-out pairs, the whole interval of what passes from a sender to a receiver must lie above this: a
            tenth of what the variable does; less says little of the way that it takes.
        nothing: and for it to be said that nothing passes, between minus this and this.
        most: so many places of a variable are taken, those that bring most.
        alpha: of the tests, corrected for all edges of all variables.
        sham: so many other receivers of each kind of control are drawn for each edge.
        frames: the edge must be found, by its mean, in this share of the sentence frames.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "passes": SHARE, "nothing": SHARE, "most": (1, COUNT[1]), "alpha": SHARE, "sham": (0, 100), "frames": SHARE,
    }  # fmt: skip

    passes: float = 0.10
    nothing: float = 0.10
    most: int = 8
    alpha: float = 0.05
    sham: int = 3
    frames: float = 0.75
