"""How one layer changes its stream: read from the trace as a chain of sums and norms."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cutaway.network.coefficients import Coefficient
from cutaway.network.discovery.linear import Sums
from cutaway.network.discovery.products import is_elementwise
from cutaway.network.discovery.stacks import StreamCall
from cutaway.network.discovery.trace import Call, Trace


@dataclass(frozen=True, eq=False)
class StreamStep:
    """One stretch of the stream: state * carry + sum of weighted writers, then a norm if the layer is post-norm.

    `state` and `result` are versions of the trace; `norm` is the call whose output is `result`.

    Attributes:
        state: the version before.
        carry: what it is multiplied by.
        writers: the versions that are added, with their factors.
        summed: the version of the sum.
        norm: the call that follows on the sum; None where there is none.
        result: the version after.
        constants: constant versions that are added, with their factors.
    """

    state: int
    carry: Coefficient
    writers: tuple[tuple[int, Coefficient], ...]
    summed: int
    norm: Call | None
    result: int
    constants: tuple[tuple[int, Coefficient], ...] = ()


def find_steps(trace: Trace, sums: Sums, link: StreamCall, within: list[Call]) -> list[StreamStep] | None:
    """The steps by which a layer's output follows from its input, or None where no such reading exists."""
    start = sums.root(link.in_version)
    return _explain(trace, sums, within, start, link.out_version, depth=5)


def _explain(
    trace: Trace, sums: Sums, within: list[Call], start: int, target: int, depth: int, top: bool = True
) -> list[StreamStep] | None:
    parts = sums.expand(target, within, frozenset({start}))
    if start in parts:
        if len(parts) == 1 and sums.same(target, start):
            return None if top else [StreamStep(start, 1.0, (), target, None, target)]
        return [_step(trace, parts, start, target)]
    if depth == 0:
        return None
    for leaf in parts:
        for call in reversed(within):
            if not any(sums.same(v, leaf) for _, v in call.outputs) or not is_elementwise(trace, call):
                continue
            for _, version in call.inputs:
                if trace.nodes[version].shape != trace.nodes[leaf].shape:
                    continue
                if sums.same(version, leaf):
                    continue
                before = _explain(trace, sums, within, start, version, depth - 1, top=False)
                if before is None:
                    continue
                last = before[-1]
                normed = replace(last, norm=call, result=leaf)
                steps = [*before[:-1], normed]
                if len(parts) > 1:
                    steps.append(_step(trace, parts, leaf, target))
                return steps
    return None


def _step(trace: Trace, parts: dict[int, Coefficient], state: int, target: int) -> StreamStep:
    """A sum as a step: what depends on the input is written, what does not is a constant (a bias added apart)."""
    others = [(v, parts[v]) for v in sorted(parts) if v != state]
    writers = tuple((v, c) for v, c in others if trace.nodes[v].live)
    constants = tuple((v, c) for v, c in others if not trace.nodes[v].live)
    return StreamStep(state, parts[state], writers, target, None, target, constants)
