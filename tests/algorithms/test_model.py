"""The model's identities, and what is refused of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutaway
from cutaway.algorithms import Algorithm, Step
from cutaway.behaviours.cases import Case, Cases
from cutaway.errors import BadInput

INPUTS = ("a", "b", "c")
values = st.fixed_dictionaries({name: st.integers(0, 6) for name in INPUTS})


@st.composite
def algorithms(draw: st.DrawFn) -> Algorithm:
    """Linear steps modulo seven, each of some of what is before it."""
    known, steps = list(INPUTS), []
    for i in range(draw(st.integers(1, 4))):
        reads = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        factors = draw(st.lists(st.integers(0, 6), min_size=len(reads), max_size=len(reads)))
        steps.append(Step(f"s{i}", tuple(reads), _linear(factors)))
        known.append(f"s{i}")
    read = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    answer = _linear([1] * len(read))
    return Algorithm("drawn", tuple(steps), Step("answer", tuple(read), lambda *given: f" {answer(*given)}"))


def _linear(factors: list[int]) -> Any:
    return lambda *given: sum(f * g for f, g in zip(factors, given, strict=True)) % 7


@given(algorithms(), values)
def test_giving_a_variable_its_own_value_changes_nothing(
    algorithm: Algorithm, prompt: dict[str, int]
) -> None:
    plain = algorithm.run(prompt)
    for name in algorithm.variables:
        assert algorithm.run(prompt, {name: plain[name]}) == plain
    assert algorithm.answers(prompt, plain) == algorithm.answers(prompt)


@given(algorithms(), values, values)
def test_giving_all_inputs_of_another_prompt_gives_its_answers(
    algorithm: Algorithm, base: dict[str, int], source: dict[str, int]
) -> None:
    inputs = {name: source[name] for name in algorithm.inputs}
    assert algorithm.run(base, inputs) == algorithm.run(source)
    assert algorithm.answers(base, inputs) == algorithm.answers(source)


@given(algorithms(), values, values)
def test_what_the_answer_reads_decides_it(
    algorithm: Algorithm, base: dict[str, int], source: dict[str, int]
) -> None:
    other = algorithm.run(source)
    read = {name: other[name] for name in algorithm.answer.reads}
    assert algorithm.answers(base, read) == algorithm.answers(source)


@given(algorithms(), values, st.data())
def test_setting_a_variable_moves_only_what_is_computed_from_it(
    algorithm: Algorithm, prompt: dict[str, int], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(algorithm.variables))
    plain, after = algorithm.run(prompt), algorithm.run(prompt, {name: 9})
    below, todo = {name}, [name]
    while todo:
        for child in algorithm.children(todo.pop()):
            if child != "answer" and child not in below:
                below.add(child)
                todo.append(child)
    assert {other for other in plain if plain[other] != after[other]} <= below
    assert after[name] == 9


def test_steps_are_put_in_order() -> None:
    made = cutaway.algorithm(
        "turned", late=lambda early: early + 1, early=lambda a: a, answer=lambda late: f" {late}"
    )
    assert [step.name for step in made.steps] == ["early", "late"]
    assert made.answers({"a": 1}) == (" 2",)
    assert made.edges() == (("a", "early"), ("early", "late"), ("late", "answer"))


def one(values: dict[str, Any]) -> Cases:
    return Cases("one", (Case("x", (1, 2), values, ((" x", (3,)),)),))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cutaway.algorithm("bad", x=3, answer=lambda x: x), "step 'x' is 3"),
        (lambda: cutaway.algorithm("bad", answer="x"), "answer is 'x'"),
        (lambda: cutaway.algorithm("bad", x=lambda *a: a, answer=lambda x: x), "arguments have no names"),
        (lambda: cutaway.algorithm("bad", x=lambda y: y, y=lambda x: x, answer=lambda x: x), "circle"),
        (lambda: Algorithm("bad", (Step("x", (), int), Step("x", (), int)), Step("answer", (), str)), "Two steps"),
        (lambda: cutaway.algorithm("bad", answer=lambda S: S).run({"s": 1}), "reads 'S'"),
        (lambda: cutaway.algorithm("bad", answer=lambda S: S).run({"S": 1}, {"T": 1}), "no variable 'T'"),
        (lambda: cutaway.algorithm("bad", answer=lambda S: S).answers({"S": 1}), "is 1"),
        (lambda: cutaway.algorithm("bad", answer=lambda S: [S, 1]).answers({"S": "a"}), "is \\['a', 1\\]"),
        (lambda: cutaway.algorithm("bad", x=lambda S: 1 / S, answer=lambda x: x).run({"S": 0}),
         "step 'x' of 'bad' failed on {'S': 0}: ZeroDivisionError"),
        (lambda: cutaway.algorithm("bad", x=lambda A: A, answer=lambda x: x).require(one({"S": 0, "AA": 1})),
         "reads 'A'.*Did you mean AA"),
        (lambda: cutaway.algorithm("bad", S=lambda A: A, answer=lambda S: S).require(one({"S": 0, "A": 1})),
         "step 'S' of 'bad' is called as a variable"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make()
