"""How much of the behaviour a circuit keeps, over its size: faithfulness, CPR, CMD, and single prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.scores import Scores
from cutaway.circuits.selection import greedy, of_nodes, prune, top_n
from cutaway.errors import BadInput
from cutaway.results import brief

#: The edge shares at which MIB measures (Mueller et al. 2025, section 3.2).
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Select = Callable[[Graph, np.ndarray, int], np.ndarray]
SELECTIONS: dict[str, Select] = {"top": top_n, "greedy": greedy}


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness f(k) of the circuits of growing size that one set of scores gives.

    Attributes:
        shares: of edges (of nodes, for node methods) that were asked for.
        edges: how many edges each circuit has, after pruning (MIB counts these).
        values: f at each.
        metrics: m(C) [sizes n].
        whole: mean of m(N).
        empty: mean of m(empty).
    """

    shares: tuple[float, ...]
    edges: tuple[int, ...]
    values: tuple[float, ...]
    metrics: np.ndarray
    whole: float
    empty: float

    __repr__ = brief

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under f over the share k, by trapezoids, k linear (Mueller et al. 2025,
        eq. 2). Of the range from the least share to 1, as MIB computes it. Higher is better.
        """
        return _area(self.shares, self.values)

    @property
    def cmd(self) -> float:
        """Circuit-model distance: the area of |1 - f| over the share k, k linear (Mueller et al. 2025, eq. 3). 0 is best."""
        return _area(self.shares, [abs(1 - v) for v in self.values])

    @property
    def cpr_log(self) -> float:
        """As `cpr` with k on a logarithmic scale, divided by its length, so that small circuits count as much as large."""
        return _log_area(self.shares, self.values)

    @property
    def cmd_log(self) -> float:
        """As `cmd` with k on a logarithmic scale, divided by its length."""
        return _log_area(self.shares, [abs(1 - v) for v in self.values])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "shares": list(self.shares), "edges": list(self.edges), "faithfulness": list(self.values),
            "whole": self.whole, "empty": self.empty, "cpr": self.cpr, "cmd": self.cmd, "cpr_log": self.cpr_log,
            "cmd_log": self.cmd_log,
        }  # fmt: skip

    def __str__(self) -> str:
        cells = ", ".join(f"{100 * k:g} %: {v:z.2f}" for k, v in zip(self.shares, self.values, strict=True))
        return f"faithfulness {cells}; CPR {self.cpr:.3f}, CMD {self.cmd:.3f}"


def _area(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.trapezoid(np.asarray(y), np.asarray(x)))


def _log_area(x: Sequence[float], y: Sequence[float]) -> float:
    logs = [math.log(v) for v in x]
    length = logs[-1] - logs[0]
    return _area(logs, y) / length if length > 0 else float(y[0])


def circuits_by_size(
    scores: Scores, shares: Sequence[float] = SHARES, selection: str = "top"
) -> list[np.ndarray]:
    """One pruned circuit [w r] for each share of the edges (or of the nodes, for node methods)."""
    graph = scores.graph
    circuits = []
    for share in shares:
        if not 0 <= share <= 1:
            raise BadInput(f"{share} is no share of the edges.", "Use numbers between 0 and 1.")
        if scores.nodes is not None:
            circuits.append(node_circuit(scores, int(share * (graph.shape[0] - 1))))
        else:
            chosen = SELECTIONS[selection](graph, scores.values, int(share * graph.n_edges))
            circuits.append(prune(graph, chosen))
    return circuits


def node_circuit(scores: Scores, n: int, absolute: bool = True) -> np.ndarray:
    """The circuit of the n best nodes and the input, with all their outgoing edges."""
    values = scores.node_values()[1:]
    order = np.argsort(-(np.abs(values) if absolute else values), kind="stable")[:n]
    return of_nodes(scores.graph, [0, *(1 + order)])


def curve(
    bench: EdgeBench, scores: Scores, shares: Sequence[float] = SHARES, selection: str = "top"
) -> Curve:
    """Faithfulness f(C) = (m(C) - m(empty)) / (m(N) - m(empty)) at every share (Mueller et al. 2025, eq. 1; Marks et al.
    2024). Ablated values are computed once for all sizes.
    """
    masks = circuits_by_size(scores, shares, selection)
    metrics = bench.metric(masks)
    edges = tuple(int(m.sum()) for m in masks)
    ends = float(bench.whole.mean()), float(bench.empty.mean())
    return Curve(tuple(shares), edges, tuple(bench.shares(metrics).tolist()), metrics, *ends)


def size_needed(measured: Curve, reach: float = 0.85) -> float | None:
    """The smallest share from which on faithfulness stays at least `reach`; None where it does not."""
    needed = None
    for share, value in zip(reversed(measured.shares), reversed(measured.values), strict=True):
        if value < reach:
            break
        needed = share
    return needed


def dynamic(bench: EdgeBench, metric: np.ndarray) -> np.ndarray:
    """Normalised dynamic faithfulness of single prompts [n]: each example's own (m(C) - m(empty)) / (m(N) - m(empty)),
    cut to [0, 1]; NaN where that example has no gap of its own (less than 1e-3 of the mean gap).

    After Hanna et al. 2024 (section 3.3, per-example faithfulness) with the bounds that keep one prompt from ruling a mean.
    """
    gap = bench.whole - bench.empty
    usable = np.abs(gap) >= 1e-3 * abs(bench.gap)
    share = np.divide(metric - bench.empty, gap, out=np.full(gap.shape, np.nan), where=usable)
    return np.clip(share, 0.0, 1.0)


def weighted_edges(membership: np.ndarray, neurons: np.ndarray | None = None) -> float:
    """MIB's count of a circuit's edges: each weighs the share of its writer's channels that are in.

    neurons: bool [writers width]; None: all. (Mueller et al. 2025, appendix: weighted edge count.)
    """
    share = 1.0 if neurons is None else neurons.mean(1)
    return float((membership.sum(1) * share).sum())
