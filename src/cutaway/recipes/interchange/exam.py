"""The examination of a network against a causal model, on pairs of prompts that training never used."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..algorithms import TaskAlgorithm
from .exchanges import opened, run
from .plans import ExchangePlan, Seating, edges, held_out, interchange, strict


@dataclass(frozen=True)
class Marks:
    """What an examination found.

    Attributes:
        accuracy: on fresh prompts.
        interchange: by variable, how often the answer is that of the causal model.
        outside: mean absolute change of the metric, as a share of the mean range between the two prompts, when
            everything outside comes from the other prompt.
        edges: the same, when a variable whose readers are held does.
    """

    accuracy: float
    interchange: dict[str, float]
    outside: float
    edges: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)


def pairs(algorithm: TaskAlgorithm, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and partners, `[n p]` each, that training never joined and whose answers differ."""
    bases, sources, have = [], [], 0
    while have < n:
        base, source = algorithm.draw(rng, 4 * n), algorithm.draw(rng, 4 * n)
        good = held_out(base, source) & (algorithm.answers(base) != algorithm.answers(source)).any(1)
        bases.append(base[good])
        sources.append(source[good])
        have += int(good.sum())
    return np.concatenate(bases)[:n], np.concatenate(sources)[:n]


def is_right(logits: Tensor, right: Tensor) -> Tensor:
    """Do the right tokens, and only they, have the highest logits? bool `[n]`."""
    least = logits.masked_fill(~right, torch.inf).amin(-1)
    most = logits.masked_fill(right, -torch.inf).amax(-1)
    return least > most


def contrast(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens right only in one, and only in the other; where one of the sets is empty, tokens right in both stand in."""
    only_one, only_other, both = one & ~other, other & ~one, one & other
    return (
        torch.where(only_one.any(-1, keepdim=True), only_one, both),
        torch.where(only_other.any(-1, keepdim=True), only_other, both),
    )


def metric(logits: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
    """Mean logit of the tokens in `plus` minus that of those in `minus`, `[n]`."""
    return (logits * plus).sum(-1) / plus.sum(-1) - (logits * minus).sum(-1) / minus.sum(-1)


@torch.no_grad()
def examine(model: PreTrainedModel, seating: Seating, n: int = 512, seed: int = 1) -> Marks:
    """Accuracy, interchange accuracy of each variable, and the shares of effect where there should be none."""
    net = opened(model.eval())
    algorithm, rng = seating.algorithm, np.random.default_rng([seed, 11])
    base, source = pairs(algorithm, rng, n)
    ids = np.concatenate([base, source])
    tokens = torch.from_numpy(ids)
    clean, captured = run(net, tokens, seating.heads)
    plus, minus = contrast(*(torch.from_numpy(algorithm.answers(prompts)) for prompts in (base, source)))
    start = metric(clean[:n], plus, minus)
    span = float((start - metric(clean[n:], plus, minus)).abs().mean())
    partner = np.roll(np.arange(2 * n), -n)

    def after(plan: ExchangePlan) -> Tensor:
        return run(net, tokens[plan.base], seating.heads, plan.exchanges, captured)[0]

    def share(plan: ExchangePlan) -> float:
        return float((metric(after(plan)[:n], plus, minus) - start).abs().mean()) / span

    by_variable = {}
    for name in seating.variables:
        plan = interchange(seating, ids, partner, {name: np.ones(2 * n, bool)})
        by_variable[name] = float(is_right(after(plan), plan.right).float().mean())
    hidden = {name: edges(seating, ids, partner, name) for name in seating.variables}
    everything = strict(seating, ids, partner, np.ones((2 * n, seating.outside.shape[0]), bool))
    return Marks(
        accuracy=float(is_right(clean, torch.from_numpy(algorithm.answers(ids))).float().mean()),
        interchange=by_variable,
        outside=share(everything),
        edges={name: share(plan) for name, plan in hidden.items() if plan is not None},
    )
