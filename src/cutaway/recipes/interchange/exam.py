"""The examination of a network against a causal model, on pairs of prompts that training never used."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..algorithms import Algorithm
from .parts import run
from .plans import Layout, Plan, edges, held_out, interchange, strict


@dataclass(frozen=True)
class Marks:
    """`accuracy` on fresh prompts; `interchange` by variable: how often the answer is that of the causal model.

    `outside` and `edges`: mean absolute change of the metric, as a share of the mean range between the two prompts,
    when everything outside (or a variable whose readers are held) comes from the other prompt.
    """

    accuracy: float
    interchange: dict[str, float]
    outside: float
    edges: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)


def pairs(algorithm: Algorithm, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
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


def contrast(here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens right only here, and only there; where one of the sets is empty, tokens right in both stand in."""
    only_here, only_there, both = here & ~there, there & ~here, here & there
    return (
        torch.where(only_here.any(-1, keepdim=True), only_here, both),
        torch.where(only_there.any(-1, keepdim=True), only_there, both),
    )


def metric(logits: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
    """Mean logit of the tokens in `plus` minus that of those in `minus`, `[n]`."""
    return (logits * plus).sum(-1) / plus.sum(-1) - (logits * minus).sum(-1) / minus.sum(-1)


@torch.no_grad()
def examine(model: PreTrainedModel, layout: Layout, n: int = 512, seed: int = 1) -> Marks:
    """Accuracy, interchange accuracy of each variable, and the shares of effect where there should be none."""
    model.eval()
    algorithm, rng = layout.algorithm, np.random.default_rng([seed, 11])
    base, source = pairs(algorithm, rng, n)
    ids = np.concatenate([base, source])
    tokens = torch.from_numpy(ids)
    clean, captured = run(model, tokens, layout.heads)
    here, there = (torch.from_numpy(algorithm.answers(part)) for part in (base, source))
    plus, minus = contrast(here, there)
    start = metric(clean[:n], plus, minus)
    span = float((start - metric(clean[n:], plus, minus)).abs().mean())
    partner = np.roll(np.arange(2 * n), -n)

    def after(plan: Plan) -> Tensor:
        return run(model, tokens[plan.base], layout.heads, plan.exchanges, captured)[0]

    def share(plan: Plan) -> float:
        return float((metric(after(plan)[:n], plus, minus) - start).abs().mean()) / span

    by_variable = {}
    for name in layout.variables:
        plan = interchange(layout, ids, partner, {name: np.ones(2 * n, bool)})
        by_variable[name] = float(is_right(after(plan), plan.right).float().mean())
    hidden = {name: edges(layout, ids, partner, name) for name in layout.variables}
    everything = strict(layout, ids, partner, np.ones((2 * n, layout.outside.shape[0]), bool))
    return Marks(
        accuracy=float(is_right(clean, torch.from_numpy(algorithm.answers(ids))).float().mean()),
        interchange=by_variable,
        outside=share(everything),
        edges={name: share(plan) for name, plan in hidden.items() if plan is not None},
    )
