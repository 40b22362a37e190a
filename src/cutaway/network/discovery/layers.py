"""One layer of a traced network: its sublayers, and the taps of their sites."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import get_args

from torch import Tensor

from cutaway.network.anatomy import (
    Attention,
    AttentionField,
    AttentionTap,
    Form,
    HeadOutTap,
    Layer,
    Mlp,
    NormedTap,
    PortTap,
    RouterTap,
    Stretch,
    Sublayer,
    SumTap,
    Tap,
)  # fmt: skip
from cutaway.network.coefficients import Coefficient, is_one
from cutaway.network.discovery.linear import Sums
from cutaway.network.discovery.products import is_elementwise
from cutaway.network.discovery.stacks import StreamCall, tap_at
from cutaway.network.discovery.streams import StreamStep, find_steps
from cutaway.network.discovery.sublayers import (
    FoundAttention,
    Scope,
    head_shape,
    kind_of,
    read_attention,
    read_mlp,
    reading_tap,
    registered,
    written_out,
)  # fmt: skip
from cutaway.network.discovery.trace import Call, Trace
from cutaway.network.sites import SHORT, SITES, Site, having


@dataclass(eq=False)
class Draft:
    """Taps and refusals under construction.

    Attributes:
        taps: where each site lives, as far as it is found.
        refusals: why a site is missing.
    """

    taps: dict[Site, Tap] = field(default_factory=dict)
    refusals: dict[Site, str] = field(default_factory=dict)

    def refuse(self, names: Iterable[str], layer: int | None, stack: str, reason: str) -> None:
        """Note why sites are not there, unless they are."""
        for name in names:
            site = Site(name, layer, stack)
            if site not in self.taps:
                self.refusals.setdefault(site, reason)


def find_attention(trace: Trace, layer: Call, within: list[Call]) -> list[FoundAttention]:
    """Attention computations in a layer: those that were registered, and those written out in a module's own code.

    That module may be the layer itself.
    """
    inside = {layer.index, *(c.index for c in within)}
    first = {a.call: a for a in reversed(trace.attention) if a.call in inside}
    attentions = [registered(trace, a) for a in first.values()]
    for call in (*reversed(within), layer):
        contains = any(call.start <= f.call.start and f.call.end <= call.end for f in attentions)
        if not contains and (written := written_out(trace, call)) is not None:
            attentions.append(written)
    return sorted(attentions, key=lambda f: f.fields["z"])


def read_layer(
    link: StreamCall, index: int, stack: str, trace: Trace, sums: Sums, batch: int, linked: bool, draft: Draft
) -> Layer:
    """The anatomy of one layer call; the taps of its sites, and refusals, go into the draft."""
    call = link.call
    within = trace.inside(call.index)
    scope = Scope(trace, sums, call, within, batch)
    scope.attention = find_attention(trace, call, within)
    steps = find_steps(trace, sums, link, within) if link.is_stream else None
    if not link.is_stream or (steps is None and not linked):
        kind = type(call.module).__name__
        shape = " ".join(map(str, trace.nodes[link.in_version].shape))
        reason = (
            f"{kind} hands on several streams, or one of shape {shape}: not one vector per position."
            if not link.is_stream
            else f"What {kind} gives is not what the next layer takes, so it is not known to be the stream."
        )
        draft.refuse([*having(lambda kind: kind.by_sums), "resid_pre", "resid_post"], index, stack, reason)
        _bare_attention(scope, index, stack, draft)
        return Layer(index, call.path, call.nth, "unknown", ())
    draft.taps[Site("resid_pre", index, stack)] = tap_at(call, "in", link.in_key)
    draft.taps[Site("resid_post", index, stack)] = tap_at(call, "out", link.out_key)
    if steps is None:
        reason = (
            f"The output of {call.path} is not a sum of its input and of what its modules give, so what each sublayer "
            "writes is not known."
        )
        draft.refuse(having(lambda kind: kind.by_sums), index, stack, reason)
        _bare_attention(scope, index, stack, draft)
        return Layer(index, call.path, call.nth, "unknown", ())
    return _LayerReader(scope, link, steps, index, stack, draft).read()


#: The sites inside an attention function.
_ATTENTION: tuple[AttentionField, ...] = get_args(AttentionField)


def _bare_attention(scope: Scope, index: int, stack: str, draft: Draft) -> None:
    """Attention sites of a layer whose stream could not be read."""
    if len(scope.attention) > 1:
        draft.refuse(_ATTENTION, index, stack, "The layer has several attentions.")
    for traced in scope.attention[:1]:
        _attention_taps(traced, index, stack, "", draft, scope)


def _attention_taps(
    traced: FoundAttention, index: int, stack: str, prefix: str, draft: Draft, scope: Scope
) -> None:
    if traced.times > 1:
        reason = f"{traced.call.path} computes {traced.times} attentions in one call, so one tensor is not the whole of it."
        draft.refuse([prefix + name for name in (*_ATTENTION, "head_out")], index, stack, reason)
        return
    for name in _ATTENTION:
        site = Site(prefix + name, index, stack)
        if traced.functions is None and not scope.trace.eager and SITES[site.name].inside == "eager":
            reason = "The network does not run with its eager attention, which alone shows it."
            draft.refuse([site.name], index, stack, reason)
        else:
            heads = head_shape(scope, traced)[0]
            draft.taps[site] = AttentionTap(traced.call.path, traced.nth, name, traced.functions, heads)


@dataclass(eq=False)
class _LayerReader:
    """Turns the steps of one layer into its sublayers and the taps of their sites."""

    scope: Scope
    link: StreamCall
    steps: list[StreamStep]
    index: int
    stack: str
    draft: Draft
    mlp_reads: int | None = None
    mlp_step: int = -1

    def __post_init__(self) -> None:
        self.writers = [(v, c, n) for n, step in enumerate(self.steps) for v, c in step.writers]
        states = [self.link.in_version, *(v for s in self.steps for v in (s.state, s.result, s.summed))]
        self.states = frozenset(map(self.scope.sums.root, states))
        self.sublayers: list[Sublayer] = []

    def site(self, name: str) -> Site:
        return Site(name, self.index, self.stack)

    def refuse(self, name: str, reason: str) -> None:
        self.draft.refuse([name], self.index, self.stack, reason)

    def read(self) -> Layer:
        for version, factor, n in self.writers:
            self.sublayers.append(self._sublayer(version, factor, n))
        form = self._form()
        self._refuse_missing()
        call = self.link.call
        return Layer(self.index, call.path, call.nth, form, tuple(self.sublayers), self._stretches())

    def _sublayer(self, version: int, factor: Coefficient, n: int) -> Sublayer:
        scope, trace = self.scope, self.scope.trace
        others = {v for v, _, _ in self.writers} - {version}
        stop = frozenset(others | {self.link.in_version} | self.states)
        giver = scope.giver(version)
        raw, norm_after = version, None
        while giver is not None and is_elementwise(trace, giver) and giver.inputs:
            inner = self._input_of(giver, version)
            if inner is None or scope.sums.root(inner) in self.states:
                break
            norm_after = norm_after or giver.path
            raw = scope.sums.root(inner)
            giver = scope.giver(raw)
        kind, traced = kind_of(scope, raw, stop)
        short = SHORT[kind]
        self._writes(f"{short}_out", raw, 1.0)
        self._writes(f"{short}_write", version, factor)
        path = giver.path if giver is not None else ""
        if traced is not None:
            attention = self._attention(traced, kind == "cross_attention")
            return Sublayer(kind, traced.call.path, factor, norm_after, attention=attention)
        if kind == "mixer":
            self._reads_of(giver, "mixer_in")
            return Sublayer(kind, path, factor, norm_after)
        mlp, reads, ports = read_mlp(scope, raw, giver)
        self._mlp_taps(mlp, reads, ports, giver)
        self.mlp_reads, self.mlp_step = reads if reads is not None else self._input_of(giver), n
        return Sublayer(kind, path, factor, norm_after, mlp=mlp)

    def _stretches(self) -> tuple[Stretch, ...]:
        stretches = []
        written = [
            (f"{SHORT[s.kind]}_write", n) for s, (*_, n) in zip(self.sublayers, self.writers, strict=True)
        ]
        for n, step in enumerate(self.steps):
            names = [name for name, at in written if at == n]
            norm = None if step.norm is None else step.norm.path
            stretches.append(Stretch(step.carry, tuple(dict.fromkeys(names)), self._constant(step), norm))
        return tuple(stretches)

    def _constant(self, step: StreamStep, of: int | None = None) -> Tensor | None:
        """The sum of a step's constants, or of those that `of` was computed from."""
        upstream = None if of is None else self.scope.trace.ancestors(of)
        values = [
            self.scope.trace.tensors[v].detach() * c
            for v, c in step.constants
            if upstream is None or v in upstream
        ]
        return sum(values[1:], values[0]) if values else None

    def _input_of(self, giver: Call | None, like: int | None = None) -> int | None:
        """What a call reads that has the shape of a version (of the layer's input)."""
        nodes = self.scope.trace.nodes
        shape = nodes[self.link.in_version if like is None else like].shape
        return next((v for _, v in giver.inputs if nodes[v].shape == shape), None) if giver else None

    def _reads_of(self, giver: Call | None, name: str) -> None:
        """Tap what a call reads."""
        reads = self._input_of(giver)
        if giver is not None and reads is not None:
            key = next(k for k, v in giver.inputs if v == reads)
            self.draft.taps.setdefault(self.site(name), tap_at(giver, "in", key))
            self._normed(name, reads)

    def _port(self, version: int, factor: Coefficient = 1.0) -> PortTap | None:
        """The output that hands a tensor over, if a module does."""
        owner = self.scope.sums.owner(version, self.scope.within)
        return None if owner is None else tap_at(owner[0], "out", owner[1], factor)

    def _writes(self, name: str, version: int, factor: Coefficient) -> None:
        """Tap a writer; where two of a kind write, the site is their sum."""
        tap, site = self._port(version, factor), self.site(name)
        before = self.draft.taps.pop(site, None)
        if tap is None or (before is None and site in self.draft.refusals):
            path = self.link.call.path
            self.refuse(
                name, f"What is written in {path} is computed in the layer's own code, not given by a module."
            )
        elif before is None:
            self.draft.taps[site] = tap
        elif name.endswith("_write"):
            parts = before.parts if isinstance(before, SumTap) else (before,)
            self.draft.taps[site] = SumTap((*(p for p in parts if isinstance(p, PortTap)), tap))
        else:
            kind = name.removesuffix("_out")
            path = self.link.call.path
            self.refuse(name, f"Several {kind} sublayers write in {path}. Use {kind}_write, their sum.")

    def _reads(self, name: str, version: int, consumers: list[Call]) -> None:
        tap = reading_tap(self.scope, version, consumers, self.states, [s.summed for s in self.steps])
        if tap is None:
            self.refuse(name, f"In {self.link.call.path} no single module reads it.")
        else:
            self.draft.taps.setdefault(self.site(name), tap)
            self._normed(name, version)

    def _normed(self, name: str, version: int) -> None:
        """Tap what a sublayer reads before the gain of the norm that gives it, where a module that is no part of the stream
        does.
        """
        site, sums = self.site(name.replace("_in", "_normed")), self.scope.sums
        tap, shape = self.draft.taps.get(self.site(name)), self.scope.trace.nodes[version].shape
        owner = sums.owner(version, self.scope.within)
        if (
            site.name not in SITES
            or owner is None
            or not isinstance(tap, PortTap)
            or sums.root(version) in self.states
        ):
            return
        like = [v for _, v in owner[0].inputs if self.scope.trace.nodes[v].shape == shape]
        if len(like) == 1 and shape and is_one(tap.factor):
            self.draft.taps.setdefault(site, NormedTap(tap.port, owner[0].path, int(shape[-1])))

    def _attention(self, traced: FoundAttention, cross: bool) -> Attention:
        prefix = "cross_" if cross else ""
        parts = read_attention(self.scope, traced, cross)
        if self.site(prefix + "z") in self.draft.taps or self.site(prefix + "z") in self.draft.refusals:
            for name in (*_ATTENTION, "head_out"):
                self.draft.taps.pop(self.site(prefix + name), None)
                self.refuse(prefix + name, "The layer has several attentions.")
            return parts
        if (reason := self._partial(traced, parts)) is not None:
            for name in (*_ATTENTION, "head_out"):
                self.refuse(prefix + name, reason)
            return parts
        _attention_taps(traced, self.index, self.stack, prefix, self.draft, self.scope)
        queries = self.scope.linear_makers(traced.fields["q"])
        names = ("q",) if cross else ("q", "k", "v")
        consumers = {c.index: c for n in names for c in self.scope.linear_makers(traced.fields[n])}
        read = {v for c in queries for _, v in c.inputs if self.scope.trace.nodes[v].floating}
        site = "cross_in" if cross else "attn_in"
        if len({self.scope.sums.root(v) for v in read}) == 1:
            same = self.scope.sums.same
            shared = [c for c in consumers.values() if any(same(v, min(read)) for _, v in c.inputs)]
            self._reads(site, min(read), shared)
        else:
            self.refuse(site, "The queries are not read from one tensor by one projection.")
        if traced.times > 1:
            return parts
        if parts.output is not None:
            heads = HeadOutTap(parts.output, parts.output_call, parts.heads)
            self.draft.taps[self.site(prefix + "head_out")] = heads
        else:
            reason = "The output projection does not read z itself (it is gated or normed on the way)."
            self.refuse(prefix + "head_out", reason)
        return parts

    def _partial(self, traced: FoundAttention, parts: Attention) -> str | None:
        """Why an attention is not the whole of what its module does, where it gives fewer positions than the stream has."""
        nodes = self.scope.trace.nodes
        total = math.prod(nodes[traced.fields["z"]].shape)
        positions = total // max(self.scope.batch * parts.heads * parts.head_width, 1)
        stream = nodes[self.link.in_version].shape[-2]
        if traced.times > 1 or positions == stream:
            return None
        path = traced.call.path
        return f"{path} attends at {positions} of the stream's {stream} positions, so one tensor is not the whole of it."

    def _mlp_taps(
        self, mlp: Mlp, reads: int | None, ports: dict[str, tuple[Call, str]], giver: Call | None
    ) -> None:
        for name in ("mlp_act", "mlp_pre"):
            if name in ports:
                call, key = ports[name]
                self.draft.taps.setdefault(self.site(name), tap_at(call, "in", key))
            else:
                reason = (
                    "The MLP is a mixture of experts: there is no one hidden layer. Use router and mlp_out."
                    if mlp.experts
                    else "The MLP has no single hidden layer between two weight matrices."
                    if name == "mlp_act"
                    else "The nonlinearity is not a module of its own. Use mlp_act."
                )
                self.refuse(name, reason)
        if "router" in ports:
            call, keys = ports["router"]
            weights_key, _, index_key = keys.partition(" ")
            router = RouterTap(call.path, call.nth, weights_key, index_key, mlp.experts or 0)
            self.draft.taps[self.site("router")] = router
        ups = [c for c in self.scope.within if c.path in mlp.up]
        if reads is not None:
            self._reads("mlp_in", reads, [c for c in ups if any(v == reads for _, v in c.inputs)])
        else:
            self._reads_of(giver, "mlp_in")

    def _form(self) -> Form:
        if len(self.steps) > 1 or self.steps[0].norm is not None:
            self._post_norm_mid()
            return "post-norm"
        if len(self.sublayers) < 2:
            return "single"
        if self._junction_before_mlp():
            return "sequential"
        turns = any(a.kind == "mlp" and b.kind != "mlp" for a, b in pairwise(self.sublayers))
        how = "more than one attention and MLP take turns" if turns else "attention and MLP run in parallel"
        layer = type(self.link.call.module).__name__
        self.refuse("resid_mid", f"resid_mid does not exist in {layer}: {how}. Use resid_pre or resid_post.")
        return "sequential" if turns else "parallel"

    def _post_norm_mid(self) -> None:
        """In a post-norm layer the stream between the sublayers is the output of the norm before the MLP."""
        if self.mlp_step > 0 and (norm := (step := self.steps[self.mlp_step - 1]).norm) is not None:
            key = next(k for k, v in norm.outputs if self.scope.sums.same(v, step.result))
            self.draft.taps[self.site("resid_mid")] = tap_at(norm, "out", key)

    def _junction_before_mlp(self) -> bool:
        """Tap the sum that the MLP reads, if it is more than the layer's input; whether there is one."""
        at = next((i for i, s in enumerate(self.sublayers) if s.kind == "mlp"), 0)
        if at == 0 or self.mlp_reads is None or any(s.kind != "mlp" for s in self.sublayers[at:]):
            return False
        step, before = self.steps[0], self.writers[:at]
        upstream = self.scope.trace.ancestors(self.mlp_reads, {self.link.in_version})
        taps = [tap for v, c, _ in before if (tap := self._port(v, c)) is not None]
        if len(taps) < at or not all(v in upstream for v, _, _ in before):
            return False
        entry = tap_at(self.link.call, "in", self.link.in_key, step.carry)
        mid = SumTap((entry, *taps), self._constant(step, of=self.mlp_reads))
        self.draft.taps[self.site("resid_mid")] = mid
        return True

    def _refuse_missing(self) -> None:
        kinds = {s.kind for s in self.sublayers}
        what = ", ".join(sorted(kinds)) or "nothing"
        for kind in SHORT:
            if kind not in kinds:
                reason = f"Layer {self.index} has no {kind.replace('_', '-')}: it has {what}."
                names = having(lambda row, kind=kind: row.sublayer == kind)
                self.draft.refuse(names, self.index, self.stack, reason)
        self.refuse("resid_mid", f"Layer {self.index} has {what}: nothing lies between attention and MLP.")
        self.refuse("router", f"Layer {self.index} has no mixture of experts.")
