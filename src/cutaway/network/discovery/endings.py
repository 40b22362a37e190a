"""The two ends of a stack: how tokens enter the stream, and how the stream becomes logits."""

from __future__ import annotations

from cutaway.network.anatomy import Head, Port, PortTap, Tap
from cutaway.network.bare import LOOKUPS, BareMatrix
from cutaway.network.coefficients import Coefficient
from cutaway.network.discovery.linear import MOVE_OPS, SHAPE_OPS, Sums
from cutaway.network.discovery.products import is_elementwise, is_linear_map
from cutaway.network.discovery.stacks import Chain, tap_at
from cutaway.network.discovery.trace import Call, Trace
from cutaway.network.sites import Site


def embedding_taps(
    taps: dict[Site, Tap],
    refusals: dict[Site, str],
    trace: Trace,
    sums: Sums,
    chain: Chain,
    stack: str,
    in_layers: list[tuple[int, int]],
) -> None:
    """Find `embed` and `pos_embed` of a stack: what a lookup by token, and one that does not see tokens, add to it."""
    first = chain.links[0]
    outside = [
        c
        for c in trace.calls
        if c.end <= first.call.start and not any(s <= c.start and c.end <= e for s, e in in_layers)
    ]
    shape = trace.nodes[first.in_version].shape
    upstream = trace.ancestors(first.in_version)
    given = [(v, trace.nodes[v]) for c in trace.calls[:1] for _, v in c.inputs]
    ids = {v for v, node in given if not node.floating and len(node.shape) == 2}
    parts = sums.expand(first.in_version, outside, frozenset())
    for call in outside:
        for key, version in call.outputs:
            node = trace.nodes[version]
            looked_up = _looked_up(trace, call, version)  # not handed on, as by a dropout
            if not looked_up or version not in upstream or not node.floating or node.shape[-1:] != shape[-1:]:
                continue
            sees_tokens = any(
                v in ids or trace.ancestors(v) & ids
                for v in _numbers(trace, call)
                if len(trace.nodes[v].shape) == 2
            )
            factor = next((c for v, c in parts.items() if sums.same(v, version)), 1.0)
            name = "embed" if sees_tokens and not _is_position(trace, call) else "pos_embed"
            taps.setdefault(Site(name, None, stack), tap_at(call, "out", key, factor))
            break
    embed, positions = Site("embed", None, stack), Site("pos_embed", None, stack)
    if positions not in taps:
        _fixed_table(taps, positions, trace, sums, parts, outside)
    if embed not in taps:
        owner = sums.owner(next(iter(parts)), outside) if len(parts) == 1 else None
        if owner is not None:
            taps[embed] = tap_at(owner[0], "out", owner[1])
        else:
            refusals[embed] = "No lookup by token was found that feeds the stream. Use resid_pre.0."
    if positions not in taps:
        refusals[positions] = (
            "No position embedding is added to the stream (positions enter in the attention, or not at all)."
        )


def _looked_up(trace: Trace, call: Call, version: int) -> bool:
    """Whether a version is what a call itself looked up in a table, but for the order of its axes."""
    while call.start <= version < call.end:
        node = trace.nodes[version]
        if node.op in LOOKUPS and any(not trace.nodes[v].floating for v in node.inputs):
            return True
        turned = node.op in MOVE_OPS or (node.op == "einsum" and len(node.inputs) == 1)
        if not turned or not node.inputs:
            return False
        version = node.inputs[0]
    return False


def _numbers(trace: Trace, call: Call) -> list[int]:
    """The whole numbers that a call is given or, where it is a lookup in a module's own code, that it reads."""
    if isinstance(call.module, BareMatrix):
        return [v for v in trace.nodes[call.start].inputs if not trace.nodes[v].floating]
    return [v for _, v in call.inputs]


def _fixed_table(
    taps: dict[Site, Tap],
    site: Site,
    trace: Trace,
    sums: Sums,
    parts: dict[int, Coefficient],
    outside: list[Call],
) -> None:
    """Tap a table by position that is added as it is: given by a module, or read by the addition itself."""
    for version, factor in parts.items():
        node = trace.nodes[version]
        if node.live or len(node.shape) < 2 or node.shape[-2] < 2:
            continue
        owner = sums.owner(version, outside)
        if owner is not None:
            taps[site] = tap_at(owner[0], "out", owner[1], factor)
            return
        for call in outside:
            added = isinstance(call.module, BareMatrix) and call.module.role == "addition"
            if added and sums.same(call.inputs[0][1], version):
                taps[site] = tap_at(call, "in", "0", factor)
                return


