"""The causal models of the tasks, against the same tasks written another way."""

from __future__ import annotations

import numpy as np
import pytest

from cutaway.errors import NotFound
from cutaway.recipes.algorithms import ALGORITHMS, algorithm
from cutaway.recipes.algorithms import two_step as T

NAMES = sorted(ALGORITHMS)


def _ids(name: str, n: int = 300, seed: int = 0) -> np.ndarray:
    return ALGORITHMS[name].draw(np.random.default_rng(seed), n)


def _said(name: str, row: np.ndarray) -> list[str]:
    return [ALGORITHMS[name].vocabulary[i] for i in row]


def _by_hand(name: str, words: list[str]) -> set[str]:
    if name == "indirect-object":
        return set(words[2:5:2]) - {words[9]}
    if name == "greater-than":
        years = [f"{y:02d}" for y in range(0, 60, 3)]
        later = words[4] in ("began", "opened")
        return {y for y in years if (y > words[7]) == later and y != words[7]}
    if name == "brackets":
        depth, fault = 0, False
        for sign in words[1:11]:
            depth += 1 if sign == "(" else -1
            fault |= depth < 0
        return {"unbalanced" if fault or depth else "balanced"}
    if name == "cases":
        x, y = int(words[1]), int(words[4])
        return {str((x + y) % 10 if x > y else (x - y) % 10)}
    if name == "docstring":
        ordinals = ("first", "second", "third", "fourth", "fifth")
        return {words[4 + ordinals.index(words[12])]}
    if name in ("two-step", "one-step"):
        being = T.BEINGS.index(words[7])
        if words[2] == "pet":
            return {T.PETS[T.PET_OF[being]]}
        at = T.TOWN_OF[being]
        return {T.FOODS[at % 4]} if words[2] == "food" else {T.CRAFTS[(at + (at > 3)) % 4]}
    nouns = [w for w in words[2:] if w not in ("the", "near", "behind", "beside", "under")]
    subject = nouns[0] if words[2] == "the" else nouns[1]
    past = words[1] in ("yesterday", "once", "then")
    return {("were" if past else "are") if subject.endswith("s") else ("was" if past else "is")}


@pytest.mark.parametrize("name", NAMES)
def test_algorithms_solve_their_tasks(name):
    ids = _ids(name)
    for row, right in zip(ids, ALGORITHMS[name].answers(ids), strict=True):
        assert {ALGORITHMS[name].vocabulary[i] for i in np.flatnonzero(right)} == _by_hand(
            name, _said(name, row)
        )


@pytest.mark.parametrize("name", NAMES)
def test_setting_a_variable_to_its_own_value_changes_nothing(name):
    what, ids = ALGORITHMS[name], _ids(name)
    every = np.ones(len(ids), bool)
    for variable, value in what.values(ids).items():
        if variable in what.by_name:
            assert np.array_equal(what.answers(ids, {variable: (every, value)}), what.answers(ids))


@pytest.mark.parametrize("name", NAMES)
def test_setting_all_that_reads_the_prompt_gives_the_other_answer(name):
    """With every variable of another prompt the answer is that prompt's."""
    what, ids = ALGORITHMS[name], _ids(name)
    other = _ids(name, seed=1)
    every = np.ones(len(ids), bool)
    given = {v.name: (every, what.values(other)[v.name]) for v in what.variables}
    assert np.array_equal(what.answers(ids, given), what.answers(other))


def test_an_intervention_acts_where_it_is_set_only():
    what, ids = ALGORITHMS["agreement"], _ids("agreement")
    where = np.arange(len(ids)) % 2 == 0
    flipped = what.answers(ids, {"number": (where, 1 - what.values(ids)["number"])})
    changed = (flipped != what.answers(ids)).any(1)
    assert np.array_equal(changed, where)


def test_unknown_algorithms_are_refused_with_the_nearest():
    with pytest.raises(NotFound, match="agreement"):
        algorithm("agrement")


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_as_long_as_each_other_and_not_all_alike(name):
    what = ALGORITHMS[name]
    ids = _ids(name)
    assert ids.shape == (300, what.length)
    assert ids.min() >= 0 and ids.max() < len(what.vocabulary)  # noqa: PT018
    assert len(set(what.vocabulary)) == len(what.vocabulary)
    assert not any(" " in word for word in what.vocabulary)
    assert (ids[:, 0] == 0).all()
    assert what.vocabulary[0] == "<bos>"
    assert len(np.unique(what.answers(ids), axis=0)) > 1
    assert np.array_equal(ids, _ids(name))


def test_the_town_is_neither_the_being_nor_what_it_has():
    """Three beings share a town and have three pets; two towns share a food, two a craft, and no two share both."""
    towns = range(len(T.TOWNS))
    for town in towns:
        assert len(set(T.PET_OF[town == T.TOWN_OF])) == 3
    assert sorted(T.FOOD_OF) == sorted(T.CRAFT_OF) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({(T.FOOD_OF[town], T.CRAFT_OF[town]) for town in towns}) == len(T.TOWNS)
    ids = _ids("two-step")
    assert np.array_equal(T.TWO_STEP.answers(ids), T.ONE_STEP.answers(ids))
    every, carried = np.ones(len(ids), bool), T.TWO_STEP.values(ids[::-1])["carried"]
    kept = (T.TWO_STEP.answers(ids, {"carried": (every, carried)}) == T.TWO_STEP.answers(ids)).all(1)
    pet = ids[:, T.QUESTION] == T.VOCABULARY.index("pet")
    assert kept[pet].all()
    assert not kept[~pet].all()
