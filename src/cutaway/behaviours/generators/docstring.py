"""Docstring arguments, which one comes next? 'def f(self, a, b, c): ... :param b: ... :param' -> ' c'.

After Heimersheim and Janiak 2023, 'A circuit for Python docstrings in a 4-layer attention-only transformer'. Spans: previous
(the argument before the answer, in the definition), answer (in the definition), last (the previous argument in the
docstring). Wrong: what the corrupted definition has in the answer's place, and the argument after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.generators import words as W
from cutaway.behaviours.generators.engine import DraftPair, choose, collect
from cutaway.behaviours.tokenizing import KnownWords

if TYPE_CHECKING:
    from cutaway.network import Network

_BODY = "\n\n    :param {a2}: {t1}\n    :param {b2}: {t2}\n    :param"
FRAMES: Final = (
    'def {f}(self, {a}, {b}, {c}, {d}):\n    """{text}' + _BODY,
    'def {f}({x}, {a}, {b}, {c}, {d}):\n    """{text}' + _BODY,
    'def {f}(self, {x}, {a}, {b}, {c}, {d}):\n    """{text}.' + _BODY,
    'def {f}(self, {b}, {c}, {d}):\n    """{text}\n\n    :param {b2}: {t2}\n    :param',
)
_ARGUMENT_SLOTS = ["f", "a", "b", "c", "d", "x"]


def docstring(net: Network, n: int = 128, seed: int = 0, arguments: Sequence[str] = W.ARGUMENTS) -> Behaviour:
    """Pairs of docstring arguments.

    Raises BadBehaviour naming the arguments that are not single tokens when fewer than eight are.
    """
    words = KnownWords(net, "docstring")
    names = words.single(arguments, 8, "argument names")

    def draw(rng: np.random.Generator) -> DraftPair:
        *drawn, other = (names[i] for i in rng.choice(len(names), size=7, replace=False))
        clean = dict(zip(_ARGUMENT_SLOTS, drawn, strict=True))
        clean |= {"a2": clean["a"], "b2": clean["b"]}
        clean |= {slot: choose(rng, W.DESCRIPTIONS) for slot in ("text", "t1", "t2")}
        spans = dict.fromkeys(clean, "") | {"b": "previous", "c": "answer", "b2": "last"}
        wrong = (f" {other}", f" {clean['d']}")
        return DraftPair(choose(rng, FRAMES), clean, clean | {"c": other}, (f" {clean['c']}",), wrong, spans)

    return collect(net, "docstring", draw, n, seed)
