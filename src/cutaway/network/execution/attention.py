"""Read and write inside attention, with the model's own attention function doing the work.

Transformers looks its attention function up by a name in the configuration. For the time of one run, and for this
network's configurations only, that name is one of ours; the function under it shows queries, keys, values and the
weighted values to an observer and hands the work to the function that the model would have used. The mask function is
registered under the same name, because without it a causal mask would silently not be made.

Attention that a module writes out in its own code is reached by watching the torch functions that it calls.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from cutaway.errors import SiteUnavailable
from cutaway.network.anatomy import FunctionTaps
from cutaway.network.discovery.trace import WATCHED_OPS, FunctionMode, op_name

T = TypeVar("T")

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
_observers: dict[int, list[Observer]] = {}


def _observer_of(module: nn.Module) -> Observer | None:
    """Whoever observes a module's attention at present."""
    each = _observers.get(id(module))
    if not each:
        return None
    return each[0] if len(each) == 1 else Several(tuple(each))


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
        observer = _observer_of(module)
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
    """Shows the scores, and the weights with which the values are averaged, around the first softmax over keys.

    Where a sink is put beside the scores, they are shown before that (some models shift scores and sink together), and
    the pattern without the sink's column. Where the sink is a factor on the average instead, sigmoid(logsumexp(scores) -
    sink), which is the same in exact arithmetic, the pattern is shown times that factor.
    """

    def __init__(self, observer: Observer, keys: int) -> None:
        super().__init__()
        self.observer, self.keys, self.done, self.scores_seen = observer, keys, False, False
        self.summed: tuple[Tensor, Tensor] | None = (
            None  # scores that a logsumexp was taken of, before and after edits
        )
        self.share: Tensor | None = None  # [b h dest 1], what a sink leaves of the average

    def called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function, with the observer's values where it is one of those that are watched."""
        if self.done:
            return func(*args, **kwargs)
        if name == "cat" and self._adds_sink(args, kwargs):
            self.scores_seen = True
            scores, *rest = args[0]
            return func([self.observer.see("scores", scores), *rest], *args[1:], **kwargs)
        if name == "logsumexp" and args and not self.scores_seen and self._over_keys(args[0], 0):
            new = self.observer.see("scores", args[0])
            self.scores_seen, self.summed = True, (args[0], new)
            return func(new, *args[1:], **kwargs)
        if name == "sigmoid" and self.summed is not None:
            share = func(*args, **kwargs)
            if share.shape[:3] == self.summed[0].shape[:3] and share.numel() == share.shape[:3].numel():
                self.share = share.reshape(*share.shape[:3], 1)
            return share
        scores = args[0] if args else kwargs.get("input")
        if name != "softmax" or not self._over_keys(scores, 1):
            return func(*args, **kwargs)
        self.done = True
        if self.summed is not None and scores is self.summed[0]:
            scores = self.summed[1]
        elif not self.scores_seen:
            scores = _on_keys(self.observer, "scores", scores, self.keys)
        pattern = func(scores, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
        if self.share is None:
            return _on_keys(self.observer, "pattern", pattern, self.keys)
        share = self.share.to(pattern.dtype)
        used = pattern * share
        new = self.observer.see("pattern", used)
        return pattern if new is used and not torch.is_grad_enabled() else new / share

    def _over_keys(self, scores: Any, more: int) -> bool:
        """Is it a table of scores [b h dest keys], with at most so many columns more?"""
        return torch.is_tensor(scores) and scores.ndim == 4 and 0 <= scores.shape[-1] - self.keys <= more

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
        for part in fields(self.taps):  # each has a method of its name
            call = getattr(self.taps, part.name)
            if call is not None and call.nth == nth and call.op == name:
                return getattr(self, f"_{part.name}")(func, list(args), kwargs)
        return func(*args, **kwargs)

    def _see(self, name: str, value: Tensor, flip: bool = False) -> Tensor:
        """Show [b h p e] or [b*h p e] (its last two axes swapped if `flip`) as [b p h e], and bring the answer back."""
        return self._see_square(name, value, (*[(-1, -2)] * flip, (1, 2)))

    def _see_square(self, name: str, value: Tensor, swaps: Sequence[tuple[int, int]] = ()) -> Tensor:
        """Show [b h p s] or [b*h p s], two axes after two axes swapped, and bring the answer back."""
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
        (queries, q), (keys, k) = _factor_places(op_name(func), args, kwargs)
        queries[q] = self._see("q", queries[q])
        keys[k] = self._see("k", keys[k], flip=True)
        return func(*args, **kwargs)

    def _softmax(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        scores = args.pop(0) if args else kwargs.pop("input")
        return self._see_square("pattern", func(self._see_square("scores", scores), *args, **kwargs))

    def _average(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        _, (values, v) = _factor_places(op_name(func), args, kwargs)
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
    names = {"baddbmm": ("batch1", "batch2"), "bmm": ("input", "mat2")}.get(op, ("input", "other"))
    return [
        (kwargs, name) if name in kwargs else (args, i)
        for i, name in enumerate(names, start=1 if op == "baddbmm" else 0)
    ]


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


@dataclass(eq=False)
class _Claim:
    """One block's wish that attention be shown.

    Attributes:
        eager: must it be by the model's eager function?
        before: what the configuration said when nobody had a wish.
    """

    eager: bool
    before: Any


#: Claims on a configuration, by its identity, in the order in which they were made; none unless a run is under way.
_claims: dict[int, list[_Claim]] = {}
_guard = threading.RLock()


@contextmanager
def scoped(configs: Sequence[Any], observers: dict[nn.Module, Observer], eager: bool) -> Iterator[None]:
    """While active, the modules in `observers` show their attention; everything is as before afterwards.

    Blocks may overlap and end in any order: what is observed, and what a configuration says, follows from the blocks that
    are still active.

    eager: use the model's eager function, which computes a pattern, whatever it is set to.
    """
    claims = [(c, _claim(c, eager)) for c in configs]
    for module, observer in observers.items():
        _put(_observers, module, observer)
    try:
        yield
    finally:
        for module, observer in observers.items():
            _take(_observers, module, observer)
        for config, claim in claims:
            with _guard:
                _take(_claims, config, claim)
                _set(config, claim.before)


def _claim(config: Any, eager: bool) -> _Claim:
    """Let a configuration name an attention function of ours from now on."""
    with _guard:
        held = _claims.get(id(config))
        claim = _Claim(eager, held[0].before if held else config._attn_implementation_internal)
        _put(_claims, config, claim)
        _set(config, claim.before)
    return claim


def _set(config: Any, before: Any) -> None:
    """Let a configuration say what the claims on it want: what it said before, where there are none."""
    claims = _claims.get(id(config), ())
    name = _register("eager" if any(c.eager for c in claims) else before or "eager") if claims else None
    config._attn_implementation_internal = before if name is None else name


def _put(table: dict[int, list[T]], owner: object, item: T) -> None:
    """Add an item to an owner's list; who reads the list at the time reads the old one."""
    with _guard:
        table[id(owner)] = [*table.get(id(owner), ()), item]


def _take(table: dict[int, list[T]], owner: object, item: T) -> None:
    """Take this very item out of an owner's list again."""
    with _guard:
        table[id(owner)] = [other for other in table[id(owner)] if other is not item]
        if not table[id(owner)]:
            del table[id(owner)]


Mode = Callable[[], AbstractContextManager[Any]]
#: What the forward of a watched module runs under, by the module's identity.
_modes: dict[int, list[Mode]] = {}
#: How each watched module gets its own forward back.
_watched: dict[int, Callable[[], None]] = {}


@contextmanager
def watching(module: nn.Module, mode: Mode) -> Iterator[None]:
    """While active, every forward of the module runs under a fresh torch function mode (or other context).

    Several may watch and leave in any order; the one that came first sees first.
    """
    with _guard:
        if id(module) not in _modes:
            _watch(module)
        _put(_modes, module, mode)
    try:
        yield
    finally:
        with _guard:
            _take(_modes, module, mode)
            if id(module) not in _modes:
                _watched.pop(id(module))()


def _watch(module: nn.Module) -> None:
    """Let a module's forward run under the modes that are there at the time."""
    original, before = module.forward, module.__dict__.get("forward")

    def forward(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for mode in reversed(_modes.get(id(module), ())):
                stack.enter_context(mode())
            return original(*args, **kwargs)

    _watched[id(module)] = partial(_restore, module, before)
    module.forward = forward  # type: ignore[method-assign]


def _restore(module: nn.Module, before: Any) -> None:
    if before is None:
        del module.__dict__["forward"]
    else:
        module.forward = before


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While active, the module's forward is another function; its own, and one that was put there before, come back."""
    before = module.__dict__.get("forward")
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        _restore(module, before)
