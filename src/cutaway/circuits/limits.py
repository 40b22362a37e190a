"""What a circuit must reach, fixed before it is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cutaway.trials import Limits
from cutaway.trials.limits import COUNT, SHARE


@dataclass(frozen=True)
class CircuitLimits(Limits):
    """The limits of every trial, and what only the tests of a circuit have.

    Attributes:
        quantile: it must beat more than this share of random circuits of its size, at level `alpha`.
        epsilon: of equivalence.
        subsets: of its nodes that are knocked out to see whether it is complete.
        edges: at most so many (the weakest) are taken out one at a time for minimality; 0 leaves that test out.
        nodes: at most so many (the strongest) are taken out one at a time.
        bootstrap: samples for stability.
    """

    bounds: ClassVar[dict[str, tuple[float, float]]] = Limits.bounds | {
        "quantile": SHARE, "epsilon": SHARE, "subsets": COUNT, "edges": COUNT, "nodes": COUNT,
        "bootstrap": COUNT,
    }  # fmt: skip

    quantile: float = 0.9
    epsilon: float = 0.1
    subsets: int = 12
    edges: int = 60
    nodes: int = 1000
    bootstrap: int = 50
