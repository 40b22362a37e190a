"""Both ends of a behaviour, run once for everything that asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.network.parts import parts_of
from cutaway.network.recent import LOGITS, recent
from cutaway.sweeps import base_run, keeping_base_runs
from cutaway.trials.bench import sites_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work


@contextmanager
def ends_kept(net: Network, behaviour: Behaviour, work: Work | None = None) -> Iterator[None]:
    """While active, the prompts of a behaviour are run without edits once: for its performance, for patches and benches.

    They are run by halves, with all that sweeps and benches of parts will ask for; the logits of the whole are put together
    from those.
    """
    with keeping_base_runs(net, sites_of(parts_of(net)), work):
        _share(net, behaviour, work)
        yield


def _share(net: Network, behaviour: Behaviour, work: Work | None) -> None:
    halves = [behaviour]
    if behaviour.part == "all" and 0 < sum(behaviour.held) < behaviour.n:
        halves = [behaviour.discovery, behaviour.held_out]
    for which in ("clean", "corrupted"):
        logits = [_logits(net, half, which, work) for half in halves]
        parts = [part for part in logits if part is not None]
        if len(halves) == 2 and len(parts) == 2:
            held, whole = torch.tensor(behaviour.held), parts[0].new_empty(behaviour.n, parts[0].shape[1])
            for part, rows in zip(parts, (~held, held), strict=True):
                whole[rows.to(whole.device)] = part
            recent(net).keep(_key(behaviour, which), whole)


def _logits(net: Network, half: Behaviour, which: str, work: Work | None) -> Tensor | None:
    tokens = half.clean_tokens(net) if which == "clean" else half.corrupted_tokens(net)
    record = base_run(net, tokens, torch.as_tensor(list(half.answer_pos), dtype=torch.long), (), work)
    if record is None or record.logits is None:
        return None
    recent(net).keep(_key(half, which), record.logits)
    return record.logits


def _key(behaviour: Behaviour, which: str) -> tuple[object, ...]:
    ids = behaviour.clean_ids if which == "clean" else behaviour.corrupted_ids
    return LOGITS, ids, tuple(behaviour.answer_pos)
