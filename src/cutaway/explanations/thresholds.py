"""What an explanation must reach, fixed before anything is looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Thresholds:
    """The numbers against which a mechanism is judged. Shares are of the gap between corrupted (0) and clean (1) prompts.

    Attributes:
        target: on discovery data, members are dropped as long as the rest alone keeps the metric within `1 - target` of
            its clean value (too much counts like too little).
        left_target: on discovery data, components are added until at most this share is left without the set.
        kept: on held-out data, the whole interval of the share that the set alone keeps must lie above this ...
        excess: ... and below this.
        left: on held-out data, the whole interval of the share that is left without the set must lie below this.
        random_sets: how many random sets of the same size and kinds the set is compared with.
        random_p: the largest share of random sets (counting the found one) that may keep as much as the set does.
        largest: a set with more than this share of all components is no explanation.
        minor: a single effect below this share is small. A member with a small effect is redundant if the set loses that
            much more without it than the whole network does, else minor.
        q: significance of single effects, after Benjamini-Hochberg.
        sham: writing a value over itself may change the metric by at most this share of the gap.
    """

    target: float = 0.85
    left_target: float = 0.15
    kept: float = 0.70
    excess: float = 1.30
    left: float = 0.30
    random_sets: int = 40
    random_p: float = 0.05
    largest: float = 0.5
    minor: float = 0.10
    q: float = 0.05
    sham: float = 0.01

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
