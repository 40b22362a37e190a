"""A behaviour whose answers were shuffled: the control in which there is nothing to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cutaway.behaviours.data import Behaviour


def exchange_answers(behaviour: Behaviour, seed: int) -> Behaviour:
    """The behaviour with right and wrong answers exchanged on a random half of its examples, of each part alike."""
    rng = np.random.default_rng(seed)
    swap = np.zeros(behaviour.n, dtype=bool)
    for half in (False, True):
        rows = [i for i, held in enumerate(behaviour.held) if held == half]
        swap[rng.permutation(rows)[: len(rows) // 2]] = True
    changed = {}
    for right, wrong in (("right", "wrong"), ("right_full", "wrong_full"), ("right_text", "wrong_text")):
        pairs = list(zip(getattr(behaviour, right), getattr(behaviour, wrong), strict=True))
        changed[right] = tuple(b if s else a for (a, b), s in zip(pairs, swap, strict=True))
        changed[wrong] = tuple(a if s else b for (a, b), s in zip(pairs, swap, strict=True))
    return replace(behaviour, name=f"{behaviour.name}, answers shuffled", **changed)
