"""The six tasks that networks of the zoo were trained to, as cases with frames: free and derived variables, the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cutaway import zoo
from cutaway.behaviours.cases import Cases, cases
from cutaway.network import Network
from cutaway.recipes.algorithms import agreement, brackets, docstring, greater_than, indirect_object
from cutaway.recipes.algorithms import cases as sums

#: Two networks of every task.
NETWORKS: Mapping[str, tuple[str, str]] = {
    "agreement": ("agreement-gpt2", "agreement-llama"),
    "docstring": ("docstring-gpt2", "docstring-gpt2-seed1"),
    "cases": ("cases-gpt2", "cases-gpt2-seed1"),
    "indirect-object": ("indirect-object-gpt2", "indirect-object-llama"),
    "brackets": ("brackets-gpt2", "brackets-llama"),
    "greater-than": ("greater-than-gpt2", "greater-than-llama"),
}
#: What the variables of the stated algorithm are called in the cases, where they are a variable there.
CALLED: Mapping[str, Mapping[str, str]] = {
    "agreement": {"number": "number", "tense": "tense"},
    "docstring": {"place": "which"},
    "cases": {"left": "left", "right": "right", "larger": "larger"},
    "indirect-object": {"duplicate": "first", "inhibited": "first"},
    "brackets": {"uneven": "uneven", "dips": "dips"},
    "greater-than": {"year": "year", "direction": "later"},
}


def task_of(name: str) -> str:
    """The task of a specimen or of a twin of it."""
    return next(task for task, names in NETWORKS.items() if name.partition("~")[0] in names)


def _agreement(net: Network, n: int, seed: int) -> Cases:
    frames = [f"{{time}} the {{subject}} {near} the {{other}}" for near in agreement.NEAR]
    frames += [f"{{time}} {near} the {{other}} the {{subject}}" for near in agreement.NEAR]
    variables = {
        "number": ["one", "many"], "tense": ["now", "then"], "noun": agreement.NOUNS, "day": [0, 1, 2],
        "other_number": ["one", "many"], "other_noun": agreement.NOUNS,
        "time": lambda tense, day: (agreement.NOW if tense == "now" else agreement.THEN)[day],
        "subject": lambda noun, number: noun + "s" * (number == "many"),
        "other": lambda other_noun, other_number: other_noun + "s" * (other_number == "many"),
    }  # fmt: skip
    verbs = {
        ("one", "now"): " is",
        ("one", "then"): " was",
        ("many", "now"): " are",
        ("many", "then"): " were",
    }
    return cases(
        net, frames, variables, lambda number, tense: verbs[number, tense], name="agreement", n=n, seed=seed
    )


def _docstring(net: Network, n: int, seed: int) -> Cases:
    frames = [
        f"def {name} ( {{a}} {{b}} {{c}} {{d}} {{e}} ) : argument {{which}} :" for name in docstring.FUNCTIONS
    ]
    variables: dict[str, Any] = dict.fromkeys("abcde", docstring.NAMES) | {"which": docstring.ORDINALS}
    return cases(
        net, frames, variables,
        lambda a, b, c, d, e, which: f" {(a, b, c, d, e)[docstring.ORDINALS.index(which)]}",
        differ=list("abcde"), name="docstring", n=n, seed=seed,
    )  # fmt: skip


def _cases(net: Network, n: int, seed: int) -> Cases:
    words = [(a, b) for a in sums.WORDS for b in sums.WORDS if a != b][::2]
    frames = [f"{{left}} {a} and {{right}} {b} make" for a, b in words]
    variables = {"left": range(10), "right": range(10), "larger": lambda left, right: left > right}
    return cases(
        net, frames, variables,
        lambda left, right, larger: f" {(left + right if larger else left - right) % 10}",
        name="sums by cases", n=n, seed=seed,
    )  # fmt: skip


def _indirect_object(net: Network, n: int, seed: int) -> Cases:
    frames = [
        f"{opening} {{A}} and {{B}} went to {place} , {{S}} {verb} the {thing} to"
        for i, opening in enumerate(indirect_object.OPENINGS)
        for place, verb, thing in zip(
            indirect_object.PLACES[i % 2 :: 2],
            indirect_object.VERBS[:3],
            indirect_object.THINGS[i % 2 :: 2],
            strict=True,
        )
    ]
    variables = {
        "A": indirect_object.NAMES, "B": indirect_object.NAMES, "first": [True, False],
        "S": lambda A, B, first: A if first else B,
    }  # fmt: skip
    return cases(
        net, frames, variables, lambda A, B, first: f" {B if first else A}", differ=["A", "B"],
        name="who gets it", n=n, seed=seed,
    )  # fmt: skip


def _brackets(net: Network, n: int, seed: int) -> Cases:
    drawn = brackets.draw(np.random.default_rng([seed, 7]), 4 * n)
    strings = tuple(dict.fromkeys(" ".join("()"[i - 1] for i in row[1:-1]) for row in drawn))

    def depths(string: str) -> np.ndarray:
        return np.where([c == "(" for c in string.split()], 1, -1).cumsum()

    variables = {
        "string": strings,
        "uneven": lambda string: bool(depths(string)[-1] != 0),
        "dips": lambda string: bool(depths(string).min() < 0),
    }  # fmt: skip
    return cases(
        net, "{string} =", variables, lambda uneven, dips: " unbalanced" if uneven or dips else " balanced",
        name="balance", n=n, seed=seed,
    )  # fmt: skip


def _greater_than(net: Network, n: int, seed: int) -> Cases:
    frames = [
        f"the {event} that {{verb}} in {{century}} {{year}} turned in {{century}}"
        for event in greater_than.EVENTS
    ]
    years = greater_than.YEARS
    variables = {
        "year": years[1:-1], "later": [True, False], "word": [0, 1], "century": greater_than.CENTURIES,
        "verb": lambda later, word: (greater_than.FORWARD if later else greater_than.BACK)[word],
    }  # fmt: skip
    return cases(
        net, frames, variables,
        lambda year, later: tuple(f" {y}" for y in years if (y > year if later else y < year)),
        name="later or earlier", n=n, seed=seed,
    )  # fmt: skip


TASKS: Mapping[str, Callable[[Network, int, int], Cases]] = {
    "agreement": _agreement, "docstring": _docstring, "cases": _cases, "indirect-object": _indirect_object,
    "brackets": _brackets, "greater-than": _greater_than,
}  # fmt: skip


def task_cases(name: str, net: Network, n: int = 160, seed: int = 0) -> Cases:
    """The cases of a specimen, or of a twin of it."""
    return TASKS[task_of(name)](net, n, seed)


def stated_places(name: str) -> dict[str, str]:
    """Where every variable of the stated algorithm lives: the part and its span, `last` or `all`."""
    task: Any = zoo.specimen(name.partition("~")[0]).task
    length = task.algorithm.length
    return {
        v.name: f"{v.part}@{'last' if v.columns(length) == (length - 1,) else 'all'}"
        for v in task.algorithm.variables
    }
