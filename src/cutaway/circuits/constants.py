"""Optimal ablation: the constants that hurt least when they stand in for what writers write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits.passes.ablation import Ablation, ablation
from cutaway.circuits.passes.certify import wiring
from cutaway.circuits.passes.outputs import Outputs, record
from cutaway.circuits.passes.pairs import PromptPairs
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.errors import BadInput
from cutaway.network.slopes import without_parameter_gradients
from cutaway.results import Work, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


def learn_constants(
    net: Network,
    behaviour: Behaviour,
    membership: np.ndarray | None = None,
    *,
    rounds: int = 40,
    rate: float = 0.02,
    work: Work | None = None,
) -> Ablation:
    """Learn one constant for every writer, so that a circuit whose other edges carry them is as near the network as can be.

    Minimises the mean KL(network || circuit) over the constants by Adam, started from the means (Li and Janson 2024, optimal
    ablation). Learn them on discovery examples and give them to `EdgeBench.of(..., prepared=...)`.

    Args:
        net: the network.
        behaviour: discovery examples.
        membership: bool [writers readers], the circuit; None: no edge.
        rounds: of Adam over the behaviour.
        rate: its step size.
        work: who hears of progress, and may stop it.

    Raises BadInput for rounds or a rate that learn nothing.
    """
    if rounds < 1 or rate <= 0:
        raise BadInput(f"{rounds} rounds at rate {rate} learn nothing.", "Use rounds >= 1 and rate > 0.")
    wired = wiring(net)
    pairs = PromptPairs.of(net, behaviour, len(wired.graph.writers), work, aligned=False)
    start = ablation(wired, pairs, "mean").means
    assert start is not None
    constants = {place: value.clone().requires_grad_() for place, value in start.items()}
    inside = np.zeros(wired.graph.shape, dtype=bool) if membership is None else membership
    mask = Mask(torch.from_numpy(np.ascontiguousarray(inside)))
    references = [record(wired, b.clean, b.positions)[1] for b in pairs]
    optimiser = torch.optim.Adam(list(constants.values()), lr=rate)
    best, kept = float("inf"), {k: v.detach().clone() for k, v in constants.items()}
    work = working(work)
    for done in range(rounds):
        work.step("learning constants", done, rounds)
        optimiser.zero_grad()
        total = torch.zeros((), device=net.device)
        for batch, reference in zip(pairs, references, strict=True):
            assert reference is not None
            values = Outputs({place: c[None, None] for place, c in constants.items()})
            with without_parameter_gradients(net.model):
                logits = run_edges(wired, batch.clean, batch.positions, values, mask, grad=True)
            total = total + METRICS["kl"](logits, batch.answers.with_reference(reference)).sum() / pairs.n
        if float(total.detach()) < best:
            best, kept = float(total.detach()), {k: v.detach().clone() for k, v in constants.items()}
        total.backward()
        optimiser.step()
    return Ablation("optimal", kept)
