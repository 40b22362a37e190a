"""What a mechanism must reach before it is believed, fixed before anything is looked at, each with its reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from cutaway.results.values import check_fields

SHARE, COUNT, POSITIVE = (0.0, 1.0), (0.0, math.inf), (1e-12, math.inf)


@dataclass(frozen=True)
class FixedLimits:
    """Numbers that are fixed before anything is looked at, each within the `bounds` of its name.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        check_fields(self, self.bounds)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Limits(FixedLimits):
    """The numbers that every candidate is judged by. Shares are of the gap between corrupted (0) and clean (1) prompts.

    Attributes:
        kept: on held-out data, the whole interval of the share that the candidate keeps alone must lie above this: less
            than seven tenths leaves room for another mechanism of like size.
        excess: and below this: a candidate that gives far more than the network has lost what holds it back.
        left: the whole interval of the share that is left without the candidate must lie below this.
        random: how many random candidates of the same size it is compared with; 40 make p = .024 the smallest.
        random_on: on how many held-out examples they are compared, spread over the sentence frames; sets of parts only.
        random_p: the largest share of candidates (random ones and the found one) that may do as well.
        largest: a candidate with more than this share of all there is explains nothing.
        from_others: with the rest taken from other prompts, the whole interval of the share that a set of parts keeps must
            lie above this: a set without half of the mechanism, which the pairs do not vary, falls short.
        alpha: of single hypothesis tests.
        sham: writing values over themselves may change the metric by at most this share of the gap.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "kept": SHARE, "excess": POSITIVE, "left": SHARE, "random": COUNT, "random_on": COUNT, "random_p": SHARE,
        "largest": SHARE, "alpha": SHARE, "sham": SHARE,
    }  # fmt: skip

    kept: float = 0.70
    excess: float = 1.30
    left: float = 0.30
    random: int = 40
    random_on: int = 16
    random_p: float = 0.05
    largest: float = 0.5
    from_others: float = 0.5
    alpha: float = 0.05
    sham: float = 0.01

    @classmethod
    def of(cls, limits: Limits | None) -> Self:
        """The limits that were given, with the usual figures where they name none of this class."""
        return limits if isinstance(limits, cls) else cls(**({} if limits is None else limits.to_dict()))
