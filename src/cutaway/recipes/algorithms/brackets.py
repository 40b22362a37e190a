"""Bracket balance: ( ( ) ( ) ) -> balanced.

The depth after each bracket is counted in one head; an MLP tells where it is below zero, and at the end whether it is
zero; a later head tells whether it was below zero anywhere; the last MLP joins the two. It is the algorithm that the
interpretability courses find in such a classifier.
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, one_of

PAIRS = 5
LENGTH = 2 * PAIRS
VOCABULARY = ("<bos>", "(", ")", "balanced", "unbalanced", "=")
OPEN, CLOSE, BALANCED, UNBALANCED, ASK = range(1, 6)
END = LENGTH + 1
BRACKETS = tuple(range(1, END))


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> ( ( ) ... ) =` with ten brackets, `[n 12]`: about a third balanced, the rest wrong in either way."""
    total = rng.integers(0, 2, n) * rng.choice([-2, 2], n)
    opens = PAIRS + total // 2
    order = rng.random((n, LENGTH)).argsort(1)
    rows = np.where(order < opens[:, None], OPEN, CLOSE)
    return np.concatenate([np.zeros((n, 1), int), _lifted(rng, rows), np.full((n, 1), ASK)], 1)


def _lifted(rng: np.random.Generator, rows: Array) -> Array:
    """Two thirds of the rows turned so that they begin at their lowest point: never below zero if they end there."""
    steps = np.where(rows == OPEN, 1, -1)
    lowest = steps.cumsum(1).argmin(1)
    turned = np.take_along_axis(rows, (np.arange(LENGTH)[None] + lowest[:, None] + 1) % LENGTH, 1)
    return np.where(rng.random(len(rows))[:, None] < 0.67, turned, rows)


def depth(ids: Array) -> Array:
    """Brackets open after each bracket, `[n 10]`."""
    return np.where(ids[:, 1 : LENGTH + 1] == OPEN, 1, -1).cumsum(1)


def below(depths: Array) -> Array:
    """1 where the depth is below zero, `[n 10]`."""
    return (depths < 0).astype(int)


def uneven(depths: Array) -> Array:
    """1 where the depth at the end is not zero."""
    return (depths[:, -1] != 0).astype(int)


ALGORITHM = TaskAlgorithm(
    name="brackets",
    summary="Brackets are balanced when they close as often as they open and never before.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        CausalVariable("depth", (INPUT,), depth, Part("head", 0, 0), "how many are open after each bracket"),
        CausalVariable("below", ("depth",), below, Part("mlp", 0), "where it is below zero", BRACKETS),
        CausalVariable("uneven", ("depth",), uneven, Part("mlp", 0), "is it other than zero at the end", (END,)),
        CausalVariable("dips", ("below",), lambda b: b.max(1), Part("head", 1, 0), "is it below zero anywhere", (END,)),
        CausalVariable("fault", ("uneven", "dips"), lambda u, d: u | d, Part("mlp", 1), "is there a fault", (END,)),
    ),
    answer_reads=("fault",),
    answer=lambda fault: one_of(np.where(fault == 1, UNBALANCED, BALANCED), len(VOCABULARY)),
)  # fmt: skip
