"""Three ways to say what each input token adds to a metric: integrated gradients, occlusion, attention rollout.

Integrated gradients (Sundararajan, Taly and Yan 2017, *Axiomatic Attribution for Deep Networks*): the gradient of the
metric, integrated on the straight way from a baseline's embedding to the token's own, times the difference of the two. They
add up to the metric less that of the baseline (completeness). Occlusion (Zeiler and Fergus 2014): what the metric loses with
some tokens' embeddings replaced. Attention rollout (Abnar and Zuidema 2020, *Quantifying Attention Flow in
Transformers*): the
attention of all layers multiplied through, half of it left to the residual stream; it knows nothing of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.inputs.embedded import EmbeddedRows
from cutaway.errors import NotFinite, SiteUnavailable
from cutaway.network.memory import rows_at_once
from cutaway.network.pricing import until
from cutaway.network.slopes import independent
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network

#: Forward-equivalents of a pass whose gradient is taken.
_GRADIENT = 3


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What a method says of each token.

    Attributes:
        values: [n t], NaN behind a prompt's last token.
        missed: [n] by how much they fail to add up to what they should, as a share of it; NaN where nothing is promised.
    """

    values: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True)
class InputOptions:
    """How the methods are run.

    Attributes:
        steps: of the integral.
        window: tokens that are occluded together.
    """

    steps: int
    window: int


