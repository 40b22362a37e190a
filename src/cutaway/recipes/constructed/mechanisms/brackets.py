"""Bracket depth with a threshold: a head counts, two neurons compare."""

from __future__ import annotations

import numpy as np
import torch

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import step, verdict_readout
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

#: Deep is more than this many brackets open.
THRESHOLD = 2
_SPACE = Space({"position": 12, "flag": 3, "excess": 1, "verdict": 1})
_WORDS = ("BOS", "(", ")", "deep", "shallow")
OPEN, CLOSE, DEEP, SHALLOW = 1, 2, 3, 4


def _plan() -> Blueprint:
    embed = torch.zeros(len(_WORDS), _SPACE.rows("flag").shape[1])
    embed[:3] = _SPACE.rows("flag")
    start, opened, closed = _SPACE.rows("flag")
    value = opened - closed - (THRESHOLD + 0.5) * start
    excess = _SPACE.unit("excess")
    # the mean over n + 1 places is at least 0.5 / 21 away from zero
    mlp = MlpPlan("threshold", *step(excess, -0.01, 50.0, _SPACE.unit("verdict")))
    return Blueprint(
        _SPACE, _WORDS, embed, (LayerPlan((HeadPlan("count", value[None], excess[None]),), mlp),),
        verdict_readout(_SPACE, _WORDS, "deep", "shallow"),
    )  # fmt: skip


def depth(ids: tuple[int, ...]) -> int:
    """How many brackets are open at the end."""
    return ids.count(OPEN) - ids.count(CLOSE)


def _draw(rng: np.random.Generator, size: int, deep: bool) -> tuple[int, ...]:
    """BOS and `size` brackets, of which never more are closed than open, and more than two (or not) at the end."""
    while True:
        ids, level = [0], 0
        for _ in range(size):
            up = level == 0 or rng.random() < 0.55
            level += 1 if up else -1
            ids.append(OPEN if up else CLOSE)
        if (level > THRESHOLD) == deep:
            return tuple(ids)


def _pair(rng: np.random.Generator) -> TaskPair:
    while True:
        size, deep = int(rng.integers(6, 20)), bool(rng.random() < 0.5)
        clean = _draw(rng, size, deep)
        at = int(rng.choice([i for i, t in enumerate(clean) if t == (OPEN if deep else CLOSE)] or [0]))
        corrupted = (*clean[:at], CLOSE if deep else OPEN, *clean[at + 1 :])
        if at and (depth(corrupted) > THRESHOLD) != deep:
            answers = ((DEEP,), (SHALLOW,)) if deep else ((SHALLOW,), (DEEP,))
            spans = spans_at({"turned": at, "last": size})
            return TaskPair(clean, corrupted, *answers, spans, f"{size} brackets")


def _swap(_variable: str, rng: np.random.Generator) -> Swap:
    size, deep = int(rng.integers(6, 20)), bool(rng.random() < 0.5)
    right = (SHALLOW,) if deep else (DEEP,)
    return Swap(_draw(rng, size, deep), _draw(rng, size, not deep), (size,), right)


def _label(_variable: str, rng: np.random.Generator) -> Label:
    size, deep = int(rng.integers(6, 20)), bool(rng.random() < 0.5)
    return Label(_draw(rng, size, deep), size, int(deep))


BRACKETS = Design(
    "bracket-depth",
    f"Tells whether more than {THRESHOLD} brackets are open.",
    "A head attends to all places evenly and adds one for each bracket opened, takes one for each closed, and takes "
    f"{THRESHOLD + 0.5} for the beginning of the text, which gives (depth - {THRESHOLD + 0.5}) / length; two neurons ask "
    "for its sign.",
    _plan,
    Drawn(_WORDS, _pair, _swap, _label),
    (("input", "count", "v"), ("count", "threshold", ""), ("threshold", "logits", "")),
    (
        Held("excess", "(depth - threshold) / length", "excess", "count"),
        Held("verdict", "deep or not", "verdict", "threshold", "last", 2),
    ),
    (DEEP, SHALLOW),
    {"without": ("No counting head.", lambda b: b.without("count"))},
)
