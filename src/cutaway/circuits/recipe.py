"""What a circuit remembers of where it came from: how it was traced, or what the file of another tool said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cutaway.circuits.methods import known_options, method_name, options_of
from cutaway.circuits.methods.options import MethodOptions, plain


@dataclass(frozen=True)
class TraceRecipe:
    """How a circuit was traced, so that the same can be done elsewhere.

    Attributes:
        method: name of the method.
        options: the method's.
        select: how edges were chosen from the scores.
    """

    method: str
    options: MethodOptions
    select: str = "top"

    def to_dict(self) -> dict[str, Any]:
        """As plain data; scores that masks were started from are left out."""
        return {"method": self.method, "options": plain(self.options), "select": self.select}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TraceRecipe:
        """The inverse of `to_dict`; options that the method no longer has are left out."""
        name = method_name(data["method"])
        options = options_of(name, None, known_options(name, data["options"]))
        return cls(name, options, str(data["select"]))


@dataclass(frozen=True, eq=False)
class GraphFile:
    """What a graph file of another tool says beside edges and scores, kept so that it is written back as it was.

    Attributes:
        cfg: the network's configuration, in the file's own words.
        nodes_in_graph: for each writer, whether the file counts it in.
        logits: the entry of the logits (JSON).
        dtype: of the scores (`.pt`).
        neurons: for each writer the file's list of neurons (JSON).
        neurons_scores: for each writer the list of their scores (JSON).
        neuron_tensors: the same two as tensors (`.pt`).
    """

    cfg: dict[str, Any]
    nodes_in_graph: tuple[bool, ...] | None = None
    logits: dict[str, Any] | None = None
    dtype: str = ""
    neurons: list[Any] | None = None
    neurons_scores: list[Any] | None = None
    neuron_tensors: dict[str, Any] | None = None
