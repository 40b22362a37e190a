"""Duplicate token by counting: a head counts all letters, and neurons ask for the count of the letter that stands last.

The task is that of `duplicate`, whose head looks for the letter itself. Here attention knows nothing of letters: what it
brings to the end is how often each of them was there, and which of the counts is asked for is decided behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, one
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import N, alphabet_embed, verdict_readout
from cutaway.recipes.constructed.mechanisms.duplicate import AGAIN, DUPLICATE, NEW
from cutaway.zoo.tasks import Drawn, Label, Swap

_WORDS = DUPLICATE.task.words
_SPACE = Space({"position": 12, "flag": 3, "token": N, "counts": N + 1, "verdict": 1})
#: A count is compared with the share of the beginning, which is there once: so many of it lie between once and twice.
BETWEEN = 1.3
#: Steepness of that comparison, and what is taken from neurons of letters that do not stand last.
STEEP, ONLY_LAST = 30.0, 60.0


def _plan() -> Blueprint:
    token, counts, verdict = _SPACE.rows("token"), _SPACE.rows("counts"), _SPACE.unit("verdict")
    start = _SPACE.unit("flag")
    count = HeadPlan("count", torch.cat([token, start[None]]), counts)
    beyond = STEEP * (counts[:N] - BETWEEN * counts[N]) - ONLY_LAST * (one() - token)
    read = torch.cat([beyond, beyond - one()])
    out = verdict.repeat(N, 1)
    mlp = MlpPlan("threshold", read, torch.cat([out, -out]))
    return Blueprint(
        _SPACE, _WORDS, alphabet_embed(_SPACE, _WORDS), (LayerPlan((count,), mlp),),
        verdict_readout(_SPACE, _WORDS, "again", "new"),
    )  # fmt: skip


def _verdict(ids: Sequence[int], last: int) -> tuple[int, ...]:
    return (AGAIN,) if list(ids).count(last) > 1 else (NEW,)


def _some(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    """Letters of which one or two come again."""
    letters = 1 + rng.permutation(N)[:size]
    for _ in range(2):
        i, j = rng.integers(size, size=2)
        letters[i] = letters[j]
    return (0, *letters.tolist())


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    """With the counts of another prompt the letter that stands last in this one is looked up in that one."""
    while True:
        size = int(rng.integers(5, 10))
        base, source = _some(rng, size), _some(rng, size)
        last = base[-1] if variable == "counts" else source[-1]
        told = _verdict(source, last)
        if told != _verdict(base, base[-1]):
            return Swap(base, source, (size,), told)


def _label(_variable: str, rng: np.random.Generator) -> Label:
    ids = _some(rng, int(rng.integers(5, 10)))
    return Label(ids, len(ids) - 1, int(_verdict(ids, ids[-1]) == (AGAIN,)))


COUNTED = Design(
    "counted-duplicate",
    "Tells whether the last letter was there before, by counting: ... A ... A -> again, else new.",
    "A head attends evenly to everything and so counts every letter; for each letter two neurons ask whether it stands last "
    "and has a count of more than one.",
    _plan,
    Drawn(_WORDS, DUPLICATE.task.pair, _swap, _label),  # type: ignore[attr-defined]
    (("input", "count", "v"), ("count", "threshold", ""), ("input", "threshold", ""), ("threshold", "logits", "")),
    (
        Held("counts", "how often each letter is there, and the beginning, as shares of all", "counts", "count"),
        Held("verdict", "again or not", "verdict", "threshold", "last", 2),
    ),
    (NEW, AGAIN),
    {"without": ("No head that counts.", lambda b: b.without("count"))},
    facts={"same task, another way": "duplicate"},
)  # fmt: skip
