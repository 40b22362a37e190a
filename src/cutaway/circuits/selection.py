"""From scores to a circuit: which edges are in.

All functions take scores [writers readers] and give a bool matrix of that shape. Sizes count edges. `prune` makes any
choice connected: what neither comes from the input nor reaches the logits does nothing and is left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.circuits.graph.nodes import Graph
from cutaway.errors import BadInput, NotFound


def _strength(graph: Graph, values: np.ndarray, absolute: bool) -> np.ndarray:
    """What is ranked, minus infinity where there is no edge."""
    values = graph.check(values, "Scores")
    return np.where(graph.allowed, np.abs(values) if absolute else values, -np.inf)


def size(graph: Graph, edges: int | float) -> int:
    """A number of edges from a number or a share of all; BadInput where it is out of range.

    >>> from cutaway.circuits.graph.nodes import standard
    >>> size(standard(12, 12), 0.01), size(standard(12, 12), 5)
    (324, 5)
    """
    number = isinstance(edges, int | float | np.integer | np.floating) and not isinstance(edges, bool)
    if not number or edges != edges:
        raise BadInput(
            f"{edges!r} is not a number of edges.", "Give a whole number, or a share such as 0.02."
        )
    share = isinstance(edges, float | np.floating) and edges <= 1
    n = int(edges * graph.n_edges + 1e-9) if share else int(edges)
    if not 0 <= n <= graph.n_edges or (not share and n != edges):
        raise BadInput(
            f"{edges} edges were asked for, and the graph has {graph.n_edges}.",
            "Give a number up to that, or a share.",
        )
    return n


def top_n(graph: Graph, values: np.ndarray, n: int, absolute: bool = True) -> np.ndarray:
    """The n edges of the largest (absolute) score; ties go to the earlier edge."""
    strength = _strength(graph, values, absolute).ravel()
    chosen = np.zeros(strength.size, dtype=bool)
    chosen[np.argsort(-strength, kind="stable")[:n]] = True
    return chosen.reshape(graph.shape) & graph.allowed


def threshold(graph: Graph, values: np.ndarray, least: float, absolute: bool = True) -> np.ndarray:
    """The edges whose (absolute) score is at least so much."""
    return _strength(graph, values, absolute) >= least


def greedy(graph: Graph, values: np.ndarray, n: int, absolute: bool = True) -> np.ndarray:
    """The n edges found from the logits upwards: always the strongest edge into a node that is already in (Hanna et al.
    2024). What it gives is always connected to the logits.
    """
    strength = _strength(graph, values, absolute)
    chosen = np.zeros(graph.shape, dtype=bool)
    inputs: dict[int, list[int]] = {}
    for r, owner in enumerate(graph.owner):
        inputs.setdefault(int(owner), []).append(r)
    heap: list[tuple[float, int, int]] = []

    def open_up(node: int) -> None:
        for r in inputs.get(node, ()):
            for w in range(graph.before[r]):
                heapq.heappush(heap, (-float(strength[w, r]), w, r))

    open_up(-1)
    seen = {-1}
    for _ in range(n):
        if not heap:
            break
        _, w, r = heapq.heappop(heap)
        chosen[w, r] = True
        if w not in seen:
            seen.add(w)
            open_up(w)
    return chosen


def prune(graph: Graph, membership: np.ndarray) -> np.ndarray:
    """Without the edges that lie on no path from the input to the logits."""
    chosen = graph.check(membership, "Membership").astype(bool) & graph.allowed
    used = np.zeros(graph.shape[0], dtype=bool)
    for w in range(graph.shape[0] - 1, -1, -1):
        readers = np.flatnonzero(chosen[w])
        owners = graph.owner[readers]
        used[w] = bool((owners < 0).any() or used[owners[owners >= 0]].any())
    return chosen & fed(graph, chosen)[:, None] & read_by(graph, used)[None, :]


def connecting(graph: Graph, values: np.ndarray, absolute: bool = True) -> tuple[int, float]:
    """The least n of which the n strongest edges hold a path from the input to the logits, and the strength of the nth."""
    low, high = 1, graph.n_edges  # more edges never take a path away, and all of them have one
    while low < high:
        middle = (low + high) // 2
        if prune(graph, top_n(graph, values, middle, absolute)).any():
            high = middle
        else:
            low = middle + 1
    strength = np.sort(_strength(graph, values, absolute), axis=None)[::-1]
    return low, float(strength[low - 1])


def fed(graph: Graph, within: np.ndarray) -> np.ndarray:
    """Bool [writers]: which nodes a path from the input reaches within these edges."""
    reached = np.zeros(graph.shape[0], dtype=bool)
    reached[0] = True
    for w in range(1, graph.shape[0]):
        reached[w] = bool((within[:, graph.owner == w] & reached[:, None]).any())
    return reached


def read_by(graph: Graph, nodes: np.ndarray) -> np.ndarray:
    """Bool [readers]: the inputs of these nodes (bool [writers]), and the logits."""
    return (graph.owner < 0) | nodes[graph.owner]


def nodes_of(graph: Graph, membership: np.ndarray) -> np.ndarray:
    """Bool [writers]: the nodes that an edge of the circuit leaves."""
    leaving: np.ndarray = np.any(membership & graph.allowed, axis=1)
    return leaving


def of_nodes(graph: Graph, nodes: Sequence[int] | np.ndarray) -> np.ndarray:
    """The edges among nodes (their numbers): every edge that leaves one of them, as node circuits are run."""
    chosen = np.zeros(graph.shape, dtype=bool)
    chosen[nodes] = True
    return chosen & graph.allowed


@dataclass(frozen=True)
class Optimum:
    """The best connected subgraph.

    Attributes:
        membership: its edges.
        value: the sum of their strengths.
        bound: more than which no such subgraph could have.
        proven: is it proven best among the edges that were considered?
        considered: how many of the graph's edges were considered, the strongest.
    """

    membership: np.ndarray
    value: float
    bound: float
    proven: bool
    considered: int


def optimum(
    graph: Graph,
    values: np.ndarray,
    n: int,
    absolute: bool = True,
    seconds: float = 20.0,
    most: int = 4000,
) -> Optimum:
    """The connected subgraph of at most n edges whose strengths have the largest sum, by integer linear programming.

    maximise sum s_e x_e over x_e, y_v in {0, 1}, subject to sum x_e <= n; x_(u,r) <= y_u and x_(u,r) <= y_(node of r);
    y_v <= number of chosen edges into v, and out of v. As edges only run forward, every edge of it then lies on a path from
    the input to the logits. Solved by HiGHS (scipy.optimize.milp). Where the graph has more than `most` edges, the strongest
    are considered, and the strongest into and out of every node.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    strength = _strength(graph, values, absolute)
    edges = _candidates(graph, strength, max(most, 3 * n))
    if n < 1:
        return Optimum(np.zeros(graph.shape, dtype=bool), 0.0, 0.0, True, len(edges))
    count = len(edges)
    rows, limits = _constraints(graph, edges, n)
    cost = np.concatenate([-strength[edges[:, 0], edges[:, 1]], np.zeros(graph.shape[0])])
    done = milp(
        cost,
        integrality=np.ones(cost.size),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows, ub=limits),  # pyright: ignore[reportArgumentType]
        options={"time_limit": seconds},
    )
    if done.x is None:
        raise NotFound(
            "No connected subgraph was found in time.",
            "Allow more edges or seconds, or use greedy selection.",
        )
    chosen = np.zeros(graph.shape, dtype=bool)
    picked = edges[done.x[:count] > 0.5]
    chosen[picked[:, 0], picked[:, 1]] = True
    bound = -float(done.mip_dual_bound) if done.mip_dual_bound is not None else float("inf")
    return Optimum(chosen, float(strength[chosen].sum()), bound, bool(done.status == 0), count)


