"""One forward pass of the model over a wave's columns, in which each layer is told which rows to compute.

The pass is the model's own: its embedding, masks, rotary tables and ending are computed by its own code for the columns that
are run. Below the layer at which a row joins nothing is computed for it, and there it enters with what the base run left.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.network.anatomy import Layer, Port, PortTap
from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.edits import Here
from cutaway.network.execution.attention import replaced
from cutaway.network.execution.exchange import Arguments, Exchange
from cutaway.network.execution.running import evaluating, find_item, logits_key, memory_errors
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.execution.spending import depth
from cutaway.network.inputs import Inputs
from cutaway.network.sites import Site
from cutaway.results.meter import spend
from cutaway.sweeps.cache import CachedPrefix, StoppedAtCache
from cutaway.sweeps.carried import Window, carried_changes
from cutaway.sweeps.cells import Cell, Experiment
from cutaway.sweeps.masks import Overwrite
from cutaway.sweeps.record import Record, arguments, windowed
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.stages import CARRIERS, Parts, Stage
from cutaway.sweeps.waves import Wave


@dataclass(eq=False)
class Ground:
    """What passes stand on: one record of the base prompts, and the model.

    Attributes:
        experiment, cells, record, parts, rules: what is run, the base run, and which savings are used.
        every: give the logits of all columns [k w v], not those of the answer's.
        factors: how many entries of an argument's first axis belong to a row, by window; see `batch_factors`.
        layers, modules: the layers of the main stack, and all modules by path.
        head: has the unembedding compute few tokens, where it can.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    record: Record
    parts: Mapping[int, Parts]
    rules: Rules
    every: bool = False
    factors: dict[tuple[int, int, bool], dict[tuple[int, str], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stack = self.experiment.net.anatomy.stack()
        assert stack is not None
        self.layers: tuple[Layer, ...] = stack.layers
        self.modules: dict[str, nn.Module] = self.experiment.net.modules
        self.head = _few_logits(self) if self.rules.tokens else None

    def batch_factors(self, wave: Wave, exact: bool = False) -> dict[tuple[int, str], int]:
        """For each tensor argument of each layer, how many entries of its first axis belong to a row (0: shared).

        Found by giving the model two batches of different size and looking at the shapes that its layers are handed; once
        for each kind of window, or with `exact` for these very columns.
        """
        # a row with padding in it, if there is one, because the model is then handed masks that it is not handed without
        padded = ~self.experiment.tokens.mask[:, : wave.stop].cpu().all(1).numpy()[wave.pairs[:, 1]]
        shown = wave.pairs[int(padded.argmax()), 1]
        window = (wave.columns, wave.start) if exact else (min(wave.columns, 2), min(wave.start, 1) - 2)
        key = (*window, bool(padded.any()))
        if key not in self.factors:
            sizes: list[dict[tuple[int, str], int]] = []
            for count in (2, 3):
                rows = np.full((count, 2), shown, np.int64)
                seen: dict[tuple[int, str], int] = {}
                dry = Wave(rows, np.full(count, len(self.layers)), (Stage(),) * count, wave.start, wave.stop)
                Pass(self, dry, [], shapes=seen).run()
                sizes.append(seen)
            self.factors[key] = {
                k: (size // 2 if size % 2 == 0 and 3 * size == 2 * sizes[1].get(k, -1) else 0)
                for k, size in sizes[0].items()
            }
        return self.factors[key]


class Pass:
    """One forward over a wave's columns; see the module."""

    def __init__(
        self,
        ground: Ground,
        wave: Wave,
        pending: list[Overwrite],
        until: int | None = None,
        body: Pass | None = None,
        shapes: dict[tuple[int, str], int] | None = None,
    ) -> None:
        self.ground, self.wave, self.until, self.body, self.shapes = ground, wave, until, body, shapes
        self.net, self.record, self.experiment = ground.experiment.net, ground.record, ground.experiment
        self.rows = torch.from_numpy(wave.pairs[:, 1].copy())
        self.window = (0, 0)
        self.layer = -1
        self.deltas: dict[str, Tensor] = {}
        self.pending: dict[Site, list[Overwrite]] = {}
        for item in pending:
            self.pending.setdefault(item.site, []).append(item)
        self.hidden: Tensor | None = None
        self.kept: tuple[Tensor, Tensor] | None = None
        self.factors = {} if shapes is not None else ground.batch_factors(wave)

    def run(self) -> Tensor:
        """Run it: logits [k v] at the last column (nothing of use where the pass ends early)."""
        net, wave = self.net, self.wave
        inputs, kwargs = self._arguments()
        with net.lock, memory_errors(inputs), evaluating(net.model), torch.no_grad(), ExitStack() as stack:
            self.session = Session(net.model, net.anatomy, self._work(), {"": inputs.tokens}, inputs.batch)
            stack.enter_context(self.session)
            for path in {layer.path for layer in self.ground.layers}:
                stack.enter_context(replaced(self.ground.modules[path], self._layer_forward(path)))
            if self.ground.head is not None:
                stack.enter_context(self.ground.head())
            try:
                output = net.model(**kwargs)
            except StoppedAtCache:
                return torch.empty(0)
        logits = find_item(output, logits_key(net.anatomy) or "logits")
        if logits is None or self.shapes is not None:
            return torch.empty(0)
        if self.ground.every:
            return logits
        if self.asked is None:
            return logits[:, -1]
        columns = torch.from_numpy(self.experiment.answer_columns[wave.pairs[:, 1]])
        where = torch.searchsorted(self.asked, columns) if logits.shape[1] == len(self.asked) else columns
        return logits[torch.arange(len(self.rows)), where.to(logits.device)]

    def let_go(self) -> None:
        """Give up what it held: the pass, its session and its cache hold on to one another, and what they hold would stay
        until Python looks for such circles, which is several waves later.
        """
        vars(self).clear()

    def _arguments(self) -> tuple[Inputs, dict[str, Any]]:
        wave, net = self.wave, self.net
        whole = arguments(self.experiment, self.rows)
        tokens = self.experiment.tokens[self.rows.to(self.experiment.tokens.ids.device)]
        kwargs = dict(whole.kwargs)
        if self.ground.rules.suffix or self.ground.rules.last:
            part, kwargs = windowed(net, tokens, kwargs, wave.start, wave.stop)
            self.cache = CachedPrefix(net.text_config, self.record, wave.start, self._prefix)
            kwargs |= {"past_key_values": self.cache.cache, "use_cache": True}
            tokens = part
        else:
            kwargs |= net.interface.uncached
        if self.record.encoder is not None and net.interface.accepts("encoder_outputs"):
            rows = self.rows.to(self.record.encoder.device)
            kwargs["encoder_outputs"] = (self.record.encoder[rows],)
        columns = torch.from_numpy(self.experiment.answer_columns[wave.pairs[:, 1]]).unique()
        self.asked = None if self.ground.rules.suffix or self.ground.rules.last else columns
        if net.interface.logits_to_keep and not self.ground.every:
            kwargs["logits_to_keep"] = 1 if self.asked is None else self.asked.to(net.device)
        return Inputs(kwargs, tokens, len(self.rows)), kwargs

    def _work(self) -> list[SiteWork]:
        """The edits of this pass as work of a session: every site that is written, and the carriers of linear changes."""
        sites = set(self.pending)
        for layer, parts in self.ground.parts.items():
            for site, carrier in CARRIERS.items():
                if site in parts.carriers and Site(site, layer) in self.pending:
                    sites.add(Site(carrier, layer))
        return [SiteWork(site, self.net.tap(site), edits=[partial(self._edited, site)]) for site in sites]

    def _edited(self, site: Site, value: Tensor, _where: Here) -> Tensor:
        """The value of a site for the rows that are being computed, with what they write there."""
        first, last = self.window
        delta = self.deltas.get(site.name) if site.layer == self.layer else None
        if delta is not None:
            value = value + delta.to(device=value.device, dtype=value.dtype)
        # a write may be carried as a linear change of the sublayer's output instead
        carried = site.layer == self.layer and CARRIERS.get(site.name) in self.deltas
        if last <= first or carried:
            return value
        at = self.wave.start if site.name not in ("k", "v") else self.wave.stop - value.shape[1]
        for item in self.pending.get(site, ()):
            value = item.apply(value, slice(first, last), self.rows[first:last], at)
        return value

    def _layer_forward(self, path: str) -> Callable[..., Any]:
        module = self.ground.modules[path]
        original, count = module.forward, iter([x.index for x in self.ground.layers if x.path == path])

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._layer(next(count), original, (args, kwargs))

        return forward

    def _layer(self, index: int, original: Callable[..., Any], given: tuple[Any, Any]) -> Any:
        layer, wave = self.ground.layers[index], self.wave
        in_port, out_key = self._ends(index)
        arriving = Arguments(given).get(in_port.key)
        if self.shapes is not None:
            for key, leaf in [*tensor_leaves(given[0]), *tensor_leaves(given[1])]:
                if key != in_port.key:
                    self.shapes[(index, key)] = int(leaf.shape[0]) if leaf.ndim else 1
            return self._shell(index, out_key, arriving)
        self.mark = self.session.mark()
        before, after = wave.upto(index - 1), wave.upto(index)
        if after == 0:
            return self._shell(index, out_key, arriving)
        self.layer, body = index, self.body
        groups = list(wave.joining(index))
        whole = next(((a, b) for stage, a, b in groups if stage.whole), None)
        if body is not None and index == len(self.ground.layers) - 1:
            # the answer's column alone: of the rows whose layer is run whole the body has what arrives
            upto, together = body.whole_rows, body.hidden
            together = together[:, -1:] if upto and together is not None else None
        else:
            upto, together = before, arriving[:before] if before else None
            if whole is not None:
                entering = self._entering(index, *whole).to(arriving.device)
                upto, together = whole[1], entering if together is None else torch.cat([together, entering])
        pieces: list[Any] = []
        if together is not None:
            pieces.append(self._call(layer, original, given, together, (0, upto), Stage()))
        for stage, first, last in groups:
            if not stage.whole and index != self.until:
                hidden = self._entering(index, first, last).to(arriving.device)
                pieces.append(self._call(layer, original, given, hidden, (first, last), stage))
        if self.until == index:
            raise StoppedAtCache
        self.window = (0, after)
        if len(pieces) == 1:
            return pieces[0]
        return _with_output(pieces[0], out_key, torch.cat([Exchange(p).get(out_key) for p in pieces]))

    @property
    def whole_rows(self) -> int:
        """Rows whose last layer is run whole: all that joined before it, and those that join it at its beginning."""
        last = len(self.ground.layers) - 1
        before = self.wave.upto(last - 1)
        return next((b for stage, a, b in self.wave.joining(last) if stage.whole), before)

    def _call(
        self, layer: Layer, original: Callable[..., Any], given: tuple[Any, Any], hidden: Tensor, window: tuple[int, int],
        stage: Stage,
    ) -> Any:  # fmt: skip
        """The layer's own forward on some rows, with what their stage leaves alone taken from the base run."""
        first, last = window
        in_port, _ = self._ends(layer.index)
        exchange = Arguments(given)
        for key, leaf in [*tensor_leaves(given[0]), *tensor_leaves(given[1])]:
            factor = 0 if key == in_port.key else self._factor(layer.index, key, leaf)
            if factor and (first, last) != (0, len(self.rows)):
                exchange.set(key, leaf[first * factor : last * factor])
        exchange.set(in_port.key, hidden)
        self.window, self.session.batch = window, last - first
        self.session.remember(in_port, hidden)
        self.deltas = self._linear(layer, window, stage)
        self.hidden = hidden
        self.session.rewind(self.mark)
        try:
            with ExitStack() as stack:
                for path in self._stubs(layer.index, stage):
                    stack.enter_context(replaced(self.ground.modules[path], self._stub(path, window)))
                args, kwargs = exchange.value
                given_back = original(*args, **kwargs)
            share = 1.0 - (stage.attention + stage.mlp) / 2
            columns = self.wave.columns / self.experiment.tokens.width
            spend((last - first) * columns * share / depth(self.net.anatomy))
            return given_back
        except StoppedAtCache:
            return None
        finally:
            self.session.batch = len(self.rows)
            self.deltas = {}

    def _factor(self, index: int, key: str, leaf: Tensor) -> int:
        """How many entries of an argument's first axis belong to one row; 0 where rows share them."""
        factor = self.factors.get((index, key))
        if factor is None or (factor and leaf.shape[0] != factor * len(self.rows)):
            self.factors = self.ground.batch_factors(self.wave, exact=True)
            factor = self.factors.get((index, key), 0)
        return factor

    def _stubs(self, index: int, stage: Stage) -> tuple[str, ...]:
        if stage.whole:
            return ()
        parts = self.ground.parts[index]
        return (*(parts.attention if stage.attention else ()), *(parts.mlp if stage.mlp else ()))

    def _stub(self, path: str, window: tuple[int, int]) -> Callable[..., Any]:
        """A forward that gives what the module gave in the base run."""
        n, width = self.experiment.tokens.n, self.experiment.tokens.width
        rows = self.rows[window[0] : window[1]]
        columns = slice(self.wave.start, self.wave.stop)

        def cut(value: Any) -> Any:
            if torch.is_tensor(value):
                if value.ndim >= 2 and value.shape[:2] == (n, width):
                    return value[rows.to(value.device), columns]
                if value.shape[:1] == (n * width,) and value.ndim == 2:
                    return value.unflatten(0, (n, width))[rows.to(value.device), columns].flatten(0, 1)
                return value
            if isinstance(value, tuple | list):
                return type(value)(cut(v) for v in value)
            return value

        return lambda *_, **__: cut(self.record.outputs[path])

    def _entering(self, index: int, first: int, last: int) -> Tensor:
        """What the layer receives for rows that join there: the base run's stream, with what they write into it."""
        site = Site("resid_pre", index)
        kept = self.record.sites[site]
        rows = self.rows[first:last]
        value = kept[rows.to(kept.device), self.wave.start : self.wave.stop]
        for item in self.pending.get(site, ()):
            value = item.apply(value, slice(first, last), rows, self.wave.start)
        return value

    def _linear(self, layer: Layer, window: tuple[int, int], stage: Stage) -> dict[str, Tensor]:
        """What the rows' writes at linear sites add to the outputs of the sublayers that are not run."""
        if stage.whole:
            return {}
        pairs = slice(*window)
        window_of = Window(pairs, self.rows[pairs], slice(self.wave.start, self.wave.stop))
        parts = self.ground.parts[layer.index]
        return carried_changes(self.net, layer, parts, stage, self.pending, self.record.sites, window_of)

    def _ends(self, index: int) -> tuple[Port, str]:
        entry = self.net.anatomy.taps[Site("resid_pre", index)]
        leaving = self.net.anatomy.taps[Site("resid_post", index)]
        assert isinstance(entry, PortTap)
        assert isinstance(leaving, PortTap)
        return entry.port, leaving.port.key

    def _shell(self, index: int, out_key: str, hidden: Tensor) -> Any:
        """The layer's output as its caller expects it, holding what arrived."""
        return _with_output(self.record.shells[index], out_key, hidden)

    def _prefix(self, keys: Tensor, values: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the layer that is being run, behind those of the columns before: the base run's, or at the
        ending those that the body computed."""
        first, last = self.window
        if self.until is not None and self.layer == self.until:
            self.kept = keys, values
            raise StoppedAtCache
        start, body = self.wave.start, self.body
        _, *base = self.record.caches[self.layer]
        rows, joined = self.rows[first:last].to(base[0].device), []
        for i, fresh in enumerate((keys, values)):
            parts = [fresh]
            if body is not None and body.kept is not None and last <= body.whole_rows:
                computed = start - body.wave.start
                older = slice(body.wave.start - max(0, kept - computed), body.wave.start)
                new = slice(max(0, computed - kept), computed)
                parts = [_picked(base[i], rows, older), body.kept[i][first:last, :, new], fresh]
            elif kept:
                parts = [_picked(base[i], rows, slice(start - kept, start)), fresh]
            # column by column, as models lay them out: whole rows are copied, not one head's after the other
            columns = [part.transpose(1, 2) for part in parts]
            joined.append(torch.cat(columns, dim=1).transpose(1, 2) if len(parts) > 1 else fresh)
        return joined[0], joined[1]


def _picked(kept: Tensor, rows: Tensor, columns: slice) -> Tensor:
    """Some columns of keys or values [n k p e], of some rows [b]."""
    return kept.transpose(1, 2)[:, columns].index_select(0, rows).transpose(1, 2)


def _with_output(value: Any, key: str, new: Tensor) -> Any:
    """An output with another tensor in it; mappings are copied, so that what was kept stays as it was."""
    exchange = Exchange(copy.copy(value) if not torch.is_tensor(value) else value)
    exchange.set(key, new)
    return exchange.value


def _few_logits(ground: Ground) -> Callable[[], Any] | None:
    """A way to have the unembedding compute the needed tokens' logits alone; None where that is not possible."""
    experiment, head = ground.experiment, ground.experiment.net.anatomy.head
    if experiment.vocabulary is None or experiment.score_few is None or head is None or head.unembed is None:
        return None
    module = ground.modules[head.unembed]
    if type(module) is not nn.Linear or module.weight.device.type == "meta":
        return None
    tokens = experiment.vocabulary.to(module.weight.device)
    weight = module.weight.detach()[tokens]
    bias = None if module.bias is None else module.bias.detach()[tokens]

    def forward(hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, weight, bias)

    return lambda: replaced(module, forward)
