"""Sums modulo a number as a task: pairs, interchanges and labels of the two numbers and of their sum."""

from __future__ import annotations

import numpy as np

from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at


def sums(words: tuple[str, ...], modulus: int, start: int) -> Drawn:
    """Prompts `a b =`, behind `start` words that begin every text; the numbers' words follow these in the vocabulary.

    >>> sums(("BOS", "0", "1", "="), 2, 1).pairs(1)[0].clean[-1]
    3
    """
    places = {"a": start, "b": start + 1, "last": start + 2}

    def prompt(a: int, b: int) -> tuple[int, ...]:
        return (*range(start), start + a, start + b, start + modulus)

    def total(a: int, b: int) -> tuple[int, ...]:
        return (start + (a + b) % modulus,)

    def pair(rng: np.random.Generator) -> TaskPair:
        while True:
            a, b, c, d = rng.integers(modulus, size=4).tolist()
            if (a + b - c - d) % modulus:
                return TaskPair(prompt(a, b), prompt(c, d), total(a, b), total(c, d), spans_at(places))

    def swap(variable: str, rng: np.random.Generator) -> Swap:
        while True:
            a, b, c, d = rng.integers(modulus, size=4).tolist()
            new = {"a": (c, b), "b": (a, d)}.get(variable, (c, d))
            if (sum(new) - a - b) % modulus:
                return Swap(prompt(a, b), prompt(c, d), (places.get(variable, start + 2),), total(*new))

    def label(variable: str, rng: np.random.Generator) -> Label:
        a, b = rng.integers(modulus, size=2).tolist()
        value = {"a": a, "b": b}.get(variable, (a + b) % modulus)
        return Label(prompt(a, b), places.get(variable, start + 2), value)

    return Drawn(words, pair, swap, label)
