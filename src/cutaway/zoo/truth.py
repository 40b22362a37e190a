"""What is known about a specimen, as plain data: nodes, edges, variables and where they live, needs, features.

Parts and edges are written as everywhere (`cutaway.network.parts`): `a0.h1->a1.h0<k>`. An edge into a head of which it is
not stated which input it feeds names none: `a0.h1->a1.h0`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cutaway.errors import BadFormat
from cutaway.network.parts import Edge, Part

How = Literal["resample", "mean", "zero"]


@dataclass(frozen=True)
class Variable:
    """A variable of the stated causal model, and where the network holds it.

    Attributes:
        name: as tasks and checks call it.
        says: what it means.
        site: a site with its layer (`resid_post.0`, `z.1`).
        pos: the name of a span of the pairs, or "last".
        head: which head of the site.
        basis: [k d] rows that span its subspace; None is the whole addressed value.
        classes: how many values it takes.
        read: is it used? A variable that is written and never read must decode, and change nothing when interchanged.
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

    Attributes:
        nodes: taken away together.
        breaks: does that take the behaviour away (accuracy falls below a half), or is it spared?
        how: their values become those of the corrupted prompt ("resample"), the mean over prompts, or zero.
    """

    nodes: tuple[Part, ...]
    breaks: bool = True
    how: How = "resample"


@dataclass(frozen=True)
class Feature:
    """A direction at a site that stands for something.

    Attributes:
        name: of the feature.
        says: what it stands for.
        site: with its layer.
        direction: [d].
        tokens: those that have it; none where it is a matter of degree.
    """

    name: str
    says: str
    site: str
    direction: tuple[float, ...]
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class GroundTruth:
    """All that is known about a network of the zoo; `zoo.truth(name)` gives it, `verify` proves it.

    Attributes:
        nodes: the parts that carry the behaviour, without `input` and `logits`.
        edges: between them, and from and to those two.
        variables: of the stated causal model, and where they are held.
        needs: sets of nodes with what happens when they are taken away; without any, each node alone is needed.
        features: directions that stand for something.
        triggers: inputs that set off what otherwise sleeps.
        facts: what fits none of the other fields (key frequencies, ...).
        checks: which checks `verify` makes, by name.
        established: how all this is known.
    """

    nodes: tuple[Part, ...] = ()
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
        for variable in self.variables:
            if variable.name == name:
                return variable
        names = ", ".join(v.name for v in self.variables) or "none"
        raise BadFormat(f"There is no variable {name!r}.", f"The variables are: {names}.")

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; directions rounded to five digits."""
        return {
            "nodes": [str(n) for n in self.nodes],
            "edges": [str(e) for e in self.edges],
            "variables": [_rounded(dataclasses.asdict(v)) for v in self.variables],
            "needs": [vars(w) | {"nodes": [str(n) for n in w.nodes]} for w in self.needs],
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
                nodes=nodes(*data.get("nodes", ())),
                edges=tuple(Edge.parse(text, some=True) for text in data.get("edges", ())),
                variables=tuple(
                    Variable(**v | {"basis": _rows(v.get("basis"))}) for v in data.get("variables", ())
                ),
                needs=tuple(Need(nodes(*w["nodes"]), w["breaks"], w["how"]) for w in data.get("needs", ())),
                features=tuple(Feature(**f | _tuples(f)) for f in data.get("features", ())),
                triggers=tuple(data.get("triggers", ())),
                facts=dict(data.get("facts", {})),
                checks=tuple(data.get("checks", ())),
                established=str(data.get("established", "")),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise BadFormat(f"This is not a ground truth: {error!r}.", "Pass what to_dict gave.") from error


def in_card_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts as a card lists them: heads, then MLPs, each from the first layer on."""
    return tuple(sorted(parts, key=lambda part: (part.kind, part.order)))


def nodes(*names: str) -> tuple[Part, ...]:
    """Several nodes by name.

    >>> nodes("a0.h1", "m1")[1].layer
    1
    """
    return tuple(map(Part.parse, names))


def _tuples(feature: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {"direction": tuple(feature["direction"]), "tokens": tuple(feature.get("tokens", ()))}


def _rows(basis: Sequence[Sequence[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    return None if basis is None else tuple(tuple(float(x) for x in row) for row in basis)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value
