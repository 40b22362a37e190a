"""Duplicate token: was the last letter there before? A head shares its attention among the places of that letter."""

from __future__ import annotations

import numpy as np

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, letters
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import SHARP, N, alphabet_embed, step, verdict_readout
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

_SPACE = Space({"position": 12, "flag": 3, "token": N, "alone": 1, "verdict": 1})
_WORDS = ("BOS", *letters(N), "new", "again")
NEW, AGAIN = N + 1, N + 2


def _plan() -> Blueprint:
    token, start = _SPACE.rows("token"), _SPACE.unit("flag")
    alone, verdict = _SPACE.unit("alone"), _SPACE.unit("verdict")
    head = HeadPlan("duplicate", start[None], alone[None], SHARP * token, token + start)
    mlp = MlpPlan("threshold", *step(alone, 0.375, 24.0, verdict))
    return Blueprint(
        _SPACE, _WORDS, alphabet_embed(_SPACE, _WORDS), (LayerPlan((head,), mlp),),
        verdict_readout(_SPACE, _WORDS, "new", "again"),
    )  # fmt: skip


def _draw(rng: np.random.Generator, size: int = 0) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """A prompt whose last letter was there before, the same with another letter there, and the place."""
    size = size or int(rng.integers(5, 10))
    verse = 1 + rng.permutation(N)[: size + 1]
    at = int(rng.integers(1, size))
    fresh = (0, *verse[:size].tolist())
    again = (*fresh[:at], fresh[-1], *fresh[at + 1 :])
    return again, fresh, at


def _pair(rng: np.random.Generator) -> TaskPair:
    again, fresh, at = _draw(rng)
    spans = spans_at({"earlier": at, "last": len(fresh) - 1})
    if rng.random() < 0.5:
        return TaskPair(again, fresh, (AGAIN,), (NEW,), spans, "again")
    return TaskPair(fresh, again, (NEW,), (AGAIN,), spans, "new")


def _swap(_variable: str, rng: np.random.Generator) -> Swap:
    size = int(rng.integers(5, 10))
    (again, fresh, _), (other_again, other_fresh, _) = _draw(rng, size), _draw(rng, size)
    if rng.random() < 0.5:
        return Swap(again, other_fresh, (size,), (NEW,))
    return Swap(fresh, other_again, (size,), (AGAIN,))


def _label(_variable: str, rng: np.random.Generator) -> Label:
    again, fresh, _ = _draw(rng)
    old = bool(rng.random() < 0.5)
    return Label(again if old else fresh, len(fresh) - 1, int(old))


DUPLICATE = Design(
    "duplicate",
    "Tells whether the last letter was there before: ... A ... A -> again, else new.",
    "A head shares its attention evenly among the beginning of the text and every place of the present letter, itself "
    "included, so that the beginning gets one half where the letter is new and at most a third where it is not; two "
    "neurons tell these apart.",
    _plan,
    Drawn(_WORDS, _pair, _swap, _label),
    (
        ("input", "duplicate", "q"), ("input", "duplicate", "k"),
        ("duplicate", "threshold", ""), ("threshold", "logits", ""),
    ),
    (
        Held("share", "attention left for the beginning: 1/2 if new, less if not", "alone", "duplicate", "last", 2),
        Held("verdict", "new or not", "verdict", "threshold", "last", 2),
    ),
    (NEW, AGAIN),
    {"without": ("No duplicate-token head.", lambda b: b.without("duplicate"))},
    sources=("Wang et al. 2023, Interpretability in the Wild (duplicate-token heads)",),
)  # fmt: skip
