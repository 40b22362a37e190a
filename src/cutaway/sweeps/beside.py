"""The other prompts of the pairs, run from the first column that differs: what comes before, the base run has.

A token's values do not depend on later ones where attention is causal. So the two prompts of a pair have the same values up
to the first token in which they differ, and a run of the one goes on from the keys and values of the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.network.execution.running import evaluating, find_item, logits_key, memory_errors
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.inputs import Inputs, Tokens
from cutaway.network.memory import MOST_TOKENS, are_square, rows_at_once
from cutaway.network.sites import Site
from cutaway.results.meter import spend
from cutaway.sweeps.cells import AxisLayout, Experiment
from cutaway.sweeps.record import Record, windowed

if TYPE_CHECKING:
    from cutaway.results import Work

#: Tokens that a pass of its own must save: about what calling every layer once more costs.
_WORTH = 64
#: Below one in so many tokens that are saved, the prompts are run as they are.
_LEAST = 8


def take_beside(
    experiment: Experiment, base: Record, tokens: Tokens, sites: Collection[Site], work: Work | None = None
) -> Record | None:
    """The sites [n p ...] and logits [n v] of other prompts, of which those columns are run that no base prompt has.

    base: the run of the experiment's prompts, with keys and values of every layer, and with these sites. tokens: the other
    prompts, row by row of the same length. work: its budget says how much memory a pass may take.

    None where the rows are padded otherwise, where a site is not laid out by position, and where little is saved.
    """
    starts = first_differences(experiment.tokens, tokens)
    shape = (tokens.n, tokens.width)
    if starts is None or are_square(sites) or not all(_by_position(s, base.sites[s], shape) for s in sites):
        return None
    entering = np.minimum(starts, experiment.answer_columns)
    groups = list(_groups(entering))
    if sum(start * len(rows) for start, rows in groups) * _LEAST < tokens.n * tokens.width:
        return None
    found = Record({site: base.sites[site].clone() for site in sites})
    logits: dict[int, Tensor] = {}
    for start, rows in groups:
        size = rows_at_once(experiment.net, tokens.width - start, work, most=MOST_TOKENS)
        for part in rows.split(size):
            kept, read = continued(experiment, base, tokens, part, start, sites)
            logits |= dict(zip(part.tolist(), read, strict=True))
            for site in sites:
                _enter(found.sites[site], kept[site], part, start, starts)
    found.logits = torch.stack([logits[row] for row in range(tokens.n)])
    return found


def first_differences(base: Tokens, other: Tokens) -> np.ndarray | None:
    """The first column [n] in which two rows of tokens differ (their width where none does); None for rows that cannot be
    told column by column.

    >>> first_differences(Tokens.of_ids(torch.tensor([[1, 2, 3]])), Tokens.of_ids(torch.tensor([[1, 2, 4]])))
    array([2])
    """
    if base.values is not None or other.values is not None or base.ids.shape != other.ids.shape:
        return None
    if not torch.equal(base.mask, other.mask):
        return None
    unequal = ((base.ids != other.ids) & base.mask).numpy()
    return np.where(unequal.any(1), unequal.argmax(1), base.width)


def _by_position(site: Site, value: Tensor, shape: tuple[int, int]) -> bool:
    """Whether a site's value is [n p ...]."""
    inside = site.layer is not None and not site.stack and not site.module
    return inside and AxisLayout.of(site).position == 1 and tuple(value.shape[:2]) == shape


def _groups(starts: np.ndarray) -> Iterator[tuple[int, Tensor]]:
    """Rows that go together, each with the column from which they are run: a group of its own where enough is saved."""
    order, first = np.argsort(starts, kind="stable"), 0
    for i in range(1, len(order) + 1):
        ended = i == len(order)
        if ended or (starts[order[i]] - starts[order[first]]) * (len(order) - i) >= _WORTH:
            yield int(starts[order[first]]), torch.from_numpy(np.sort(order[first:i]))
            first = i


def continued(
    experiment: Experiment, base: Record, tokens: Tokens, rows: Tensor, start: int, sites: Collection[Site]
) -> tuple[dict[Site, Tensor], Tensor]:
    """Some rows [b] over the columns from `start` on: their sites [b w ...], and logits [b v] at the answer position."""
    from transformers import DynamicCache

    net, own = experiment.net, tokens[rows]
    part, kwargs = windowed(net, own, net.prepare(own).kwargs, start, tokens.width)
    cache = DynamicCache(config=net.text_config)
    for index, *both in sorted(base.caches.values(), key=lambda cached: cached[0]) if start else ():
        keys, values = (kept[rows.to(kept.device), :, :start] for kept in both)
        cache.update(keys, values, index)
    columns = torch.from_numpy(experiment.answer_columns[rows.numpy()] - start)
    asked, only_some = columns.unique(), net.interface.logits_to_keep
    kwargs |= {"past_key_values": cache, "use_cache": True}
    if only_some:
        kwargs["logits_to_keep"] = asked.to(net.device)
    inputs = Inputs(kwargs, part, len(rows))
    items = [SiteWork(site, net.tap(site), keep=True) for site in sites]
    with net.lock, memory_errors(inputs), evaluating(net.model), torch.no_grad(), ExitStack() as stack:
        session = stack.enter_context(Session(net.model, net.anatomy, items, {"": part}, len(rows)))
        output = net.model(**kwargs)
    spend(len(rows) * part.width / tokens.width)
    logits = find_item(output, logits_key(net.anatomy) or "logits")
    assert logits is not None
    where = torch.searchsorted(asked, columns) if only_some else columns
    return session.kept, logits[torch.arange(len(rows)), where.to(logits.device)]


def _enter(into: Tensor, value: Tensor, rows: Tensor, start: int, starts: np.ndarray) -> None:
    """Put what a pass gave [b w ...] into a site of all rows, at the columns that differ from the base prompts."""
    width = into.shape[1] - start
    value = value[:, value.shape[1] - width :].to(
        into.device
    )  # keys and values come with those of the columns before
    rows = rows.to(into.device)
    differs = torch.arange(start, into.shape[1]) >= torch.from_numpy(starts)[rows.cpu(), None]
    shaped = differs.reshape(*differs.shape, *[1] * (value.ndim - 2)).to(into.device)
    into[rows, start:] = torch.where(shaped, value, into[rows, start:])
