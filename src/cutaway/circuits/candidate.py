"""A circuit as a candidate for a trial: kept alone, removed, and random circuits like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.evaluation.bench import EdgeBench
from cutaway.circuits.evaluation.random_circuits import random_circuit, random_nodes
from cutaway.circuits.selection import of_nodes
from cutaway.network.listing import listing
from cutaway.network.parts import Part

#: How often a random circuit is drawn for each that is wanted.
_DRAWS = 5


@dataclass(frozen=True, eq=False)
class CircuitCandidate:
    """A circuit on trial.

    Attributes:
        circuit: which one; of a node circuit the nodes count, of others the edges.
    """

    circuit: Circuit

    @property
    def size(self) -> int:
        """How many edges are in it."""
        return self.circuit.n_edges

    @property
    def total(self) -> int:
        """How many edges the graph has."""
        return self.circuit.graph.n_edges

    @property
    def words(self) -> str:
        """What it is, by its first nodes."""
        nodes = self.circuit.nodes
        first = listing(map(Part.parse, nodes[:8]))
        return first + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")

    def keep(self, bench: EdgeBench, alike: Sequence[CircuitCandidate] = ()) -> np.ndarray:
        """Metric [1 + k n] with every other edge ablated."""
        others = bench.metric([c.circuit.membership for c in alike])
        return np.vstack([bench.of_circuit(self.circuit)[None], others])

    def remove(self, bench: EdgeBench, alike: Sequence[CircuitCandidate] = ()) -> np.ndarray:
        """Metric [1 + k n] with its edges ablated and all others as they are."""
        return bench.metric([c.rest for c in (self, *alike)])

    def like_it(self, rng: np.random.Generator, count: int) -> list[CircuitCandidate]:
        """Random circuits of the same size, none of them this one: of paths from input to logits, or of nodes.

        On a small graph a draw may be this very circuit, with which it cannot be compared; it is then drawn again.
        """
        graph, others = self.circuit.graph, []
        for _ in range(_DRAWS * count):
            if len(others) == count:
                break
            of_nodes = self.circuit.grain == "node"
            drawn = (
                random_nodes(graph, self._nodes, rng) if of_nodes else random_circuit(graph, self.size, rng)
            )
            if not np.array_equal(drawn, self.circuit.membership):
                others.append(self._other(drawn))
        return others

    def apart(self, rng: np.random.Generator, count: int) -> list[CircuitCandidate]:
        """Random circuits of the same size made of what is not in it; none where the rest is too small."""
        graph, circuit = self.circuit.graph, self.circuit
        if circuit.grain == "node":
            nodes, n = np.flatnonzero(~circuit.node_membership), self._nodes
            drawn = range(count if len(nodes) >= n else 0)
            return [self._other(of_nodes(graph, rng.permutation(nodes)[:n])) for _ in drawn]
        rest = graph.allowed & ~circuit.membership
        if int(rest.sum()) < self.size:
            return []
        return [self._other(random_circuit(graph, self.size, rng, rest)) for _ in range(count)]

    @property
    def rest(self) -> np.ndarray:
        """The network without it: bool [w r]. Of a node circuit the input stays, or nothing could be kept."""
        rest = self.circuit.graph.allowed & ~self.circuit.membership
        if self.circuit.grain == "node":
            rest[0] = self.circuit.graph.allowed[0]
        return rest

    @property
    def _nodes(self) -> int:
        return int(self.circuit.node_membership.sum()) - 1

    def _other(self, membership: np.ndarray) -> CircuitCandidate:
        return CircuitCandidate(replace(self.circuit.with_edges(membership), scores=None))
