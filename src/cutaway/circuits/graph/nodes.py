"""The computational graph of a network as two lists and some arithmetic: who writes to the stream, who reads from it.

An edge is a place in a matrix (writer, reader). Writers stand in the order in which they write, so that a reader sees a
prefix of them: `before[reader]` writers, and no more need be said about which edges there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from cutaway.errors import BadFormat, BadInput, NotFound, nearest

WriterKind = Literal["input", "head", "attention", "cross", "mixer", "mlp"]
ReaderKind = Literal["q", "k", "v", "attention", "cross", "mixer", "mlp", "logits"]
#: How the nodes of a kind begin in names such as `a5.h1`, `m3`.
LETTERS: dict[str, str] = {"head": "a", "attention": "a", "cross": "c", "mixer": "x", "mlp": "m"}
_EDGE = re.compile(r"^(?P<writer>[\w.]+)->(?P<reader>[\w.]+?)(?:<(?P<part>[qkv])>)?$")


@dataclass(frozen=True)
class Writer:
    """What adds to the stream: the input, an attention head, or a whole sublayer.

    >>> str(Writer("head", 3, 1)), str(Writer("mlp", 0)), str(Writer("input"))
    ('a3.h1', 'm0', 'input')
    """

    kind: WriterKind
    layer: int = -1
    head: int | None = None

    def __str__(self) -> str:
        if self.kind == "input":
            return "input"
        return f"{LETTERS[self.kind]}{self.layer}" + ("" if self.head is None else f".h{self.head}")

    @property
    def words(self) -> str:
        """The node in words: `head 3.1`, `MLP 0`."""
        if self.kind == "input":
            return "input"
        name = {"head": "head", "mlp": "MLP"}.get(self.kind, self.kind)
        return f"{name} {self.layer}" + ("" if self.head is None else f".{self.head}")


@dataclass(frozen=True)
class Reader:
    """What reads the stream: the queries, keys or values of a head, a whole sublayer, or the logits.

    >>> str(Reader("k", 3, 1)), str(Reader("mlp", 0)), str(Reader("logits"))
    ('a3.h1<k>', 'm0', 'logits')
    """

    kind: ReaderKind
    layer: int = -1
    head: int | None = None

    def __str__(self) -> str:
        if self.kind == "logits":
            return "logits"
        return self.node + (f"<{self.kind}>" if self.head is not None else "")

    @property
    def node(self) -> str:
        """Name of the node that this is an input of."""
        if self.kind == "logits":
            return "logits"
        letter = "a" if self.head is not None else LETTERS[self.kind]
        return f"{letter}{self.layer}" + ("" if self.head is None else f".h{self.head}")


@dataclass(frozen=True)
class Graph:
    """All edges that a network could use.

    writers: in the order in which they write. readers: per layer all queries, all keys, all values, then whole
    sublayers; the logits last. before: for each reader how many writers come before it; they are its possible sources.
    network: identity (hash) of the network it was made of; "" where it comes from a file that does not say.

    >>> graph = standard(layers=12, heads=12)
    >>> graph.n_edges
    32491
    >>> standard(layers=32, heads=32).n_edges
    1592881
    """

    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    before: tuple[int, ...]
    network: str = ""

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
        return np.array([self._writer_index.get(r.node, -1) for r in self.readers])

    def writer(self, name: str) -> int:
        """Number of a writer by name; NotFound with the nearest names."""
        return _look_up(name, self._writer_index, "node")

    def reader(self, name: str) -> int:
        """Number of a reader by name; NotFound with the nearest names."""
        return _look_up(name, self._reader_index, "reader")

    def edge(self, name: str) -> tuple[int, int]:
        """(writer, reader) of an edge such as `a0.h1->a5.h3<q>`.

        Raises NotFound where a node does not exist or the writer does not come before the reader.

        >>> standard(layers=2, heads=2).edge("a0.h1->m1")
        (2, 13)
        """
        match = _EDGE.match(name.strip()) if isinstance(name, str) else None
        if match is None:
            raise BadFormat(f"{name!r} is not the name of an edge.", "Write a0.h1->a5.h3<q>, m2->logits.")
        part = match.group("part")
        w = self.writer(match.group("writer"))
        r = self.reader(match.group("reader") + (f"<{part}>" if part else ""))
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
        return f"{self.writers[writer]}->{self.readers[reader]}"

    def edges(self, membership: np.ndarray) -> Iterator[tuple[int, int]]:
        """The edges of a membership matrix, as pairs, writer by writer."""
        for w, r in np.argwhere(membership & self.allowed):
            yield int(w), int(r)

    def matrix(self, names: Iterable[str]) -> np.ndarray:
        """Bool [writers readers] that is true at these edges."""
        found = np.zeros(self.shape, dtype=bool)
        for name in names:
            found[self.edge(name)] = True
        return found

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
        return 1 + max((w.layer for w in self.writers), default=-1)

    def same_as(self, other: Graph) -> bool:
        """Have both the same writers, readers and edges?"""
        return (self.writers, self.readers, self.before) == (other.writers, other.readers, other.before)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: names and counts."""
        return {
            "writers": [str(w) for w in self.writers],
            "readers": [str(r) for r in self.readers],
            "before": list(self.before),
            "network": self.network,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Graph:
        """The inverse of `to_dict`; BadFormat where the data is no graph."""
        try:
            writers = tuple(parse_writer(name) for name in data["writers"])
            readers = tuple(parse_reader(name) for name in data["readers"])
            return cls(writers, readers, tuple(int(b) for b in data["before"]), str(data["network"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(
                f"This is not the data of a graph: {error!r}.", "Pass what to_dict gave."
            ) from error


def _look_up(name: str, index: dict[str, int], what: str) -> int:
    if name not in index:
        offers = nearest(name, index) or list(index)[:3]
        raise NotFound(f"There is no {what} {name!r} in this graph.", f"Nearest: {', '.join(offers)}.")
    return index[name]


_KINDS: dict[str, str] = {"c": "cross", "x": "mixer", "m": "mlp"}


def parse_writer(name: str) -> Writer:
    """The writer of a name; BadFormat where it is none.

    >>> parse_writer("a3.h1")
    Writer(kind='head', layer=3, head=1)
    """
    if name == "input":
        return Writer("input")
    match = re.fullmatch(r"([acxm])(\d+)(?:\.h(\d+))?", name)
    if match is None or (match.group(3) and match.group(1) != "a"):
        raise BadFormat(f"{name!r} is not the name of a node.", "Write input, a3.h1 or m3.")
    letter, layer, head = match.groups()
    kind: Any = _KINDS.get(letter, "attention" if head is None else "head")
    return Writer(kind, int(layer), None if head is None else int(head))


def parse_reader(name: str) -> Reader:
    """The reader of a name; BadFormat where it is none.

    >>> parse_reader("a3.h1<k>")
    Reader(kind='k', layer=3, head=1)
    """
    if name == "logits":
        return Reader("logits")
    match = re.fullmatch(r"(.*?)(?:<([qkv])>)?", name)
    assert match is not None
    writer = parse_writer(match.group(1))
    if (writer.kind == "head") != (match.group(2) is not None) or writer.kind == "input":
        raise BadFormat(f"{name!r} is not the name of a reader.", "Write a3.h1<q>, m3 or logits.")
    kind: Any = match.group(2) or writer.kind
    return Reader(kind, writer.layer, writer.head)


@dataclass(frozen=True)
class SublayerNodes:
    """One sublayer's share of the graph: its layer, its kind, its heads (None: a whole), how many writers precede it."""

    layer: int
    kind: Literal["head", "attention", "cross", "mixer", "mlp"]
    heads: int | None
    before: int


def assemble(parts: Sequence[SublayerNodes], network: str = "") -> Graph:
    """The graph of a network with these sublayers, in the order in which they write."""
    writers, readers, before = [Writer("input")], [], []
    for part in parts:
        if part.kind == "head":
            heads = range(part.heads or 0)
            readers += [Reader(kind, part.layer, h) for kind in ("q", "k", "v") for h in heads]
            before += [part.before] * (3 * len(heads))
            writers += [Writer("head", part.layer, h) for h in heads]
        else:
            readers.append(Reader(part.kind, part.layer))
            before.append(part.before)
            writers.append(Writer(part.kind, part.layer))
    readers.append(Reader("logits"))
    before.append(len(writers))
    return Graph(tuple(writers), tuple(readers), tuple(before), network)


def standard(layers: int, heads: int, parallel: bool = False, network: str = "") -> Graph:
    """The graph of a plain transformer: each layer attention heads, then an MLP (which, in parallel blocks, does not
    read them). It is the graph of the EAP-IG and MIB formats.
    """
    parts = []
    for layer in range(layers):
        start = 1 + layer * (heads + 1)
        parts.append(SublayerNodes(layer, "head", heads, start))
        parts.append(SublayerNodes(layer, "mlp", None, start if parallel else start + heads))
    return assemble(parts, network)
