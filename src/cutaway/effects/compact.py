"""Effects as few numbers: what follows from the rest is not stored, and of a box of cells only those that exist.

Nothing is lost: each saving is made only where undoing it gives the same bits, which is tried when saving.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cutaway.sweeps import CellState

_CELLS = ("metric", "effect", "state")
_BOX = "cells"


def compact(arrays: Mapping[str, np.ndarray], gap: float) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays to store, and what `whole` needs besides: {} where nothing could be saved.

    arrays: those of an effects' dataset; `metric`, `effect`, `state` [... example]. gap: what an effect is a share of.
    """
    kept, said = dict(arrays), {}
    if not all(name in kept for name in (*_CELLS, "clean", "corrupted")):
        return kept, said
    for side in ("corrupted", "clean"):
        if _same(_effect(kept["metric"], kept[side], gap), kept["effect"]):
            said["effect"] = side
            del kept["effect"]
            break
    there = ~(kept["state"] == CellState.ABSENT).all(-1)
    if there.ndim and there.sum() < 0.9 * there.size:
        packed = {name: kept[name][there] for name in _CELLS if name in kept}
        if all(_same(_spread(values, there, name), kept[name]) for name, values in packed.items()):
            kept |= packed | {_BOX: there}
            said["packed"] = sorted(packed)
    return kept, said


def whole(arrays: Mapping[str, np.ndarray], said: Mapping[str, Any], gap: float) -> dict[str, np.ndarray]:
    """The inverse of `compact`. Raises KeyError or ValueError where the arrays are not what it gave."""
    found = dict(arrays)
    if said.get("packed"):
        there = found.pop(_BOX)
        found |= {name: _spread(found[name], there, name) for name in said["packed"]}
    if said.get("effect"):
        found["effect"] = _effect(found["metric"], found[said["effect"]], gap)
    return found


def _effect(metric: np.ndarray, side: np.ndarray, gap: float) -> np.ndarray:
    """The change against the unchanged prompts, as a share of the gap."""
    return (metric - side) / gap


def _spread(values: np.ndarray, there: np.ndarray, name: str) -> np.ndarray:
    """Values of the cells that exist, among those that do not."""
    absent = CellState.ABSENT if name == "state" else np.nan
    box = np.full((*there.shape, *values.shape[1:]), absent, dtype=values.dtype)
    box[there] = values
    return box


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same bits, NaN counted as one."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
