"""Read and write inside attention, with the model's own attention function doing the work.

Transformers looks its attention function up by a name in the configuration. For the time of one run, and for this
network's configurations only, that name is one of ours; the function under it shows queries, keys, values and the
weighted values to an observer and hands the work to the function that the model would have used. The mask function is
registered under the same name, because without it a causal mask would silently not be made.

Attention that a module writes out in its own code is reached by watching the torch functions that it calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cutaway.errors import SiteUnavailable
from cutaway.network.anatomy import LAYOUTS, FunctionTaps
from cutaway.network.discovery.trace import WATCHED_OPS, FunctionMode, op_name

_PREFIX = "cutaway|"


class Alias(str):
    """Our name for an attention implementation: another key in a table, the same word to code that compares it.

    Models choose code by comparing the configured name ("eager", "sdpa"); under our name they must choose the same.
    """

    base: str

    def __new__(cls, base: str) -> Alias:
        """Our name for `base`."""
        self = super().__new__(cls, _PREFIX + base)
        self.base = base
        return self

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True or other == self.base

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __reduce__(self) -> tuple[type[Alias], tuple[str]]:
        return Alias, (self.base,)


class Observer(Protocol):
    """Sees the parts of one module's attention, in site layout, and may return other values for them."""

    @property
    def wants(self) -> frozenset[str]:
        """Names of the parts that it asks for."""
        ...

    @property
    def active(self) -> bool:
        """Whether what happens now is the forward pass that it observes, and not the work of an edit."""
        ...

    def begin(self) -> None:
        """A call of the module's attention starts."""

    def see(self, name: str, value: Tensor) -> Tensor:
        """A part was computed: q, v: [b p h e], k: [b p kv e], scores, pattern: [b h dest src], z: [b p h e]."""
        ...


@dataclass(frozen=True, eq=False)
class Several:
    """Several observers of one module, the one that came first seeing first: one is attached while another runs.

    Attributes:
        each: the observers.
    """

    each: tuple[Observer, ...]

    @property
    def wants(self) -> frozenset[str]:
        """Names of the parts that any of them asks for."""
        return frozenset().union(*(o.wants for o in self.each))

    @property
    def active(self) -> bool:
        """Whether any of them observes."""
        return any(o.active for o in self.each)

    def begin(self) -> None:
        """A call of the module's attention starts."""
        for observer in self.each:
            if observer.active:
                observer.begin()

    def see(self, name: str, value: Tensor) -> Tensor:
        """A part was computed."""
        for observer in self.each:
            if observer.active:
                value = observer.see(name, value)
        return value


#: Observers by module identity; empty unless a run is under way.
_observers: dict[int, Observer] = {}


