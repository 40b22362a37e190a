"""The shipped network does what its card says, on prompts that no run has seen."""

from itertools import islice

import pytest

from cutaway import zoo
from cutaway.recipes.tales.exam import HARD, ask, induction, questions

SEED = 20_000  # not the seed of the card


@pytest.fixture(scope="module")
def tales():
    return zoo.load("tales")


@pytest.mark.parametrize("behaviour", [name for name in HARD if name != "induction"])
def test_hard_behaviours(tales, behaviour: str) -> None:
    score = ask(*tales, list(islice(questions(behaviour, SEED), 300)))
    assert score.top1 >= 0.95
    assert score.beats_foil >= 0.95


@pytest.mark.parametrize("kind", ["words", "tokens"])
def test_induction(tales, kind: str) -> None:
    score = induction(*tales, 20, SEED, kind)
    assert score.top1 >= 0.95
    assert score.beats_foil >= 0.95


def test_both_orders_of_the_indirect_object(tales) -> None:
    prompts = list(islice(questions("ioi", SEED), 400))
    for order in ("ABA", "ABB"):
        assert ask(*tales, [p for p in prompts if p.slots["order"] == order]).top1 >= 0.95


def test_the_corrupted_twin_turns_the_answer(tales) -> None:
    from dataclasses import replace

    prompts = list(islice(questions("ioi", SEED), 200))
    twins = [
        replace(p, text=p.corrupted, corrupted=p.text, answers=p.foils, foils=p.answers) for p in prompts
    ]
    assert ask(*tales, twins).top1 >= 0.95


def test_accuracy_holds_against_the_card(tales) -> None:
    for name, row in zoo.card("tales")["accuracy"].items():
        if not name.startswith("induction"):
            assert ask(*tales, list(islice(questions(name, SEED), 150))).top1 >= row["low"] - 0.08, name
