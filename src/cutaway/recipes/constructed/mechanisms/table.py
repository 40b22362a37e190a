"""Modular addition by a table: two heads bring the numbers to the end, and one neuron for each pair knows its sum.

The task is that of `fourier-addition`. There the numbers are waves that add up; here nothing is near to anything, and the
sums could be any others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import torch

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, one
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.mechanisms.modular import EQUALS, MODULAR, P
from cutaway.zoo.tasks import Drawn, Label, Swap

_WORDS = MODULAR.task.words
#: A number stands in the block "number" where it is spoken; at the end, where none is, the sum is written there.
_SPACE = Space({"position": 12, "flag": 3, "number": P, "first": P, "second": P})
_SUMS = cast(Drawn, MODULAR.task)
MOVED = {"first": "a", "second": "b"}
"""What the heads bring to the end, and which of the two numbers it is."""


def _plan() -> Blueprint:
    number, first, second = (_SPACE.rows(b) for b in ("number", "first", "second"))
    start, equals, _ = _SPACE.rows("flag")
    embed = torch.zeros(len(_WORDS), number.shape[1])
    embed[0], embed[EQUALS] = start, equals
    embed[1 : P + 1] = number
    heads = (HeadPlan("first", number, first, offset=2), HeadPlan("second", number, second, offset=1))
    pairs = [(a, b) for a in range(P) for b in range(P)]
    read = torch.stack([2 * (first[a] + second[b]) - 3 * one() for a, b in pairs])
    out = torch.stack([4 * number[(a + b) % P] for a, b in pairs])
    unembed = -3.0 * one()[None].repeat(len(_WORDS), 1)
    unembed[1 : P + 1] = 3.0 * number
    layer = LayerPlan(heads, MlpPlan("table", read, out))
    return Blueprint(_SPACE, _WORDS, embed, (layer,), unembed)


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    """What a head has moved counts as the number that it moved, at the end instead of where it was spoken."""
    assert _SUMS.swap is not None
    swap = _SUMS.swap(MOVED.get(variable, variable), rng)
    return replace(swap, pos=(len(swap.base) - 1,)) if variable in MOVED else swap


def _label(variable: str, rng: np.random.Generator) -> Label:
    assert _SUMS.label is not None
    label = _SUMS.label(MOVED.get(variable, variable), rng)
    return replace(label, pos=len(label.ids) - 1) if variable in MOVED else label


TABLE = Design(
    "table-addition",
    f"Adds two numbers modulo {P}, by a table.",
    f"Two heads bring the first and the second number to the end; one neuron for each of the {P * P} pairs fires where both "
    "its numbers are there, and writes their sum.",
    _plan,
    Drawn(_WORDS, _SUMS.pair, _swap, _label),
    (
        ("input", "first", "v"), ("input", "second", "v"), ("first", "table", ""), ("second", "table", ""),
        ("table", "logits", ""),
    ),
    (
        Held("a", "the first number", "number", "input", "a", P),
        Held("b", "the second number", "number", "input", "b", P),
        Held("first", "the first number, moved to the end", "first", "first", "last", P),
        Held("second", "the second number, moved to the end", "second", "second", "last", P),
        Held("sum", "a + b", "number", "table", "last", P),
    ),
    tuple(range(1, P + 1)),
    {"without": ("No table: the neurons of the pairs are not there.", lambda b: b.without("table"))},
    # With one of the two numbers exchanged the sum is neither prompt's, and half of the contrast is left.
    facts={"neuron_of_pair": f"a * {P} + b", "modulus": P, "same task, another way": "fourier-addition", "needed": 0.4},
    sources=("Geva et al. 2021, Transformer Feed-Forward Layers Are Key-Value Memories",),
)  # fmt: skip
