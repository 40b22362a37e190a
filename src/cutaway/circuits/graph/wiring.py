"""How each part of a network reads the stream and writes to it, as found and checked on one short run.

A reader's input is norm(stream) through its slice of a projection. Which module is the norm, which stream it takes (the
layer's input or the sum after the attention) and which channels of a projection belong to which head is not written down
for any architecture: it is read off the values and the gradients of a probe, and the whole is checked by running the
network with every reader's input rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from cutaway.circuits.graph.nodes import Graph
from cutaway.circuits.graph.reading import ExpertReading, HeadReading
from cutaway.network.coefficients import Coefficient
from cutaway.network.norms import Norm
from cutaway.results import brief

if TYPE_CHECKING:
    from cutaway.network import Network

Port = Literal["q", "k", "v"]
PORTS: tuple[Port, ...] = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class Projection:
    """The slices of a projection by which heads read.

    Attributes:
        path: of the module.
        module: the projection.
        channels: [h e], each head's of its output.
        weight: [c d], or None where the module is no plain matrix.
        bias: [c], or None.
        groups: query heads that share a key/value head.
    """

    path: str
    module: nn.Module
    channels: Tensor
    weight: Tensor | None
    bias: Tensor | None
    groups: int = 1


@dataclass(frozen=True, eq=False)
class WiringStage:
    """One sublayer, or the logits: where it reads, which readers and writers it holds.

    Attributes:
        kind: heads, experts, a whole sublayer, or the logits.
        layer: its layer; of the logits, the number of layers.
        stream: the site of the stream that it reads.
        norm_path: the norm before it; None where it reads the stream itself.
        norm: that norm as the gradient sees it.
        site: where a whole sublayer takes its input.
        readers: their numbers in the graph.
        before: how many writers it may read.
        writers: their numbers in the graph.
        write: the site or module input at which its writers are seen.
        projections: of the heads, by port; empty where they read by `reading`.
        reading: how its parts read by running the module.
        module: the attention.
        output: module of the heads' output projection.
        output_matrix: [h e d], where that is a plain matrix.
        heads: how many heads (or experts, with what is no expert's) it has; 0 for a whole.
        factor: what is written is factor * norm_after(raw).
        norm_after: the norm that follows it.
        raw: the site before that norm.
    """

    kind: Literal["head", "expert", "unit", "logits"]
    layer: int
    stream: str
    norm_path: str | None
    norm: Norm | None
    site: str
    readers: slice
    before: int
    writers: slice = field(default_factory=lambda: slice(0, 0))
    write: str = ""
    projections: dict[Port, Projection] = field(default_factory=dict)
    reading: HeadReading | ExpertReading | None = None
    module: nn.Module | None = None
    output: nn.Module | None = None
    output_matrix: Tensor | None = None
    heads: int = 0
    factor: Coefficient = 1.0
    norm_after: Norm | None = None
    raw: str = ""

    @property
    def entry(self) -> str:
        """The place whose value is the stream as this stage sees it."""
        return f"{self.norm_path}:in" if self.norm_path else self.stream


@dataclass(frozen=True, eq=False)
class Wiring:
    """A network's graph and how its stages read and write.

    Attributes:
        net: the network.
        graph: its graph.
        stages: in the order of computation.
        notes: what is coarser than it could be, and why.
    """

    net: Network
    graph: Graph
    stages: tuple[WiringStage, ...]
    notes: tuple[str, ...] = ()

    __repr__ = brief

    @property
    def grouped(self) -> list[nn.Module]:
        """Attention modules whose key/value heads must be repeated before the module sees them."""
        return [
            s.module for s in self.stages
            if s.module is not None and getattr(s.module, "num_key_value_groups", 1) > 1
            and (s.reading is not None or any(p.groups > 1 for p in s.projections.values()))
        ]  # fmt: skip

    @contextmanager
    def ungrouped(self) -> Iterator[None]:
        """While active, grouped attention takes one key and value head for each query head."""
        before = [(m, m.num_key_value_groups) for m in self.grouped]
        try:
            for module, _ in before:
                module.num_key_value_groups = 1  # type: ignore[assignment]
            yield
        finally:
            for module, groups in before:
                module.num_key_value_groups = groups  # type: ignore[assignment]
