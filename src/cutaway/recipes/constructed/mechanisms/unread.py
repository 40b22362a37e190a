"""A variable that is written and never read: it can be decoded at every later layer, and nothing depends on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, letters
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import N, alphabet_embed, alphabet_space, readout
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

CLASSES = 3
_SPACE = alphabet_space("note")
_WORDS = ("BOS", *letters(N))


def note_of(ids: tuple[int, ...]) -> int:
    """The variable: the third of the alphabet (0, 1, 2) to which the letter two places back belongs.

    >>> note_of((0, 12, 1, 1))
    2
    """
    return (ids[-3] - 1) * CLASSES // N


def _plan() -> Blueprint:
    token, out, note = _SPACE.rows("token"), _SPACE.rows("out"), _SPACE.rows("note")[:CLASSES]
    third = torch.stack([token[i * N // CLASSES : (i + 1) * N // CLASSES].sum(0) for i in range(CLASSES)])
    heads = (HeadPlan("copy", token, 4 * out, offset=1), HeadPlan("note", third, 2 * note, offset=2))
    layers = (LayerPlan(heads), LayerPlan())
    return Blueprint(_SPACE, _WORDS, alphabet_embed(_SPACE, _WORDS), layers, readout(_SPACE, _WORDS))


def _used(blueprint: Blueprint) -> Blueprint:
    """The twin in which the readout leans towards the third that was noted."""
    note = _SPACE.rows("note")[:CLASSES]
    unembed = blueprint.unembed.clone()
    unembed[1:] += 10 * note.repeat_interleave(N // CLASSES, 0)
    return replace(blueprint, unembed=unembed)


def _prompt(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    return (0, *(1 + rng.integers(N, size=size)).tolist())


def copy_pair(rng: np.random.Generator) -> TaskPair:
    """Two prompts that differ in the letter before the last one, which is to be repeated."""
    size = int(rng.integers(4, 12))
    while True:
        clean, corrupted = _prompt(rng, size), _prompt(rng, size)
        if clean[-2] != corrupted[-2]:
            spans = spans_at({"noted": size - 2, "copied": size - 1, "last": size})
            return TaskPair(clean, corrupted, (clean[-2],), (corrupted[-2],), spans, f"{size} letters")


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    size = int(rng.integers(4, 12))
    while True:
        base, source = _prompt(rng, size), _prompt(rng, size)
        if note_of(base) != note_of(source) and base[-2] != source[-2]:
            return Swap(base, source, (size,), (base[-2] if variable == "note" else source[-2],))


def _label(variable: str, rng: np.random.Generator) -> Label:
    ids = _prompt(rng, int(rng.integers(4, 12)))
    return Label(ids, len(ids) - 1, note_of(ids) if variable == "note" else ids[-2] - 1)


UNREAD = Design(
    "unread",
    "Repeats the letter before the last one, and notes, for nobody, to which third of the alphabet the one before that "
    "belongs.",
    "One head copies the letter one place back to the output; another writes the third of the alphabet of the letter two "
    "places back into three dimensions that no part of the network reads.",
    _plan,
    Drawn(_WORDS, copy_pair, _swap, _label),
    (("input", "copy", "v"), ("copy", "logits", "")),
    (
        Held("answer", "the letter one place back", "out", "copy", "last", N),
        Held("note", "the third of the alphabet of the letter two places back", "note", "note", "last", CLASSES, False),
    ),
    tuple(range(1, N + 1)),
    {
        "without": ("The note is not written.", lambda b: b.without("note")),
        "used": ("The note is read: the readout leans towards the third that was noted.", _used),
    },
    idle=("note",),
    facts={"written by": "note"},
    sources=("Ravichander et al. 2021, Probing the Probing Paradigm", "Elazar et al. 2021, Amnesic Probing"),
)  # fmt: skip
