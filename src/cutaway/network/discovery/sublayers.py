"""The parts of one writer to the stream: which kind it is, its projections, its neurons, its router."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from cutaway.network.anatomy import LAYOUTS, Attention, FunctionCall, FunctionTaps, Mlp, PortTap
from cutaway.network.bare import BareMatrix, letters_of
from cutaway.network.discovery.linear import MOVE_OPS, SHAPE_OPS, Sums
from cutaway.network.discovery.products import is_elementwise, is_linear_map
from cutaway.network.discovery.stacks import tap_at
from cutaway.network.discovery.trace import AttentionCall, Call, Trace, Watched
from cutaway.network.sites import SublayerKind


@dataclass(eq=False)
class Scope:
    """One layer call of a trace, with everything within it, and the attention calls that were found there.

    Attributes:
        trace: of the forward pass.
        sums: its versions as sums.
        layer: the call.
        within: all calls in it.
        batch: how many rows the pass had.
        attention: the attention computations found in it.
    """

    trace: Trace
    sums: Sums
    layer: Call
    within: list[Call]
    batch: int
    attention: list[FoundAttention] = field(default_factory=list)

    def giver(self, version: int) -> Call | None:
        """The outermost call in the layer that owns a tensor."""
        owner = self.sums.owner(version, self.within)
        return None if owner is None else owner[0]

    def gives(self, call: Call, version: int) -> bool:
        """Whether a tensor is among what a call gives."""
        return any(self.sums.same(v, version) for _, v in call.outputs)

    def linear_makers(self, version: int) -> list[Call]:
        """The nearest weight matrices that a tensor was computed by, not looking past each of them."""
        makers: dict[int, Call] = {}
        seen: set[int] = set()
        todo = [version]
        while todo:
            v = todo.pop()
            if v in seen or v < self.layer.start:
                continue
            seen.add(v)
            maker = self._linear_with_output(v)
            if maker is not None:
                makers[maker.index] = maker
            else:
                todo.extend(self.trace.nodes[v].inputs)
        return [makers[i] for i in sorted(makers)]

    def _linear_with_output(self, version: int) -> Call | None:
        for call in reversed(self.within):
            gives = call.start <= version < call.end and self.gives(call, version)
            if gives and is_linear_map(self.trace, call):
                return call
        return None


@dataclass(frozen=True, eq=False)
class FoundAttention:
    """One attention computation: the versions of its parts, and how to get at them.

    `times`: how often its module calls an attention function in this one call; with more than one, a site such as `q`
    would be but a part of what the layer does.

    Attributes:
        call: of the module that computes it.
        nth: which of this call's attention functions it is.
        fields: versions of its parts, by name.
        functions: how to get at them; None where a registered function is called.
        times: see above.
    """

    call: Call
    nth: int
    fields: dict[str, int]
    functions: FunctionTaps | None
    times: int = 1


def registered(trace: Trace, noted: AttentionCall) -> FoundAttention:
    """An attention that went through the registry of attention functions."""
    times = sum(a.call == noted.call for a in trace.attention)
    return FoundAttention(trace.calls[noted.call], noted.nth, noted.fields, None, times)


def written_out(trace: Trace, call: Call) -> FoundAttention | None:
    """An attention in a module's own code: a softmax between two products of live tensors, or one fused function."""
    ops = [w for w in trace.watched if w.call == call.index]
    for fused in (w for w in ops if w.op == "scaled_dot_product_attention" and None not in w.inputs[:3]):
        q, k, v = (int(i) for i in fused.inputs[:3] if i is not None)
        taps = FunctionTaps(None, None, None, FunctionCall(fused.op, fused.nth))
        return FoundAttention(call, call.nth, {"q": q, "k": k, "v": v, "z": fused.output}, taps)
    products = [
        (w, factors)
        for w in ops
        if w.op in ("matmul", "bmm", "baddbmm", "einsum")
        and (factors := _factors(w)) is not None
        and all(trace.nodes[i].live for i in factors)
    ]
    for soft in (w for w in ops if w.op == "softmax"):
        source = soft.inputs[0]
        if source is None:
            continue
        before = trace.ancestors(source)
        first = [p for p in products if p[0].nth < soft.nth and p[0].output in before]
        after = [
            p for p in products if p[0].nth > soft.nth
            and any(soft.output in trace.ancestors(f) for f in (p[1] if p[0].op == "einsum" else p[1][:1]))
        ]  # fmt: skip
        if not first or not after:
            continue
        found = _parts(trace, first[-1], soft, source, after[0])
        if found is not None:
            return FoundAttention(call, call.nth, *found)
    return None


