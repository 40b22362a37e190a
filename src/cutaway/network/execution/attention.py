"""Read and write inside attention, with the model's own attention function doing the work.

Transformers looks its attention function up by a name in the configuration. For the time of one run, and for this
network's configurations only, that name is one of ours; the function under it shows queries, keys, values and the
weighted values to an observer and hands the work to the function that the model would have used. The mask function is
registered under the same name, because without it a causal mask would silently not be made.

Attention that a module writes out in its own code is reached by watching the torch functions that it calls (`inside`).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from cutaway.errors import SiteUnavailable
from cutaway.network.execution.inside import Observer, Several, SoftmaxTap

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
        with SoftmaxTap(observer, key.shape[2]) if square else nullcontext():
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
