"""Anatomy: where each site lives in one module tree. Plain data, made by `discover`, read by `session`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

from cutaway.network.bare import BareMatrix
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
    """A site at a port: `factor` times the port's tensor. A port without the batch axis, or flat, is brought to [b p .].

    Attributes:
        port: an argument or output of a module call.
        factor: what its tensor is multiplied by.
    """

    port: Port
    factor: Coefficient = 1.0


AttentionField = Literal["q", "k", "v", "scores", "pattern", "z"]


@dataclass(frozen=True)
class AttentionTap:
    """A site inside the attention function that a module calls.

    Attributes:
        path: of the module.
        call: which of the module's calls.
        field: what of the function is meant.
        functions: the calls in the module's own code; None where a registered function is called.
        heads: how many query heads there are.
    """

    path: str
    call: int
    field: AttentionField
    functions: FunctionTaps | None = None
    heads: int = 0


@dataclass(frozen=True, eq=False)
class SumTap:
    """A sum that no module hands over: weighted ports, such as a layer's input plus what was written so far.

    A change of it is carried by the last port, whose tensor is weighed with that tap's factor.

    Attributes:
        parts: the ports that are added.
        constant: added to them; None for nothing.
    """

    parts: tuple[PortTap, ...]
    constant: Tensor | None = None


@dataclass(frozen=True)
class NormedTap:
    """The output of a norm before its gain and bias, told from what a sublayer reads behind them.

    Attributes:
        port: of what is read behind them.
        norm: path of the norm.
        width: of the stream that it norms.
    """

    port: Port
    norm: str
    width: int


@dataclass(frozen=True)
class HeadOutTap:
    """Each head's part of a sublayer's output: `z` through the head's slice of the output projection.

    Attributes:
        projection: path of the output projection.
        call: which of its calls.
        heads: how many there are.
    """

    projection: str
    call: int
    heads: int


@dataclass(frozen=True)
class RouterTap:
    """Routing weights as a dense table, from a router module that gives the best experts' weights and numbers.

    Attributes:
        path: of the router.
        call: which of its calls.
        weights_key, index_key: where its output holds the best experts' weights, and their numbers.
        experts: how many there are.
    """

    path: str
    call: int
    weights_key: str
    index_key: str
    experts: int


class Codec(Protocol):
    """A dictionary as a run uses it: rows to latents, latents to what they add, numbers by source and by target."""

    def encode(self, values: Sequence[Tensor], source: int) -> Tensor:
        """Activations [... F] of a source's latents, of the values [... d] of the sites that it reads."""
        ...

    def written(self, change: Tensor, values: Sequence[Tensor], source: int, target: int) -> Tensor:
        """What a change [... F] of them adds to a target [... d]."""
        ...

    def decode(
        self, latents: Sequence[Tensor | None], values: Sequence[Tensor] | None, target: int
    ) -> Tensor:
        """The reconstruction [... d] of a target, from the latents of all sources that write there."""
        ...


@dataclass(frozen=True, eq=False)
class LatentTap:
    """The latents of one source of a dictionary: encoded from what it reads; a change of them is added where it writes.

    What the dictionary does not reconstruct stays in place, so that latents that are not changed change nothing.

    Attributes:
        codec: the dictionary.
        source: which of its sources.
        size: how many latents.
        reads: the sites that are encoded, side by side, and their taps.
        writes: number, site and tap of each target.
    """

    codec: Codec
    source: int
    size: int
    reads: tuple[tuple[Site, Tap], ...]
    writes: tuple[tuple[int, Site, Tap], ...]


@dataclass(frozen=True, eq=False)
class ErrorTap:
    """What a dictionary leaves of one target: the value there less the reconstruction, from the network's own latents.

    Attributes:
        codec: the dictionary.
        target: which of its targets.
        at: the site of the target, and its tap.
        sources: the latents that write there.
        own: which of these has read the row that norms and skip connections need.
    """

    codec: Codec
    target: int
    at: tuple[Site, Tap]
    sources: tuple[LatentTap, ...]
    own: int


Tap = PortTap | AttentionTap | SumTap | NormedTap | HeadOutTap | RouterTap | LatentTap | ErrorTap


@dataclass(frozen=True)
class FunctionCall:
    """Which call of which torch function, within one call of an attention module that has no registered function.

    Attributes:
        op: name of the function.
        nth: which of its calls, from 0.
        swapped: do keys come before queries, or values before the pattern?
    """

    op: str
    nth: int
    swapped: bool = False


@dataclass(frozen=True)
class FunctionTaps:
    """An attention written out in a module's own code: its product of queries and keys, its softmax, its average.

    Attributes:
        product: of queries and keys.
        softmax: of the scores.
        average: of the values.
        fused: one function that does all three; each is None where it was not met.
        layouts: the axes of what an einsum takes and gives, by name of the part, in the letters of `LAYOUTS`; parts that
            are not named have heads before positions, [b h p e], or both in one, [b*h p e].
    """

    product: FunctionCall | None
    softmax: FunctionCall | None
    average: FunctionCall | None
    fused: FunctionCall | None
    layouts: Mapping[str, str] = field(default_factory=dict)


