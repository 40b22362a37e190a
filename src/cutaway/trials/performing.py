"""How well a network does a behaviour, without running prompts again that were run for something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.behaviours import answer_logits as run_logits
from cutaway.behaviours.checks import Performance, Which, performed
from cutaway.sweeps import base_run

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


def performance(net: Network, behaviour: Behaviour) -> Performance:
    """As `behaviours.performance`; where base runs are kept, from those of the behaviour's halves."""
    clean, corrupted = (answer_logits(net, behaviour, which) for which in ("clean", "corrupted"))
    return performed(net.name, behaviour, clean, corrupted)


def answer_logits(net: Network, behaviour: Behaviour, which: Which) -> Tensor:
    """Logits [n v] at the answers, as `behaviours.answer_logits`; where base runs are kept, from those of its halves."""
    if behaviour.part == "all" and 0 < sum(behaviour.held) < behaviour.n:
        halves = behaviour.discovery, behaviour.held_out
        parts = [_kept(net, half, which) for half in halves]
        held = torch.tensor(behaviour.held)
        if all(part is not None and len(part) == half.n for part, half in zip(parts, halves, strict=True)):
            logits = parts[0].new_empty(behaviour.n, parts[0].shape[1])
            for part, rows in zip(parts, (~held, held), strict=True):
                logits[rows.to(logits.device)] = part
            return logits
    kept = _kept(net, behaviour, which)
    return run_logits(net, behaviour, which) if kept is None else kept


def _kept(net: Network, behaviour: Behaviour, which: Which) -> Tensor | None:
    tokens = behaviour.clean_tokens(net) if which == "clean" else behaviour.corrupted_tokens(net)
    record = base_run(net, tokens, torch.as_tensor(list(behaviour.answer_pos), dtype=torch.long), ())
    return None if record is None else record.logits
