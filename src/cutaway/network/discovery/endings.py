"""The two ends of a stack: how tokens enter the stream, and how the stream becomes logits."""

from __future__ import annotations

from cutaway.network.anatomy import Head, Port, PortTap, Tap
from cutaway.network.discovery.linear import SHAPE_OPS, Sums
from cutaway.network.discovery.stacks import Chain, tap_at
from cutaway.network.discovery.streams import is_elementwise, is_linear_map
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
            looked_up = (
                node.op == "embedding" and call.start <= version < call.end
            )  # not handed on, as by a dropout
            if not looked_up or version not in upstream or not node.floating or node.shape[-1:] != shape[-1:]:
                continue
            sees_tokens = any(
                v in ids or trace.ancestors(v) & ids for _, v in call.inputs if len(trace.nodes[v].shape) == 2
            )
            factor = next((c for v, c in parts.items() if sums.same(v, version)), 1.0)
            name = "embed" if sees_tokens and not _is_position(trace, call) else "pos_embed"
            taps.setdefault(Site(name, None, stack), tap_at(call, "out", key, factor))
            break
    embed, positions = Site("embed", None, stack), Site("pos_embed", None, stack)
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


def _is_position(trace: Trace, call: Call) -> bool:
    """A lookup whose numbers are counted, not given: positions that were computed from the mask or the ids."""
    index = next((v for _, v in call.inputs if not trace.nodes[v].floating), None)
    if index is None:
        return False
    return any(trace.nodes[v].op in ("cumsum", "arange") for v in trace.ancestors(index))


def find_head(
    taps: dict[Site, Tap], refusals: dict[Site, str], trace: Trace, sums: Sums, main: Chain
) -> Head | None:
    """Find the final norm, the unembedding and what is done to its output; add the sites `final_norm` and `logits`."""
    root = trace.calls[0]
    logits = _logits(root)
    last = main.links[-1]
    after = [c for c in trace.calls if c.start >= last.call.end]
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
