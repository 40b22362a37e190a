"""Scores of a graph's edges (or nodes), per example, so that intervals and stability need no second run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cutaway.circuits.graph.nodes import Graph
from cutaway.errors import BadInput, NotFinite
from cutaway.network.parts import in_words
from cutaway.results import Provenance
from cutaway.statistics import Estimates, means_of


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method says of every edge: how much of the metric the edge carries; positive where it supports the behaviour.

    Attributes:
        graph: whose edges they are of.
        values: [writers readers], mean over examples; zero where there is no edge.
        method: its name.
        source: paper and formula.
        nodes: [writers], for methods that score nodes.
        examples: [n writers readers] before averaging; None where a method does not score examples one by one.
        node_examples: [n writers], the same for methods that score nodes.
        positions: [groups writers readers], sums over the positions of a group.
        groups: names of the groups.
        neurons: for each layer [hidden], where neurons were scored.
        inputs: [readers], the effect of corrupting a reader's whole input, for methods that score it.
        kept: bool [writers readers], for methods that choose edges themselves.
        clusters: which examples belong together, for intervals.
        notes: what is to be said beside them.
        provenance: what is needed to repeat them.

    Raises NotFinite, naming the edge, for a score that is NaN or infinite.
    """

    graph: Graph
    values: np.ndarray
    method: str
    source: str = ""
    nodes: np.ndarray | None = None
    examples: np.ndarray | None = None
    node_examples: np.ndarray | None = None
    positions: np.ndarray | None = None
    groups: tuple[str, ...] = ()
    neurons: dict[int, np.ndarray] = field(default_factory=dict)
    inputs: np.ndarray | None = None
    kept: np.ndarray | None = None
    clusters: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        self.graph.check(self.values, "Scores")
        bad = ~np.isfinite(self.values)
        if bad.any():
            w, r = (int(i) for i in np.argwhere(bad)[0])
            raise NotFinite(
                f"The score of {self.graph.edge_name(w, r)} is NaN or infinite.",
                "Use a wider dtype, such as float32.",
            )

    @property
    def grain(self) -> str:
        """`node` where the method scores nodes, else `edge`."""
        return "edge" if self.nodes is None else "node"

    def of(self, edge: str) -> float:
        """The score of an edge by name."""
        return float(self.values[self.graph.edge(edge)])

    def node(self, name: str) -> float:
        """The score of a node by name: its own, or the sum of its outgoing edges'."""
        return float(self.node_values()[self.graph.writer(name)])

    def node_values(self) -> np.ndarray:
        """[writers]: the nodes' own scores, or the sums of their outgoing edges' (what leaves them, to first order)."""
        return self.nodes if self.nodes is not None else self.values.sum(1)

    def intervals(self, level: float = 0.95) -> Estimates:
        """Intervals over examples (over clusters where the behaviour has them): [writers readers] or [writers].

        From the stored scores of single examples; nothing is run again.
        """
        return means_of(self._examples(), self.clusters, level)

    def _examples(self) -> np.ndarray:
        examples = self.examples if self.nodes is None else self.node_examples
        if examples is None:
            raise BadInput(
                f"{self.method} gives no score for single examples.",
                "Use a method of attribution, such as eap-ig.",
            )
        return examples

    def resampled(self, seed: int) -> Scores:
        """The scores of one bootstrap sample of the examples (of whole clusters where there are some)."""
        examples = self._examples()
        n = len(examples)
        rng = np.random.default_rng(seed)
        if self.clusters is None:
            rows = rng.integers(0, n, n)
        else:
            names, clusters = sorted(set(self.clusters)), np.array(self.clusters)
            drawn = rng.choice(names, len(names))
            rows = np.concatenate([np.flatnonzero(clusters == name) for name in drawn])
        mean = examples[rows].mean(0)
        if self.nodes is None:
            return replace(self, values=mean, examples=None)
        return replace(self, nodes=mean, values=spread(self.graph, mean), node_examples=None)

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """The n edges (or nodes) of the largest absolute score: (name, score)."""
        if self.nodes is not None:
            order = np.argsort(-np.abs(self.nodes), kind="stable")[:n]
            return [(str(self.graph.writers[i]), float(self.nodes[i])) for i in order]
        flat = np.where(self.graph.allowed, np.abs(self.values), -1.0).ravel()
        order = np.argsort(-flat, kind="stable")[: min(n, self.graph.n_edges)]
        pairs = [divmod(int(i), self.graph.shape[1]) for i in order]
        return [(self.graph.edge_name(w, r), float(self.values[w, r])) for w, r in pairs]

    def __str__(self) -> str:
        rows = "\n".join(f"  {in_words(name):32s} {value:+.4g}" for name, value in self.top())
        return f"{self.method}: {self.graph.n_edges} edges; the largest {self.grain}s:\n{rows}"

    __repr__ = __str__

    def head(self) -> dict[str, Any]:
        """What is plain data of it."""
        return {
            "method": self.method, "source": self.source, "groups": list(self.groups), "notes": list(self.notes),
            "clusters": None if self.clusters is None else list(self.clusters),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }  # fmt: skip


def spread(graph: Graph, nodes: np.ndarray) -> np.ndarray:
    """Node scores [w] laid on every outgoing edge: [w r]."""
    return np.where(graph.allowed, nodes[:, None], 0.0)
