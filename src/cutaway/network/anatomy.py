"""Anatomy: where each site lives in one module tree. Plain data, made by `discover`, read by `session`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cutaway.network.coefficients import Coefficient
from cutaway.network.sites import Site, SublayerKind

#: The key of whatever tensor comes first among a module's arguments or outputs.
FIRST = "*"


@dataclass(frozen=True)
class Port:
    """One argument or output of one call of one module: a tensor that a hook can read and replace.

    Attributes:
        path: of the module.
        side: whether it is an argument or an output.
        key: its name among them ("0", "hidden_states", "" for a bare tensor, `FIRST`).
        call: which call of that module within one forward.
    """

    path: str
    side: Literal["in", "out"]
    key: str
    call: int = 0

    def __str__(self) -> str:
        where = f"{self.path or 'the model'}" + (f" (call {self.call})" if self.call else "")
        return f"{'input' if self.side == 'in' else 'output'} {self.key + ' ' if self.key else ''}of {where}"


@dataclass(frozen=True, eq=False)
class PortTap:
    """A site at a port: `factor` times the port's tensor. A port without the batch axis, or flat, is brought to [b p .]."""

    port: Port
    factor: Coefficient = 1.0


AttentionField = Literal["q", "k", "v", "scores", "pattern", "z"]


@dataclass(frozen=True)
class AttentionTap:
    """A site inside the attention function that a module calls."""

    path: str
    call: int
    field: AttentionField


@dataclass(frozen=True, eq=False)
class SumTap:
    """A sum that no module hands over: weighted ports, such as a layer's input plus what was written so far.

    A change of it is carried by the last port, whose tensor is weighed with that tap's factor.
    """

    parts: tuple[PortTap, ...]
    constant: Tensor | None = None


@dataclass(frozen=True)
class HeadOutTap:
    """Each head's part of a sublayer's output: `z` through the head's slice of the output projection."""

    projection: str
    call: int
    heads: int


@dataclass(frozen=True)
class RouterTap:
    """Routing weights as a dense table, from a router module that gives the best experts' weights and numbers."""

    path: str
    call: int
    weights_key: str
    index_key: str
    experts: int


Tap = PortTap | AttentionTap | SumTap | HeadOutTap | RouterTap


@dataclass(frozen=True)
class FunctionCall:
    """Which call of which torch function, within one call of an attention module that has no registered function."""

    op: str
    nth: int


@dataclass(frozen=True)
class FunctionTaps:
    """An attention written out in a module's own code: its product of queries and keys, its softmax, its average."""

    product: FunctionCall | None
    softmax: FunctionCall | None
    average: FunctionCall | None
    fused: FunctionCall | None


@dataclass(frozen=True)
class Attention:
    """Parts of an attention sublayer, as module paths."""

    path: str
    call: int
    cross: bool
    heads: int
    kv_heads: int
    head_width: int
    functions: FunctionTaps | None
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    values: tuple[str, ...]
    output: str | None
    output_call: int = 0
    rotary: bool = False


@dataclass(frozen=True)
class Mlp:
    """Parts of an MLP sublayer, as module paths; `experts` counts them where there is a mixture."""

    up: tuple[str, ...]
    activation: str | None
    down: str | None
    experts: int | None = None


@dataclass(frozen=True, eq=False)
class Sublayer:
    """One writer to the stream: what kind it is, the factor it is written with, and its parts."""

    kind: SublayerKind
    path: str
    factor: Coefficient
    norm_after: str | None
    attention: Attention | None = None
    mlp: Mlp | None = None


Form = Literal["sequential", "parallel", "post-norm", "single", "unknown"]


@dataclass(frozen=True, eq=False)
class Stretch:
    """One stretch of the stream in a layer: carry * state + what is written + constant, then a norm if there is one.

    Attributes:
        carry: what the state is multiplied by.
        writes: names of the sites whose values are added, in order.
        constant: a bias that is added apart.
        norm: path of the norm that ends it.
    """

    carry: Coefficient
    writes: tuple[str, ...]
    constant: Tensor | None
    norm: str | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer call: its module, its form, its sublayers in the order in which they write, and how its stream runs."""

    index: int
    path: str
    call: int
    form: Form
    sublayers: tuple[Sublayer, ...]
    stretches: tuple[Stretch, ...] = ()

    def attention(self, cross: bool = False) -> Attention | None:
        """The layer's (cross-)attention, if it has one."""
        wanted = "cross_attention" if cross else "attention"
        return next((s.attention for s in self.sublayers if s.kind == wanted), None)


@dataclass(frozen=True, eq=False)
class Stack:
    """A chain of layers over one stream; the main stack has the empty name."""

    name: str
    path: str
    width: int | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Head:
    """How the stream becomes logits: final norm, factor, unembedding, then scale and soft-cap."""

    norm: str | None
    unembed: str | None
    before: float
    scale: float
    softcap: float | None


@dataclass(frozen=True, eq=False)
class Anatomy:
    """All that was discovered: stacks, the tap of every site, and for what is missing, why."""

    stacks: tuple[Stack, ...]
    taps: Mapping[Site, Tap]
    refusals: Mapping[Site, str]
    head: Head | None
    in_place: bool

    def stack(self, name: str = "") -> Stack | None:
        """The stack of that name."""
        return next((s for s in self.stacks if s.name == name), None)

    def sites(self) -> list[Site]:
        """Every site that was found, in the order of computation, the main stack first."""
        return sorted(self.taps, key=lambda s: (s.stack, s.rank))