def _is_position(trace: Trace, call: Call) -> bool:
    """A lookup whose numbers are counted, not given: positions that were computed from the mask or the ids."""
    index = next((v for v in _numbers(trace, call) if not trace.nodes[v].floating), None)
    if index is None:
        return False
    return any(trace.nodes[v].op in ("cumsum", "arange") for v in trace.ancestors(index))


def find_head(
    taps: dict[Site, Tap], refusals: dict[Site, str], trace: Trace, sums: Sums, main: Chain
) -> Head | None:
    """Find the final norm, the unembedding and what is done to its output; add the sites `final_norm` and `logits`."""
    root = trace.calls[0]
    last = main.links[-1]
    after = [c for c in trace.calls if c.start >= last.call.end]
    logits = _logits(root) or _bare_logits(trace, sums, root, after)
    norm = next(
        (c for c in after if is_elementwise(trace, c) and any(sums.same(v, last.out_version) for _, v in c.inputs)
         and c.outputs and trace.nodes[c.outputs[0][1]].shape == trace.nodes[last.out_version].shape
         and not sums.same(c.outputs[0][1], last.out_version)),
        None,
    )  # fmt: skip
    if norm is not None:
        taps[Site("final_norm")] = tap_at(norm, "out", norm.outputs[0][0])
    else:
        refusals[Site("final_norm")] = "No norm stands between the last layer and the output."
    if logits is None:
        refusals[Site("logits")] = (
            "This model has no output head: it gives hidden states, not logits. Use final_norm or resid_post."
        )
        return Head(norm.path if norm else None, None, 1.0, 1.0, None)
    key, version = logits
    taps[Site("logits")] = PortTap(Port("", "out", key))
    unembed, scale, softcap = _unembedding(trace, sums, version, after)
    before = 1.0
    if unembed is not None:
        source = norm.outputs[0][1] if norm is not None else last.out_version
        read = next(v for _, v in unembed.inputs if trace.nodes[v].floating)
        parts = sums.expand(read, [], frozenset({sums.root(source)}))
        if set(parts) == {sums.root(source)} and isinstance(factor := parts[sums.root(source)], float):
            before = factor
        else:
            unembed = None
    return Head(norm.path if norm else None, unembed.path if unembed else None, before, scale, softcap)


def _logits(root: Call) -> tuple[str, int] | None:
    others = ("prediction_logits", "lm_logits", "logits_per_image")
    named = [(k, v) for names in (("logits",), others) for k, v in root.outputs if k in names]
    return named[0] if named else None


def _bare_logits(trace: Trace, sums: Sums, root: Call, after: list[Call]) -> tuple[str, int] | None:
    """The first tensor that a model gives, where it is named nothing and a weight matrix behind the layers made it."""
    given = next(((k, v) for k, v in root.outputs if trace.nodes[v].floating), None)
    if given is None or given[0] not in ("", "0") or not trace.nodes[given[1]].live:
        return None
    behind = [c for c in after if c.index != root.index]
    return given if _unembedding(trace, sums, given[1], behind)[0] is not None else None


def _unembedding(
    trace: Trace, sums: Sums, version: int, after: list[Call]
) -> tuple[Call | None, float, float | None]:
    """Walk back from the logits through scales and a soft-cap to the weight matrix that made them."""
    scale, softcap = 1.0, None
    while True:
        makers = [c for c in after if any(v == version for _, v in c.outputs) and is_linear_map(trace, c)]
        if makers:
            return makers[-1], scale, softcap
        node = trace.nodes[version]
        step = sums.terms(version)
        if step is not None and len(step) == 1 and isinstance(step[0][1], float):
            scale *= step[0][1]
            version = step[0][0]
        elif node.op == "tanh" and softcap is None and node.inputs:
            softcap, scale = scale, 1.0
            version = node.inputs[0]
        elif node.op in SHAPE_OPS | {"getitem"} and node.inputs:
            version = node.inputs[0]
        else:
            return None, 1.0, None
