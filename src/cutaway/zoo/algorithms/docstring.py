"""Argument recall: def f ( size name path mode key ) : param name -> path.

In the definition one head notes, at every argument, which name stands before it; at the end a head of the next layer finds
the place whose name before is the one described, and moves what stands there: induction, as Heimersheim and Janiak 2023
find it in a network that completes docstrings. After the last argument comes `returns`.
"""

from __future__ import annotations

import numpy as np

from .causal import INPUT, Algorithm, Array, Place, Variable, one_of, shuffled_rows

NAMES = ("size", "name", "path", "mode", "key")
FUNCTIONS = ("load", "save", "find", "draw", "send", "read")
VOCABULARY = ("<bos>", "def", *FUNCTIONS, "(", *NAMES, ")", ":", "param", "returns")
_ID = {word: index for index, word in enumerate(VOCABULARY)}
FIRST, END = 4, 12
"""Positions of the first argument in the definition, and of the argument described."""
FOLLOWERS = tuple(range(FIRST + 1, FIRST + len(NAMES) + 1))
"""The positions that stand after an argument: those of the other arguments, and the closing bracket."""


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> def f ( a b c d e ) : param b`, `[n 13]`: five arguments in any order, one of them described."""
    names = shuffled_rows(rng, n, range(_ID[NAMES[0]], _ID[NAMES[-1]] + 1), len(NAMES))

    def all_of(word: str) -> Array:
        return np.full(n, _ID[word])

    described = names[np.arange(n), rng.integers(0, len(NAMES), n)]
    function = rng.integers(_ID[FUNCTIONS[0]], _ID[FUNCTIONS[-1]] + 1, n)
    head = [all_of("<bos>"), all_of("def"), function, all_of("(")]
    return np.stack([*head, *names.T, all_of(")"), all_of(":"), all_of("param"), described], 1)


def before(ids: Array) -> Array:
    """The name before each place that follows an argument, `[n 5]`."""
    return ids[:, FIRST : FOLLOWERS[-1]]


def following(ids: Array, names: Array) -> Array:
    """What stands where the name before is the described one; `returns` at the closing bracket."""
    at = (names == ids[:, END, None]).argmax(1)
    found = ids[np.arange(len(ids)), FIRST + 1 + at]
    return np.where(found == _ID[")"], _ID["returns"], found)


ALGORITHM = Algorithm(
    name="docstring",
    summary="A description names the arguments in the order of the definition.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        Variable("before", (INPUT,), before, Place(0, 0), "which argument stands before"),
        Variable("next", (INPUT, "before"), following, Place(1, 0), "what stands after the described one"),
    ),
    answer_reads=("next",),
    answer=lambda name: one_of(name, len(VOCABULARY)),
)
