"""What an algorithm must reach before it is believed, fixed before anything is looked at, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials.limits import SHARE, FixedLimits

_COUNT = (1, 1_000_000)


@dataclass(frozen=True)
class AlgorithmLimits(FixedLimits):
    """The numbers that an algorithm is judged by.

    Attributes:
        accuracy: the whole interval of each variable's interchange accuracy must be at this or above. A causal model that is
            right in nine of ten exchanges leaves one in ten to something else.
        performs: the network must give this share of the right answers to plain prompts, or nothing is said.
        differ: a rival that predicts something else on fewer exchanges than this is not told apart, and does not count.
        changing: exchanges of a variable that change the answer, at least; with fewer its accuracy says little.
        sham: other places, of the same kind at the same span, at which each variable is exchanged, too.
        control: exchanges at each of them, and in the network with random weights.
        largest: parameters beyond which no network with random weights is made.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "accuracy": SHARE, "performs": SHARE, "differ": _COUNT, "changing": _COUNT, "sham": (0, 1000),
        "control": _COUNT, "largest": (0, 1e15),
    }  # fmt: skip

    accuracy: float = 0.9
    performs: float = 0.9
    differ: int = 20
    changing: int = 20
    sham: int = 3
    control: int = 64
    largest: float = 3e8
