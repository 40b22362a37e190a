"""Effects on disk: few numbers, and none lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import cutaway
from cutaway.effects import Effects
from cutaway.effects.compact import compact, whole
from cutaway.sweeps import CellState

GAP = 3.7


def arrays(rng: np.random.Generator, absent: float, side: str = "corrupted") -> dict[str, np.ndarray]:
    shape, n = (6, 9), 5
    metric = rng.normal(size=(*shape, n))
    state = np.full((*shape, n), CellState.RUN, dtype=np.int8)
    gone = rng.random(shape) < absent
    state[gone], metric[gone] = CellState.ABSENT, np.nan
    state[0, 0, 1], metric[0, 0, 1] = CellState.NOT_RUN, np.nan
    ends = {name: rng.normal(size=n) for name in ("clean", "corrupted")}
    return {"metric": metric, "state": state, "effect": (metric - ends[side]) / GAP, **ends}


@pytest.mark.parametrize("absent", [0.0, 0.5])
@pytest.mark.parametrize("side", ["clean", "corrupted"])
def test_what_is_undone_is_bitwise_what_was_there(absent: float, side: str) -> None:
    made = arrays(np.random.default_rng(0), absent, side)
    kept, said = compact(made, GAP)
    assert said["effect"] == side
    assert ("packed" in said) == (absent > 0)
    again = whole(kept, said, GAP)
    for name, array in made.items():
        assert again[name].dtype == array.dtype
        assert np.array_equal(again[name], array, equal_nan=True)
    assert sum(a.nbytes for a in kept.values()) < (0.6 if not absent else 0.4) * sum(
        a.nbytes for a in made.values()
    )


def test_what_does_not_follow_is_kept() -> None:
    made = arrays(np.random.default_rng(0), 0.5)
    made["effect"][2, 2] *= 1 + 1e-15  # the last bit of some of them
    made["metric"][made["state"] == CellState.ABSENT] = 7.0  # not what stands where nothing is
    kept, said = compact(made, GAP)
    assert said == {}
    assert kept.keys() == made.keys()


def test_saved_effects_are_whole_again_and_small(tmp_path: Path) -> None:
    net = cutaway.open("zoo:induction-gpt2")
    pairs = cutaway.behaviour("zoo:induction-gpt2", net, n=24, force=True)
    for i, effects in enumerate(
        (cutaway.path_patch(net, pairs), cutaway.patch(net, pairs, at="z", by=("layer", "head")))
    ):
        folder = effects.save(tmp_path / str(i))
        assert "effect" not in load_file(folder / "tensors.safetensors")
        again = Effects.load(folder)
        assert again.data.identical(effects.data)
