"""What an edge outside the circuit carries: zero, a mean, the other prompt's value, another example's, a constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.graph.wiring import Wiring
from cutaway.circuits.passes.outputs import Outputs, record
from cutaway.circuits.passes.pairs import PairBatch, PromptPairs
from cutaway.errors import BadBehaviour, BadInput, NotFound, nearest

How = Literal["counterfactual", "zero", "mean", "mean-by-position", "mean-by-span", "resample", "optimal"]
WAYS: tuple[str, ...] = get_args(How)


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
        if self._kept is not None and batch.rows in self._kept:
            return self._kept[batch.rows]
        values = self._made(wiring, batch, pairs)
        if self._kept is not None:
            self._kept[batch.rows] = values
        return values

    def _made(self, wiring: Wiring, batch: PairBatch, pairs: PromptPairs) -> Outputs:
        if self.how == "counterfactual":
            return record(wiring, batch.corrupted)[0]
        if self.how == "resample":
            found = record(wiring, batch.corrupted)[0]
            order = _others(batch, self.seed)
            return found.map(lambda v: v[order.to(v.device)])
        if self.how == "zero":
            return record(wiring, batch.clean[:1])[0].map(lambda v: torch.zeros_like(v[:, :1]))
        assert self.means is not None
        if self.by_group is None:
            return Outputs({place: value[None, None] for place, value in self.means.items()})
        labels = _labels(self.how, pairs, batch)
        values = {}
        for place, table in self.by_group.items():
            index = labels.to(table.device).clamp(min=0, max=table.shape[0] - 1)
            values[place] = torch.where(
                (labels >= 0).to(table.device)[..., None], table[index], self.means[place]
            )
        return Outputs(values)


def _others(batch: PairBatch, seed: int) -> Tensor:
    """[b] for each row another one; itself only where it is alone."""
    if batch.n == 1:
        raise BadBehaviour(
            "Resampling takes another example of the same length, and one example has none.",
            "Use how='counterfactual', or more examples of each length.",
        )
    order = np.random.default_rng([seed, batch.rows[0]]).permutation(batch.n)
    other = np.empty(batch.n, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return torch.from_numpy(other)


def _labels(how: str, pairs: PromptPairs, batch: PairBatch) -> Tensor:
    """Group of every column [b p]: the position counted from the row's start, or the number of the span; -1 elsewhere."""
    first = batch.clean.first.cpu()
    columns = torch.arange(batch.clean.width)[None] - first[:, None]
    if how == "mean-by-position":
        return torch.where(batch.clean.mask.cpu(), columns, -1)
    return span_labels(pairs, batch)


def span_labels(pairs: PromptPairs, batch: PairBatch) -> Tensor:
    """Number of the named span that every column [b p] lies in; -1 outside all. Later spans win where two overlap."""
    labels = torch.full((batch.n, batch.clean.width), -1)
    first = batch.clean.first.cpu()
    for number, spans in enumerate(pairs.behaviour.spans.values()):
        for row, example in enumerate(batch.rows):
            start, end = spans[example]
            labels[row, int(first[row]) + start : int(first[row]) + end] = number
    return labels


def ablation(
    wiring: Wiring, pairs: PromptPairs, how: str = "counterfactual", seed: int = 0, remember: bool = True
) -> Ablation:
    """Prepare an ablation; means are taken over the corrupted prompts of `pairs`.

    remember: keep each batch's values, so that they are computed once for all circuits.

    Raises NotFound for an unknown way, BadBehaviour where spans are asked for and there are none.
    """
    if how not in WAYS:
        raise NotFound(
            f"There is no ablation {how!r}.", f"Did you mean {', '.join(nearest(how, WAYS) or WAYS)}?"
        )
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
        found = record(wiring, batch.corrupted)[0]
        real = batch.corrupted.mask.to(wiring.net.device)
        count += int(real.sum())
        labels = _labels(how, pairs, batch) if size else None
        if labels is not None:
            counts += torch.bincount(labels[labels >= 0], minlength=size).float()
        for place, value in found.values.items():
            flat = value[real].double()
            sums[place] = sums.get(place, 0) + flat.sum(0)
            if labels is not None:
                use = (labels >= 0).to(value.device)
                table = tables.setdefault(
                    place, torch.zeros(size, value.shape[-1], device=value.device).double()
                )
                table.index_add_(0, labels.to(value.device)[use], value[use].double())
    dtype = wiring.net.dtype
    means = {place: (total / count).to(dtype) for place, total in sums.items()}
    if not size:
        return means, None
    rows = counts.clamp(min=1)[:, None]
    return means, {place: (table / rows.to(table)).to(dtype) for place, table in tables.items()}
