"""The base run, kept: what every layer received, its keys and values, what its sublayers gave, and the logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.execution.running import evaluating, find_item, logits_key, memory_errors
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.inputs import Inputs, Tokens
from cutaway.network.memory import MOST_TOKENS, are_square, rows_at_once
from cutaway.network.sites import Site
from cutaway.results.meter import spend

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work
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


def windowed(
    net: Network, tokens: Tokens, kwargs: Mapping[str, Any], start: int, stop: int
) -> tuple[Tokens, dict[str, Any]]:
    """Rows of tokens and their arguments for a pass over the columns [start, stop) alone, behind keys and values of those
    before: the columns' own tokens, and a mask and positions that count all columns where any of them is padding.
    """
    part, before = Tokens(tokens.ids[:, start:stop], tokens.mask[:, start:stop]), tokens.mask[:, :stop]
    given = {k: v for k, v in kwargs.items() if k not in ("attention_mask", "position_ids")}
    given[net.interface.ids or "input_ids"] = part.ids.to(net.device)
    if net.interface.masks and not bool(before.all()):
        given["attention_mask"] = before.to(device=net.device, dtype=torch.long)
        if net.interface.position_ids:
            positions = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
            given["position_ids"] = positions[:, start:]
    return part, given


def take(
    experiment: Experiment,
    sites: Collection[Site],
    modules: Sequence[str],
    cached: bool,
    work: Work | None = None,
) -> Record:
    """Run the base prompts once and keep the named sites, the modules' outputs and, if `cached`, keys and values.

    work: its budget says how much memory a batch of them may take.
    """
    n = experiment.tokens.n
    width, square = experiment.tokens.width, are_square(sites)
    at_once = rows_at_once(experiment.net, width, work, most=MOST_TOKENS, square=square)
    parts = [
        _take(experiment, torch.arange(start, min(start + at_once, n)), sites, modules, cached)
        for start in range(0, n, at_once)
    ]
    if len(parts) == 1:
        return parts[0]
    for part in parts[1:]:
        part.shells.clear()  # one part's serve for all, and hold on to its tensors
    names = ("sites", "caches", "outputs", "logits", "encoder")
    return replace(parts[0], **{name: _joined([getattr(p, name) for p in parts]) for name in names})


def _joined(values: list[Any]) -> Any:
    """What runs of some rows each left behind, as of all rows; what is no tensor is the first one's."""
    first = values[0]
    if torch.is_tensor(first):
        return torch.cat(values)
    if isinstance(first, dict):
        return {
            key: _joined([value.pop(key) for value in values]) for key in list(first)
        }  # not twice at once
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
    only_some = net.interface.logits_to_keep
    asked = columns.unique()
    if only_some:
        kwargs["logits_to_keep"] = asked.to(net.device)
    with net.lock, memory_errors(inputs), evaluating(net.model), torch.no_grad(), ExitStack() as stack:
        session = Session(net.model, net.anatomy, items, {"": tokens}, inputs.batch)
        stack.enter_context(session)
        by_path = dict(net.model.named_modules())
        for path in modules:
            keep = partial(_keep, record.outputs, path, in_place)
            stack.callback(by_path[path].register_forward_hook(keep).remove)
        for layer in layers:
            if layer.call == 0:
                module = by_path[layer.path]
                enter = partial(lambda i, *_: now.append(i), layer.index)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                keep = partial(_keep, record.shells, layer.index, False)
                stack.callback(module.register_forward_hook(keep).remove)
        output = net.model(**kwargs)
    spend(len(rows))
    record.sites = dict(session.kept)
    logits = find_item(output, logits_key(net.anatomy) or "logits")
    if logits is not None:
        where = torch.searchsorted(asked, columns) if only_some else columns
        record.logits = logits[torch.arange(len(rows)), where.to(logits.device)]
    if hasattr(output, "keys"):
        record.encoder = find_item(output, "encoder_last_hidden_state")
    return record


def _keep(into: dict[Any, Any], key: Any, copied: bool, _module: nn.Module, _args: Any, out: Any) -> None:
    """A hook that keeps what a module gives, copied where the model's code overwrites tensors."""
    into[key] = _copy(out) if copied else out


def _copy(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_copy(v) for v in value)
    return value.clone() if torch.is_tensor(value) else value


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
