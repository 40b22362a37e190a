"""Optimal ablation: the constants that hurt least when they stand in for what writers write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits.passes.ablation import Ablation, ablation
from cutaway.circuits.passes.certify import wiring
from cutaway.circuits.passes.gradients import without_parameter_gradients
from cutaway.circuits.passes.outputs import Outputs, record
from cutaway.circuits.passes.pairs import Pairs
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.errors import BadInput

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


def learn_constants(
    net: Network,
    behaviour: Behaviour,
    membership: np.ndarray | None = None,
    rounds: int = 40,
    rate: float = 0.02,
) -> Ablation:
    """One constant for every writer, learned so that the circuit `membership` (None: nothing) with all other edges carrying
    constants is as near to the network as can be.

    Minimises the mean KL(network || circuit) over the constants by Adam, started from the means (Li and Janson 2024, optimal
    ablation). Learn them on discovery examples and give them to `EdgeBench.of(..., prepared=...)`.
    """
    if rounds < 1 or rate <= 0:
        raise BadInput(f"{rounds} rounds at rate {rate} learn nothing.", "Use rounds >= 1 and rate > 0.")
    found = wiring(net)
    pairs = Pairs.of(net, behaviour, len(found.graph.writers), aligned=False)
    start = ablation(found, pairs, "mean").means
    assert start is not None
    constants = {place: value.clone().requires_grad_() for place, value in start.items()}
    inside = np.zeros(found.graph.shape, dtype=bool) if membership is None else membership
    mask = Mask(torch.from_numpy(np.ascontiguousarray(inside)))
    references = [record(found, b.clean, b.positions)[1] for b in pairs]
    optimiser = torch.optim.Adam(list(constants.values()), lr=rate)
    best, kept = float("inf"), {k: v.detach().clone() for k, v in constants.items()}
    for _ in range(rounds):
        optimiser.zero_grad()
        total = torch.zeros((), device=net.device)
        for batch, reference in zip(pairs, references, strict=True):
            assert reference is not None
            values = Outputs({place: c[None, None] for place, c in constants.items()})
            with without_parameter_gradients(net.model):
                logits = run_edges(found, batch.clean, batch.positions, values, mask, grad=True)
            total = total + METRICS["kl"](logits, batch.answers.with_reference(reference)).sum() / pairs.n
        if float(total.detach()) < best:
            best, kept = float(total.detach()), {k: v.detach().clone() for k, v in constants.items()}
        total.backward()
        optimiser.step()
    return Ablation("optimal", kept)
