"""Observe one forward pass: which tensors each module took and gave, and by which operations they came about.

A `Trace` is a small data-flow graph in single-assignment form. Every tensor that appears gets a *version* number; an
in-place operation gives its tensor a new version. Modules are recorded as calls, so that a module used several times
in one forward is several calls. Nothing here knows what a transformer is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from cutaway.network.bare import Ref, operands


@dataclass(eq=False)
class TraceNode:
    """The origin of one version: an operation, with the versions it read and its arguments that are not tensors.

    Attributes:
        version: its own.
        op: name of the operation.
        inputs: the versions that it read.
        args, kwargs: its arguments that are not tensors.
        call: within which module call it ran.
        live: does it depend on the network's input?
        shape: of the tensor.
        floating: are its numbers floating point?
    """

    version: int
    op: str
    inputs: tuple[int, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    call: int
    live: bool
    shape: tuple[int, ...]
    floating: bool


@dataclass(eq=False)
class Call:
    """One call of one module: `inputs` and `outputs` are (key, version) pairs in the order of the arguments.

    Attributes:
        index: its own number.
        path, module: whose call it is.
        parent: number of the call within which it ran.
        nth: which of that module's calls.
        start, end: versions between which it ran.
        args, kwargs: what it was given.
        inputs, outputs: (key, version) of every tensor given and returned.
    """

    index: int
    path: str
    module: nn.Module
    parent: int
    nth: int
    start: int
    end: int = -1
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    inputs: list[tuple[str, int]] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)


@dataclass(eq=False)
class Watched:
    """One call of an attention primitive, numbered among such calls within `call` and all that it calls.

    Attributes:
        op: name of the primitive.
        nth: which such call.
        call: within which module call.
        inputs: the versions that it read; None for what is no tensor.
        output: the version that it gave.
    """

    op: str
    nth: int
    call: int
    inputs: tuple[int | None, ...]
    output: int


@dataclass(eq=False)
class AttentionCall:
    """What one registered attention function was given and gave.

    Attributes:
        call: of the module that called the function.
        nth: which of its calls.
        fields: versions of what was given and returned, by name.
    """

    call: int
    nth: int
    fields: dict[str, int]


@dataclass(eq=False)
class Trace:
    """The record of one forward pass.

    Attributes:
        nodes: the origin of each version.
        calls: of modules, in the order in which they began.
        attention: calls of registered attention functions.
        watched: calls of attention primitives.
        tensors: values of versions, as far as they are kept.
        in_place: was a tensor changed in place?
        weights: the versions that are parameters, each with its dotted path.
        eager: did the network's own eager attention run, whose softmax can be seen?
        steps: how versions that depend on no input were computed: function, arguments with `Ref` for tensors, result.
    """

    nodes: list[TraceNode] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    attention: list[AttentionCall] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    tensors: dict[int, Tensor] = field(default_factory=dict)
    in_place: bool = False
    eager: bool = True
    weights: dict[int, str] = field(default_factory=dict)
    steps: dict[int, tuple[Callable[..., Any], Any, Any, int]] = field(default_factory=dict)

    def children(self, call: int) -> list[Call]:
        """Direct sub-calls of a call, in order."""
        return [c for c in self.calls if c.parent == call]

    def inside(self, call: int) -> list[Call]:
        """All calls strictly within a call."""
        start, end = self.calls[call].start, self.calls[call].end
        return [c for c in self.calls if c.index > call and c.start >= start and 0 <= c.end <= end]

    def ancestors(self, version: int, stop: frozenset[int] | set[int] = frozenset()) -> set[int]:
        """All versions that a version was computed from, itself included, not looking past `stop`."""
        seen: set[int] = set()
        todo = [version]
        while todo:
            v = todo.pop()
            if v in seen:
                continue
            seen.add(v)
            if v not in stop:
                todo.extend(self.nodes[v].inputs)
        return seen


def tensor_leaves(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested tuples, lists and dictionaries, each with a dotted key that `fetch` understands."""
    if torch.is_tensor(value):
        yield key, value
    elif depth < 3 and isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from tensor_leaves(item, f"{key}.{i}" if key else str(i), depth + 1)
    elif depth < 3 and isinstance(value, Mapping):
        for name, item in value.items():
            yield from tensor_leaves(item, f"{key}.{name}" if key else str(name), depth + 1)


