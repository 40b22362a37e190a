"""What must be reached before one part is said to back up another, or two behaviours to share a part, fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials.limits import COUNT, SHARE, FixedLimits


@dataclass(frozen=True)
class BackupLimits(FixedLimits):
    """The limits of `backups`. Shares are of what removing all parts takes away.

    Attributes:
        grows: on held-out pairs, three whole intervals must lie above this: by how much more is lost by removing the part
            once others are removed than before; what is lost by it then; what is lost by those others once it is removed.
            The last two keep out what only undoes a gain.
        first: from so many parts on removal is begun, those with the largest effects, removed or restored.
        depth: so many parts are removed one after another, at most.
        lost: the behaviour counts as lost where at most this share is left.
        most: so many growths are tested on held-out pairs.
        alpha: of the tests, corrected for all that are made.
        random: so many other parts of the same kind are removed in place of the first, for the control.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "grows": SHARE, "first": (1, COUNT[1]), "depth": (1, 100), "lost": SHARE, "most": (1, COUNT[1]), "alpha": SHARE,
        "random": COUNT,
    }  # fmt: skip

    grows: float = 0.10
    first: int = 6
    depth: int = 4
    lost: float = 0.10
    most: int = 8
    alpha: float = 0.05
    random: int = 6


@dataclass(frozen=True)
class SharedLimits(FixedLimits):
    """The limits of `shared_parts`. Shares are of the gap between clean and corrupted prompts.

    Attributes:
        stands_out: on discovery pairs, a part whose removal takes this share is tested on held-out pairs.
        matters: on held-out pairs, the whole interval of that share must lie above this.
        most: so many parts of each behaviour are tested.
        alpha: of the tests, corrected for all parts of both behaviours.
        random: so many random sets are removed beside those of a behaviour.
        spared: a behaviour is spared by what the other uses where the whole interval of what is left lies above this.

    Raises `BadInput` for what is no number, or none in range.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "stands_out": SHARE, "matters": SHARE, "most": (1, COUNT[1]), "alpha": SHARE, "random": COUNT, "spared": SHARE,
    }  # fmt: skip

    stands_out: float = 0.10
    matters: float = 0.05
    most: int = 12
    alpha: float = 0.05
    random: int = 10
    spared: float = 0.70