_Product = tuple[Watched, tuple[int, int]]


def _parts(
    trace: Trace, scoring: _Product, soft: Watched, source: int, average: _Product
) -> tuple[dict[str, int], FunctionTaps] | None:
    """The parts of an attention around a softmax, and how to get at them; None where an einsum is of another kind."""
    layouts: dict[str, str] = {}
    (q, k), (pattern, v), turned, turned_too = scoring[1], average[1], False, False
    if scoring[0].op == "einsum":
        read = _scored(trace, scoring, source)
        if read is None:
            return None
        layouts, turned = read
        q, k = (k, q) if turned else (q, k)
    if average[0].op == "einsum":
        turned_too = soft.output not in trace.ancestors(pattern)
        pattern, v = (v, pattern) if turned_too else (pattern, v)
        axes = layouts.get("pattern", LAYOUTS["pattern"])
        if trace.nodes[pattern].shape != trace.nodes[soft.output].shape or len(axes) != len(
            trace.nodes[pattern].shape
        ):
            return None
        averaged = _averaged(trace, average, axes, turned_too)
        if averaged is None:
            return None
        layouts |= averaged
    elif layouts.get("pattern", LAYOUTS["pattern"]) != LAYOUTS["pattern"]:
        return None
    product_at = FunctionCall(scoring[0].op, scoring[0].nth, turned)
    average_at = FunctionCall(average[0].op, average[0].nth, turned_too)
    fields = {"q": q, "k": k, "v": v, "scores": source, "pattern": soft.output, "z": average[0].output}
    return fields, FunctionTaps(product_at, FunctionCall(soft.op, soft.nth), average_at, None, layouts)


def _letters(trace: Trace, product: _Product) -> tuple[str, str, str] | None:
    """The axes of the two factors of an einsum and of what it gives."""
    nodes, watched = trace.nodes, product[0]
    node = nodes[watched.output]
    equation = node.args[0] if node.args else None
    if not isinstance(equation, str):
        return None
    read = letters_of(equation, [len(nodes[v].shape) for v in product[1]])
    return None if read is None else (read[0][0], read[0][1], read[1])


def _scored(trace: Trace, scoring: _Product, source: int) -> tuple[dict[str, str], bool] | None:
    """Layouts of queries, keys, scores and pattern, and whether the keys are the first factor."""
    letters = _letters(trace, scoring)
    if letters is None or trace.nodes[source].shape != trace.nodes[scoring[0].output].shape:
        return None
    first, second, out = letters
    src = out[-1]  # the axis of the softmax
    swapped = src in first
    queries, keys = (second, first) if swapped else (first, second)
    common = [a for a in queries if a in keys and a in out]
    own = [a for a in queries if a in out and a not in keys]
    width = [a for a in queries if a in keys and a not in out]
    if src in queries or src not in keys or len(own) != 1 or len(width) != 1 or not 1 <= len(common) <= 2:
        return None
    roles = {own[0]: "p", width[0]: "e", src: "p", **dict(zip(common, "bh", strict=False))}
    square = {**roles, own[0]: "d", src: "s"}
    if set(queries + keys + out) != set(roles) or queries[0] != common[0]:
        return None
    layouts = {"q": _spelt(queries, roles), "k": _spelt(keys, roles), "scores": _spelt(out, square)}
    return {**layouts, "pattern": layouts["scores"]}, swapped


