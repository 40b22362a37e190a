"""The computational graph of a network as two lists and some arithmetic: who writes to the stream, who reads from it.

An edge is a place in a matrix (writer, reader). Writers stand in the order in which they write, so that a reader sees a
prefix of them: `before[reader]` writers, and no more need be said about which edges there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cutaway.errors import BadFormat, BadInput, NotFound, nearest
from cutaway.network.parts import Edge, Input, Part
from cutaway.results import brief


@dataclass(frozen=True)
class Graph:
    """All edges that a network could use.

    Attributes:
        writers: the parts that add to the stream, in the order in which they write; the input first.
        readers: the inputs that read it: per layer all queries, all keys, all values, then whole sublayers; the logits last.
        before: for each reader how many writers come before it; they are its possible sources.
        network: identity (hash) of the network it was made of; "" where it comes from a file that does not say.

    >>> graph = standard(layers=12, heads=12)
    >>> graph.n_edges
    32491
    >>> standard(layers=32, heads=32).n_edges
    1592881
    """

    writers: tuple[Part, ...]
    readers: tuple[Input, ...]
    before: tuple[int, ...]
    network: str = ""

    __repr__ = brief

    def __post_init__(self) -> None:
        if len(self.before) != len(self.readers) or any(not 0 < b <= len(self.writers) for b in self.before):
            raise BadFormat("A graph's readers do not fit its writers.", "Make it from a network.")

    @property
    def shape(self) -> tuple[int, int]:
        """(writers, readers): the shape of scores and membership."""
        return len(self.writers), len(self.readers)

    @cached_property
    def allowed(self) -> np.ndarray:
        """Bool [writers readers]: which entries are edges."""
        return np.arange(len(self.writers))[:, None] < np.asarray(self.before)[None, :]

    @cached_property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(sum(self.before))

    @cached_property
    def _writer_index(self) -> dict[str, int]:
        return {str(w): i for i, w in enumerate(self.writers)}

    @cached_property
    def _reader_index(self) -> dict[str, int]:
        return {str(r): i for i, r in enumerate(self.readers)}

    @cached_property
    def owner(self) -> np.ndarray:
        """Int [readers]: the writer that each reader is an input of, -1 for the logits."""
        return np.array([self._writer_index.get(str(r.part), -1) for r in self.readers])

    def writer(self, name: str) -> int:
        """Number of a writer by name (`a3.h1`) or words (`head 3.1`); NotFound with the nearest names."""
        return _look_up(name, self._writer_index, "node", Part)

    def reader(self, name: str) -> int:
        """Number of a reader by name; NotFound with the nearest names."""
        return _look_up(name, self._reader_index, "reader", Input)

    def edge(self, name: str) -> tuple[int, int]:
        """(writer, reader) of an edge such as `a0.h1->a5.h3<q>`.

        Raises NotFound where a node does not exist or the writer does not come before the reader.

        >>> standard(layers=2, heads=2).edge("a0.h1->m1")
        (2, 13)
        """
        source, arrow, target = name.partition("->") if isinstance(name, str) else ("", "", "")
        if not arrow:
            raise BadFormat(f"{name!r} is not the name of an edge.", "Write a0.h1->a5.h3<q>, m2->logits.")
        w, r = self.writer(source.strip()), self.reader(target.strip())
        if w >= self.before[r]:
            raise NotFound(
                f"There is no edge {name}: {self.writers[w]} does not write before {self.readers[r]} reads.",
                f"Writers that come before it: {self.writers[0]} to {self.writers[self.before[r] - 1]}.",
            )
        return w, r

    def edge_name(self, writer: int, reader: int) -> str:
        """The name of an edge.

        >>> standard(layers=2, heads=2).edge_name(2, 7)
        'a0.h1->a1.h0<q>'
        """
        return str(self.part_edge(writer, reader))

    def part_edge(self, writer: int, reader: int) -> Edge:
        """The edge at a place of the matrix."""
        return Edge(self.writers[writer], self.readers[reader])

    def edges(self, membership: np.ndarray) -> Iterator[tuple[int, int]]:
        """The edges of a membership matrix, as pairs, writer by writer."""
        for w, r in np.argwhere(membership & self.allowed):
            yield int(w), int(r)

    def matrix(self, names: Iterable[str]) -> np.ndarray:
        """Bool [writers readers] that is true at these edges."""
        membership = np.zeros(self.shape, dtype=bool)
        for name in names:
            membership[self.edge(name)] = True
        return membership

    def check(self, values: np.ndarray, what: str) -> np.ndarray:
        """`values`, if it has this graph's shape; BadInput otherwise."""
        values = np.asarray(values)
        if values.shape[-2:] != self.shape:
            raise BadInput(
                f"{what} of shape {list(values.shape)} does not fit a graph of {self.shape[0]} writers and "
                f"{self.shape[1]} readers.",
                "Make it from the same network.",
            )
        return values

    @property
    def layers(self) -> int:
        """How many layers have nodes."""
        return 1 + max((w.layer for w in self.writers if w.layer is not None), default=-1)

    def same_as(self, other: Graph) -> bool:
        """Have both the same writers, readers and edges?"""
        return (self.writers, self.readers, self.before) == (other.writers, other.readers, other.before)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: names and counts."""
        names = {"writers": [str(w) for w in self.writers], "readers": [str(r) for r in self.readers]}
        return names | {"before": list(self.before), "network": self.network}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Graph:
        """The inverse of `to_dict`; BadFormat where the data is no graph."""
        try:
            writers = tuple(Part.parse(name) for name in data["writers"])
            readers = tuple(Input.parse(name) for name in data["readers"])
            return cls(writers, readers, tuple(int(b) for b in data["before"]), str(data["network"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(
                f"This is not the data of a graph: {error!r}.", "Pass what to_dict gave."
            ) from error


def _look_up(name: str, index: dict[str, int], what: str, kind: type[Part] | type[Input]) -> int:
    if name not in index:
        with contextlib.suppress(BadFormat):
            name = str(kind.parse(name))
    if name not in index:
        offers = nearest(str(name), index) or list(index)[:3]
        raise NotFound(f"There is no {what} {name!r} in this graph.", f"Nearest: {', '.join(offers)}.")
    return index[name]


@dataclass(frozen=True)
class SublayerNodes:
    """One sublayer's share of the graph.

    Attributes:
        layer: its layer.
        kind: what its nodes are: a row of `parts.KINDS`.
        count: how many heads or experts; None for a whole.
        before: how many writers precede it.
        whole: a further node of the same layer for what cannot be split (`mlp` beside experts), or "".
    """

    layer: int
    kind: str
    count: int | None
    before: int
    whole: str = ""

    @property
    def parts(self) -> list[Part]:
        """Its nodes, in order."""
        if self.count is None:
            return [Part(self.kind, self.layer)]
        split = [Part(self.kind, self.layer, index) for index in range(self.count)]
        return split + ([Part(self.whole, self.layer)] if self.whole else [])

    @property
    def inputs(self) -> list[Input]:
        """Its readers: all queries, all keys, all values of heads; one for everything else."""
        parts = self.parts
        return [Input(part, port) for port in parts[0].row.ports for part in parts]


def assemble(sublayers: Sequence[SublayerNodes], network: str = "") -> Graph:
    """The graph of a network with these sublayers, in the order in which they write."""
    writers, readers, before = [Part("input")], [], []
    for sublayer in sublayers:
        inputs = sublayer.inputs
        readers += inputs
        before += [sublayer.before] * len(inputs)
        writers += sublayer.parts
    readers.append(Input(Part("logits")))
    before.append(len(writers))
    return Graph(tuple(writers), tuple(readers), tuple(before), network)


def standard(layers: int, heads: int, parallel: bool = False, network: str = "") -> Graph:
    """The graph of a plain transformer: each layer attention heads, then an MLP (which, in parallel blocks, does not
    read them). It is the graph of the EAP-IG and MIB formats.
    """
    sublayers = []
    for layer in range(layers):
        start = 1 + layer * (heads + 1)
        sublayers.append(SublayerNodes(layer, "head", heads, start))
        sublayers.append(SublayerNodes(layer, "mlp", None, start if parallel else start + heads))
    return assemble(sublayers, network)