#: Axes of the parts of an attention at their sites: batch, position, head, width; destination and source.
LAYOUTS: dict[str, str] = {**dict.fromkeys("qkvz", "bphe"), **dict.fromkeys(("scores", "pattern"), "bhds")}


@dataclass(frozen=True)
class Attention:
    """Parts of an attention sublayer, as module paths.

    Attributes:
        path: of the attention module.
        call: which of its calls.
        cross: are keys and values taken from another stack?
        heads, kv_heads: how many there are of queries, and of keys and values.
        head_width: of one head.
        functions: the calls in the module's own code; None where a registered function is called.
        queries, keys, values: paths of the projections.
        output: path of the output projection; None where there is none.
        output_call: which of the output projection's calls.
        rotary: are queries and keys rotated by position?
    """

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
    """Parts of an MLP sublayer, as module paths; `experts` counts them where there is a mixture.

    Attributes:
        up: paths of the projections into the hidden layer.
        activation: path of the activation function; None where it is no module.
        down: path of the projection back; None where there is none.
        experts: how many there are; None where it is no mixture.
    """

    up: tuple[str, ...]
    activation: str | None
    down: str | None
    experts: int | None = None


@dataclass(frozen=True, eq=False)
class Sublayer:
    """One writer to the stream: what kind it is, the factor it is written with, and its parts.

    Attributes:
        kind: attention, MLP, mixer, ...
        path: of its module.
        factor: what its output is multiplied by.
        norm_after: path of a norm on its output; None where there is none.
        attention: its parts, where it is attention.
        mlp: its parts, where it is an MLP.
    """

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
    """One layer call: its module, its form, its sublayers in the order in which they write, and how its stream runs.

    Attributes:
        index: from 0.
        path: of its module.
        call: which of the module's calls.
        form: how its sublayers follow each other.
        sublayers: in the order in which they write.
        stretches: how its stream runs, between norms.
    """

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
    """A chain of layers over one stream; the main stack has the empty name.

    Attributes:
        name: "" for the main one.
        path: of the list of layers.
        width: of the stream; None where it is not known.
        layers: in order.
    """

    name: str
    path: str
    width: int | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Head:
    """How the stream becomes logits: final norm, factor, unembedding, then scale and soft-cap.

    Attributes:
        norm: path of the final norm; None where there is none.
        unembed: path of the unembedding; None where there is none.
        before: factor before the unembedding.
        scale: factor after it.
        softcap: bound c of c * tanh(logits / c); None where there is none.
    """

    norm: str | None
    unembed: str | None
    before: float
    scale: float
    softcap: float | None


@dataclass(frozen=True, eq=False)
class Anatomy:
    """All that was discovered: stacks, the tap of every site, and for what is missing, why.

    Attributes:
        stacks: the main one, and others such as an encoder.
        taps: where each site lives.
        refusals: why a site is missing.
        head: how the stream becomes logits; None where that was not found.
        in_place: are tensors changed in place?
        bare: parameters that a module's own code multiplies with, as linear modules, by path.
    """

    stacks: tuple[Stack, ...]
    taps: Mapping[Site, Tap]
    refusals: Mapping[Site, str]
    head: Head | None
    in_place: bool
    bare: Mapping[str, BareMatrix] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "\n  ".join(self._lines())

    def _lines(self) -> list[str]:
        """What was found: stacks, sites, the way to the logits."""
        kinds, gone = {site.name for site in self.taps}, {site.name for site in self.refusals}
        lines = [
            f"Anatomy: {len(self.taps)} sites of {len(kinds)} kinds, {len(gone - kinds)} kinds are missing"
        ]
        for stack in self.stacks[:8]:
            makes = Counter(
                (layer.form, ", ".join(s.kind for s in layer.sublayers)) for layer in stack.layers
            )
            said = "; ".join(f"{n} {form} ({parts})" for (form, parts), n in makes.most_common(4))
            lines.append(f"{stack.name or 'main'} stack of {len(stack.layers)} layers: {said}")
        if self.head is not None:
            lines.append(
                f"output: {self.head.norm or 'no final norm'} -> {self.head.unembed or 'its own head'}"
            )
        return lines

    def _repr_html_(self) -> str:
        from cutaway.reports import display

        headline, *lines = self._lines()
        return display(headline, lines)

    def stack(self, name: str = "") -> Stack | None:
        """The stack of that name."""
        return next((s for s in self.stacks if s.name == name), None)

    @property
    def dictionaries(self) -> tuple[str, ...]:
        """Names of the dictionaries whose latents are sites here, "" for one without a name."""
        return tuple(
            dict.fromkeys(site.stack for site, tap in self.taps.items() if isinstance(tap, LatentTap))
        )

    def home(self, name: str) -> str:
        """The stack whose rows a site of this stack has: itself, or the main one where the name is a dictionary's."""
        return name if any(stack.name == name for stack in self.stacks) else ""

    def module(self, model: nn.Module, path: str) -> nn.Module:
        """The module at a path; for a parameter that is used without one, its linear map."""
        return self.bare[path] if path in self.bare else model.get_submodule(path)

    def sites(self) -> list[Site]:
        """Every site that was found, in the order of computation, the main stack first."""
        return sorted(self.taps, key=lambda s: (s.stack, s.rank))
