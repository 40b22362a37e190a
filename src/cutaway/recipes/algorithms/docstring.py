"""Argument recall: def f ( size name path mode key ) : argument third : -> path.

A head moves the number to the end; a head of the next layer goes to the place in the definition that it names, and moves
the argument that stands there. (Heimersheim and Janiak 2023 study the recall of arguments in docstrings; here the
description counts them.)
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, WordIds, one_of, shuffled_rows

NAMES = ("size", "name", "path", "mode", "key", "rate", "seed", "text")
FUNCTIONS = ("load", "save", "find", "draw", "send", "read")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
VOCABULARY = ("<bos>", "def", *FUNCTIONS, "(", *NAMES, ")", ":", "argument", *ORDINALS)
_ID = WordIds(VOCABULARY)
FIRST, ORDINAL, END = 4, 12, 13
"""Positions of the first argument in the definition, of the number, and of the last token."""


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> def f ( a b c d e ) : argument third :`, `[n 14]`: five different arguments, one asked for."""
    names = shuffled_rows(rng, n, range(_ID[NAMES[0]], _ID[NAMES[-1]] + 1), len(ORDINALS))
    function, ordinal = _ID.some(rng, FUNCTIONS, n), _ID.some(rng, ORDINALS, n)
    return _ID.rows(n, "<bos>", "def", function, "(", *names.T, ")", ":", "argument", ordinal, ":")


def place(ids: Array) -> Array:
    """Which argument is asked for, 0 to 4."""
    return ids[:, ORDINAL] - _ID[ORDINALS[0]]


def argument(ids: Array, at: Array) -> Array:
    """The name that stands in that place of the definition."""
    return ids[np.arange(len(ids)), FIRST + at]


ALGORITHM = TaskAlgorithm(
    name="docstring",
    summary="A description asks for an argument of the definition by its place.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        CausalVariable(
            "place", (INPUT,), place, Part("head", 0, 0), "which argument is asked for, moved to the end", (END,)
        ),
        CausalVariable("argument", (INPUT, "place"), argument, Part("head", 1, 0), "the argument in that place", (END,)),
    ),
    answer_reads=("argument",),
    answer=lambda name: one_of(name, len(VOCABULARY)),
)  # fmt: skip
