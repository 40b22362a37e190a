"""What an edge outside the circuit carries: zero, a mean, the other prompt's value, another example's, a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.passes.outputs import Outputs, record
from cutaway.circuits.passes.pairs import PairBatch, PromptPairs
from cutaway.errors import BadBehaviour, BadInput, NotFound, did_you_mean
from cutaway.trials import other_rows

How = Literal["counterfactual", "zero", "mean", "mean-by-position", "mean-by-span", "resample", "optimal"]
WAYS: tuple[str, ...] = get_args(How)
_CARRIED: dict[str, str] = {
    "counterfactual": "what it carries on the corrupted prompt", "zero": "zero", "mean": "its mean over corrupted prompts",
    "mean-by-position": "its mean at that position over corrupted prompts",
    "mean-by-span": "its mean in that span over corrupted prompts",
    "resample": "what it carries on another corrupted prompt", "optimal": "one constant, learned to do the least harm",
}  # fmt: skip


def carried(how: str) -> str:
    """What an ablated edge carries, in words that go on after "carries".

    >>> carried("counterfactual")
    'what it carries on the corrupted prompt'
    """
    return _CARRIED.get(how, f"an ablated value ({how})")


@dataclass(frozen=True, eq=False)
class Ablation:
    """The ablated values of every writer, for any batch of a behaviour, computed once for all circuits.

    Attributes:
        how: "counterfactual": the same position of the corrupted prompt; "zero"; "mean": over all real positions of the
            corrupted prompts; "mean-by-position", "mean-by-span": for each position (from the row's start) or named span its
            own mean, and the plain mean outside all spans; "resample": the corrupted prompt of another example of the same
            length; "optimal": one constant for each writer, learned (Li and Janson 2024; see `learn_constants`).
        means: by place, [d].
        by_group: by place, [groups d].
        seed: of resampling.
    """

    how: How
    means: Mapping[str, Tensor] | None = None
    by_group: Mapping[str, Tensor] | None = None
    seed: int = 0
    _kept: dict[tuple[int, ...], Outputs] | None = None

    def of(self, wiring: Wiring, batch: PairBatch, pairs: PromptPairs) -> Outputs:
        """The ablated value of every writer for a batch: place -> [b p ...], or [1 1 ...] where one value serves all."""
        if self._kept is None:
            return self._values(wiring, batch, pairs)
        if batch.rows not in self._kept:
            self._kept[batch.rows] = self._values(wiring, batch, pairs)
        return self._kept[batch.rows]

    def _values(self, wiring: Wiring, batch: PairBatch, pairs: PromptPairs) -> Outputs:
        if self.how == "counterfactual":
            return record(wiring, batch.corrupted)[0]
        if self.how == "resample":
            order = _others(batch, self.seed)
            return record(wiring, batch.corrupted)[0].map(lambda v: v[order.to(v.device)])
        if self.how == "zero":
            return record(wiring, batch.clean[:1])[0].map(lambda v: torch.zeros_like(v[:, :1]))
        assert self.means is not None
        if self.by_group is None:
            return Outputs({place: value[None, None] for place, value in self.means.items()})
        labels = _labels(self.how, pairs, batch)
        values = {}
        for place, table in self.by_group.items():
            group = labels.to(table.device)
            own_mean = table[group.clamp(min=0, max=table.shape[0] - 1)]
            values[place] = torch.where((group >= 0)[..., None], own_mean, self.means[place])
        return Outputs(values)


def _others(batch: PairBatch, seed: int) -> Tensor:
    """[b] for each row another one; itself only where it is alone."""
    if batch.n == 1:
        raise BadBehaviour(
            "Resampling takes another example of the same length, and one example has none.",
            "Use how='counterfactual', or more examples of each length.",
        )
    return torch.from_numpy(other_rows([0] * batch.n, np.random.default_rng([seed, batch.rows[0]])))


def _labels(how: str, pairs: PromptPairs, batch: PairBatch) -> Tensor:
    """Group of every column [b p]: the position counted from the row's start, or the number of the span; -1 elsewhere."""
    return position_labels(batch) if how == "mean-by-position" else span_labels(pairs, batch)


def position_labels(batch: PairBatch) -> Tensor:
    """Position of every column [b p], counted from the row's start; -1 at padding."""
    columns = torch.arange(batch.clean.width)[None] - batch.clean.first.cpu()[:, None]
    return torch.where(batch.clean.mask.cpu(), columns, -1)


def span_labels(pairs: PromptPairs, batch: PairBatch) -> Tensor:
    """Number of the named span that every column [b p] lies in; -1 outside all. Later spans win where two overlap."""
    labels = torch.full((batch.n, batch.clean.width), -1)
    first = batch.clean.first.cpu()
    for number, spans in enumerate(pairs.behaviour.spans.values()):
        for row, example in enumerate(batch.rows):
            start, end = spans[example]
            labels[row, int(first[row]) + start : int(first[row]) + end] = number
    return labels


def groups_of(names: Sequence[str], pairs: PromptPairs, batch: PairBatch) -> Tensor:
    """The group [b p] of every position: named spans with "elsewhere" at the end, or position numbers; -1 at padding."""
    last = len(names) - 1
    if not names or names[-1] != "elsewhere":
        return position_labels(batch).clamp(max=last)
    order = {name: i for i, name in enumerate(names)}
    mapped = torch.tensor([*(order.get(name, last) for name in pairs.behaviour.spans), last])
    return torch.where(batch.clean.mask.cpu(), mapped[span_labels(pairs, batch)], -1)


def ablation(
    wiring: Wiring, pairs: PromptPairs, how: str = "counterfactual", seed: int = 0, remember: bool = True
) -> Ablation:
    """Prepare an ablation; means are taken over the corrupted prompts of `pairs`.

    remember: keep each batch's values, so that they are computed once for all circuits.

    Raises NotFound for an unknown way, BadBehaviour where spans are asked for and there are none.
    """
    if how not in WAYS:
        raise NotFound(f"There is no ablation {how!r}.", did_you_mean(how, WAYS, 3))
    kept: dict[tuple[int, ...], Outputs] | None = {} if remember else None
    if how == "optimal":
        raise BadInput("Optimal constants are learned first.", "Use cutaway.circuits.learn_constants(...).")
    if not how.startswith("mean"):
        return Ablation(how, seed=seed, _kept=kept)  # type: ignore[arg-type]
    if how == "mean-by-span" and not pairs.behaviour.spans:
        raise BadBehaviour(
            f"{pairs.behaviour.name!r} names no spans.", "Use how='mean-by-position' or 'mean'."
        )
    total, groups = _means(wiring, pairs, how)
    return Ablation(how, total, groups, seed, kept)  # type: ignore[arg-type]


def _means(
    wiring: Wiring, pairs: PromptPairs, how: str
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    sums: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    count, size = 0, 0
    if how == "mean-by-position":
        size = max(b.clean.width for b in pairs)
    elif how == "mean-by-span":
        size = len(pairs.behaviour.spans)
    counts = torch.zeros(size)
    for batch in pairs:
        written = record(wiring, batch.corrupted)[0]
        real = batch.corrupted.mask.to(wiring.net.device)
        count += int(real.sum())
        labels = _labels(how, pairs, batch) if size else None
        if labels is not None:
            counts += torch.bincount(labels[labels >= 0], minlength=size).float()
        for place, value in written.values.items():
            flat = value[real].double()
            sums[place] = sums.get(place, 0) + flat.sum(0)
            if labels is not None:
                group = labels.to(value.device)
                if place not in tables:
                    tables[place] = value.new_zeros(size, value.shape[-1], dtype=torch.double)
                tables[place].index_add_(0, group[group >= 0], value[group >= 0].double())
    dtype = wiring.net.dtype
    means = {place: (total / count).to(dtype) for place, total in sums.items()}
    if not size:
        return means, None
    rows = counts.clamp(min=1)[:, None]
    return means, {place: (table / rows.to(table)).to(dtype) for place, table in tables.items()}
