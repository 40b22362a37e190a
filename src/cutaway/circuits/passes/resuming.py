"""Start a run at a later layer: what lies below is taken from a run that was made before."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.passes.outputs import Outputs, kept_places, outputs_of
from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.execution.attention import replaced
from cutaway.network.execution.exchange import Exchange
from cutaway.network.execution.spending import depth
from cutaway.network.inputs import Tokens
from cutaway.results.meter import spend


@dataclass(frozen=True, eq=False)
class ResumedPrefix:
    """A run on some prompts, layer by layer, from which later runs on the same prompts start.

    Attributes:
        wiring: of the network.
        outputs: what every writer wrote.
        given: what every layer's module gave.
        rows: how many prompts.
    """

    wiring: Wiring
    outputs: Outputs
    given: tuple[Any, ...]
    rows: int

    @classmethod
    def of(cls, wiring: Wiring, tokens: Tokens) -> ResumedPrefix:
        """Run once and keep what layers gave."""
        net, paths = wiring.net, _layer_paths(wiring)
        given: dict[int, Any] = {}
        with ExitStack() as hooks:
            for i, path in enumerate(paths):
                hook = net.model.get_submodule(path).register_forward_hook(
                    lambda _m, _a, out, i=i: given.__setitem__(i, copy.copy(out))
                )
                hooks.callback(hook.remove)
            run = net.run(tokens, keep=kept_places(wiring), logits=False)
        return cls(wiring, outputs_of(wiring, run), tuple(given.get(i) for i in range(len(paths))), tokens.n)

    def repeat(self, times: int) -> ResumedPrefix:
        """The same for the rows `times` over."""
        given = tuple(_repeated(g, self.rows, times) for g in self.given)
        return ResumedPrefix(self.wiring, self.outputs.repeat(times), given, self.rows * times)

    def usable(self, layer: int) -> bool:
        """Can a run start at this layer? Only where the layers are distinct modules, each called once."""
        paths = _layer_paths(self.wiring)
        return 0 < layer < len(paths) and len(set(paths)) == len(paths) and self.given[layer - 1] is not None

    @contextmanager
    def skipping(self, layer: int) -> Iterator[None]:
        """While active, the modules of the layers below give what they gave, and compute nothing."""
        last = self.given[layer - 1]
        saved = -self.rows / depth(self.wiring.net.anatomy)

        def give(*_args: Any, **_kwargs: Any) -> Any:
            spend(saved)  # the run counts all its layers
            return copy.copy(last)

        with ExitStack() as changes:
            for path in _layer_paths(self.wiring)[:layer]:
                module = self.wiring.net.model.get_submodule(path)
                changes.enter_context(replaced(module, give))
            yield


def _layer_paths(wiring: Wiring) -> list[str]:
    stack = wiring.net.anatomy.stack()
    assert stack is not None
    return [layer.path for layer in stack.layers]


def _repeated(value: Any, rows: int, times: int) -> Any:
    exchange = Exchange(value)
    for key, tensor in list(tensor_leaves(value)):
        if isinstance(tensor, Tensor) and tensor.shape[:1] == (rows,):
            exchange.set(key, tensor.repeat(times, *[1] * (tensor.ndim - 1)))
    return exchange.value
