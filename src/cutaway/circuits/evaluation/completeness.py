"""Does a circuit hold all that matters, and only that? Three published senses of completeness, and minimality of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput
from cutaway.results import brief
from cutaway.statistics import Estimate


@dataclass(frozen=True)
class Completeness:
    """Three senses of completeness.

    Attributes:
        complement: faithfulness of the complement, f(N without C); near 0 is complete (Marks et al. 2024, after Wang et
            al.).
        knockout: mean over subsets K of the circuit's nodes of |m(C \\ K) - m(N \\ K)| as a share of the gap; near 0 is
            complete (Wang et al. 2023, section 4.1, eq. 3).
        worst: the largest of these.
        worst_nodes: its K.
        subsets: how many K were tried.
        influence: share of the total |score| that the circuit's edges carry (Ameisen et al. 2025: share of influence);
            None without scores.
    """

    complement: Estimate
    knockout: float
    worst: float
    worst_nodes: tuple[str, ...]
    subsets: int
    influence: float | None

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"complement": self.complement.to_dict(), "worst_nodes": list(self.worst_nodes)}


def completeness(bench: EdgeBench, circuit: Circuit, subsets: int = 12, seed: int = 0) -> Completeness:
    """All three senses on a behaviour. K runs over random halves of the circuit's nodes and, first, single nodes."""
    graph = bench.wiring.graph
    rest = bench.metric([graph.allowed & ~circuit.membership])[0]
    chosen = _subsets(circuit, subsets, seed)
    masks = [without(whole, k) for whole in (circuit.membership, graph.allowed) for k in chosen]
    metrics = bench.metric(masks) if masks else np.zeros((0, bench.behaviour.n))
    gaps = np.abs(metrics[: len(chosen)].mean(-1) - metrics[len(chosen) :].mean(-1)) / abs(bench.gap)
    worst = int(np.argmax(gaps)) if len(gaps) else -1
    names = tuple(str(graph.writers[i]) for i in chosen[worst]) if worst >= 0 else ()
    return Completeness(
        bench.share(rest), float(gaps.mean()) if len(gaps) else 0.0, float(gaps[worst]) if worst >= 0 else 0.0, names,
        len(chosen), None if circuit.scores is None else influence(circuit.scores, circuit.membership),
    )  # fmt: skip


def _strength(circuit: Circuit) -> np.ndarray:
    """What each node sends along the circuit's edges, by their scores; without scores how many edges [writers]."""
    if circuit.scores is None:
        return circuit.membership.sum(1)
    return np.abs(circuit.scores.values * circuit.membership).sum(1)


def _subsets(circuit: Circuit, n: int, seed: int) -> list[np.ndarray]:
    """Subsets of the circuit's nodes (the input left alone): the strongest single ones, then random halves."""
    nodes = np.flatnonzero(circuit.node_membership)
    nodes = nodes[nodes != 0]
    if not len(nodes):
        return []
    rng = np.random.default_rng(seed)
    strength = _strength(circuit)
    single = [np.array([i]) for i in nodes[np.argsort(-strength[nodes], kind="stable")][: (n + 1) // 2]]
    halves = [np.sort(rng.permutation(nodes)[: max(1, len(nodes) // 2)]) for _ in range(n - len(single))]
    return single + halves if len(nodes) > 1 else single


def without(membership: np.ndarray, gone: np.ndarray | tuple[int, int]) -> np.ndarray:
    """The circuit whose nodes K [k] write their ablated value, or without one edge (writer, reader)."""
    fewer = membership.copy()
    fewer[gone] = False
    return fewer


def influence(scores: Scores, membership: np.ndarray) -> float:
    """Share of the sum of |scores| that lies in a circuit."""
    total = float(np.abs(scores.values).sum())
    return float(np.abs(scores.values[membership]).sum()) / total if total > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Marginal:
    """Minimality after Wang et al. 2023 (section 4.2): what a circuit loses with each of its parts.

    Attributes:
        names: of the parts [k].
        effects: |m(C) - m(C without it)| as a share of the gap [k].
        signed: the same with its sign, positive where the circuit gets worse without it [k].
    """

    names: tuple[str, ...]
    effects: np.ndarray
    signed: np.ndarray

    def weakest(self, n: int = 5) -> list[tuple[str, float]]:
        """The parts that matter least."""
        order = np.argsort(self.effects, kind="stable")[:n]
        return [(self.names[i], float(self.effects[i])) for i in order]


def marginal(bench: EdgeBench, circuit: Circuit, by: str = "node", most: int | None = None) -> Marginal:
    """Take out one node (with its edges) or one edge at a time.

    most: only so many: of edges the weakest by score, of nodes the strongest.
    """
    graph = bench.wiring.graph
    if by == "node":
        nodes = [int(i) for i in np.flatnonzero(circuit.node_membership) if i != 0]
        if most is not None and len(nodes) > most:
            nodes = sorted(nodes, key=lambda i: -_strength(circuit)[i])[:most]
        masks = [without(circuit.membership, np.array([i])) for i in nodes]
        names = tuple(str(graph.writers[i]) for i in nodes)
    elif by == "edge":
        edges = list(graph.edges(circuit.membership))
        if most is not None and len(edges) > most:
            values = np.zeros(graph.shape) if circuit.scores is None else np.abs(circuit.scores.values)
            edges = sorted(edges, key=lambda e: float(values[e]))[:most]
        masks, names = (
            [without(circuit.membership, e) for e in edges],
            tuple(graph.edge_name(*e) for e in edges),
        )
    else:
        raise BadInput(f"by={by!r} is not known.", 'Use "node" or "edge".')
    whole = bench.of_circuit(circuit)
    if not masks:
        return Marginal((), np.zeros(0), np.zeros(0))
    metrics = bench.metric(masks)
    effects = np.abs(metrics - whole[None]).mean(-1) / abs(bench.gap)
    return Marginal(names, effects, (whole.mean() - metrics.mean(-1)) / bench.gap)
