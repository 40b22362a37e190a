"""Would another sample have given the same circuit? And how near does a circuit come to one that is known?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cutaway.circuits.scores import Scores
from cutaway.circuits.selection import prune, top_n
from cutaway.errors import BadInput
from cutaway.statistics import Estimate, Interval, auroc, average_precision

Choose = Callable[[Scores], np.ndarray]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A and B| / |A or B| of two circuits; 1 where both are empty.

    >>> jaccard(np.array([True, True, False]), np.array([True, False, False]))
    0.5
    """
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def over_bootstrap(
    scores: Scores, edges: int, samples: int = 100, seed: int = 0, choose: Choose | None = None
) -> tuple[Estimate, np.ndarray]:
    """How alike are the circuits of bootstrap samples of the examples?

    Each sample's scores come from the stored per-example scores; nothing is run.

    Returns the mean Jaccard index with the circuit of all examples (with the range of the middle 95 % of samples), and how
    often each edge is in [writers readers].
    """
    pick = choose or (lambda s: prune(s.graph, top_n(s.graph, s.values, edges)))
    whole = pick(scores)
    alike, often = [], np.zeros(scores.graph.shape)
    for number in range(samples):
        drawn = pick(scores.resampled(seed * 100_003 + number))
        alike.append(jaccard(whole, drawn))
        often += drawn
    low, high = np.quantile(alike, [0.025, 0.975])
    interval = Interval(float(low), float(high), 0.95, "range of bootstrap circuits")
    return Estimate(float(np.mean(alike)), interval, samples), often / samples


def between(circuits: Sequence[np.ndarray]) -> float:
    """Mean Jaccard index of all pairs of circuits (of several seeds, or samples)."""
    if len(circuits) < 2:
        raise BadInput("One circuit cannot be compared with itself.", "Give two or more.")
    return float(np.mean([jaccard(a, b) for a, b in combinations(circuits, 2)]))


@dataclass(frozen=True)
class Truth:
    """Scores against a known circuit.

    Attributes:
        auroc: area under the ROC curve.
        average_precision: area under the precision-recall curve.
        base: the share of edges that are truly in.
        precision: of as many top edges as the known circuit has.
        recall: of the same.
        n: how many edges or nodes were ranked.
    """

    auroc: float
    average_precision: float
    base: float
    precision: float
    recall: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(self.__dict__)


def edge_auroc(scores: np.ndarray, known: np.ndarray) -> float:
    """The probability that a true edge has a higher score than a false one; BadInput where there are only such or such."""
    area = float(auroc(scores, known))
    if np.isnan(area):
        raise BadInput(
            "The known circuit holds everything or nothing, so there is nothing to tell apart.",
            "Choose another.",
        )
    return area


def against_truth(scores: Scores, known: np.ndarray, by: str = "edge", absolute: bool = True) -> Truth:
    """Compare scores with a known circuit: bool [writers readers], or for by="node" bool [writers] (the input left out)."""
    graph = scores.graph
    if by == "edge":
        values, truth = scores.values[graph.allowed], graph.check(known, "The known circuit")[graph.allowed]
    elif by == "node":
        nodes: np.ndarray = known if known.ndim == 1 else np.any(known & graph.allowed, axis=1)
        sizes = scores.nodes if scores.nodes is not None else np.abs(scores.values).sum(1)
        values, truth = sizes[1:], nodes[1:]
    else:
        raise BadInput(f"by={by!r} is not known.", 'Use "edge" or "node".')
    values = np.abs(values) if absolute else values
    truth = np.asarray(truth, dtype=bool)
    n = int(truth.sum())
    top = np.zeros(len(values), dtype=bool)
    top[np.argsort(-values, kind="stable")[:n]] = True
    hit = int((top & truth).sum()) / max(1, n)
    area, precision = edge_auroc(values, truth), average_precision(values, truth)
    return Truth(area, precision, n / len(values), hit, hit, len(values))
