"""Attached to a model: sites are read and written in whatever forward passes the user makes himself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput
from cutaway.network.core import Core
from cutaway.network.edits import Bound, Phase
from cutaway.network.execution.running import RunOptions, find_item, logits_key, plan_work
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.execution.values import taken
from cutaway.network.indices import position_table
from cutaway.network.inputs import Pos, Tokens
from cutaway.network.run import Run
from cutaway.network.sites import SiteLike


@dataclass(eq=False)
class Attached:
    """What was seen of the forward passes that were made while attached.

    Attributes:
        runs: one `Run` for each pass, in order; empty where the runs are handed to a function instead. Its `tokens` are
            the whole rows so far, its `columns` those of them that the pass covered (or, where positions were asked
            for, that were kept), its `logits` what the model gave.
    """

    runs: list[Run] = field(default_factory=list)


@contextmanager
def attached(
    net: Core,
    reads: Sequence[SiteLike],
    writes: Sequence[Bound],
    options: RunOptions,
    on: Phase = "all",
    on_step: Callable[[Run], object] | None = None,
) -> Iterator[Attached]:
    """While active, every forward pass of the model is read and written; see `Network.attached`."""
    if on not in ("all", "prompt", "new"):
        raise BadInput(f"on={on!r} is not known.", 'Use "all", "prompt" or "new".')
    if writes and any(getattr(m, "gradient_checkpointing", False) for m in net.model.modules()):
        raise BadInput(
            "The model computes its layers a second time in the backward pass, where writes would not act.",
            "Switch gradient checkpointing off: model.gradient_checkpointing_disable().",
        )
    seen = Attached()
    work = plan_work(net, reads, writes, options)
    following = Following(net.model, net.anatomy, work, {}, 1, phase=on)
    following.core, following.give = net, on_step or seen.runs.append
    with net.lock:
        net.attachments += bool(writes)
        try:
            with following:
                yield seen
        finally:
            net.attachments -= bool(writes)


class Following(Session):
    """A session that learns from each forward pass what it is about: its rows, and where they go on from a cache.

    A pass with keys and values of earlier positions goes on from a prompt; every other pass begins with one.
    """

    core: Core
    give: Callable[[Run], object]
    _rows: Tokens | None = None
    _cache: object = None
    _columns: Tensor | None = None

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass starts: note its rows, and whether gradients are asked for."""
        self._enter_pass()
        if self.depth > 1:
            return
        given = {**dict(zip(self.core.interface.names, args, strict=False)), **kwargs}
        self.grad = torch.is_grad_enabled()
        self.kept, self._columns = {}, None
        self._follow(given)

    def _follow(self, given: Mapping[str, Any]) -> None:
        decodes = torch.is_tensor(given.get("decoder_input_ids"))
        ids = given.get("decoder_input_ids" if decodes else self.core.interface.ids or "")
        ids = ids if torch.is_tensor(ids) and ids.ndim == 2 else None
        embeds = given.get("decoder_inputs_embeds" if decodes else "inputs_embeds")
        items = ids if ids is not None else embeds
        first = next((v for v in (items, *given.values()) if torch.is_tensor(v) and v.ndim), None)
        self.batch = 1 if first is None else int(first.shape[0])
        self._length = 0 if items is None else int(items.shape[1])
        earlier = 0 if self._rows is None else self._rows.width
        self._seen = self._past(given, earlier)
        begins = self._seen == 0 or self._rows is None
        mask = given.get("decoder_attention_mask" if decodes else "attention_mask")
        self._rows = None if ids is None else self._extended(ids.cpu(), mask)
        if begins:
            self.prompt_columns = (self._seen or self._length) if items is not None else None
            self.tokens = {"": self._part(self.prompt_columns)}
        if self.core.interface.encoder_decoder:
            self.tokens = {**self.tokens, "encoder": self._encoded(given)}

    def _past(self, given: Mapping[str, Any], earlier: int) -> int:
        """How many columns a cache holds already."""
        past: Any = given.get("past_key_values")
        past = given.get("cache_params") if past is None else past
        same, self._cache = past is self._cache, past
        if past is None:
            return 0
        if callable(getattr(past, "get_seq_length", None)):
            return int(past.get_seq_length())
        position = given.get("cache_position")
        if torch.is_tensor(position):
            return int(position.flatten()[0])
        return earlier if same else 0

    def _extended(self, ids: Tensor, mask: Any) -> Tokens:
        """The rows so far: those in the cache, then those of this pass."""
        end = self._seen + self._length
        before = self._rows if self._rows is not None and self._rows.n == len(ids) else None
        if before is None or before.width < self._seen:  # the cache was filled before one was attached
            before = Tokens.of_ids(torch.zeros(len(ids), self._seen, dtype=torch.long))
        if torch.is_tensor(mask) and mask.ndim == 2 and mask.shape[1] >= end:
            real = mask[:, :end].bool().cpu()
        else:
            real = torch.cat([before.mask[:, : self._seen], torch.ones_like(ids, dtype=torch.bool)], 1)
        return Tokens(torch.cat([before.ids[:, : self._seen], ids], 1), real)

    def _part(self, columns: int | None) -> Tokens | None:
        rows = self._rows
        return None if rows is None else Tokens(rows.ids[:, :columns], rows.mask[:, :columns])

    def _encoded(self, given: Mapping[str, Any]) -> Tokens | None:
        """The encoder's rows, whose ids are unknown where the encoder has run by itself."""
        if given.get("encoder_outputs") is not None and any(w.site.stack == "encoder" for w in self.work):
            raise BadInput(
                "The encoder ran by itself before this pass, so that its sites were not seen.",
                "Read and write sites of the decoder, or give the model both texts in one call.",
            )
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if torch.is_tensor(ids):
            return Tokens.of_ids(ids, mask)
        return (
            Tokens.of_ids(torch.zeros_like(mask), mask)
            if torch.is_tensor(mask)
            else self.tokens.get("encoder")
        )

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """A pass ends: hand over what was kept, unless it ended in an error."""
        if self.depth == 1 and output is not None:
            columns = self._columns
            if columns is None and self._rows is not None:
                columns = torch.arange(self._seen, self._seen + self._length).expand(self.batch, -1)
            logits = find_item(output, logits_key(self.anatomy) or "logits")
            run = Run(logits, self._rows, self.kept, output if logits is None else None, columns)
            self.depth += 1  # what the function runs itself is not ours
            try:
                self.give(run)
            finally:
                self.depth -= 1
        self.depth -= 1

    def derived(self, item: SiteWork, value: Tensor) -> tuple[Tensor, Tensor]:
        """A value that is only read is left in the graph as it is."""
        return self.apply(item, value), value

    def _own(self, value: Tensor, _shared: bool) -> Tensor:
        return value

    def _keep(self, item: SiteWork, value: Tensor) -> None:
        value = value if self.grad else value.detach()
        here = self.here(item.site, value)
        axis = here.pos_axis
        stack = self.anatomy.home(item.site.stack)
        rows = self.tokens.get(stack) if stack else self._rows
        if item.pos is not None and axis is not None and rows is not None:
            start = here.start(value.shape[axis])
            columns = covered(rows, item.pos, start, value.shape[axis])
            if not columns.shape[1]:
                return
            if not stack:
                self._columns = columns
            value = taken(value, columns - start, axis)
        elif self.anatomy.in_place:
            value = value.clone()
        self.kept[item.site] = value