def _function(base: str) -> Callable[..., Any]:
    """The attention function registered for a base implementation such as 'sdpa' or 'eager'."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        original = _original(base, module)
        observer = _observers.get(id(module))
        if observer is None or not observer.active:
            return original(module, query, key, value, attention_mask, **kwargs)
        observer.begin()
        query = observer.see("q", query.transpose(1, 2)).transpose(1, 2)
        key = observer.see("k", key.transpose(1, 2)).transpose(1, 2)
        value = observer.see("v", value.transpose(1, 2)).transpose(1, 2)
        square = observer.wants & {"scores", "pattern"}
        with _SoftmaxTap(observer, key.shape[2]) if square else nullcontext():
            out, weights = original(module, query, key, value, attention_mask, **kwargs)
        return observer.see("z", out), weights

    return attend


def _original(base: str, module: nn.Module) -> Callable[..., Any]:
    """The function that the module's own code would have used for this implementation.

    The registry and the eager function are looked up where the module's forward was written: they are names in that
    file, and a model may bring its own.
    """
    scopes = _scopes(type(module))
    if base != "eager":
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        registries = (s["ALL_ATTENTION_FUNCTIONS"] for s in scopes if "ALL_ATTENTION_FUNCTIONS" in s)
        return next(registries, ALL_ATTENTION_FUNCTIONS)[base]
    for scope in scopes:
        names = [n for n in scope if n.endswith("eager_attention_forward")]
        if "eager_attention_forward" in names or len(names) == 1:
            return scope.get("eager_attention_forward", scope[names[0]])
    raise SiteUnavailable(
        f"The eager attention function of {type(module).__name__} was not found.",
        "Read q, k, v and z, not the pattern.",
    )


def _scopes(kind: type) -> list[dict[str, Any]]:
    """The global names of the files in which a class and its parents wrote their forward, its own first."""
    forwards = [vars(c)["forward"] for c in kind.__mro__ if "forward" in vars(c) and c is not nn.Module]
    return [inspect.unwrap(f).__globals__ for f in forwards]


class _SoftmaxTap(FunctionMode):
    """Shows the input and the output of the first softmax over keys.

    Where a sink is put beside the scores, they are shown before that (some models shift scores and sink together), and
    the pattern without the sink's column.
    """

    def __init__(self, observer: Observer, keys: int) -> None:
        super().__init__()
        self.observer, self.keys, self.done, self.scores_seen = observer, keys, False, False

    def called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function, with the observer's values where it is one of those that are watched."""
        if not self.done and name == "cat" and self._adds_sink(args, kwargs):
            self.scores_seen = True
            scores, *rest = args[0]
            return func([self.observer.see("scores", scores), *rest], *args[1:], **kwargs)
        if self.done or name != "softmax":
            return func(*args, **kwargs)
        scores = args[0] if args else kwargs["input"]
        if scores.ndim != 4 or not self.keys <= scores.shape[-1] <= self.keys + 1:
            return func(*args, **kwargs)
        self.done = True
        if not self.scores_seen:
            scores = _on_keys(self.observer, "scores", scores, self.keys)
        pattern = func(scores, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
        return _on_keys(self.observer, "pattern", pattern, self.keys)

    def _adds_sink(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        parts = args[0] if args else ()
        if self.scores_seen or dim not in (-1, 3) or len(parts) != 2:
            return False
        first, last = parts
        return first.ndim == 4 and first.shape[-1] == self.keys and last.shape[-1] == 1


def _on_keys(observer: Observer, name: str, value: Tensor, keys: int) -> Tensor:
    """Show the first `keys` columns, keep the rest."""
    if value.shape[-1] == keys:
        return observer.see(name, value)
    seen = value[..., :keys]
    new = observer.see(name, seen)
    return value if new is seen and not torch.is_grad_enabled() else torch.cat([new, value[..., keys:]], -1)


class FunctionTap(FunctionMode):
    """Shows the parts of an attention that a module computes itself, at the calls that were found at opening."""

    def __init__(self, observer: Observer, taps: FunctionTaps, heads: int) -> None:
        super().__init__()
        self.observer, self.taps, self.heads, self.count = observer, taps, heads, 0

    def called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function, with the observer's values where it is one of those that are watched."""
        if name not in WATCHED_OPS or not self.observer.active:
            return func(*args, **kwargs)
        nth, self.count = self.count, self.count + 1
        for part in ("product", "softmax", "average", "fused"):  # each has a method of its name
            call = getattr(self.taps, part)
            if call is not None and call.nth == nth and call.op == name:
                return getattr(self, f"_{part}")(func, list(args), kwargs)
        return func(*args, **kwargs)

    def _laid_out(self, name: str, value: Tensor) -> Tensor:
        """Show a value whose axes are known by letters as its site has them, and bring the answer back."""
        axes, wanted = self.taps.layouts[name], LAYOUTS[name]
        lacking = "" if "h" in axes else "h"  # one head, without an axis of its own
        full = value.unsqueeze(-1) if lacking else value
        order = [(axes + lacking).index(a) for a in wanted]
        seen = full.permute(order)
        new = self.observer.see(name, seen)
        if new is seen and not torch.is_grad_enabled():
            return value
        back = new.permute([wanted.index(a) for a in axes + lacking])
        return back.squeeze(-1) if lacking else back

    def _see(self, name: str, value: Tensor, flip: bool = False) -> Tensor:
        """Show [b h p e] or [b*h p e] (its last two axes swapped if `flip`) as [b p h e], and bring the answer back."""
        if name in self.taps.layouts:
            return self._laid_out(name, value)
        return self._see_square(name, value, (*[(-1, -2)] * flip, (1, 2)))

    def _see_square(self, name: str, value: Tensor, swaps: Sequence[tuple[int, int]] = ()) -> Tensor:
        """Show [b h p s] or [b*h p s], two axes after two axes swapped, and bring the answer back."""
        if name in self.taps.layouts:
            return self._laid_out(name, value)
        seen = value.unflatten(0, (-1, self.heads)) if value.ndim == 3 else value
        for axes in swaps:
            seen = seen.transpose(*axes)
        new = self.observer.see(name, seen)
        if new is seen and not torch.is_grad_enabled():
            return value
        for axes in reversed(swaps):
            new = new.transpose(*axes)
        return new.flatten(0, 1) if value.ndim == 3 else new

    def _product(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        (first, i), (second, j) = _factor_places(op_name(func), args, kwargs)
        if self.taps.product is not None and self.taps.product.swapped:
            (first, i), (second, j) = (second, j), (first, i)
        first[i] = self._see("q", first[i])
        second[j] = self._see("k", second[j], flip=True)
        return func(*args, **kwargs)

    def _softmax(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        scores = args.pop(0) if args else kwargs.pop("input")
        return self._see_square("pattern", func(self._see_square("scores", scores), *args, **kwargs))

    def _average(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        places = _factor_places(op_name(func), args, kwargs)
        values, v = places[0 if self.taps.average is not None and self.taps.average.swapped else 1]
        values[v] = self._see("v", values[v])
        return self._see("z", func(*args, **kwargs))

    def _fused(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        names = ("query", "key", "value")
        parts = [args[i] if i < len(args) else kwargs.pop(n) for i, n in enumerate(names)]
        seen = [self._see(n, t) for n, t in zip("qkv", parts, strict=True)]
        square = self.observer.wants & {"scores", "pattern"}
        attend = self._written_out if square else func
        return self._see("z", attend(*seen, *args[3:], **kwargs))

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        """torch's documented definition of scaled_dot_product_attention, so that its softmax can be seen."""
        options = dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False)) | kwargs
        scale = options.get("scale") or q.shape[-1] ** -0.5
        if options.get("enable_gqa"):
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) * scale
        mask = options.get("attn_mask")
        if options.get("is_causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        pattern = self._see_square("scores", scores).softmax(-1)
        return self._see_square("pattern", pattern) @ v


def _factor_places(op: str, args: list[Any], kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Where the two factors of a matrix product stand: in the arguments by position or by name, and at which."""
    if op == "einsum":
        if len(args) == 2:
            args[1] = list(args[1])
            return [(args[1], 0), (args[1], 1)]
        return [(args, 1), (args, 2)]
    names = {"baddbmm": ("batch1", "batch2"), "bmm": ("input", "mat2")}.get(op, ("input", "other"))
    return [
        (kwargs, name) if name in kwargs else (args, i)
        for i, name in enumerate(names, start=1 if op == "baddbmm" else 0)
    ]


def configurations(model: nn.Module) -> list[Any]:
    """The distinct configuration objects by which this model's modules look their attention function up."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    return [c for c in configs.values() if hasattr(c, "_attn_implementation_internal")]


def _register(base: str) -> Alias | None:
    """Make sure that our name for a base implementation is registered; None if the base is not a known one."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

    name = Alias(base)
    if str.__str__(name) in ALL_ATTENTION_FUNCTIONS:
        return name
    if base != "eager" and base not in ALL_ATTENTION_FUNCTIONS:
        return None
    if base in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(str.__str__(name), ALL_MASK_ATTENTION_FUNCTIONS[base])
    AttentionInterface.register(str.__str__(name), _function(base))
    return name


@contextmanager
def scoped(configs: Sequence[Any], observers: dict[nn.Module, Observer], eager: bool) -> Iterator[None]:
    """While active, the modules in `observers` show their attention; everything is as before afterwards.

    eager: use the model's eager function, which computes a pattern, whatever it is set to.
    """
    before = [(c, c._attn_implementation_internal) for c in configs]
    shadowed = {id(m): _observers.get(id(m)) for m in observers}
    try:
        for config, current in before:
            base = current.base if isinstance(current, Alias) else current or "eager"
            name = _register("eager" if eager else base)
            if name is not None:
                config._attn_implementation_internal = name
        for module, observer in observers.items():
            before_it = shadowed[id(module)]
            _observers[id(module)] = observer if before_it is None else Several((before_it, observer))
        yield
    finally:
        for config, current in before:
            config._attn_implementation_internal = current
        for key, old in shadowed.items():
            if old is None:
                _observers.pop(key, None)
            else:
                _observers[key] = old


@contextmanager
def watching(module: nn.Module, mode: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """While active, every forward of the module runs under a fresh torch function mode (or other context)."""
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return original(*args, **kwargs)

    with replaced(module, forward):
        yield


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While active, the module's forward is another function; its own, and one that was put there before, come back."""
    before = module.__dict__.get("forward")
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.forward = before  # type: ignore[method-assign]
