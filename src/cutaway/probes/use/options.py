"""How it is tested whether a direction is used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cutaway.errors import BadInput
from cutaway.probes.map.verdict import ALPHA

#: With fewer, p = 1 / (n + 1) would not be below the level for two directions tried.
_FEWEST = math.ceil(2 / ALPHA) - 1


@dataclass(frozen=True)
class UseOptions:
    """How it is tested whether a direction is used. `use` takes the same names as keywords.

    Attributes:
        strengths: of the graded additions, 1 being the distance of the class means.
        directions: how many random and as many sham directions each effect is held against.
        least: the smallest share of the classes' difference in output that counts as use.
        read: position of the logits (default the last token).

    Raises `BadInput` for numbers that make no sense.
    """

    strengths: tuple[float, ...] = (-1.0, -0.5, 0.5, 1.0)
    directions: int = 40
    least: float = 0.1
    read: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.directions, int) or self.directions < _FEWEST:
            raise BadInput(
                f"{self.directions} directions are too few to be held against.",
                f"Use at least {_FEWEST} of each, so that beating all of them is significant for one of two directions.",
            )
        if not isinstance(self.least, int | float) or not 0 < self.least < 1:
            raise BadInput(f"least={self.least} is no share.", "Use a number between 0 and 1.")
        if self.read is not None and not isinstance(self.read, int):
            raise BadInput(f"read={self.read!r} is no position.", "Use a whole number, or None for the last.")
