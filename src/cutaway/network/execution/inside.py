"""What of one attention is shown while it runs, and to whom: its scores, its pattern, its queries, keys, values and z."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cutaway.network.anatomy import LAYOUTS, FunctionTaps
from cutaway.network.discovery.trace import WATCHED_OPS, FunctionMode, op_name


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


class SoftmaxTap(FunctionMode):
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
        if name != "softmax" or scores is None or not self._over_keys(scores, 1):
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
