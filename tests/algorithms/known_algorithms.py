"""Cases and algorithms of the zoo's networks that were trained to one, with the places of their variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import cutaway
from cutaway import zoo
from cutaway.algorithms import Algorithm, Step
from cutaway.behaviours.cases import Case, Cases
from cutaway.recipes.algorithms import INPUT, TaskAlgorithm


def stated(name: str) -> TaskAlgorithm:
    """The algorithm that a network was trained to, its variables where they live."""
    return zoo.specimen(name).task.algorithm  # type: ignore[attr-defined, no-any-return]


def cases_of(name: str, n: int = 160, seed: int = 0) -> Cases:
    """Prompts of a task; the variables are its words by position (`w3`), and spans are of these names."""
    task = stated(name)
    ids = task.draw(np.random.default_rng([seed, 41]), n)
    right = task.answers(ids)
    cases = []
    for row, answers in zip(ids, right, strict=True):
        words = [task.vocabulary[i] for i in row]
        spans = {f"w{i}": (i, i + 1) for i in range(len(row))} | {"last": (len(row) - 1, len(row))}
        told = tuple((task.vocabulary[i], (int(i),)) for i in np.flatnonzero(answers))
        values = {f"w{i}": word for i, word in enumerate(words)}
        cases.append(Case(" ".join(words), tuple(map(int, row)), values, told, spans))
    unique = tuple({case.ids: case for case in cases}.values())
    return Cases(name, unique, derived=tuple(f"w{i}" for i in range(1, ids.shape[1])))


def algorithm_of(name: str) -> Algorithm:
    """The same algorithm over words, one prompt at a time."""
    task = stated(name)
    number = {word: i for i, word in enumerate(task.vocabulary)}
    words = tuple(f"w{i}" for i in range(task.length))

    def reads(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(read for name in names for read in (words if name == INPUT else (name,)))

    def single(names: tuple[str, ...], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            left, arrays = list(given), []
            for read in names:
                if read == INPUT:
                    arrays.append(np.array([[number[left.pop(0)] for _ in words]]))
                else:
                    arrays.append(np.asarray(left.pop(0))[None])
            return function(*arrays)[0]

        return call

    steps = [Step(v.name, reads(v.reads), single(v.reads, v.function), v.meaning) for v in task.variables]
    row = single(task.answer_reads, task.answer)
    answer = Step(
        "answer",
        reads(task.answer_reads),
        lambda *given: tuple(task.vocabulary[i] for i in np.flatnonzero(row(*given))),
    )
    return Algorithm(task.name, tuple(steps), answer)


def places_of(name: str) -> dict[str, str]:
    """Where each variable was trained to live."""
    task = stated(name)
    found = {}
    for v in task.variables:
        spans = ["all"] if v.positions is None else [f"w{i}" for i in v.positions]
        found[v.name] = " + ".join(f"{v.part}@{span}" for span in spans)
    return found


def outcome(
    name: str, algorithm: Algorithm | None = None, where: Any = None, twin: str = "", **options: Any
) -> Any:
    """The test of an algorithm, by default the true one at its places, on a network of the zoo or a twin of it."""
    net = cutaway.open(f"zoo:{name}{twin}")
    task = algorithm if algorithm is not None else algorithm_of(name)
    return cutaway.test_algorithm(net, cases_of(name), task, where or places_of(name), **options)
