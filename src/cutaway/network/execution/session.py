"""One run under observation: hooks that read and replace tensors at ports, in the order of computation.

All state of a run lives here and is given up when the `with` block ends, whatever happened inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from cutaway.network.anatomy import (
    FIRST,
    Anatomy,
    AttentionTap,
    ErrorTap,
    HeadOutTap,
    LatentTap,
    Port,
    PortTap,
    RouterTap,
    SumTap,
    Tap,
)  # fmt: skip
from cutaway.network.coefficients import is_one, like, times
from cutaway.network.edits import EditFunction, Here, Phase
from cutaway.network.execution.attention import scoped, watching
from cutaway.network.execution.exchange import Arguments, Exchange
from cutaway.network.execution.heads import head_outputs
from cutaway.network.execution.inside import FunctionTap
from cutaway.network.execution.latents import ErrorWork, LatentWork
from cutaway.network.execution.values import taken, unchanged
from cutaway.network.execution.weights import WeightTap, parameter_names
from cutaway.network.inputs import Pos, Tokens
from cutaway.network.locks import configurations
from cutaway.network.sites import Site


class _Stop(Exception):
    """Ends a forward pass once everything that was asked for has been seen."""


@dataclass(eq=False)
class SiteWork:
    """What is to be done at one site: keep its value (at some positions), and change it.

    Attributes:
        site: which one.
        tap: where it lives.
        keep: is its value kept?
        pos: the positions that are kept.
        edits: what changes it, in order.
    """

    site: Site
    tap: Tap
    keep: bool = False
    pos: Pos = None
    edits: list[EditFunction] = field(default_factory=list)


Handler = Callable[[Exchange], None]


@dataclass(eq=False)
class Session:
    """The hooks of one run. Use as a context manager; `kept` holds what was asked for.

    Attributes:
        model: the module that runs.
        anatomy: where its sites live.
        work: what is done at each site.
        tokens: rows by stack.
        batch: how many rows.
        grad: is gradient recorded?
        stop_after: the site behind which the pass ends; None for the whole pass.
        phase: prompt, new, or all.
        prompt_columns: how many columns are prompt, in generation.
        kept: values by site.
    """

    model: nn.Module
    anatomy: Anatomy
    work: Sequence[SiteWork]
    tokens: Mapping[str, Tokens | None]
    batch: int
    grad: bool = False
    stop_after: Site | None = None
    phase: Phase = "all"
    prompt_columns: int | None = None
    kept: dict[Site, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._handlers: dict[tuple[str, str], list[tuple[int, tuple[int, int, int], Handler]]] = {}
        self._observers: dict[str, _ModuleObserver] = {}
        self._scratch: dict[Port, Tensor] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._latents: dict[tuple[int, int], LatentWork] = {}
        self._stack = ExitStack()
        self._seen = 0
        self._length = 0
        self.depth = 0
        self.busy = False
        self._stopping = False
        for item in sorted(self.work, key=lambda w: w.site.rank):
            self._plan(item)

    # planning ----------------------------------------------------------------------------------------------------

    def _plan(self, item: SiteWork) -> None:
        tap, rank = item.tap, item.site.rank
        if isinstance(tap, PortTap):
            self._on(tap.port, rank, lambda x: self._at_port(x, item, tap))
        elif isinstance(tap, AttentionTap):
            observer = self._observers.setdefault(tap.path, _ModuleObserver(self, tap))
            observer.fields.setdefault((tap.call, tap.field), []).append(item)
        elif isinstance(tap, SumTap):
            for part in tap.parts[:-1]:
                self._on(part.port, rank, lambda x, part=part: self._remember(x, part.port))
            self._on(tap.parts[-1].port, rank, lambda x: self._at_sum(x, item, tap))
        elif isinstance(tap, HeadOutTap):
            entry = Port(tap.projection, "in", "0", tap.call)
            self._on(entry, rank, lambda x: self._remember(x, entry))
            port = Port(tap.projection, "out", "", tap.call)
            self._on(port, rank, lambda x: self._at_heads(x, item, tap, entry))
        elif isinstance(tap, LatentTap):
            self._latents_of(tap).derive = partial(self.derived, item)
        elif isinstance(tap, ErrorTap):
            sources = [self._latents_of(source) for source in tap.sources]
            error = ErrorWork(tap, partial(self.derived, item), sources)
            self._plan(SiteWork(*tap.at, edits=[error.see]))
        elif isinstance(tap, RouterTap):
            port = Port(tap.path, "out", tap.weights_key, tap.call)
            self._on(port, rank, lambda x: self._at_router(x, item, tap))
        else:
            raise TypeError(f"{type(tap).__name__} is resolved by the network before a run (Core.tap).")

    def _latents_of(self, tap: LatentTap) -> LatentWork:
        """What is done with one source's latents in this run; planned when it is first asked for."""
        key = (id(tap.codec), tap.source)
        if key not in self._latents:
            work = self._latents[key] = LatentWork(tap)
            for i, (site, read) in enumerate(tap.reads):
                self._plan(SiteWork(site, read, edits=[partial(work.see, i)]))
            for target, site, write in tap.writes:
                self._plan(SiteWork(site, write, edits=[partial(work.add, target)]))
        return self._latents[key]

    def _on(self, port: Port, rank: tuple[int, int], handler: Handler) -> None:
        rows = self._handlers.setdefault((port.path, port.side), [])
        rows.append((port.call, (*rank, len(rows)), handler))

    # hooks -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        try:
            modules = dict(self.model.named_modules())
            self._stack.callback(self.model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            self._stack.callback(self.model.register_forward_hook(self._end, always_call=True).remove)
            for (path, side), rows in self._handlers.items():
                rows.sort(key=lambda r: r[1])
                if path in self.anatomy.bare:
                    continue
                module = modules[path]
                if side == "in":
                    handle = module.register_forward_pre_hook(self._pre_hook(path, rows), with_kwargs=True)
                else:
                    handle = module.register_forward_hook(self._post_hook(path, rows))
                self._stack.callback(handle.remove)
            self._enter_attention(modules)
            self._enter_weights()
            return self
        except BaseException:
            self._stack.close()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._stack.close()
        for held in (
            self._scratch,
            self._handlers,
            self._observers,
            self._latents,
        ):  # handlers hold the session, which holds the values
            held.clear()
        return isinstance(error, _Stop)

    def _enter_attention(self, modules: Mapping[str, nn.Module]) -> None:
        if not self._observers:
            return
        registered = {modules[p]: o for p, o in self._observers.items() if o.tap.functions is None}
        for path, observer in self._observers.items():
            if observer.tap.functions is not None:
                self._stack.enter_context(watching(modules[path], partial(_watched, observer)))
        if registered:
            eager = any(o.wants & {"scores", "pattern"} for o in self._observers.values())
            self._stack.enter_context(scoped(configurations(self.model), dict(registered), eager))

    def _enter_weights(self) -> None:
        """Watch the uses of parameters that are no module's, where something is to be done at one."""
        rows = {place: r for place, r in self._handlers.items() if place[0] in self.anatomy.bare}
        if not rows:
            return
        names, matrices = parameter_names(self.model), self.anatomy.bare.values()

        def handle(path: str, side: Literal["in", "out"], value: Tensor) -> Tensor:
            if (path, side) not in rows:
                return value
            exchange = Arguments(((value,), {})) if side == "in" else Exchange(value)
            self._work(exchange, rows[path, side], path, side)
            return exchange.get("0" if side == "in" else "")

        def tap() -> WeightTap:
            return WeightTap(names, matrices, self._calls, lambda: self.depth == 1 and not self.busy, handle)

        self._stack.enter_context(watching(self.model, tap))

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pass of the whole model starts: calls are counted anew, and the window moves on.

        A pass within a pass (an edit that runs the model itself) is not ours: hooks act at depth one only.
        """
        self._enter_pass()
        if self.depth > 1:
            return
        total = self._seen + self._length
        named = [kwargs[n] for n in ("decoder_input_ids", "input_ids") if n in kwargs]
        given = (v for v in (*named, *args, *kwargs.values()) if isinstance(v, Tensor) and v.ndim == 2)
        ids = next((v for v in given if not v.is_floating_point()), None)
        self._length = 0 if ids is None else int(ids.shape[1])
        # a pass over more columns than there were before is one over the whole row again: no cache is in use
        self._seen = 0 if self._length > total else total

    def _enter_pass(self) -> None:
        self.depth += 1
        if self.depth == 1:
            self._calls.clear()
            for observer in self._observers.values():
                observer.count = -1

    def _end(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        self.depth -= 1

    def mark(self) -> tuple[dict[tuple[str, str], int], list[int]]:
        """How often each module has been called so far; give it to `rewind` to have the same calls counted again."""
        return dict(self._calls), [o.count for o in self._observers.values()]

    def rewind(self, mark: tuple[dict[tuple[str, str], int], list[int]]) -> None:
        """Count calls from a mark on again: a layer is run a second time, on other rows."""
        self._calls = dict(mark[0])
        for observer, count in zip(self._observers.values(), mark[1], strict=True):
            observer.count = count

    def remember(self, port: Port, value: Tensor) -> None:
        """Take a value as what a port hands over, for sums that are taken later in this pass."""
        self._scratch[port] = value

    def _pre_hook(self, path: str, rows: list[Any]) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._work(Arguments((args, kwargs)), rows, path, "in") if self.depth == 1 else None

        return hook

    def _post_hook(self, path: str, rows: list[Any]) -> Callable[..., Any]:
        def hook(module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            watched = self.depth == (0 if module is self.model else 1)
            return self._work(Exchange(output), rows, path, "out") if watched else None

        return hook

    def _work(self, exchange: Exchange, rows: list[Any], path: str, side: str) -> Any:
        """Run the handlers of one call; what they compute is not part of an attention that is being watched.

        Gives what the call is to take or give instead; None where nothing was changed.
        """
        nth = self._calls.get((path, side), 0)
        self._calls[(path, side)] = nth + 1
        before, self.busy = self.busy, True
        try:
            for call, _, handler in rows:
                if call == nth:
                    handler(exchange)
        finally:
            self.busy = before
        return exchange.value if exchange.changed else None

    # taps --------------------------------------------------------------------------------------------------------

    def _at_port(self, exchange: Exchange, item: SiteWork, tap: PortTap) -> None:
        key = exchange.first() if tap.port.key == FIRST else tap.port.key
        raw = exchange.get(key)
        shaped = self._shaped(raw, item.site)
        if is_one(tap.factor) and shaped is raw:
            new = self.apply(item, raw)
            if new is not raw:
                exchange.set(key, new)
            return
        new, value = self.derived(item, times(tap.factor, shaped))
        if new is not value:
            back = new if is_one(tap.factor) else shaped + (new - value) / like(tap.factor, raw)
            exchange.set(key, back.reshape(raw.shape) if back.numel() == raw.numel() else back)

    def _shaped(self, raw: Tensor, site: Site) -> Tensor:
        """Bring a port's tensor to [b p ...]: unflatten rows, add the batch axis where it was left to broadcasting."""
        rank = len(site.axes)
        if not rank or site.name == "logits" or raw.ndim == rank == 3 and raw.shape[0] == self.batch:
            return raw
        if raw.ndim == rank - 1:
            rows, rest = divmod(raw.shape[0], self.batch)
            if rows and not rest and site.name != "pos_embed":
                return raw.unflatten(0, (self.batch, -1))
            raw = raw[None]
        if raw.ndim == rank and raw.shape[0] == 1 and self.batch > 1:
            return raw.expand(self.batch, *raw.shape[1:])
        return raw

    def _remember(self, exchange: Exchange, port: Port) -> None:
        self._scratch[port] = exchange.get(port.key)

    def _at_sum(self, exchange: Exchange, item: SiteWork, tap: SumTap) -> None:
        carrier = tap.parts[-1]
        raw = exchange.get(carrier.port.key)
        total: Tensor | None = None if tap.constant is None else tap.constant.to(raw)
        for part in tap.parts:
            piece = raw if part is carrier else self._scratch[part.port]
            piece = times(part.factor, self._shaped(piece, item.site))
            total = piece if total is None else total + piece.to(total.device)
        assert total is not None
        new, total = self.derived(item, total)
        if new is not total:
            factor = like(carrier.factor, raw)
            delta = ((new - total) / factor).to(raw.device, raw.dtype)
            exchange.set(carrier.port.key, raw + delta.reshape(raw.shape))

    def _at_heads(self, exchange: Exchange, item: SiteWork, tap: HeadOutTap, entry: Port) -> None:
        out = exchange.get("")
        projection = self.anatomy.module(self.model, tap.projection)
        value = head_outputs(projection, self._scratch[entry], tap.heads)
        new, value = self.derived(item, value.reshape(self.batch, -1, tap.heads, out.shape[-1]))
        if new is not value:
            exchange.set("", out + (new - value).sum(2).reshape(out.shape))

    def _at_router(self, exchange: Exchange, item: SiteWork, tap: RouterTap) -> None:
        weights, index = exchange.get(tap.weights_key), exchange.get(tap.index_key)
        flat = weights.reshape(-1, weights.shape[-1])
        table = flat.new_zeros(flat.shape[0], tap.experts).scatter(1, index.reshape(flat.shape).long(), flat)
        new, value = self.derived(item, table.reshape(self.batch, -1, tap.experts))
        if new is not value:
            best, chosen = new.reshape(table.shape).topk(flat.shape[-1], dim=-1)
            exchange.set(tap.weights_key, best.reshape(weights.shape).to(weights.dtype))
            exchange.set(tap.index_key, chosen.reshape(index.shape).to(index.dtype))

    # values ------------------------------------------------------------------------------------------------------

    def derived(self, item: SiteWork, value: Tensor) -> tuple[Tensor, Tensor]:
        """Apply a site whose value no module hands over: (new value, value that the difference is taken from).

        With gradients, a kept value becomes a leaf whose difference from the model's own is carried back, so that the
        gradient with respect to it is that of the true value and nothing upstream is counted twice.
        """
        if self.grad and item.keep and not item.edits:
            leaf = value.detach().requires_grad_()
            return self.apply(item, leaf), value.detach()
        return self.apply(item, value), value

    def apply(self, item: SiteWork, value: Tensor) -> Tensor:
        """Run a site's edits on its value in order, keep the result if asked, end the run once all was seen."""
        new = value
        if item.edits:
            here = self.here(item.site, value)
            for edit in item.edits:
                new = unchanged(edit, new, here)
        if item.keep:
            new = self._own(new, new is value)
            self._keep(item, new)
            if self.grad and self.anatomy.in_place:
                new = new.clone()  # what goes on may be overwritten
        stop = self.stop_after
        if stop is not None:
            self._stopping = self._stopping or item.site == stop
            missing = (w.keep and w.site.rank <= stop.rank and w.site not in self.kept for w in self.work)
            if self._stopping and not any(missing):
                raise _Stop
        return new

    def _own(self, value: Tensor, shared: bool) -> Tensor:
        """A value that is kept, as a tensor of its own where gradients or changes in place would blur it.

        With gradients, a site's value must not be the tensor that another reader takes as well.
        """
        if not self.grad or not value.is_floating_point():
            return value
        if not value.requires_grad:
            return value.detach().clone().requires_grad_()
        return value.view_as(value) if shared else value

    def here(self, site: Site, value: Tensor) -> Here:
        """Where a value stands: its tokens and, in generation, the columns there are so far."""
        axes, stack = site.axes, self.anatomy.home(site.stack)
        if len(axes) != value.ndim:
            axes = ("batch", "vocab") if site.name == "logits" else ()
        if site.module:
            top = site.name.partition(".")[0]
            owners = {s.name for s in self.anatomy.stacks if s.path and s.path.split(".")[0] == top}
            stack = owners.pop() if len(owners) == 1 and "." in site.name else ""
            axes = {3: ("batch", "pos", "width"), 2: ("batch", "width")}.get(value.ndim, axes)
        tokens = self.tokens.get(stack, None if stack else self.tokens.get(""))
        other = self.tokens.get("encoder") if site.name.startswith("cross_") else None
        end = None
        if (self.phase != "all" or self.prompt_columns is not None) and not stack:
            end = self._seen + self._length
        return Here(site, axes, tokens, end, self.prompt_columns, self.phase, self.batch, other)

    def _keep(self, item: SiteWork, value: Tensor) -> None:
        if not self.grad:
            value = value.detach()
        if item.pos is not None:
            here = self.here(item.site, value)
            if here.pos_axis is not None and here.tokens is not None:
                value = taken(value, here.tokens.columns(item.pos), here.pos_axis)
        elif self.anatomy.in_place and not self.grad:
            value = value.clone()
        self.kept[item.site] = value


@dataclass(eq=False)
class _ModuleObserver:
    """The sites inside one module's attention."""

    session: Session
    tap: AttentionTap
    fields: dict[tuple[int, str], list[SiteWork]] = field(default_factory=dict)
    count: int = -1

    @property
    def wants(self) -> frozenset[str]:
        return frozenset(name for _, name in self.fields)

    @property
    def active(self) -> bool:
        return self.session.depth == 1 and not self.session.busy

    def begin(self) -> None:
        self.count += 1

    def see(self, name: str, value: Tensor) -> Tensor:
        for item in self.fields.get((self.count, name), ()):
            value = self.session.apply(item, value)
        return value


def _watched(observer: _ModuleObserver) -> AbstractContextManager[Any]:
    """What one forward of a module that writes its attention out runs under."""
    tap = observer.tap
    if not observer.active or tap.functions is None:
        return nullcontext()
    observer.begin()
    return FunctionTap(observer, tap.functions, tap.heads)
