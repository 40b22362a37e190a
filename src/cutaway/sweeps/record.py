"""The base run, kept: what every layer received, its keys and values, what its sublayers gave, and the logits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.execution.running import evaluating, find_item, logits_key, memory_errors
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.inputs import Inputs
from cutaway.network.memory import MOST_TOKENS, rows_at_once
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.sweeps.cells import Experiment


@dataclass(eq=False)
class Record:
    """What one run of the base prompts left behind, all rows [n ...] on the devices they were computed on.

    Attributes:
        sites: values of sites, among them `resid_pre` of each layer.
        caches: layer -> (index in the cache, keys, values [n k p e]); a layer that does not use the cache exactly once is
            not there.
        outputs: module path -> what it gave.
        shells: layer -> its output as the model's code expects it, to hold other rows.
        logits: [n v] at the answer position.
        encoder: what an encoder handed on.
    """

    sites: dict[Site, Tensor] = field(default_factory=dict)
    caches: dict[int, tuple[int, Tensor, Tensor]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    shells: dict[int, Any] = field(default_factory=dict)
    logits: Tensor | None = None
    encoder: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory that the record takes."""
        tensors = [*self.sites.values(), *(t for _, k, v in self.caches.values() for t in (k, v))]
        tensors += [t for out in self.outputs.values() for _, t in tensor_leaves(out)]
        return sum(t.numel() * t.element_size() for t in tensors)


def arguments(experiment: Experiment, rows: Tensor) -> Inputs:
    """The model's own arguments for some of the base prompts."""
    if experiment.inputs is not None:
        return experiment.inputs.select(rows)
    return experiment.net.prepare(experiment.tokens[rows.to(experiment.tokens.ids.device)])


def take(experiment: Experiment, sites: Collection[Site], modules: Sequence[str], cached: bool) -> Record:
    """Run the base prompts once and keep the named sites, the modules' outputs and, if `cached`, keys and values."""
    n = experiment.tokens.n
    at_once = rows_at_once(experiment.net, experiment.tokens.width, most=MOST_TOKENS)
    parts = [
        _take(experiment, torch.arange(start, min(start + at_once, n)), sites, modules, cached)
        for start in range(0, n, at_once)
    ]
    if len(parts) == 1:
        return parts[0]
    return Record(
        {s: torch.cat([p.sites[s] for p in parts]) for s in parts[0].sites},
        {
            i: (index, torch.cat([p.caches[i][1] for p in parts]), torch.cat([p.caches[i][2] for p in parts]))
            for i, (index, _, _) in parts[0].caches.items()
        },
        {path: _joined([p.outputs[path] for p in parts]) for path in parts[0].outputs},
        parts[0].shells,
        torch.cat([p.logits for p in parts if p.logits is not None]),
        None if parts[0].encoder is None else torch.cat([p.encoder for p in parts if p.encoder is not None]),
    )  # fmt: skip


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if torch.is_tensor(first):
        return torch.cat(values)
    if isinstance(first, tuple | list):
        return type(first)(_joined(list(items)) for items in zip(*values, strict=True))
    return first


def take_plainly(experiment: Experiment, sites: Collection[Site]) -> Record:
    """Run the base prompts by `Network.run`, standing edits included, and keep the named sites and the logits."""
    inputs: Any = experiment.tokens if experiment.inputs is None else dict(experiment.inputs.kwargs)
    run = experiment.net.run(inputs, keep=sorted(sites), logits=experiment.positions[:, None])
    return Record(dict(run.kept), logits=None if run.logits is None else run.logits[:, 0])


def _take(
    experiment: Experiment, rows: Tensor, sites: Collection[Site], modules: Sequence[str], cached: bool
) -> Record:
    net, record = experiment.net, Record()
    inputs = arguments(experiment, rows)
    tokens = experiment.tokens[rows.to(experiment.tokens.ids.device)]
    items = [SiteWork(s, net.tap(s), keep=True) for s in sites]
    kwargs: dict[str, Any] = dict(inputs.kwargs)
    layers = net.anatomy.stacks[0].layers if net.anatomy.stack() is None else net.anatomy.stack().layers  # type: ignore[union-attr]
    now: list[int] = []
    in_place = net.anatomy.in_place
    if cached:
        kwargs |= {"past_key_values": recording_cache(net, record, now), "use_cache": True}
    else:
        kwargs |= net.interface.uncached
    columns = torch.as_tensor(experiment.answer_columns)[rows]
    partial = net.interface.logits_to_keep
    asked = columns.unique()
    if partial:
        kwargs["logits_to_keep"] = asked.to(net.device)
    with net.lock, memory_errors(inputs), evaluating(net.model), torch.no_grad(), ExitStack() as stack:
        session = Session(net.model, net.anatomy, items, {"": tokens}, inputs.batch)
        stack.enter_context(session)
        by_path = dict(net.model.named_modules())
        for path in modules:
            stack.enter_context(
                _hooked(
                    by_path[path],
                    lambda out, path=path: record.outputs.__setitem__(path, _copied(out, in_place)),
                )
            )
        for layer in layers:
            if layer.call == 0:
                module = by_path[layer.path]
                stack.callback(
                    module.register_forward_pre_hook(lambda *_, i=layer.index: now.append(i)).remove
                )
                stack.enter_context(
                    _hooked(module, lambda out, i=layer.index: record.shells.__setitem__(i, out))
                )
        output = net.model(**kwargs)
    record.sites = dict(session.kept)
    logits = find_item(output, logits_key(net.anatomy) or "logits")
    if logits is not None:
        where = torch.searchsorted(asked, columns) if partial else columns
        record.logits = logits[torch.arange(len(rows)), where.to(logits.device)]
    encoder = find_item(output, "encoder_last_hidden_state") if hasattr(output, "keys") else None
    record.encoder = encoder
    return record


def _copied(value: Any, copied: bool) -> Any:
    """A module's output, copied where the model's code overwrites tensors."""
    if not copied:
        return value
    if isinstance(value, tuple | list):
        return type(value)(_copied(v, copied) for v in value)
    return value.clone() if torch.is_tensor(value) else value


@contextmanager
def _hooked(module: nn.Module, see: Callable[[Any], None]) -> Iterator[None]:
    """While active, what the module gives is shown."""
    handle = module.register_forward_hook(lambda _m, _args, out: see(out))
    try:
        yield
    finally:
        handle.remove()


def recording_cache(net: Network, record: Record, now: list[int]) -> Any:
    """A cache of the model's own class that also remembers what each layer put into it.

    now: the layers that have been entered, the last one being where we are. A layer that updates the cache more than once,
    or an index that several layers share, is taken out of the record.
    """
    from transformers import DynamicCache

    class Recording(DynamicCache):
        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> Any:
            at = now[-1] if now else -1
            taken = at in record.caches or layer_idx in {index for index, _, _ in record.caches.values()}
            if taken:
                record.caches.pop(at, None)
                spoiled.add(at)
            elif at not in spoiled:
                record.caches[at] = (layer_idx, key_states, value_states)
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    spoiled: set[int] = set()
    return Recording(config=net.text_config)
