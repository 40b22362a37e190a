"""When an attribution is said to agree with exchanging what stands at a token, fixed before anything is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.effects.summary import FEWEST
from cutaway.errors import BadInput
from cutaway.trials.limits import POSITIVE, SHARE, FixedLimits


@dataclass(frozen=True)
class InputLimits(FixedLimits):
    """The numbers by which attributions are judged. Shares of an attribution are of all its absolute values in a prompt;
    effects are shares of that of the variable whose exchange does most.

    Attributes:
        agrees: the whole interval of the mean rank correlation between shares and effects must lie above this: half of the
            order is shared.
        large: a variable whose share's whole interval lies above this is said to matter by the attribution.
        small: one whose whole interval lies below this is said not to.
        matters: a variable whose effect's whole interval lies above this matters by its exchange.
        nothing: one whose whole interval lies below this does not.
        prompts: with fewer nothing is supported.
        draws: random spans of as many tokens, for each variable and prompt.
        control: prompts on which the network with random weights is asked.
        largest: parameters beyond which no network with random weights is made.
        complete: integrated gradients that miss the change of the metric by more than this share are said to.

    Raises `BadInput` for what is no number, or none in range, and where `small` is not below `large`.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "agrees": (-1.0, 1.0), "large": SHARE, "small": SHARE, "matters": SHARE, "nothing": SHARE,
        "prompts": (2, 1e6), "draws": (1, 1000), "control": (2, 1e6), "largest": (0, 1e15), "complete": POSITIVE,
    }  # fmt: skip

    agrees: float = 0.5
    large: float = 0.20
    small: float = 0.05
    matters: float = 0.30
    nothing: float = 0.10
    prompts: int = FEWEST
    draws: int = 8
    control: int = 24
    largest: float = 3e8
    complete: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.small < self.large and self.nothing < self.matters):
            raise BadInput(
                "What is small must lie below what is large, and nothing below what matters.",
                "Use e.g. InputLimits(small=0.05, large=0.2, nothing=0.1, matters=0.3).",
            )