def integrated_gradients(of: EmbeddedRows, options: InputOptions, work: Work) -> TokenScores:
    """Integrated gradients of the metric by the embeddings, by the Gauss-Legendre rule.

    Raises `BadBehaviour` where the metric has no gradient, `NotFinite` where it is NaN or infinite, `Stopped`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(options.steps)
    way, each = (1 + nodes) / 2, weights / 2
    difference = of.values - of.reference
    total = torch.zeros(of.values.shape, dtype=torch.float64, device="cpu")
    asked = [(row, step) for row in range(of.n) for step in range(options.steps)]
    alive = 16 * (of.net.d_model or 64) * max(1, of.net.n_layers)
    size = rows_at_once(of.net, of.tokens.width, work, kept=alive)
    for begin in range(0, len(asked), size):
        work.step("integrated gradients", begin, len(asked))
        some = asked[begin : begin + size]
        index = torch.tensor([row for row, _ in some])
        at = torch.tensor([way[step] for _, step in some]).to(difference)[:, None, None]
        slopes = of.slopes(index, of.reference[index] + at * difference[index]).double().cpu()
        share = torch.tensor([each[step] for _, step in some], dtype=torch.float64)[:, None, None]
        total.index_add_(0, index, slopes * share)
    if not bool(total.any()):
        raise independent()
    if not bool(torch.isfinite(total).all()):
        raise NotFinite(
            "The gradient at the embedding is NaN or infinite.", "Use a wider dtype, such as float32."
        )
    columns = (difference.double().cpu() * total).sum(-1)
    values = of.by_token(columns)
    every = torch.arange(of.n)
    change = _in_parts(of, every, of.values, work) - _in_parts(of, every, of.reference, work)
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.abs(np.nansum(values, 1) - change) / np.abs(change)
    return TokenScores(values, missed)


def _in_parts(of: EmbeddedRows, index: Tensor, values: Tensor, work: Work) -> np.ndarray:
    size = rows_at_once(of.net, of.tokens.width, work)
    return np.concatenate(
        [of.score(index[i : i + size], values[i : i + size]) for i in range(0, len(index), size)]
    )


def occlusion(of: EmbeddedRows, options: InputOptions, work: Work) -> TokenScores:
    """What the metric loses with a window of tokens replaced; of several windows over a token the mean. Raises `Stopped`."""
    first, lengths = of.tokens.first.tolist(), [len(ids) for ids in of.rows.ids]
    asked = [
        (row, start, stop)
        for row, length in enumerate(lengths)
        for start, stop in windows(length, options.window)
    ]
    whole = _in_parts(of, torch.arange(of.n), of.values, work)
    total = np.zeros((of.n, max(lengths)))
    held = np.zeros_like(total)
    size = rows_at_once(of.net, of.tokens.width, work, kept=of.net.d_model or 64)
    for begin in range(0, len(asked), size):
        work.step("occlusion", begin, len(asked))
        some = asked[begin : begin + size]
        index = torch.tensor([row for row, _, _ in some])
        values = of.values[index].clone()
        for place, (row, start, stop) in enumerate(some):
            span = slice(first[row] + start, first[row] + stop)
            values[place, span] = of.reference[row, span]
        for (row, start, stop), score in zip(some, of.score(index, values), strict=True):
            total[row, start:stop] += whole[row] - score
            held[row, start:stop] += 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return TokenScores(total / np.where(held > 0, held, np.nan), np.full(of.n, np.nan))


def windows(length: int, size: int) -> list[tuple[int, int]]:
    """Half-open windows of so many tokens over a prompt, one at each token; one of all where it is shorter.

    >>> windows(4, 2), windows(2, 5)
    ([(0, 2), (1, 3), (2, 4)], [(0, 2)])
    """
    return [(start, min(start + size, length)) for start in range(max(1, length - size + 1))]


def rollout(of: EmbeddedRows, options: InputOptions, work: Work) -> TokenScores:
    """Attention multiplied through all layers, from the token whose logits are read to every token. Raises `Stopped`."""
    del options
    sites, net = of.net.resolve("pattern"), of.net
    size = rows_at_once(
        net, of.tokens.width, work, kept=(net.n_heads or 1) * of.tokens.width * len(sites), square=True
    )
    found = torch.zeros(of.n, of.tokens.width, dtype=torch.float64)
    at = of.tokens.columns(torch.tensor(of.rows.answer_pos)[:, None])[:, 0].cpu()
    for begin in range(0, of.n, size):
        work.step("attention rollout", begin, of.n)
        index = torch.arange(begin, min(begin + size, of.n))
        run = net.run(of.tokens[index], keep=sites, logits=False)
        row = torch.nn.functional.one_hot(at[index], of.tokens.width).double()
        for site in reversed(sites):
            mean = run[site].detach().double().cpu().mean(1)
            row = 0.5 * row + 0.5 * (row[:, None] @ mean)[:, 0]
        found[index] = row
    return TokenScores(of.by_token(found), np.full(of.n, np.nan))


@dataclass(frozen=True)
class InputMethod:
    """One row of the table of methods.

    Attributes:
        run: computes it.
        words: for people.
        forwards: forward-equivalents, of (network, lengths of the prompts, options).
        needs: a site that it reads, beside the embedding; "" for none.
    """

    run: Callable[[EmbeddedRows, InputOptions, Work], TokenScores]
    words: str
    forwards: Callable[[Network, Sequence[int], InputOptions], float]
    needs: str = ""

    def refusal(self, net: Network) -> SiteUnavailable | None:
        """Why a network does not allow it; None where it does."""
        if not self.needs or net.has(self.needs):
            return None
        why = net.refusal(self.needs) or f"{net.name} has no {self.needs}."
        return SiteUnavailable(f"There is no {self.words} here: {why}", "Leave that method out.")


#: Every method, by name.
METHODS: dict[str, InputMethod] = {
    "integrated_gradients": InputMethod(
        integrated_gradients,
        "integrated gradients",
        lambda _, lengths, o: len(lengths) * (_GRADIENT * o.steps + 2.0),
    ),
    "occlusion": InputMethod(
        occlusion,
        "occlusion",
        lambda _, lengths, o: sum(1.0 + len(windows(length, o.window)) for length in lengths),
    ),
    "rollout": InputMethod(
        rollout,
        "attention rollout",
        lambda net, lengths, _: len(lengths) * until(net, net.resolve("pattern")),
        "pattern",
    ),
}
