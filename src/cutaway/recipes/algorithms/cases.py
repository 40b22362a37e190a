"""Case-based arithmetic: the sum of two digits where the first is larger, their difference where it is not, modulo ten.

Two heads move the digits to the end; the first MLP finds the case; the last one computes the result from digits and case.
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, WordIds, one_of

BASE = 10
WORDS = ("pears", "plums", "figs", "nuts", "limes", "beans")
VOCABULARY = ("<bos>", *(str(digit) for digit in range(BASE)), "and", "make", *WORDS)
_ZERO = 1
_ID = WordIds(VOCABULARY)
LEFT, RIGHT, END = 1, 4, 6


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> 7 pears and 4 plums make`, `[n 7]`."""
    digits = ("0", "9")
    one, these = _ID.some(rng, digits, n), _ID.some(rng, WORDS, n)
    return _ID.rows(n, "<bos>", one, these, "and", _ID.some(rng, digits, n), _ID.some(rng, WORDS, n), "make")


def larger(left: Array, right: Array) -> Array:
    """1 where the first digit is the larger."""
    return (left > right).astype(int)


def result(left: Array, right: Array, larger: Array) -> Array:
    """Left plus right where larger, left minus right where not, modulo ten."""
    return np.where(larger == 1, left + right, left - right) % BASE


ALGORITHM = TaskAlgorithm(
    name="cases",
    summary="Two digits are added where the first is larger and subtracted where it is not, modulo ten.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        CausalVariable("left", (INPUT,), lambda ids: ids[:, LEFT] - _ZERO, Part("head", 0, 0), "the first digit", (END,)),
        CausalVariable("right", (INPUT,), lambda ids: ids[:, RIGHT] - _ZERO, Part("head", 0, 1), "the second digit", (END,)),
        CausalVariable("larger", ("left", "right"), larger, Part("mlp", 0), "is the first the larger", (END,)),
        CausalVariable("result", ("left", "right", "larger"), result, Part("mlp", 1), "what they make", (END,)),
    ),
    answer_reads=("result",),
    answer=lambda digit: one_of(_ZERO + digit, len(VOCABULARY)),
)  # fmt: skip
