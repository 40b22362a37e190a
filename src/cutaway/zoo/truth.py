"""What is known about a specimen, as plain data: nodes, edges, variables and where they live, needs, features.

Nodes are written as circuits write them: `input` (what enters the stream), `a0.h1` (head 1 of layer 0), `m0` (the MLP of
layer 0), `logits`. Edges name the input of a head that they feed: `a0.h1->a1.h0<k>`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cutaway.errors import BadFormat

Kind = Literal["input", "head", "mlp", "logits"]
Via = Literal["q", "k", "v", ""]
How = Literal["resample", "mean", "zero"]
_NODE = re.compile(r"^(?:(input)|(logits)|a(\d+)\.h(\d+)|m(\d+))$")
_EDGE = re.compile(r"^(\S+?)->([^<\s]+)(?:<([qkv])>)?$")


@dataclass(frozen=True, order=True)
class Node:
    """A part of the computational graph: the input, a head, an MLP, or the logits.

    >>> str(Node.parse("a0.h1")), Node.parse("m3").layer
    ('a0.h1', 3)
    """

    kind: Kind
    layer: int = -1
    head: int = -1

    @classmethod
    def parse(cls, text: str) -> Node:
        """The node of this name; BadFormat when it is none."""
        found = _NODE.match(text)
        if not found:
            raise BadFormat(f"{text!r} names no node.", "Write input, a0.h1, m0 or logits.")
        start, end, layer, head, mlp = found.groups()
        if start or end:
            return cls("input" if start else "logits")
        return cls("mlp", int(mlp)) if mlp is not None else cls("head", int(layer), int(head))

    def __str__(self) -> str:
        if self.kind == "head":
            return f"a{self.layer}.h{self.head}"
        return f"m{self.layer}" if self.kind == "mlp" else self.kind


@dataclass(frozen=True, order=True)
class Edge:
    """What one node writes, read by a later one; `via` is the input of a head that reads it.

    >>> str(Edge.parse("a0.h1->a1.h0<k>").target)
    'a1.h0'
    """

    source: Node
    target: Node
    via: Via = ""

    @classmethod
    def parse(cls, text: str) -> Edge:
        """The edge of this name; BadFormat when it is none."""
        found = _EDGE.match(text)
        if not found:
            raise BadFormat(f"{text!r} names no edge.", "Write a0.h1->a1.h0<k> or m0->logits.")
        source, target = found[1], found[2]
        via: Any = found[3] or ""
        return cls(Node.parse(source), Node.parse(target), via)

    def __str__(self) -> str:
        return f"{self.source}->{self.target}" + (f"<{self.via}>" if self.via else "")


@dataclass(frozen=True)
class Variable:
    """A variable of the stated causal model, and where the network holds it.

    site: a site with its layer (`resid_post.0`, `z.1`); head: which head of it; pos: the name of a span of the pairs, or
    "last"; basis: [k d] rows that span its subspace (None: the whole addressed value); classes: how many values it
    takes. read: is it used? A variable that is written and never read must decode, and change nothing when
    interchanged.
    """

    name: str
    says: str
    site: str
    pos: str = "last"
    head: int | None = None
    basis: tuple[tuple[float, ...], ...] | None = None
    classes: int | None = None
    read: bool = True


@dataclass(frozen=True)
class Need:
    """What becomes of the behaviour when these nodes, together, lose what they carry.

    how: their values are those of the corrupted prompt ("resample"), of the mean over prompts, or zero. breaks: does
    that take the behaviour away (accuracy falls below a half), or is it spared?
    """

    nodes: tuple[Node, ...]
    breaks: bool = True
    how: How = "resample"


@dataclass(frozen=True)
class Feature:
    """A direction [d] at a site that stands for something, and the tokens that have it (none: it is a matter of degree)."""

    name: str
    says: str
    site: str
    direction: tuple[float, ...]
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class GroundTruth:
    """All that is known. `established`: how. `facts`: what fits none of the other fields (key frequencies, ...).

    nodes: the components that carry the behaviour, without `input` and `logits`. edges: between them, and from and to
    those two. needs: sets of nodes with what happens when they are taken away; without any, each node alone is
    needed. checks: which checks `verify` makes, by name.
    """

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    variables: tuple[Variable, ...] = ()
    needs: tuple[Need, ...] = ()
    features: tuple[Feature, ...] = ()
    triggers: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[str, ...] = ("behaviour", "needed", "inert", "variables", "edges")
    established: str = ""

    def variable(self, name: str) -> Variable:
        """The variable of that name; BadFormat when there is none."""
        for found in self.variables:
            if found.name == name:
                return found
        names = ", ".join(v.name for v in self.variables) or "none"
        raise BadFormat(f"There is no variable {name!r}.", f"The variables are: {names}.")

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; directions rounded to five digits."""
        return {
            "nodes": [str(n) for n in self.nodes],
            "edges": [str(e) for e in self.edges],
            "variables": [_rounded(dataclasses.asdict(v)) for v in self.variables],
            "needs": [
                {"nodes": [str(n) for n in w.nodes], "breaks": w.breaks, "how": w.how} for w in self.needs
            ],
            "features": [_rounded(dataclasses.asdict(f)) for f in self.features],
            "triggers": [dict(t) for t in self.triggers],
            "facts": dict(self.facts),
            "checks": list(self.checks),
            "established": self.established,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GroundTruth:
        """The inverse of `to_dict`; BadFormat when the data is no ground truth."""
        try:
            return cls(
                nodes=tuple(map(Node.parse, data.get("nodes", ()))),
                edges=tuple(map(Edge.parse, data.get("edges", ()))),
                variables=tuple(
                    Variable(**{**v, "basis": _rows(v.get("basis"))}) for v in data.get("variables", ())
                ),
                needs=tuple(
                    Need(tuple(map(Node.parse, w["nodes"])), w["breaks"], w["how"])
                    for w in data.get("needs", ())
                ),
                features=tuple(
                    Feature(**{**f, "direction": tuple(f["direction"]), "tokens": tuple(f.get("tokens", ()))})
                    for f in data.get("features", ())
                ),
                triggers=tuple(data.get("triggers", ())),
                facts=dict(data.get("facts", {})),
                checks=tuple(data.get("checks", ())),
                established=str(data.get("established", "")),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise BadFormat(f"This is not a ground truth: {error!r}.", "Pass what to_dict gave.") from error


def nodes(*names: str) -> tuple[Node, ...]:
    """Several nodes by name.

    >>> nodes("a0.h1", "m1")[1].layer
    1
    """
    return tuple(map(Node.parse, names))


def _rows(basis: Sequence[Sequence[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    return None if basis is None else tuple(tuple(float(x) for x in row) for row in basis)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value
