"""Cases and algorithms of the two networks for one task: in two steps over a town, and in one without it."""

from __future__ import annotations

from cutaway.zoo.known import CaseRecipe, KnownAlgorithm, KnownWays

from ..algorithms import TaskAlgorithm, algorithm
from ..algorithms import two_step as T

TWO, ONE = "in two steps", "in one step"
_FRAMES = tuple(f"the {{asked}} {of} the {{where}} of {{name}} {now}" for of in T.OF for now in T.IS)


def _town(name: str) -> str:
    return T.TOWNS[T.TOWN_OF[T.BEINGS.index(name)]]


def _pet(name: str) -> str:
    return T.PETS[T.PET_OF[T.BEINGS.index(name)]]


def _told(town: str, pet: str, asked: str) -> str:
    if asked == "pet":
        return pet
    at = T.TOWNS.index(town)
    return T.FOODS[T.FOOD_OF[at]] if asked == "food" else T.CRAFTS[T.CRAFT_OF[at]]


def _recalled(name: str, asked: str) -> str:
    return _told(_town(name), _pet(name), asked)


CASES = CaseRecipe(
    _FRAMES,
    {
        "asked": T.ASKED,
        "name": T.BEINGS,
        "where": lambda asked: "house" if asked == "pet" else "town",
        "town": _town,
        "own": _pet,
    },
    lambda name, asked: f" {_recalled(name, asked)}",
)
"""What is asked, of whom; where the answer is known from, the being's town and its own pet."""


def two_step(name: str, seed: int, heads: int = 4) -> KnownWays | None:
    """What is known of a network of the task `two-step` or `one-step`; None for another task."""
    if name not in (T.TWO_STEP.name, T.ONE_STEP.name):
        return None
    places = {
        task: _places(algorithm(task).seated(seed, heads)) for task in (T.TWO_STEP.name, T.ONE_STEP.name)
    }
    two = KnownAlgorithm(
        TWO,
        {
            "town": (_town, "where the being lives, looked up at its name"),
            "carried": (lambda town: town, "the town, moved to the end"),
            "pet": (_pet, "the being's own pet, moved to the end"),
            "result": (lambda carried, pet, asked: _told(carried, pet, asked), "what answers the question"),
        },
        lambda result: f" {result}",
        places[T.TWO_STEP.name],
        name == T.TWO_STEP.name,
    )
    one = KnownAlgorithm(
        ONE,
        {
            "being": (lambda name: name, "of whom it is asked, moved to the end"),
            "result": (lambda being, asked: _recalled(being, asked), "what answers the question"),
        },
        lambda result: f" {result}",
        places[T.ONE_STEP.name],
        name == T.ONE_STEP.name,
    )
    return KnownWays({"questions": CASES}, (two, one))


def _places(seated: TaskAlgorithm) -> dict[str, str]:
    """Where the variables live, by the spans of the cases."""
    spans = {T.QUESTION: "asked", T.NAME: "name", T.END: "last"}
    return {v.name: f"{v.part}@{spans[v.columns(seated.length)[0]]}" for v in seated.variables}