def _candidates(graph: Graph, strength: np.ndarray, most: int) -> np.ndarray:
    """Edges that are considered: int [k 2]."""
    if graph.n_edges <= most:
        return np.argwhere(graph.allowed)
    keep = top_n(graph, np.where(graph.allowed, strength, 0.0), most, absolute=False)
    for w in range(graph.shape[0]):
        keep[w, int(np.argmax(strength[w]))] = True
        readers = np.flatnonzero(graph.owner == w)
        if readers.size:
            block = strength[:, readers]
            u, r = np.unravel_index(int(np.argmax(block)), block.shape)
            keep[u, readers[r]] = True
    return np.argwhere(keep & graph.allowed)


def _constraints(graph: Graph, edges: np.ndarray, n: int):
    """(matrix, upper limits) of the programme; columns are the edges, then the nodes."""
    from scipy.sparse import coo_matrix

    count, nodes = len(edges), graph.shape[0]
    row, col, value = [], [], []
    limits: list[float] = []

    def add(columns: np.ndarray, weights: np.ndarray, limit: float) -> None:
        row.append(np.full(len(columns), len(limits)))
        col.append(columns)
        value.append(weights)
        limits.append(limit)

    add(np.arange(count), np.ones(count), float(n))
    owner = graph.owner[edges[:, 1]]
    for e in range(count):
        add(np.array([e, count + edges[e, 0]]), np.array([1.0, -1.0]), 0.0)
        if owner[e] >= 0:
            add(np.array([e, count + owner[e]]), np.array([1.0, -1.0]), 0.0)
    for v in range(nodes):
        for chosen in (np.flatnonzero(edges[:, 0] == v), np.flatnonzero(owner == v) if v else None):
            if chosen is not None:
                add(np.append(chosen, count + v), np.append(-np.ones(len(chosen)), 1.0), 0.0)
    matrix = coo_matrix(
        (np.concatenate(value), (np.concatenate(row), np.concatenate(col))),
        shape=(len(limits), count + nodes),
    )
    return matrix.tocsr(), np.asarray(limits)
