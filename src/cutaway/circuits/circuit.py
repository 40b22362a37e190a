"""A circuit: some edges of a network's graph, with the scores by which they were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.circuits import storage
from cutaway.circuits.drawing import CircuitLayout, lay_out
from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.recipe import GraphFile, TraceRecipe
from cutaway.circuits.scores import Scores
from cutaway.circuits.selection import nodes_of, of_nodes, prune
from cutaway.errors import BadInput
from cutaway.figures.circuit import circuit_figure, circuit_svg
from cutaway.reports import Block, Figure, Page, Points, display, result_page, table_of
from cutaway.results import Provenance

if TYPE_CHECKING:
    from plotly import graph_objects

    from cutaway.network import Network

#: What is said under every drawing of a circuit.
CAPTION = "Layers upwards, heads across. Point at a node, or at the middle of an edge, to see what it is and what it weighs."

#: How many edges the small picture in a notebook shows.
_SKETCHED = 40
#: So many edges are listed on a page.
_LISTED = 24


@dataclass(frozen=True, eq=False)
class Circuit:
    """A subgraph. Made by `cutaway.trace`, `Circuit.of_edges`, or read from a file.

    Attributes:
        graph: what it is a part of; it holds the network's hash.
        membership: bool [writers readers], the edges that are in.
        scores: those of all edges, or None.
        grain: "edge"; or "node", where a node is in with all its outgoing edges.
        ablation: what removed edges carried when it was looked for.
        name: of the behaviour.
        selection: how the edges were chosen.
        notes: what is to be said beside it.
        provenance: what is needed to repeat it.
        positions: bool [groups writers readers], where membership differs between positions.
        groups: names of the groups.
        recipe: how it was traced; None where it was not.
        file: what a file of another tool says beside it.
    """

    kind: ClassVar[str] = "circuit"

    graph: Graph
    membership: np.ndarray
    scores: Scores | None = None
    grain: str = "edge"
    ablation: str = "counterfactual"
    name: str = ""
    selection: str = ""
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    positions: np.ndarray | None = None
    groups: tuple[str, ...] = ()
    recipe: TraceRecipe | None = None
    file: GraphFile | None = None

    def __post_init__(self) -> None:
        checked = self.graph.check(self.membership, "Membership").astype(bool)
        if (checked & ~self.graph.allowed).any():
            w, r = (int(i) for i in np.argwhere(checked & ~self.graph.allowed)[0])
            raise BadInput(
                f"{self.graph.edge_name(w, r)} is in the circuit, but the graph has no such edge.",
                "A writer must come before the reader.",
            )
        object.__setattr__(self, "membership", checked)
        if self.provenance is None:
            object.__setattr__(self, "provenance", Provenance("", self.graph.network))
        fitting = (len(self.groups), *self.graph.shape)
        if self.positions is not None and self.positions.shape != fitting:
            raise BadInput(
                "Membership by position does not fit its groups.", "Give [groups writers readers]."
            )

    @classmethod
    def of_edges(cls, graph: Graph, edges: Sequence[str], name: str = "", **more: Any) -> Circuit:
        """The circuit of these edges, by name (`a0.h1->a5.h3<q>`).

        Raises NotFound where there is no such node or edge.

        >>> from cutaway.circuits.graph.nodes import standard
        >>> Circuit.of_edges(standard(2, 2), ["input->m0", "m0->logits"]).n_edges
        2
        """
        return cls(graph, graph.matrix(edges), name=name, **more)

    @classmethod
    def of_nodes(cls, graph: Graph, nodes: Sequence[str], name: str = "", **more: Any) -> Circuit:
        """The circuit of these nodes with all their outgoing edges; the input is always in.

        Raises NotFound where there is no such node.
        """
        membership = of_nodes(graph, [0, *map(graph.writer, nodes)])
        return cls(graph, membership, grain="node", name=name, **more)

    @property
    def n_edges(self) -> int:
        """How many edges."""
        return int(self.membership.sum())

    @property
    def share(self) -> float:
        """Of all edges of the graph."""
        return self.n_edges / self.graph.n_edges

    @cached_property
    def node_membership(self) -> np.ndarray:
        """Bool [writers]: the nodes that an edge of it leaves."""
        return nodes_of(self.graph, self.membership)

    @property
    def nodes(self) -> list[str]:
        """Names of its nodes, in order."""
        return [str(w) for w, used in zip(self.graph.writers, self.node_membership, strict=True) if used]

    @property
    def edges(self) -> list[str]:
        """Names of its edges, in order."""
        return [self.graph.edge_name(w, r) for w, r in self.graph.edges(self.membership)]

    def __contains__(self, edge: str) -> bool:
        return bool(self.membership[self.graph.edge(edge)])

    def __len__(self) -> int:
        return self.n_edges

    @property
    def network_hash(self) -> str:
        """Identity of the network that it is of; "" where a file does not say."""
        return self.graph.network

    def to_pandas(self) -> pd.DataFrame:
        """One row for each edge: writer, reader, score."""
        writers, readers = self.graph.writers, self.graph.readers
        rows = [(str(writers[w]), str(readers[r]), score) for w, r, score in self.scored()]
        return pd.DataFrame(rows, columns=["writer", "reader", "score"])

    table = to_pandas

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n edges of the largest |score|, the strongest first; the first ones where it has no scores."""
        table = self.to_pandas()
        order = np.argsort(-table["score"].abs().to_numpy(), kind="stable")
        return table.iloc[order[:n]].reset_index(drop=True)

    def scored(self) -> list[tuple[int, int, float]]:
        """(writer, reader, score) of its edges, in order; NaN where it has no scores."""
        values = np.full(self.graph.shape, np.nan) if self.scores is None else self.scores.values
        return [(w, r, float(values[w, r])) for w, r in self.graph.edges(self.membership)]

    def pruned(self) -> Circuit:
        """Without what lies on no path from the input to the logits."""
        return replace(self, membership=prune(self.graph, self.membership))

    def complement(self) -> Circuit:
        """All other edges of the graph."""
        rest = self.with_edges(self.graph.allowed & ~self.membership)
        return replace(rest, name=f"complement of {self.name}".strip())

    def with_edges(self, membership: np.ndarray, selection: str = "") -> Circuit:
        """The same graph and scores with other edges."""
        how = selection or self.selection
        return replace(self, membership=membership, selection=how, positions=None, groups=())

    def check_network(self, net: Network, graph: Graph) -> None:
        """BadInput where this circuit is not one of this network's graph, or was found on another network."""
        if not self.graph.same_as(graph):
            raise BadInput(
                f"The circuit has {self.graph.shape[0]} writers and {self.graph.shape[1]} readers; the graph of {net.name} "
                f"has {graph.shape[0]} and {graph.shape[1]}, or others of those names.",
                "Trace it on this network, or open the network that it was found on.",
            )
        if self.graph.network and graph.network and self.graph.network != graph.network:
            raise BadInput(
                f"The circuit was found on another network (weights {self.graph.network[:12]}, here {graph.network[:12]}).",
                "Open that one, or carry the circuit over on purpose: circuit.on(net).",
            )

    def on(self, net: Network) -> Circuit:
        """The same edges on another network of the same shape; BadInput where the graphs differ."""
        from cutaway.circuits.passes.certify import wiring

        graph = wiring(net).graph
        if not self.graph.same_as(graph):
            self.check_network(net, graph)
        return replace(self, graph=graph, scores=None)

    @property
    def headline(self) -> str:
        """What was found, in a sentence: it says nothing of a test, which is another result."""
        what = f" for “{self.name}”" if self.name else ""
        if not self.n_edges:
            return f"No edge is picked{what}: there is no circuit of this size"
        how = f" by {self.scores.method}" if self.scores is not None else ""
        size = f"{self.n_edges} of {self.graph.n_edges} edges ({100 * self.share:.2g} %)"
        through = f"through {len(self.nodes)} of {self.graph.shape[0]} nodes"
        return f"{size} are picked{what}{how}, {through}; whether they carry it is for a test to say"

    def __str__(self) -> str:
        how = f", {self.scores.method}, {self.selection}" if self.scores is not None else ""
        return (
            f"Circuit{f' for {self.name}' if self.name else ''}: {self.n_edges} of {self.graph.n_edges} edges "
            f"({100 * self.share:.2g} %), {len(self.nodes)} of {self.graph.shape[0]} nodes{how}"
        )

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Its edges with their scores, its nodes, and how it was found, as plain data."""
        assert self.provenance is not None
        rows = self.to_pandas()
        scores = rows["score"].astype(object).where(rows["score"].notna(), None)
        return {
            "kind": self.kind, "edges": rows.assign(score=scores).to_dict("records"), "nodes": self.nodes,
            "of": self.graph.n_edges, "grain": self.grain, "ablation": self.ablation, "name": self.name,
            "selection": self.selection, "notes": list(self.notes),
            "recipe": None if self.recipe is None else self.recipe.to_dict(), "provenance": self.provenance.to_dict(),
        }  # fmt: skip

    def _repr_html_(self) -> str:
        layout = self._layout()
        picture = circuit_svg(layout.dots, layout.lines[:_SKETCHED], layout.rows)
        return display(str(self), self.notes, self._strongest(), picture, provenance=self.provenance)

    def _layout(self) -> CircuitLayout:
        return lay_out(self.graph, self.membership, self.scored(), self.grain == "node")

    def _strongest(self) -> pd.DataFrame:
        """Its edges in words, the strongest first."""
        edges = sorted(self.scored(), key=lambda edge: -abs(edge[2]) if self.scores is not None else 0.0)
        writers, readers = self.graph.writers, self.graph.readers
        rows = [(writers[w].words, readers[r].words, score) for w, r, score in edges]
        return pd.DataFrame(rows, columns=["from", "to", "score"])

    def plot(self, most: int = 400) -> graph_objects.Figure:
        """The circuit drawn: layers upwards, heads across; its table has the `most` strongest edges."""
        layout = self._layout()
        lines, of = layout.lines[:most], len(layout.lines)
        return circuit_figure(layout.dots, lines, layout.columns, layout.rows, title=str(self), of=of)

    def page(self) -> Page:
        """What `cutaway trace` writes as its page."""
        assert self.provenance is not None
        blocks: list[Block] = [Figure(self.plot(), CAPTION)]
        if self.notes:
            blocks.append(Points(tuple(("", note) for note in self.notes)))
        strongest = self._strongest()
        shown: Any = strongest.head(_LISTED)
        shown = shown if self.scores is not None else shown[["from", "to"]]
        which = "Its edges."
        if len(shown) < self.n_edges:
            which = f"The {len(shown)} strongest of its {self.n_edges} edges."
        blocks.append(table_of(shown, which, "+.3g", numeric=(2,)))
        return result_page(f"{self}.", "Cutaway · circuit", f"{self.headline}.", blocks, self.provenance)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it to a folder (manifest and safetensors), whole or not at all; see `cutaway.circuits.write` for others."""
        return storage.save(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Circuit:
        """Read a folder that `save` wrote; see `cutaway.circuits.read` for files of other tools.

        Raises BadFormat where the folder holds no circuit, CorruptFile where it was changed.
        """
        return cls(**storage.load(path))
