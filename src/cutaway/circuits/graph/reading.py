"""Parts that read by running a module: heads that cannot be cut out of a projection, and experts.

A head's queries are usually a slice of one matrix. Where they are not (a norm over all heads, keys and values that share a
fused projection with fewer heads), and for the experts of a mixture, what a part does with a stream of its own is found by
giving the stream to the module itself: to a twin of it, so that nothing that watches the module notices.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import SiteUnavailable
from cutaway.network.anatomy import FunctionTaps
from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.execution.attention import scoped
from cutaway.network.execution.exchange import Arguments, Exchange
from cutaway.network.execution.inside import FunctionTap
from cutaway.network.locks import configurations

_QKV = frozenset({"q", "k", "v"})


def twin(module: nn.Module) -> nn.Module:
    """A second module of the same code over the same weights: it can be called while the first one is being watched."""
    shared: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    shared |= {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None}
    return copy.deepcopy(module, shared)


class _AllSeen(Exception):
    """Queries, keys and values were seen; the rest of the module need not run."""


class _Captor:
    """An observer of one attention that takes its queries, keys and values and ends it."""

    wants, active = _QKV, True

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def begin(self) -> None:
        """A call of the attention starts."""

    def see(self, name: str, value: Tensor) -> Tensor:
        """Take a value; end the module once there are all three."""
        if name in _QKV:
            self.values.setdefault(name, value)
        if len(self.values) == len(_QKV):
            raise _AllSeen
        return value


@dataclass(frozen=True, eq=False)
class HeadReading:
    """How the heads of an attention read, by running the attention up to its queries, keys and values.

    Attributes:
        module: the attention's twin.
        functions: the calls at which a written-out attention shows them; None where it uses a registered function.
        heads: query heads.
    """

    module: nn.Module
    functions: FunctionTaps | None
    heads: int

    def read(self, stream: Tensor, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, Tensor]:
        """Queries [b p h e], keys and values [b p kv e] of a stream [b p d], given the attention's other arguments."""
        given, captor = Arguments(arguments), _Captor()
        key = given.first()
        given.set(key, stream.reshape(given.get(key).shape).contiguous())
        args, kwargs = given.value
        try:
            with self._watched(captor):
                self.module.forward(*args, **kwargs)
        except _AllSeen:
            return captor.values
        raise SiteUnavailable("An attention did not show its queries, keys and values.", "Trace its whole.")

    def _watched(self, captor: _Captor) -> AbstractContextManager[Any]:
        if self.functions is not None:
            return FunctionTap(captor, self.functions, self.heads)
        return scoped(configurations(self.module), {self.module: captor}, eager=False)

    def head_of(self, value: Tensor, head: int) -> Tensor:
        """One query head's part [b p e] of queries, or of keys or values that several heads share."""
        return value[:, :, head // (self.heads // value.shape[2])]

    def widened(self, value: Tensor) -> Tensor:
        """Keys or values [b p kv e] with one head for each query head."""
        return value.repeat_interleave(self.heads // value.shape[2], 2)


@dataclass(frozen=True, eq=False)
class ExpertReading:
    """What each expert of a mixture adds to the output of its MLP for a stream, its routing weight included.

    Every token goes to a few experts, in as many slots. With the weights of all slots but one set to zero, the MLP gives
    what that slot's expert adds (and what is no expert's: a shared one); so a few runs of the MLP split all experts.

    Attributes:
        module: the MLP's twin, whose router obeys `slot`.
        router: its router.
        weights_key: where the router's output holds the weights.
        index_key: where it holds the experts' numbers.
        experts: how many.
        rest: is there something that belongs to no expert? It is the last node of the layer.
    """

    module: nn.Module
    router: nn.Module
    weights_key: str
    index_key: str
    experts: int
    rest: bool = True

    def _slot(self, stream: Tensor, slot: int | None) -> tuple[Tensor, Tensor]:
        """The MLP's output [b p d] with one slot's weight alone (None: with none), and the experts' numbers [b*p k]."""
        seen: list[Tensor] = []

        def only(_module: nn.Module, _args: Any, output: Any) -> Any:
            exchange = Exchange(output)
            weights, index = exchange.get(self.weights_key), exchange.get(self.index_key)
            seen.append(index.reshape(-1, index.shape[-1]))
            keep = torch.zeros_like(weights)
            if slot is not None:
                keep[..., slot] = 1
            exchange.set(self.weights_key, weights * keep)
            return exchange.value

        handle = self.router.register_forward_hook(only)
        try:
            output = self.module.forward(stream.contiguous())
        finally:
            handle.remove()
        out = next(t for _, t in tensor_leaves(output) if t.numel() == stream.numel())
        return out.reshape(stream.shape), seen[0]

    def split(self, stream: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Of a stream [b p d]: what each slot adds, what no expert adds (both [b p d]), and whose slots they are [b*p k]."""
        rest, index = self._slot(stream, None)
        return [self._slot(stream, slot)[0] - rest for slot in range(index.shape[-1])], rest, index

    def contributions(self, stream: Tensor) -> Tensor:
        """What every node of the layer adds for a stream [b p d]: [n b p d], the rest last."""
        slots, rest, index = self.split(stream)
        return self._sorted(slots, rest, index)

    def pull(self, stream: Tensor, slopes: Tensor) -> Tensor:
        """Gradients [b p d] at the MLP's output as gradients at what every node of the layer reads: [n b p d].

        Tokens do not meet in an MLP, so that one backward pass for each slot serves all experts.
        """
        with torch.enable_grad():
            point = stream.detach().clone().requires_grad_()
            slots, rest, index = self.split(point)
            pulled = [pulled_back(out, point, slopes) for out in (*slots, rest)]
        return self._sorted(pulled[:-1], pulled[-1], index)

    def _sorted(self, slots: list[Tensor], rest: Tensor, index: Tensor) -> Tensor:
        """Values by slot [b p d] as values by node [n b p d]."""
        nodes = rest.new_zeros(self.experts, *rest.shape)
        for slot, value in enumerate(slots):
            mine = index[:, slot].reshape(rest.shape[:2])[None, ..., None]
            numbers = torch.arange(self.experts, device=mine.device).reshape(-1, 1, 1, 1)
            nodes = nodes + torch.where(numbers == mine, value[None], 0)
        return torch.cat([nodes, rest[None]]) if self.rest else nodes


def pulled_back(out: Tensor, point: Tensor, slopes: Tensor) -> Tensor:
    """Gradients at a value as the gradient at a point that it may not depend on."""
    if not out.requires_grad:
        return torch.zeros_like(point)
    (grad,) = torch.autograd.grad(out, point, slopes, retain_graph=True, allow_unused=True)
    return torch.zeros_like(point) if grad is None else grad
