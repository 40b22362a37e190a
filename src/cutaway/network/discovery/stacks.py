"""Find the layer lists of a traced network: chains of calls that each take and give one stream."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import nn

from cutaway.network.anatomy import Port, PortTap
from cutaway.network.coefficients import Coefficient
from cutaway.network.discovery.linear import Sums
from cutaway.network.discovery.products import is_elementwise, is_linear_map
from cutaway.network.discovery.trace import Call, Trace


def tap_at(call: Call, side: Literal["in", "out"], key: str, factor: Coefficient = 1.0) -> PortTap:
    """The tap of one argument or output of one call."""
    return PortTap(Port(call.path, side, key, call.nth), factor)


@dataclass(frozen=True, eq=False)
class StreamCall:
    """A layer call with the argument and the output that carry the stream.

    Attributes:
        call: of the layer.
        in_key, in_version: the argument that carries the stream, by key and version.
        out_key, out_version: the output that does.
        is_stream: False where it is not clear which tensor carries the stream.
    """

    call: Call
    in_key: str
    in_version: int
    out_key: str
    out_version: int
    is_stream: bool = True


@dataclass(frozen=True, eq=False)
class Chain:
    """A layer list: its container's path, its layer calls in order, and whether each takes just what the last one gave.

    Attributes:
        path: of the container.
        links: its layer calls.
        linked: does each take just what the last one gave?
    """

    path: str
    links: tuple[StreamCall, ...]
    linked: bool = True

    @property
    def span(self) -> tuple[int, int]:
        """First and last step of the trace that the chain covers."""
        return self.links[0].call.start, self.links[-1].call.end


def _stream_call(
    trace: Trace, sums: Sums, call: Call, previous: StreamCall | None, batch: int
) -> StreamCall | None:
    """The stream through one call: an input and an output of one shape [b p d], linked to the call before if it can be."""
    inputs = [(k, v) for k, v in call.inputs if _is_stream(trace, v, batch)]
    outputs = [(k, v) for k, v in call.outputs if _is_stream(trace, v, batch)]
    pairs = [(i, o) for i in inputs for o in outputs if trace.nodes[i[1]].shape == trace.nodes[o[1]].shape]
    if not pairs and (previous is None or not previous.is_stream):
        return _wide_call(trace, call)
    if not pairs:
        return None
    if len({v for _, v in outputs}) > 1 and len(inputs) > 1:
        (in_key, in_version), (out_key, out_version) = pairs[0]
        return StreamCall(call, in_key, in_version, out_key, out_version, is_stream=False)
    if previous is not None:
        linked = [(i, o) for i, o in pairs if sums.same(i[1], previous.out_version)]
        pairs = linked or pairs
    (in_key, in_version), (out_key, out_version) = pairs[0]
    return StreamCall(call, in_key, in_version, out_key, out_version)


def _wide_call(trace: Trace, call: Call) -> StreamCall | None:
    """A call that takes and gives tensors of one shape with more axes than a stream has (several streams at once)."""
    if not any(trace.calls[a.call].path.startswith(call.path + ".") for a in trace.attention):
        return None
    for in_key, i in call.inputs:
        for out_key, o in call.outputs:
            node = trace.nodes[i]
            if node.floating and node.live and len(node.shape) >= 3 and node.shape == trace.nodes[o].shape:
                return StreamCall(call, in_key, i, out_key, o, is_stream=False)
    return None


def _is_stream(trace: Trace, version: int, batch: int) -> bool:
    node = trace.nodes[version]
    return node.floating and node.live and len(node.shape) == 3 and node.shape[0] == batch


def _containers(model: nn.Module, trace: Trace) -> dict[str, list[Call]]:
    """Calls grouped by the list of modules that they belong to."""
    groups: dict[str, list[Call]] = {}
    modules = dict(model.named_modules())
    for call in trace.calls:
        parent, _, _ = call.path.rpartition(".")
        if isinstance(modules.get(parent), nn.ModuleList | nn.Sequential | nn.ModuleDict):
            groups.setdefault(parent, []).append(call)
    return groups


def find_chains(model: nn.Module, trace: Trace, sums: Sums, batch: int) -> list[Chain]:
    """All layer lists that are not inside a layer of another one, in the order of computation."""
    chains = []
    for path, calls in _containers(model, trace).items():
        links: list[StreamCall] = []
        for call in sorted(calls, key=lambda c: c.index):
            link = _stream_call(trace, sums, call, links[-1] if links else None, batch)
            if link is not None and (not links or call.start >= links[-1].call.end):
                links.append(link)
        if links and _carries_stream(trace, links):
            linked = all(sums.same(a.out_version, b.in_version) for a, b in pairwise(links))
            chains.append(Chain(path, tuple(links), linked))
    outer = [c for c in chains if not any(_inside(c, other) for other in chains if other is not c)]
    return sorted(outer, key=lambda c: c.span)


def _carries_stream(trace: Trace, links: list[StreamCall]) -> bool:
    """Whether each call feeds the next, and at least one call is more than a single small module."""
    chained = all(a.out_version in trace.ancestors(b.in_version) for a, b in pairwise(links))
    return chained and any(_composed(trace, link.call) for link in links)


def _composed(trace: Trace, call: Call) -> bool:
    """Whether a call does more than one small module does: it has modules of its own, or several matrices."""
    return bool(list(call.module.children())) or not (
        is_linear_map(trace, call) or is_elementwise(trace, call)
    )


def _inside(chain: Chain, other: Chain) -> bool:
    return all(
        any(
            o.call.start <= link.call.start and link.call.end <= o.call.end and o.call.index < link.call.index
            for o in other.links
        )
        for link in chain.links
    )


def stack_names(chains: list[Chain], main: Chain | None) -> dict[str, str]:
    """A short name for each chain: empty for the main one, else the first part of its path that tells it apart."""
    names: dict[str, str] = {}
    for chain in chains:
        parts = chain.path.split(".")
        others = {p for c in chains if c is not chain for p in c.path.split(".")}
        alone = (p for p in parts if p not in others and not p.isdigit())
        names[chain.path] = "" if chain is main else next(alone, chain.path.replace(".", "_"))
    return names