def covered(rows: Tokens, pos: Pos, start: int, size: int) -> Tensor:
    """Which of the columns that positions stand for lie in [start, start + size), in every row: LongTensor [b k].

    Positions that a row does not have (yet) are left out, and so is one that is covered in some rows only.

    >>> rows = Tokens(torch.tensor([[5, 6, 7, 8]]), torch.ones(1, 4, dtype=torch.bool))
    >>> covered(rows, [0, -1, 9], start=3, size=1)
    tensor([[3]])
    """
    table = None if pos is None else position_table(pos)
    if table is None or isinstance(table, slice) or table.dtype == torch.bool:
        columns = rows.columns(table)
    else:
        relative = table.reshape(1, -1).expand(rows.n, -1) if table.ndim < 2 else table
        if relative.shape[0] != rows.n:
            raise BadInput(
                f"Positions were given for {relative.shape[0]} rows, and the pass has {rows.n}.",
                "Give an integer or a list of integers, which is for every row.",
            )
        lengths, first = rows.lengths[:, None], rows.first[:, None]
        counted = torch.where(relative < 0, relative + lengths, relative)
        there = (counted >= 0) & (counted < lengths)
        columns = torch.where(there, counted + first, -1)
    inside = ((columns >= start) & (columns < start + size)).all(0)
    return columns[:, inside]
