"""What must be reached before a network is said to compute what is intended, fixed before anything is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials.limits import SHARE, FixedLimits

_COUNT = (1, 1_000_000)


@dataclass(frozen=True)
class IntendedLimits(FixedLimits):
    """The numbers by which it is judged.

    Attributes:
        follows: where two computations come apart, the whole interval of the share of prompts that are answered as one of
            them says must be at this or above, before the network is said to follow it.
        mostly: a computation whose answers it gives in less than this, by the whole interval, is not what it computes.
        performs: of the prompts on which all agree this share must be answered so, or nothing is supported.
        prompts: on fewer on which two come apart they are not told apart.
        largest: parameters beyond which no network with random weights is made.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "follows": SHARE, "mostly": SHARE, "performs": SHARE, "prompts": _COUNT, "largest": (0, 1e15),
    }  # fmt: skip

    follows: float = 0.9
    mostly: float = 0.5
    performs: float = 0.9
    prompts: int = 20
    largest: float = 3e8
