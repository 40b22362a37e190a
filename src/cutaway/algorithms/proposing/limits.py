"""What a place must reach before an algorithm is proposed with it, fixed before anything is looked at, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.algorithms.limits import AlgorithmLimits
from cutaway.trials.limits import SHARE


@dataclass(frozen=True)
class ProposalLimits(AlgorithmLimits):
    """The limits of `propose_algorithm`: those by which the proposed algorithm is tested on held-out prompts, and these.

    Attributes:
        taken: on discovery prompts so many of the exchanges of a variable, and of those that change the answer, must give
            the predicted answer before a place is taken for the variable's: the same share that is asked for on held-out
            prompts.
        tried: exchanges of each variable at each place on discovery prompts.
        telling: fewer exchanges that change the answer tell nothing of a place.
        places: of each variable so many places are tried, those with the largest effect.
        rivals: so many other algorithms stand beside the proposed one.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = AlgorithmLimits.bounds | {
        "taken": SHARE, "tried": (1, 1_000_000), "telling": (1, 1_000_000), "places": (1, 1_000_000), "rivals": (0, 1000),
    }  # fmt: skip

    taken: float = 0.9
    tried: int = 48
    telling: int = 12
    places: int = 16
    rivals: int = 8
