"""Argument recall: def f ( size name path mode ) : param name : param -> path.

At the argument described a head finds its place in the definition; one in the next layer carries the place to the
end; one in the last layer moves the argument of the next place. After the last argument comes `returns`. (Heimersheim and
Janiak 2023 describe the behaviour in a trained network.)
"""

from __future__ import annotations

import numpy as np

from .causal import INPUT, Algorithm, Array, Place, Variable, one_of, shuffled_rows

NAMES, ARGUMENTS = ("size", "name", "path", "mode", "key", "rate"), 4
FUNCTIONS = ("load", "save", "find", "draw", "send", "read")
VOCABULARY = ("<bos>", "def", *FUNCTIONS, "(", *NAMES, ")", ":", "param", "returns")
_ID = {word: index for index, word in enumerate(VOCABULARY)}
FIRST, LAST, END = 4, 11, 13
"""Positions of the first argument in the definition, of the argument described, and of the last token."""


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> def f ( a b c d ) : param b : param`, `[n 14]`: four arguments in any order, one described."""
    names = shuffled_rows(rng, n, range(_ID[NAMES[0]], _ID[NAMES[-1]] + 1), ARGUMENTS)

    def all_of(word: str) -> Array:
        return np.full(n, _ID[word])

    described = names[np.arange(n), rng.integers(0, ARGUMENTS, n)]
    function = rng.integers(_ID[FUNCTIONS[0]], _ID[FUNCTIONS[-1]] + 1, n)
    head = [all_of("<bos>"), all_of("def"), function, all_of("("), *names.T, all_of(")"), all_of(":")]
    return np.stack([*head, all_of("param"), described, all_of(":"), all_of("param")], 1)


def place(ids: Array) -> Array:
    """Where the argument described stands in the definition, 0 to 3."""
    return (ids[:, FIRST : FIRST + ARGUMENTS] == ids[:, LAST, None]).argmax(1)


def following(ids: Array, at: Array) -> Array:
    """The argument of the next place; `returns` after the last."""
    names = np.concatenate([ids[:, FIRST : FIRST + ARGUMENTS], np.full((len(ids), 1), _ID["returns"])], 1)
    return names[np.arange(len(ids)), at + 1]


ALGORITHM = Algorithm(
    name="docstring",
    summary="A description names the arguments in the order of the definition.",
    vocabulary=VOCABULARY,
    layers=3,
    draw=draw,
    variables=(
        Variable("place", (INPUT,), place, Place(0, 0, (LAST,)), "where the described argument was defined"),
        Variable("carried", ("place",), lambda at: at, Place(1, 0, (END,)), "the same, carried to the end"),
        Variable("next", (INPUT, "carried"), following, Place(2, 0, (END,)), "the argument in the next place"),
    ),
    answer_reads=("next",),
    answer=lambda name: one_of(name, len(VOCABULARY)),
    positional=True,
)
