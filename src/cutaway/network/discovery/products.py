"""Which calls multiply by a matrix, and which act on each channel alone."""

from __future__ import annotations

from cutaway.network.bare import BareMatrix
from cutaway.network.discovery.trace import Call, Trace

#: Operations that mix channels: a module without any of them is a norm, a scale or a gate.
MATMUL_OPS = frozenset(
    {"linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "einsum", "conv1d", "conv2d", "bilinear", "rmatmul", "grouped_mm",
     "scaled_dot_product_attention", "multi_head_attention_forward", "embedding"}
)  # fmt: skip


def is_product(op: str) -> bool:
    """Whether an operation multiplies by a matrix (quantised forms, such as `linear_dynamic`, included)."""
    return op in MATMUL_OPS or op.startswith("linear_")


def is_elementwise(trace: Trace, call: Call) -> bool:
    """Whether a call mixes no channels: a norm, a dropout, a learned scale."""
    return not isinstance(call.module, BareMatrix) and not any(
        is_product(n.op) or n.op.startswith("module ") for n in trace.nodes[call.start : call.end]
    )


def is_linear_map(trace: Trace, call: Call) -> bool:
    """Whether a call is a weight matrix applied to its input: one matrix product and no sub-calls.

    An adapter around a matrix (one that holds a `base_layer`) counts as the matrix that it stands for.
    """
    if isinstance(call.module, BareMatrix):
        return call.module.role == "product"
    nodes = trace.nodes[call.start : call.end]
    if any(
        not isinstance(c.module, BareMatrix) and c.parent == call.index
        for c in trace.calls[call.index + 1 :]
        if c.start < call.end
    ):
        return getattr(call.module, "base_layer", None) is not None and any(is_product(n.op) for n in nodes)
    opaque = any(
        n.op.startswith("module ") and n.call == call.index for n in trace.nodes[call.start : call.end + 1]
    )
    weights = {"linear", "addmm", "mm", "matmul", "conv1d", "einsum"}
    products = sum(n.op in weights or n.op.startswith("linear_") for n in nodes)
    weighted = next(call.module.parameters(), None) is not None or hasattr(call.module, "weight")
    return weighted and (products == 1 or opaque)
