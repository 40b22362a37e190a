"""Argument recall: def f ( size , name , path ) : param size : param name : param -> path.

At the argument described last a head finds its place in the definition; one in the next layer carries the place to the
end; one in the last layer moves the argument of the next place. After the last argument comes `returns`. (Heimersheim and
Janiak 2023 describe the behaviour in a trained network.)
"""

from __future__ import annotations

import numpy as np

from .causal import INPUT, Algorithm, Array, Place, Variable, one_of, shuffled_rows

NAMES = ("size", "name", "path", "mode", "key")
FUNCTIONS = ("load", "save", "find", "draw", "send", "read")
VOCABULARY = ("<bos>", "def", *FUNCTIONS, "(", *NAMES, ")", ":", "param", "returns")
_ID = {word: index for index, word in enumerate(VOCABULARY)}
FIRST, LAST, END = 4, 15, 17
"""Positions of the first argument in the definition, of the argument described last, and of the last token."""


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> def f ( a b c d e ) : param b : param c : param`, `[n 18]`: five arguments in any order."""
    names = shuffled_rows(rng, n, range(_ID[NAMES[0]], _ID[NAMES[-1]] + 1), len(NAMES))
    at = rng.integers(0, len(NAMES) - 1, n)

    def all_of(word: str) -> Array:
        return np.full(n, _ID[word])

    def described(offset: int) -> Array:
        return names[np.arange(n), at + offset]

    head = [all_of("<bos>"), all_of("def"), rng.integers(_ID[FUNCTIONS[0]], _ID[FUNCTIONS[-1]] + 1, n), all_of("(")]
    tail = [all_of(")"), all_of(":"), all_of("param"), described(0), all_of(":"), all_of("param"), described(1)]
    return np.stack([*head, *names.T, *tail, all_of(":"), all_of("param")], 1)


def place(ids: Array) -> Array:
    """Where the argument described last stands in the definition, 0 to 4."""
    return (ids[:, FIRST : FIRST + len(NAMES)] == ids[:, LAST, None]).argmax(1)


def following(ids: Array, at: Array) -> Array:
    """The argument of the next place; `returns` after the last."""
    names = np.concatenate([ids[:, FIRST : FIRST + len(NAMES)], np.full((len(ids), 1), _ID["returns"])], 1)
    return names[np.arange(len(ids)), at + 1]


ALGORITHM = Algorithm(
    name="docstring",
    summary="A description names the arguments in the order of the definition.",
    vocabulary=VOCABULARY,
    layers=3,
    draw=draw,
    variables=(
        Variable("place", (INPUT,), place, Place(0, 0, (LAST,)), "where the argument described last was defined"),
        Variable("carried", ("place",), lambda at: at, Place(1, 0, (END,)), "the same, carried to the end"),
        Variable("next", (INPUT, "carried"), following, Place(2, 0, (END,)), "the argument in the next place"),
    ),
    answer_reads=("next",),
    answer=lambda name: one_of(name, len(VOCABULARY)),
)