#: Operations that take a second tensor for its form alone.
_LIKE = frozenset({"type_as", "expand_as", "view_as", "reshape_as", "to"})

#: Operations whose calls inside an attention module are counted, so that they can be found again when it runs.
WATCHED_OPS = frozenset({"softmax", "matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"})


def op_name(func: Any) -> str:
    """Plain name of a torch function: `__iadd__`, `add_` and `add` all give `add`."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return "get_" + getattr(getattr(func, "__self__", None), "__name__", "")
    name = name.strip("_")
    return _SAME_OPS.get(name, name)


_SAME_OPS = {
    "iadd": "add", "radd": "add", "isub": "sub", "subtract": "sub", "imul": "mul", "rmul": "mul", "multiply": "mul",
    "div": "truediv", "itruediv": "truediv", "true_divide": "truediv",
}  # fmt: skip


class FunctionMode(TorchFunctionMode):
    """While active, `called` stands for every torch function: it runs the function, and may look and change."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.called(func, op_name(func), tuple(args), dict(kwargs or {}))

    def called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A function of that plain name is called; gives its result."""
        raise NotImplementedError


def _changes(tensor: Tensor) -> int:
    """How often a tensor was changed in place; torch counts it, except for inference tensors."""
    return 0 if tensor.is_inference() else tensor._version


def is_in_place(func: Any) -> bool:
    """Whether a torch function changes its first argument."""
    name = getattr(func, "__name__", "")
    return name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__") or (
        name.endswith("_") and not name.endswith("__")
    )


class Recorder(FunctionMode):
    """Records a `Trace` while active; see `record`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trace = Trace()
        self._versions: dict[int, int] = {}
        self._keep: list[Tensor] = []
        self._stack: list[int] = []
        self._nth: dict[str, int] = {}
        self._watched: dict[int, int] = {}
        self._fixed = {id(t) for t in (*model.parameters(), *model.buffers())}
        self._names = {id(p): name for name, p in model.named_parameters()}

    # tensors -----------------------------------------------------------------------------------------------------

    def version(self, tensor: Tensor) -> int:
        """The current version of a tensor; one that nobody produced is a live root unless it is a weight."""
        version = self._versions.get(id(tensor))
        if version is not None:
            return version
        version = self._add("root", (), (), {}, tensor, live=id(tensor) not in self._fixed)
        if id(tensor) in self._names:
            self.trace.weights[version] = self._names[id(tensor)]
        return version

    def _add(
        self,
        op: str,
        inputs: tuple[int, ...],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Tensor,
        live: bool,
    ) -> int:
        version, call = len(self.trace.nodes), self._stack[-1] if self._stack else -1
        shape, floating = tuple(out.shape), out.is_floating_point()
        self.trace.nodes.append(TraceNode(version, op, inputs, args, kwargs, call, live, shape, floating))
        self._versions[id(out)] = version
        self.trace.tensors[version] = out
        self._keep.append(out)
        return version

    def called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function and note what it read and gave."""
        sources = [t for _, t in tensor_leaves((args, kwargs))]
        versions = tuple(self.version(t) for t in sources) if name not in _SILENT else ()
        changes = [] if name in _SILENT else [(t, _changes(t)) for t in sources]
        out = func(*args, **kwargs)
        in_place = bool(sources) and (is_in_place(func) or any(_changes(t) != n for t, n in changes))
        results = [t for _, t in tensor_leaves(out)]
        if in_place and not any(r is args[0] for r in results):
            results.append(args[0])
        if name in _SILENT or not results:
            return out
        if name in _LIKE:
            versions = versions[:1]  # the others only say which type or shape is wanted
        live = any(self.trace.nodes[v].live for v in versions)
        plain = tuple(a if not torch.is_tensor(a) else None for a in args)
        options = {k: v for k, v in kwargs.items() if not torch.is_tensor(v)}
        step = None if live or in_place else self._step(func, args, kwargs)
        for which, result in enumerate(results):
            if any(result is s for s in sources) and not in_place:
                continue
            version = self._add(name, versions, plain, options, result, live)
            if step is not None:
                self.trace.steps[version] = (*step, which)
        if in_place and live:
            self.trace.in_place = True
        if name in WATCHED_OPS:
            names = ("query", "key", "value", "input", "batch1", "batch2", "other", "mat2")
            given = (*args, *(kwargs[k] for k in names if k in kwargs))
            given = (given[0], *operands(args)) if name == "einsum" else given
            by_arg = tuple(self._versions.get(id(a)) if torch.is_tensor(a) else None for a in given)
            for call in self._stack:
                nth = self._watched.get(call, 0)
                self._watched[call] = nth + 1
                self.trace.watched.append(Watched(name, nth, call, by_arg, self._versions[id(results[0])]))
        return out

    def _step(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Callable[..., Any], Any, Any]:
        """A call with its tensors by number."""
        with torch._C.DisableTorchFunction():
            named = tree_map(lambda a: Ref(self.version(a)) if torch.is_tensor(a) else a, (args, kwargs))
        return (func, *named)

    # modules -----------------------------------------------------------------------------------------------------

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            nth = self._nth.get(path, 0)
            self._nth[path] = nth + 1
            with torch._C.DisableTorchFunction():
                inputs = [(k, self.version(t)) for k, t in (*tensor_leaves(args), *tensor_leaves(kwargs))]
            parent, start = self._stack[-1] if self._stack else -1, len(self.trace.nodes)
            call = Call(len(self.trace.calls), path, module, parent, nth, start, -1, args, kwargs, inputs)
            self.trace.calls.append(call)
            self._stack.append(call.index)

        return hook

    def _leave(self, module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        call = self.trace.calls[self._stack.pop()]
        with torch._C.DisableTorchFunction():
            sources = tuple(v for _, v in call.inputs)
            for key, tensor in tensor_leaves(output):
                if id(tensor) not in self._versions and id(tensor) not in self._fixed:
                    # made by something torch functions do not see: it came from the module's inputs
                    self._add(f"module {type(module).__name__}", sources, (), {}, tensor, live=True)
                    self.trace.nodes[-1].call = call.index
                call.outputs.append((key, self.version(tensor)))
        call.end = len(self.trace.nodes)

    def attention(self, module: nn.Module, fields: Mapping[str, Tensor]) -> None:
        """Note what a registered attention function was given and gave (called by `network.attention`)."""
        call = next((i for i in reversed(self._stack) if self.trace.calls[i].module is module), None)
        if call is None:
            return
        with torch._C.DisableTorchFunction():
            versions = {name: self.version(t) for name, t in fields.items()}
        nth = sum(self.trace.calls[a.call].module is module for a in self.trace.attention)
        self.trace.attention.append(AttentionCall(call, nth, versions))


#: Functions that look at a tensor without making a new value.
_SILENT = frozenset(
    {"size", "dim", "get_shape", "get_device", "get_dtype", "get_is_cuda", "get_layout", "get_ndim", "get_requires_grad",
     "is_floating_point", "get_is_quantized", "numel", "stride", "data_ptr", "get_grad_fn", "len", "element_size",
     "get_is_meta", "get_is_nested", "is_contiguous", "storage_offset", "requires_grad", "get_grad", "get_is_leaf"}
)  # fmt: skip


def record(model: nn.Module, forward: Callable[[Recorder], Any]) -> tuple[Trace, Any]:
    """Run `forward` under observation and return its trace and its result; the model's hooks are as before afterwards."""
    recorder = Recorder(model)
    with ExitStack() as stack:
        for path, module in model.named_modules(remove_duplicate=True):
            stack.callback(module.register_forward_pre_hook(recorder._enter(path), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(recorder._leave, with_kwargs=True).remove)
        with torch.no_grad(), recorder:
            result = forward(recorder)
    return recorder.trace, result
