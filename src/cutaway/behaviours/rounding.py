"""What products coarser than the weights do to a behaviour, measured on its own prompts against float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.network.items import without_logits
from cutaway.network.memory import rows_at_once
from cutaway.network.products import exactly
from cutaway.results import Rounding, Work, working

if TYPE_CHECKING:
    from cutaway.behaviours.data import Behaviour
    from cutaway.network import Network

#: Pairs that are run both ways, spread over all; the error varies little from prompt to prompt.
MOST_PAIRS = 32


def pairs_to_run(net: Network, behaviour: Behaviour) -> int:
    """How many pairs will be run both ways: none where products are not coarser, or where that was measured before."""
    coarse = net.products is not None and behaviour.hash not in net.roundings
    return min(behaviour.n, MOST_PAIRS) if coarse else 0


def measure_rounding(net: Network, behaviour: Behaviour, work: Work | None = None) -> Rounding | None:
    """How far the behaviour's metric is from that of float32 products; None where the network's products are not coarser.

    At most `MOST_PAIRS` pairs are run both ways, once for each behaviour, and remembered with the network, so that all
    results on it carry the figures in their provenance.
    """
    count = pairs_to_run(net, behaviour)
    if not count:
        return net.roundings.get(behaviour.hash)
    rows = torch.linspace(0, behaviour.n - 1, count).round().long().unique().tolist()
    asked, work = behaviour.take(rows), working(work)
    coarse = _logits(net, asked, work)
    with exactly(net.model):
        exact = _logits(net, asked, work)
    sign = 1.0 if asked.metric.higher else -1.0
    ends = []
    for clean, corrupted in (coarse, exact):
        answers = asked.answers.with_reference(clean) if asked.metric.needs == "reference" else asked.answers
        ends.append([asked.metric(logits, answers).double().cpu() for logits in (clean, corrupted)])
    differences = (torch.cat(ends[0]) - torch.cat(ends[1])).abs()
    apart = [sign * (clean - corrupted) for clean, corrupted in ends]
    gap = float(apart[1].mean().abs().clamp(min=1e-12))
    told, wanted = (torch.cat(side).double().log_softmax(-1) for side in (coarse, exact))
    net.roundings[behaviour.hash] = Rounding(
        products=str(net.products).removeprefix("torch."),
        n=asked.n,
        largest=float(differences.max()) / gap,
        median=float(differences.median()) / gap,
        flips=int((torch.sign(apart[0]) != torch.sign(apart[1])).sum()),
        kl=float((wanted.exp() * (wanted - told)).sum(-1).mean()),
    )
    return net.roundings[behaviour.hash]


def _logits(net: Network, behaviour: Behaviour, work: Work) -> tuple[Tensor, Tensor]:
    """Logits [n v] at the answers of clean and of corrupted prompts, run anew."""
    found = []
    for tokens in (behaviour.clean_tokens(net), behaviour.corrupted_tokens(net)):
        size, parts = rows_at_once(net, tokens.width, work), []
        at = torch.tensor(behaviour.answer_pos)[:, None]
        for start in range(0, behaviour.n, size):
            work.step("rounding against float32", start, behaviour.n)
            rows = slice(start, min(start + size, behaviour.n))
            run = net.run(tokens[rows], logits=at[rows])
            if run.logits is None:
                raise without_logits(net)
            parts.append(run.logits[:, 0])
        found.append(torch.cat(parts).float())
    return found[0], found[1]
