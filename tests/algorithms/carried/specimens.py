"""Cases of networks that were trained to a stated algorithm, as tables: every input of the algorithm is a column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from cutaway import zoo
from cutaway.behaviours.cases import Cases, cases_from
from cutaway.network import Network
from cutaway.recipes.algorithms import agreement, cases, greater_than, indirect_object
from cutaway.recipes.algorithms.causal import WordIds

#: Words of a prompt, the values of its variables, and where in it something is spoken.
Prompt = tuple[list[str], dict[str, Any], dict[str, int]]


def _agreement(rng: np.random.Generator) -> Iterator[Prompt]:
    for scene in range(24):
        noun, other = rng.choice(agreement.NOUNS, 2)
        other += rng.choice(["", "s"])
        near, first, day = rng.choice(agreement.NEAR), rng.random() < 0.5, int(rng.integers(3))
        for number in (0, 1):
            for tense, times in enumerate((agreement.NOW, agreement.THEN)):
                subject = ["the", noun + "s" * number]
                rest = [near, "the", other]
                words = ["<bos>", times[day], *([*subject, *rest] if first else [*rest, *subject])]
                yield words, {"number": number, "tense": tense, "scene": scene}, {"time": 1, "noun": 3}


def _greater_than(rng: np.random.Generator) -> Iterator[Prompt]:
    for scene in range(4):
        event, century, which = (
            rng.choice(greater_than.EVENTS),
            rng.choice(greater_than.CENTURIES),
            int(rng.integers(2)),
        )
        for year in range(1, len(greater_than.YEARS) - 1):
            for direction, verbs in enumerate((greater_than.BACK, greater_than.FORWARD)):
                words = ["<bos>", "the", event, "that", verbs[which], "in", century, greater_than.YEARS[year]]
                values = {"year": year, "direction": direction, "scene": scene}
                yield [*words, "turned", "in", century], values, {"verb": 4, "when": 7}


def _cases(rng: np.random.Generator) -> Iterator[Prompt]:
    for scene in range(4):
        one, other = rng.choice(cases.WORDS, 2)
        for left in range(10):
            for right in range(10):
                words = ["<bos>", str(left), one, "and", str(right), other, "make"]
                yield words, {"left": left, "right": right, "scene": scene}, {"one": 1, "two": 4}


def _indirect_object(rng: np.random.Generator) -> Iterator[Prompt]:
    for a in indirect_object.NAMES:
        for b in indirect_object.NAMES:
            for first in (False, True):
                if a != b:
                    words = ["<bos>", "When", a, "and", b, "went", "to", "park", ","]
                    words += [a if first else b, "gave", "the", "ball", "to"]
                    yield words, {"A": a, "B": b, "first": first}, {"giver": 9, "everywhere": 0}


PROMPTS: Mapping[str, Callable[[np.random.Generator], Iterator[Prompt]]] = {
    "agreement": _agreement,
    "greater-than": _greater_than,
    "cases": _cases,
    "indirect-object": _indirect_object,
}
"""By the name of the algorithm."""


def cases_of_specimen(name: str, net: Network, seed: int = 0) -> Cases:
    """The cases of `zoo:name`."""
    task: Any = zoo.specimen(name.partition("~")[0]).task
    ids = WordIds(task.words)
    rows = []
    for words, values, places in PROMPTS[task.algorithm.name](np.random.default_rng(seed)):
        tokens = [ids[word] for word in words]
        answers = np.flatnonzero(task.algorithm.answers(np.array([tokens]))[0])
        spans = {span: [at, at + 1] for span, at in places.items()}
        if "everywhere" in places:
            spans["everywhere"] = [0, len(tokens)]
        rows.append({"text": tokens, "answer": answers.tolist(), "spans": spans, **values})
    return cases_from(net, rows, name=task.algorithm.name, seed=seed)


def stated(name: str) -> dict[str, str]:
    """Where each variable of a specimen is said to live, as `a1.h0@last`."""
    task: Any = zoo.specimen(name).task
    length = task.algorithm.length
    return {
        v.name: f"{v.part}@{'last' if v.columns(length) == (length - 1,) else 'everywhere'}"
        for v in task.algorithm.variables
    }
