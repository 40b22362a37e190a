"""The losses of one step: the task itself, the exchanges of the plans, and sameness where nothing may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cutaway.network import Network

from .exchanges import RowExchange, run
from .plans import ExchangePlan, Seating, edges, interchange, strict

_TERMS = ("task", "interchange", "strict", "same")


@dataclass(frozen=True)
class LossWeights:
    """How much each kind of row counts.

    Attributes:
        task: plain prompts.
        interchange: answers that follow the causal model.
        strict: answers that must stay.
        same: the squared change of logits where none is allowed.
    """

    task: float = 1.0
    interchange: float = 1.0
    strict: float = 1.0
    same: float = 0.02


@dataclass(frozen=True)
class Losses:
    """The losses of a step.

    Attributes:
        total: the sum to step on.
        task: of plain prompts, for the log.
        interchange: of answers that follow the causal model.
        strict: of answers that must stay.
        same: of logits that must stay.
        by_variable: the interchange loss of each variable by itself.
    """

    total: Tensor
    task: float
    interchange: float = 0.0
    strict: float = 0.0
    same: float = 0.0
    by_variable: dict[str, float] = field(default_factory=dict)


def right_loss(logits: Tensor, right: Tensor) -> Tensor:
    """Cross-entropy to the even distribution over the right tokens, per row: `[n v]`, bool `[n v]` -> `[n]`."""
    even = right / right.sum(-1, keepdim=True)
    return -(even * logits.log_softmax(-1)).sum(-1)


@dataclass(frozen=True)
class StepPlans:
    """The plans of a step.

    Attributes:
        moved: those whose answer follows the causal model.
        kept: those whose answer must stay.
        single: for each variable, the rows of the first in which it is exchanged by itself.
    """

    moved: tuple[ExchangePlan, ...]
    kept: tuple[ExchangePlan, ...]
    single: dict[str, Tensor]


def draw_plans(seating: Seating, ids: np.ndarray, rng: np.random.Generator, shares: np.ndarray) -> StepPlans:
    """The plans of a step on prompts `[n p]`; `shares` says how often each variable is exchanged."""
    rows, names = len(ids), list(seating.variables)

    one = rng.choice(len(names), rows, p=shares)
    several = rng.random(rows) < 0.25
    extra_names = rng.random((rows, len(names))) < 0.5
    chosen = {name: (one == i) | (several & extra_names[:, i]) for i, name in enumerate(names)}
    single = {name: torch.from_numpy((one == i) & ~several) for i, name in enumerate(names)}
    everything = np.ones((rows, seating.outside.shape[0]), bool)
    some = np.where(rng.random(rows)[:, None] < 0.5, everything, rng.random(everything.shape) < 0.3)
    source = rng.permutation(rows)
    extra = rng.permutation(rows) if rng.random() < 0.5 else None
    moved = interchange(seating, ids, source, chosen, extra)
    kept = [strict(seating, ids, rng.permutation(rows), some)]
    hidden = [name for name in names if "answer" not in seating.algorithm.children(name)]
    if hidden:
        plan = edges(seating, ids, rng.permutation(rows), hidden[int(rng.integers(len(hidden)))])
        assert plan is not None
        kept.append(_first(plan, rows // 2))
    return StepPlans((moved,), tuple(kept), single)


def _first(plan: ExchangePlan, count: int) -> ExchangePlan:
    exchanges = tuple(RowExchange(s.mask[:count], s.source[:count]) for s in plan.exchanges)
    return ExchangePlan(plan.base[:count], exchanges, plan.right[:count], plan.usable[:count])


def joined(plans: Sequence[ExchangePlan]) -> ExchangePlan:
    """StepPlans below each other, with as many exchanges as the one that has most."""
    depth = max(len(plan.exchanges) for plan in plans)

    def nth(plan: ExchangePlan, index: int) -> RowExchange:
        if index < len(plan.exchanges):
            return plan.exchanges[index]
        first = plan.exchanges[0]
        return RowExchange(torch.zeros_like(first.mask), torch.zeros_like(first.source))

    layers = ([nth(plan, index) for plan in plans] for index in range(depth))
    exchanges = tuple(
        RowExchange(torch.cat([e.mask for e in layer]), torch.cat([e.source for e in layer]))
        for layer in layers
    )
    base, right, usable = (
        torch.cat([getattr(plan, name) for plan in plans]) for name in ("base", "right", "usable")
    )
    return ExchangePlan(base, exchanges, right, usable)


def step_losses(
    net: Network,
    seating: Seating,
    ids: np.ndarray,
    rng: np.random.Generator,
    shares: np.ndarray,
    weights: LossWeights,
) -> Losses:
    """All losses of a step on prompts `[n p]`: one plain run, and one run of all exchanges together."""
    tokens = torch.from_numpy(ids)
    clean, captured = run(net, tokens, seating.heads)
    plans = draw_plans(seating, ids, rng, shares)
    both = joined([*plans.moved, *plans.kept])
    logits, _ = run(net, tokens[both.base], seating.heads, both.exchanges, captured)
    loss = right_loss(logits, both.right) * both.usable
    cut = sum(len(plan.base) for plan in plans.moved)
    before = clean[both.base[cut:]].detach()
    drift = ((logits[cut:] - before) ** 2).mean(-1) * both.usable[cut:]
    task = right_loss(clean, torch.from_numpy(seating.algorithm.answers(ids))).mean()
    terms = (task, loss[:cut].mean(), loss[cut:].mean(), drift.mean())
    factors = (weights.task, weights.interchange, weights.strict, weights.same)
    figures = {name: float(term.detach()) for name, term in zip(_TERMS, terms, strict=True)}
    total = torch.stack([factor * term for factor, term in zip(factors, terms, strict=True)]).sum()
    single = {
        name: float(loss[:cut][rows].detach().mean()) for name, rows in plans.single.items() if rows.any()
    }
    return Losses(total, by_variable=single, **figures)
