"""Read and write where a module's own code uses a parameter: its products, lookups and additions as they happen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from cutaway.network.bare import LOOKUPS, PRODUCTS, BareMatrix, Contraction, contraction, operands
from cutaway.network.discovery.trace import FunctionMode, is_in_place, tensor_leaves

#: What is done with a tensor at a use of a bare matrix: (path, side, tensor) -> the tensor that goes on.
Handle = Callable[[str, Literal["in", "out"], Tensor], Tensor]

_SHAPES = frozenset({"size", "dim", "get_shape", "get_ndim", "numel", "stride", "get_device", "get_dtype"})


class WeightTap(FunctionMode):
    """While active, shows what the uses of some parameters read and give to a handler, which may give other values.

    A weight that is cut from a parameter, turned or joined in the same code counts as the parameter that it comes from:
    the same reading as at opening (`discovery.weights`).
    """

    def __init__(
        self,
        parameters: Mapping[int, str],
        matrices: Iterable[BareMatrix],
        counts: dict[tuple[str, str], int],
        active: Callable[[], bool],
        handle: Handle,
    ) -> None:
        super().__init__()
        self.parameters, self.active, self.handle, self.counts = parameters, active, handle, counts
        self.matrices = {(m.parameter, number): m for m in matrices for number in m.uses}
        self.names: dict[int, str] = {}
        self.held: list[Tensor] = []
        self.pending: dict[int, tuple[BareMatrix, Contraction]] = {}

    def name(self, tensor: Tensor) -> str | None:
        """The parameter that a tensor comes from; "" for constants, None for what is neither."""
        return self.parameters.get(id(tensor), self.names.get(id(tensor)))

    def called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function, with the handler's values where it uses one of the parameters."""
        if not self.active() or name in _SHAPES:
            return func(*args, **kwargs)
        tensors = [t for _, t in tensor_leaves((args, kwargs))]
        names = [self.name(t) for t in tensors]
        if None in names and is_in_place(func) and tensors:
            self.names.pop(id(tensors[0]), None)  # it holds something else now
        if None not in names:
            return self._derived(func(*args, **kwargs), next((n for n in names if n), ""))
        return self._used(func, name, args, kwargs, tensors, names)

    def _derived(self, result: Any, name: str) -> Any:
        for _, tensor in tensor_leaves(result):
            if id(tensor) not in self.parameters:
                self.names[id(tensor)] = name
                self.held.append(tensor)
        return result

    def _used(
        self,
        func: Callable[..., Any],
        op: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        names: list[str | None],
    ) -> Any:
        live = [t for t, n in zip(tensors, names, strict=True) if n is None]
        named = [(t, n) for t, n in zip(tensors, names, strict=True) if n]
        if op == "add" and named and len(live) == 1 and id(live[0]) in self.pending:
            matrix, letters = self.pending.pop(id(live[0]))
            return self._out(matrix, func(*args, **kwargs), letters)
        if len(live) != 1 or not named:
            return func(*args, **kwargs)
        rows, (weight, parameter) = live[0], named[-1] if op == "addmm" else named[0]
        if op in LOOKUPS and not rows.is_floating_point() and len(tensors) == 2:
            matrix = self._next(parameter)
            result = func(*args, **kwargs)
            return result if matrix is None else self._out(matrix, result, None)
        if op == "add" and len(named) == 1 and _by_position(rows, weight):
            matrix = self._next(parameter)
            if matrix is None:
                return func(*args, **kwargs)
            args, kwargs = _with(args, kwargs, weight, self.handle(matrix.path, "in", weight))
            return func(*args, **kwargs)
        if op not in PRODUCTS or not rows.is_floating_point() or len(tensors) != len(named) + 1:
            return func(*args, **kwargs)
        order = operands(args) if op == "einsum" else tensors
        first = next(i for i, t in enumerate(order) if t is weight) < next(
            i for i, t in enumerate(order) if t is rows
        )
        equation = args[0] if op == "einsum" else None
        letters = contraction(op, equation, tuple(rows.shape), tuple(weight.shape), first)
        matrix = None if letters is None else self._next(parameter)
        if matrix is None or letters is None:
            return func(*args, **kwargs)
        flat = letters.flat(rows, "in")
        new = self.handle(matrix.path, "in", flat)
        if new is not flat:
            args, kwargs = _with(args, kwargs, rows, letters.back(new, rows, "in"))
        result = func(*args, **kwargs)
        if matrix.biased:
            self.pending[id(result)] = (matrix, letters)
            self.held.append(result)
            return result
        return self._out(matrix, result, letters)

    def _out(self, matrix: BareMatrix, result: Tensor, letters: Contraction | None) -> Tensor:
        flat = result if letters is None else letters.flat(result, "out")
        new = self.handle(matrix.path, "out", flat)
        if new is flat:
            return result
        return new if letters is None else letters.back(new, result, "out")

    def _next(self, parameter: str) -> BareMatrix | None:
        """The matrix that this use is of; uses are counted over one pass of the whole model."""
        key = (parameter, "use")
        number = self.counts.get(key, 0)
        self.counts[key] = number + 1
        return self.matrices.get((parameter, number))


def _by_position(rows: Tensor, weight: Tensor) -> bool:
    return (
        rows.ndim == 3 and weight.ndim >= 2 and weight.shape[-2:] == rows.shape[-2:] and weight.shape[-2] > 1
    )


def _with(
    args: tuple[Any, ...], kwargs: dict[str, Any], old: Tensor, new: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with one tensor in the place of another."""
    return tree_map(lambda a: new if a is old else a, (args, kwargs))


def parameter_names(model: nn.Module) -> dict[int, str]:
    """The path of every parameter, by identity; "" for what a model holds as a constant."""
    return {id(b): "" for b in model.buffers()} | {id(p): name for name, p in model.named_parameters()}
