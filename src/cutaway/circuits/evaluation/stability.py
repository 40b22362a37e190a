"""Would another sample have given the same circuit? And how near does a circuit come to one that is known?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.circuits.scores import Scores
from cutaway.circuits.selection import prune, top_n
from cutaway.errors import BadInput
from cutaway.statistics import Estimate, Interval

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
    found, often = [], np.zeros(scores.graph.shape)
    for number in range(samples):
        mine = pick(scores.resampled(seed * 100_003 + number))
        found.append(jaccard(whole, mine))
        often += mine
    low, high = np.quantile(found, [0.025, 0.975])
    interval = Interval(float(low), float(high), 0.95, "range of bootstrap circuits")
    return Estimate(float(np.mean(found)), interval, samples), often / samples


def between(circuits: Sequence[np.ndarray]) -> float:
    """Mean Jaccard index of all pairs of circuits (of several seeds, or samples)."""
    if len(circuits) < 2:
        raise BadInput("One circuit cannot be compared with itself.", "Give two or more.")
    pairs = [(i, j) for i in range(len(circuits)) for j in range(i)]
    return float(np.mean([jaccard(circuits[i], circuits[j]) for i, j in pairs]))


@dataclass(frozen=True)
class Truth:
    """Scores against a known circuit: area under the ROC curve and under the precision-recall curve (average precision), the
    share of edges that are truly in, and precision and recall of as many top edges as the known circuit has."""

    auroc: float
    average_precision: float
    base: float
    precision: float
    recall: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(self.__dict__)


def auroc(scores: np.ndarray, known: np.ndarray) -> float:
    """Area under the full ROC curve: the probability that a true edge has a higher score than a false one, ties half.

    >>> auroc(np.array([0.9, 0.8, 0.1]), np.array([True, False, False]))
    1.0
    """
    from scipy.stats import rankdata

    known = np.asarray(known, dtype=bool)
    positive, negative = int(known.sum()), int((~known).sum())
    if not positive or not negative:
        raise BadInput(
            "The known circuit holds everything or nothing, so there is nothing to tell apart.",
            "Choose another.",
        )
    ranks = rankdata(scores)
    return float((ranks[known].sum() - positive * (positive + 1) / 2) / (positive * negative))


def average_precision(scores: np.ndarray, known: np.ndarray) -> float:
    """Mean precision at the rank of every true edge (ties: all of a tie enter together)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.asarray(known, dtype=bool)[order]
    _, last = np.unique(-scores[order], return_inverse=True)
    counts, found = np.bincount(last), np.bincount(last, weights=hits)
    precision = np.cumsum(found) / np.cumsum(counts)
    return float((precision * found).sum() / max(1, hits.sum()))


def against_truth(scores: Scores, known: np.ndarray, by: str = "edge", absolute: bool = True) -> Truth:
    """Compare scores with a known circuit: bool [writers readers], or for by="node" bool [writers] (the input left out)."""
    graph = scores.graph
    if by == "edge":
        values, truth = scores.values[graph.allowed], graph.check(known, "The known circuit")[graph.allowed]
    elif by == "node":
        nodes: np.ndarray = known if known.ndim == 1 else np.any(known & graph.allowed, axis=1)
        own = scores.nodes if scores.nodes is not None else np.abs(scores.values).sum(1)
        values, truth = own[1:], nodes[1:]
    else:
        raise BadInput(f"by={by!r} is not known.", 'Use "edge" or "node".')
    values = np.abs(values) if absolute else values
    truth = np.asarray(truth, dtype=bool)
    n = int(truth.sum())
    top = np.zeros(len(values), dtype=bool)
    top[np.argsort(-values, kind="stable")[:n]] = True
    hit = int((top & truth).sum())
    return Truth(
        auroc(values, truth),
        average_precision(values, truth),
        n / len(values),
        hit / max(1, n),
        hit / max(1, n),
        len(values),
    )
