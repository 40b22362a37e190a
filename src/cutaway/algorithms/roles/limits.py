"""What a part must reach before a role is claimed of it, fixed before anything is looked at, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials.limits import COUNT, SHARE, FixedLimits


@dataclass(frozen=True)
class RoleLimits(FixedLimits):
    """The limits of `roles`. Shares are of the effect of exchanging a variable: 0 nothing, 1 as if it had been exchanged.

    Attributes:
        attends: the least mean attention to the places that a role is about; it must lie above that to other places, too.
            A head that shares its attention evenly among three places gives each a third.
        beyond: and above that by at least this: a head that looks everywhere alike looks at these, too.
        writes: on discovery pairs, the least share of a score that is an effect: what is written, moved, or done in place
            of another.
        matches: the weights must put the right token, place or answer above this share of the others; half is chance.
        gain: of random directions, the share that a head must read less than the variable's.
        acts: on held-out pairs, the whole interval of what the intervention takes away must lie above this.
        fewest: prompts on which a score must be measured.
        control: other parts of the same kind that every intervention is made on, too.
        neurons: the most neurons that may be named for an MLP.
        named: the share of what an MLP brings that they must bring, exchanged alone; and no more than as much above one.
        backup: the least share by which a part must do more while another is ablated.
        screened: where none are named and there are more than twice as many, so many parts are asked: those with the largest
            effect.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "attends": SHARE, "beyond": SHARE, "writes": SHARE, "matches": (0.5, 1.0), "gain": SHARE, "acts": SHARE,
        "fewest": (6, COUNT[1]), "control": (1, COUNT[1]), "neurons": (1, COUNT[1]), "named": SHARE, "backup": SHARE,
        "screened": (1, COUNT[1]),
    }  # fmt: skip

    attends: float = 0.20
    beyond: float = 0.10
    writes: float = 0.10
    matches: float = 0.75
    gain: float = 0.95
    acts: float = 0.10
    fewest: int = 6
    control: int = 3
    neurons: int = 64
    named: float = 0.70
    backup: float = 0.20
    screened: int = 12