def _averaged(trace: Trace, average: _Product, pattern: str, swapped: bool) -> dict[str, str] | None:
    """Layouts of values and z, where the pattern's axes are known."""
    letters = _letters(trace, average)
    if letters is None:
        return None
    weights, values, out = (letters[1], letters[0], letters[2]) if swapped else letters
    roles = dict(zip(weights, pattern, strict=True))
    width = [a for a in values if a not in weights]
    summed = [a for a in weights if roles[a] == "s"]
    if len(width) != 1 or set(values) != {a for a in weights if roles[a] != "d"} | set(width):
        return None
    if set(out) != (set(weights) | set(width)) - set(summed):
        return None
    roles = {**roles, width[0]: "e"}
    return {
        "v": _spelt(values, {**roles, summed[0]: "p"}),
        "z": _spelt(out, {a: "p" if r == "d" else r for a, r in roles.items()}),
    }


def _spelt(letters: str, roles: Mapping[str, str]) -> str:
    return "".join(roles[a] for a in letters)


def _factors(watched: Watched) -> tuple[int, int] | None:
    """The two tensors that a matrix product multiplies."""
    given = watched.inputs[1:] if watched.op in ("baddbmm", "einsum") else watched.inputs
    first, second, *rest = (*given, None, None)
    alone = watched.op != "einsum" or not any(v is not None for v in rest)
    return None if first is None or second is None or not alone else (first, second)


def kind_of(scope: Scope, raw: int, stop: frozenset[int]) -> tuple[SublayerKind, FoundAttention | None]:
    """What kind of sublayer computed `raw` from the versions in `stop`.

    Attention if an attention's output is among its ancestors; else MLP if a change at one position leaves the others
    as they were when the module is run again; else another token mixer.
    """
    ancestors = scope.trace.ancestors(raw, set(stop))
    for traced in scope.attention:
        if traced.fields["z"] in ancestors:
            sources = scope.trace.ancestors(traced.fields["k"], set(stop))
            reads = set(map(scope.sums.root, stop)) & set(map(scope.sums.root, sources))
            return ("attention" if reads else "cross_attention"), traced
    giver = scope.giver(raw)
    if giver is not None and isinstance(giver.module, BareMatrix):
        return ("mlp" if _by_position(scope, raw, stop) else "mixer"), None
    return ("mixer" if giver is not None and mixes_positions(scope, giver) else "mlp"), None


#: Functions that act on each position alone, where they are told no axis but the last.
_ALONE = SHAPE_OPS | {
    "add", "sub", "mul", "truediv", "neg", "abs", "pow", "square", "sqrt", "rsqrt", "exp", "log", "erf", "tanh", "sigmoid",
    "relu", "gelu", "silu", "softplus", "elu", "leaky_relu", "clamp", "clip", "hardtanh", "mish", "mean", "var", "std",
    "layer_norm", "rms_norm", "norm", "chunk", "split", "getitem", "where", "maximum", "minimum", "max", "min",
}  # fmt: skip
_REDUCTIONS = frozenset({"mean", "var", "std", "norm", "max", "min"})


def _by_position(scope: Scope, version: int, stop: frozenset[int]) -> bool:
    """Whether a tensor is computed from those in `stop` by weights and by functions that act on each position alone."""
    trace = scope.trace
    products = {v for c in scope.within if isinstance(c.module, BareMatrix) for v in range(c.start, c.end)}
    inside = {c.index for c in scope.within}
    for v in trace.ancestors(version, set(stop)):
        node = trace.nodes[v]
        if v in stop or not node.live or v < scope.layer.start or v in products:
            continue
        if node.call in inside and (
            is_linear_map(trace, trace.calls[node.call]) or is_elementwise(trace, trace.calls[node.call])
        ):
            continue
        axis = node.kwargs.get("dim", next((a for a in node.args[1:] if a is not None), None))
        if node.op not in _ALONE or (node.op in _REDUCTIONS and axis not in (-1, (-1,), [-1], 2)):
            return False
    return True


