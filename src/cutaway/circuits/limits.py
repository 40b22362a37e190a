"""What a circuit must reach, fixed before it is tested."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """The numbers against which a circuit is judged. Shares are of the gap between everything ablated (0) and nothing (1).

    kept, excess: the whole interval of the circuit's faithfulness on held-out examples must lie between these. left: the
    interval of what is left when the circuit's edges are ablated must lie below this. largest: a circuit with more than this
    share of all edges explains nothing. random: how many random circuits of its size it is compared with. quantile, alpha:
    it must beat more than `quantile` of them, at level alpha. epsilon: of equivalence. subsets: of its nodes that
    are knocked
    out to see whether it is complete. edges: at most so many (the weakest) are taken out one at a time for minimality.
    bootstrap: samples for stability.
    """

    kept: float = 0.70
    excess: float = 1.30
    left: float = 0.30
    largest: float = 0.5
    random: int = 40
    quantile: float = 0.9
    alpha: float = 0.05
    epsilon: float = 0.1
    subsets: int = 12
    edges: int = 60
    bootstrap: int = 50

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
