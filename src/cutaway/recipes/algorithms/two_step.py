"""Two steps of reasoning over a table of invented facts: the food of the town of Mira is -> plums.

A being lives in a town, and a town has a food and a craft: the town is looked up at the being's name, moved to the end, and
asked there for what the question wants. Three beings share a town, two towns share a food, so that the town is not the
being and not the answer. A third question (the pet of the house of Mira) is about the being itself, by another way: what
holds the town must leave it, and what holds the being must not.

`one-step` is the same task without the bridge: being and question are moved to the end and looked up together. (Yang et al.
2024, Do Large Language Models Latently Perform Multi-Hop Reasoning?, tells the two ways apart in language models.)
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, WordIds, one_of

BEINGS = (
    "Mira", "Oren", "Tavi", "Luma", "Pell", "Sorin", "Dara", "Finn", "Ilka", "Joss", "Kemi", "Nolo", "Rhea", "Ulf", "Vesna",
    "Wim", "Yara", "Zeno", "Bram", "Cleo", "Edda", "Gil", "Hana", "Ivo",
)  # fmt: skip
TOWNS = ("Ostra", "Velm", "Karst", "Lunde", "Moor", "Pire", "Quill", "Tarn")
FOODS, CRAFTS, PETS = (
    ("plums", "oats", "figs", "leeks"),
    ("rope", "glass", "clay", "silk"),
    ("cat", "goose", "newt", "mule"),
)
ASKED = ("food", "craft", "pet")
OF, IS = ("of", "in"), ("is", "was")
VOCABULARY = ("<bos>", "the", *ASKED, *OF, "town", "house", *IS, *BEINGS, *FOODS, *CRAFTS, *PETS)
_ID = WordIds(VOCABULARY)
QUESTION, NAME, END = 2, 7, 8
"""Positions of what is asked, of the being, and of the last token."""

_RANK = np.random.default_rng(8).permutation(len(BEINGS))
TOWN_OF = _RANK % len(TOWNS)
"""[24] the town of each being: three beings in each."""
PET_OF = (_RANK // len(TOWNS) + TOWN_OF + TOWN_OF // 4) % len(PETS)
"""[24] the pet of each being: the three of a town have three different ones."""
FOOD_OF = np.arange(len(TOWNS)) % len(FOODS)
CRAFT_OF = (np.arange(len(TOWNS)) + np.arange(len(TOWNS)) // 4) % len(CRAFTS)
"""[8] food and craft of each town: two towns share each, and no two share both."""


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> the food of the town of Mira is`, `[n 9]`; one in three asks for the pet of the house."""
    asked, name = rng.integers(0, len(ASKED), n), _ID.some(rng, BEINGS, n)
    where = np.where(asked == ASKED.index("pet"), _ID["house"], _ID["town"])
    question = asked + _ID[ASKED[0]]
    return _ID.rows(
        n, "<bos>", "the", question, _ID.some(rng, OF, n), "the", where, "of", name, _ID.some(rng, IS, n)
    )


def being(ids: Array) -> Array:
    """Of which being something is asked, 0 to 23."""
    return ids[:, NAME] - _ID[BEINGS[0]]


def asked(ids: Array) -> Array:
    """What is asked: 0 the food, 1 the craft, 2 the pet."""
    return ids[:, QUESTION] - _ID[ASKED[0]]


def result(town: Array, pet: Array, asked: Array) -> Array:
    """The token that answers, from town and pet."""
    of_town = np.where(asked == 0, _ID[FOODS[0]] + FOOD_OF[town], _ID[CRAFTS[0]] + CRAFT_OF[town])
    return np.where(asked == ASKED.index("pet"), _ID[PETS[0]] + pet, of_town)


def looked_up(being: Array, asked: Array) -> Array:
    """The token that answers, from the being at once."""
    return result(TOWN_OF[being], PET_OF[being], asked)


_ASKED = CausalVariable(
    "asked", (INPUT,), asked, Part("head", 0, 0), "what is asked, moved to the end", (END,)
)

TWO_STEP = TaskAlgorithm(
    name="two-step",
    summary="Tells the food or the craft of the town where a being lives, in two steps, or the being's own pet.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        _ASKED,
        CausalVariable("town", (INPUT,), lambda ids: TOWN_OF[being(ids)], Part("mlp", 0), "where the being lives", (NAME,)),
        CausalVariable("carried", ("town",), lambda town: town, Part("head", 1, 0), "the town, moved to the end", (END,)),
        CausalVariable("pet", (INPUT,), lambda ids: PET_OF[being(ids)], Part("head", 1, 1), "the being's own pet", (END,)),
        CausalVariable("result", ("carried", "pet", "asked"), result, Part("mlp", 1), "what answers the question", (END,)),
    ),
    answer_reads=("result",),
    answer=lambda token: one_of(token, len(VOCABULARY)),
)  # fmt: skip

ONE_STEP = TaskAlgorithm(
    name="one-step",
    summary="The same questions as those of two-step, looked up by the being at once: nothing holds the town.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        _ASKED,
        CausalVariable("being", (INPUT,), being, Part("head", 1, 0), "who it is, moved to the end", (END,)),
        CausalVariable("result", ("being", "asked"), looked_up, Part("mlp", 1), "what answers the question", (END,)),
    ),
    answer_reads=("result",),
    answer=lambda token: one_of(token, len(VOCABULARY)),
)  # fmt: skip