def mixes_positions(scope: Scope, call: Call) -> bool:
    """Run a module again on its recorded arguments with one position changed: do other positions change?

    Its channels are shifted by one, so that the range of values, which quantisation on the fly goes by, stays.
    """
    target = next(
        (v for _, v in call.inputs if scope.trace.nodes[v].floating and len(scope.trace.nodes[v].shape) >= 2),
        None,
    )
    if target is None:
        return False
    original = scope.trace.tensors[target]
    if original.ndim < 3 or original.shape[0] != scope.batch or original.shape[1] < 2:
        return False
    at = 1 if original.shape[1] > 2 else 0  # of two positions, the first is what a causal mixer hands on

    def swap(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point() and value.shape == original.shape:
            changed = value.clone()  # all of them: queries alone do not reach other positions
            changed[:, at] = value[:, at].roll(1, -1)
            return changed
        if isinstance(value, tuple | list):
            return type(value)(swap(v) for v in value)
        return value

    args = tuple(swap(a) for a in call.args)
    kwargs = {k: swap(v) for k, v in call.kwargs.items()}
    with torch.no_grad():
        before, after = _first(call.module(*call.args, **call.kwargs)), _first(call.module(*args, **kwargs))
    others = [i for i in range(original.shape[1]) if i != at]
    if before is None or after is None or before.ndim < 3 or before.shape[1] != original.shape[1]:
        return False
    scale = before.abs().max().clamp(min=1e-12)
    return bool((before[:, others] - after[:, others]).abs().max() > 1e-4 * scale)


def _first(output: object) -> Tensor | None:
    if torch.is_tensor(output):
        return output
    if isinstance(output, tuple | list):
        return next((t for t in output if torch.is_tensor(t)), None)
    return None


def moved_root(trace: Trace, version: int, stop: int) -> int:
    """The version that a tensor is a rearrangement of, at latest `stop`."""
    while version != stop:
        node = trace.nodes[version]
        if node.op not in MOVE_OPS or not node.inputs:
            return version
        version = node.inputs[0]
    return version


def read_attention(scope: Scope, traced: FoundAttention, cross: bool) -> Attention:
    """The projections of an attention, found by walking back from q, k and v and forward from z."""
    trace, fields = scope.trace, traced.fields
    makers = {name: scope.linear_makers(fields[name]) for name in ("q", "k", "v")}

    def size(version: int) -> int:  # a part of z, as one expert is given, is not z
        return math.prod(trace.nodes[version].shape)

    output = next(
        (c for c in scope.within if c.index > traced.call.index or c.path.startswith(traced.call.path)
         if is_linear_map(trace, c) and c.start > fields["z"]
         and any(moved_root(trace, v, fields["z"]) == fields["z"] and size(v) == size(fields["z"]) for _, v in c.inputs)),
        None,
    )  # fmt: skip
    rotary = (
        bool(makers["q"])
        and all(moved_root(trace, fields["q"], -1) not in {v for _, v in c.outputs} for c in makers["q"])
        and not _is_view_of(trace, fields["q"], makers["q"])
    )
    heads, kv_heads, width = head_shape(scope, traced)
    paths = {name: tuple(c.path for c in calls) for name, calls in makers.items()}
    return Attention(
        traced.call.path, traced.call.nth, cross, heads, kv_heads, width, traced.functions,
        paths["q"], paths["k"], paths["v"],
        None if output is None else output.path, 0 if output is None else output.nth, rotary,
    )  # fmt: skip


def _is_view_of(trace: Trace, version: int, makers: list[Call]) -> bool:
    outputs = {v for c in makers for _, v in c.outputs}
    while version not in outputs:
        node = trace.nodes[version]
        if (node.op not in MOVE_OPS and node.op not in ("mul", "truediv")) or not node.inputs:
            return False
        version = node.inputs[0]
    return True


def head_shape(scope: Scope, traced: FoundAttention) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, width of a head."""
    nodes, batch = scope.trace.nodes, scope.batch
    q, k, v = (nodes[traced.fields[n]].shape for n in ("q", "k", "v"))
    if traced.functions is None:
        return q[2], k[2], v[-1]
    layouts = traced.functions.layouts
    if "q" in layouts:
        queries, keys = (
            shape[layouts[n].index("h")] if "h" in layouts[n] else 1 for n, shape in (("q", q), ("k", k))
        )
        return queries, keys, v[layouts.get("v", "bhpe").index("e")]
    if len(q) == 4:
        return q[1], k[1], v[-1]
    return q[0] // batch, k[0] // batch, v[-1]


def read_mlp(
    scope: Scope, raw: int, giver: Call | None
) -> tuple[Mlp, int | None, dict[str, tuple[Call, str]]]:
    """The projections of an MLP: (parts, the version it reads, the ports of its activation, pre-activation, router)."""
    trace = scope.trace
    ports: dict[str, tuple[Call, str]] = {}
    if giver is not None and (router := _find_router(scope, giver)) is not None:
        call, weights_key, index_key, experts = router
        ports["router"] = (call, f"{weights_key} {index_key}")
        return Mlp((), None, None, experts), None, ports
    makers = scope.linear_makers(raw)
    if len(makers) != 1 or not scope.gives(makers[0], raw):
        return Mlp(tuple(c.path for c in makers), None, None), None, ports
    down = makers[0]
    key, act = next((k, v) for k, v in down.inputs if trace.nodes[v].floating)
    ups = [c for c in scope.linear_makers(act) if c.index != down.index]
    if not ups:
        return Mlp((), None, down.path), None, ports
    ports["mlp_act"] = (down, key)
    between = trace.ancestors(act, {v for c in ups for _, v in c.inputs})
    activation = next(
        (c for c in scope.within
         if next(c.module.parameters(), None) is None and len(c.inputs) >= 1 and c.outputs
         and c.outputs[0][1] in between and c.inputs[0][1] in between
         and not scope.sums.same(c.inputs[0][1], c.outputs[0][1]) and is_elementwise(trace, c)
         and not any(o is not c and o.parent == c.index for o in scope.within)
         and trace.nodes[c.outputs[0][1]].shape[-1] == trace.nodes[act].shape[-1]),
        None,
    )  # fmt: skip
    if activation is not None:
        ports["mlp_pre"] = (activation, activation.inputs[0][0])
    reads = next((v for _, v in ups[0].inputs if trace.nodes[v].floating), None)
    parts = Mlp(tuple(c.path for c in ups), activation.path if activation else None, down.path)
    return parts, reads, ports


def _find_router(scope: Scope, giver: Call) -> tuple[Call, str, str, int] | None:
    """A module inside that gives floating weights and integer numbers of one shape [tokens k]: a top-k router."""
    trace = scope.trace
    for call in [giver, *(c for c in scope.within if giver.start <= c.start and c.end <= giver.end)]:
        outputs = [(k, trace.nodes[v]) for k, v in call.outputs]
        products = [
            n for n in trace.nodes[call.start : call.end] if n.op in ("linear", "matmul", "mm", "addmm")
        ]
        experts = products[-1].shape[-1] if products else 0
        for (index_key, index), (weights_key, weights) in product(outputs, outputs):
            numbers = not index.floating and len(index.shape) >= 2 and index.shape[-1] <= experts
            if numbers and weights.floating and weights.shape == index.shape:
                return call, weights_key, index_key, experts
    return None


def reading_tap(
    scope: Scope, version: int, consumers: list[Call], stream: frozenset[int], sums_at: list[int]
) -> PortTap | None:
    """The port at which `consumers`, and no other writer to the stream, read a tensor.

    The outermost call inside the layer that takes the tensor and contains all consumers; failing that, the output of
    the module that made it, unless it is the stream itself, which others read too. A call in which the stream is
    added up (one of `sums_at`) is passed over: its argument is also the stream.
    """
    for call in scope.within:
        if any(call.start <= s < call.end for s in sums_at):
            continue
        if not all(call.index <= c.index and call.start <= c.start and c.end <= call.end for c in consumers):
            continue
        keys = [key for key, v in call.inputs if v == version or scope.sums.same(v, version)]
        if len(keys) == 1:  # a module that is handed it twice reads it at both
            return tap_at(call, "in", keys[0])
    if scope.sums.root(version) not in stream:
        for call in scope.within:
            for key, v in call.outputs:
                if scope.sums.same(v, version) and is_elementwise(scope.trace, call):
                    return tap_at(call, "out", key)
    return None
