"""Contrast pairs as cases: what differs is the variable, at the span that holds it, and halves share no pair."""

from __future__ import annotations

import pytest

import cutaway
from cutaway.behaviours.cases import LAST, cases_of_pairs
from cutaway.errors import BadBehaviour


@pytest.fixture(scope="module")
def tales():
    return cutaway.open("zoo:tales")


@pytest.mark.parametrize(("name", "variable"), [("pronoun", "name"), ("ioi", "S2"), ("agreement", "subject")])
def test_what_differs_is_the_variable(tales, name: str, variable: str):
    pairs = cutaway.behaviour(name, tales, n=24, seed=3)
    made = cases_of_pairs(tales, pairs)
    assert made.variables == (variable, "pair")
    assert len(made) == 2 * pairs.n
    for one, other in made.changed(tales, variable):
        row = one.values["pair"]
        assert row == other.values["pair"]
        start, stop = one.spans[variable]
        differs = [i for i, (a, b) in enumerate(zip(one.ids, other.ids, strict=True)) if a != b]
        assert differs
        assert all(start <= i < stop for i in differs)
        assert {one.ids, other.ids} == {pairs.clean_ids[row], pairs.corrupted_ids[row]}
        assert one.values[variable] != other.values[variable]


def test_answers_and_the_last_token_are_those_of_the_pairs(tales):
    pairs = cutaway.behaviour("pronoun", tales, n=16)
    clean, corrupted = cases_of_pairs(tales, pairs).cases[:2]
    assert tuple(ids[0] for _, ids in clean.answers) == pairs.right[0]
    assert tuple(ids[0] for _, ids in corrupted.answers) == pairs.wrong[0]
    last = pairs.answer_pos[0] % len(clean.ids)
    assert clean.spans[LAST] == (last, last + 1)


def test_halves_share_no_pair(tales):
    one, other = cases_of_pairs(tales, cutaway.behaviour("pronoun", tales, n=40)).halves()
    assert not {c.values["pair"] for c in one} & {c.values["pair"] for c in other}


def test_a_pair_of_own_prompts_has_a_span_where_it_differs(tales):
    behaviour = cutaway.behaviour(
        [
            {"clean": "Lily was sad because", "corrupted": "Tom was sad because", "right": " she", "wrong": " he"},
            {"clean": "Nina was sad because", "corrupted": "Ben was sad because", "right": " she", "wrong": " he"},
        ],
        tales,
        force=True,
    )  # fmt: skip
    made = cases_of_pairs(tales, behaviour)
    assert made.variables[0] == "difference"
    assert [c.values["difference"] for c in made] == ["Lily", "Tom", "Nina", "Ben"]
    assert "Known to vary is only" in made.notes[-1]


def test_pairs_of_unequal_length_are_told_or_refused(tales):
    rows = [
        {"clean": "Lily was sad because", "corrupted": "The big dog was sad because", "right": " she", "wrong": " it"},
        {"clean": "Nina was sad because", "corrupted": "Ben was sad because", "right": " she", "wrong": " he"},
    ]  # fmt: skip
    behaviour = cutaway.behaviour(rows, tales, force=True)
    made = cases_of_pairs(tales, behaviour)
    assert len(made) == 2
    assert any("differ in length" in note for note in made.notes)
    with pytest.raises(BadBehaviour, match="as many tokens"):
        cases_of_pairs(tales, cutaway.behaviour(rows[:1], tales, force=True))
