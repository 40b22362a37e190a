"""Prompts whose variables are known: pairs that differ in one, halves that share nothing, tables, built-in ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutaway
from cutaway.behaviours import generators, performance
from cutaway.behaviours.cases import LAST, READY, Case, Cases, cases, cases_from, cases_of
from cutaway.errors import BadBehaviour, BadInput, CutawayError, NotFound
from cutaway.network import Network
from cutaway.recipes.words import word_tokenizer

NAMES = ("Ann", "Bob", "Eve", "Tom", "Lea")
THINGS = ("ball", "cup", "hat")
#: The last two names are cut into more tokens than the others.
WORDS = ["BOS", *NAMES, *THINGS, *"saw met and gave the a to then . she he yes no Mary Jane long".split()]
FRAMES = (
    "{A} and {B} met . {S} gave the {thing} to",
    "then {A} saw {B} . {S} gave a {thing} to",
)
MORE = (
    *FRAMES,
    "the {thing} . {A} met {B} . {S} gave the {thing} to",
    "a {thing} and {A} and {B} . {S} gave the hat to",
)


@pytest.fixture(scope="module")
def net(tiny_words: Any) -> Network:
    return tiny_words


@pytest.fixture(scope="module")
def tiny_words() -> Network:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=len(WORDS), n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return cutaway.open(GPT2LMHeadModel(config).eval(), word_tokenizer(WORDS))


VARIABLES: dict[str, Any] = {
    "A": NAMES, "B": NAMES, "first": [True, False], "thing": THINGS, "S": lambda A, B, first: A if first else B
}  # fmt: skip


def giver(A: str, B: str, first: bool) -> str:
    return f" {B if first else A}"


def made(net: Network, frames: Any = FRAMES, n: int = 60, seed: int = 0) -> Cases:
    return cases(net, frames, VARIABLES, giver, differ=("A", "B"), n=n, seed=seed)


def shown(net: Network, case: Case, span: str) -> str:
    start, end = case.spans[span]
    return net.decode(list(case.ids[start:end])).strip()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), variable=st.sampled_from(["A", "B", "first", "thing"]), four=st.booleans())
def test_pairs_differ_in_one_variable_and_in_what_is_derived_from_it(
    net: Network, seed: int, variable: str, four: bool
) -> None:
    every = made(net, MORE if four else FRAMES, n=40, seed=seed % 7)
    pairs = every.changed(net, variable, n=12, seed=seed)
    assert 0 < len(pairs) <= 12
    assert len({(a.ids, b.ids) for a, b in pairs}) == len(pairs)
    for a, b in pairs:
        differing = {name for name in every.variables if a.values[name] != b.values[name]}
        assert variable in differing <= {variable, "S"}
        assert a.template == b.template
        assert a.spans == b.spans
        assert len(a.ids) == len(b.ids)
        for case in (a, b):
            A, B, first = (case.values[name] for name in ("A", "B", "first"))
            assert A != B
            assert case.values["S"] == (A if first else B)
            assert [text for text, _ in case.answers] == [f" {B if first else A}"]


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_spans_name_the_words_that_the_variables_fill(net: Network, seed: int) -> None:
    for case in made(net, n=12, seed=seed):
        for name in ("A", "B", "S", "thing"):
            assert shown(net, case, name) == case.values[name]
        assert shown(net, case, LAST) == "to"
        assert case.spans[LAST] == (len(case.ids) - 1, len(case.ids))
        assert "first" not in case.spans


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), four=st.booleans())
def test_halves_share_no_prompt_and_neither_do_the_pairs_of_both(net: Network, seed: int, four: bool) -> None:
    every = made(net, MORE if four else FRAMES, n=40, seed=seed)
    halves = every.halves()
    assert sum(map(len, halves)) == len(every)
    prompts: list[set[Any]] = []
    for half in halves:
        seen = {case.ids for case in half}
        for variable in ("A", "first", "thing"):
            seen |= {case.ids for pair in half.changed(net, variable, n=20, seed=seed) for case in pair}
        prompts.append(seen)
    assert not prompts[0] & prompts[1]
    if four:
        assert not {c.template for c in halves[0]} & {c.template for c in halves[1]}


def test_the_same_seed_gives_the_same_and_another_one_others(net: Network) -> None:
    one, again, other = (made(net, n=20, seed=seed) for seed in (1, 1, 2))
    assert [c.ids for c in one] == [c.ids for c in again]
    assert one.hash == again.hash != other.hash
    pairs = [one.changed(net, "A", n=8, seed=s) for s in (0, 0, 1)]
    assert [(a.ids, b.ids) for a, b in pairs[0]] == [(a.ids, b.ids) for a, b in pairs[1]]
    assert [(a.ids, b.ids) for a, b in pairs[0]] != [(a.ids, b.ids) for a, b in pairs[2]]


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_crossed_pairs_are_aligned_and_different(net: Network, seed: int, n: int) -> None:
    pairs = made(net, MORE).crossed(n, seed=seed)
    assert len(pairs) == n
    assert len({(a.ids, b.ids) for a, b in pairs}) == n
    for base, source in pairs:
        assert base.ids != source.ids
        assert len(base.ids) == len(source.ids)
        assert dict(base.spans) == dict(source.spans)


def test_a_behaviour_has_the_answers_of_both_and_pairs_that_tell(net: Network) -> None:
    every = made(net)
    pairs = every.behaviour(net, "first", n=10)
    assert pairs.n == 10
    assert pairs.aligned
    assert set(pairs.spans) == {"A", "B", "S", "thing"}
    assert all(r != w for r, w in zip(pairs.right, pairs.wrong, strict=True))
    assert every.behaviour(net, "A", n=10).n == 10
    for a, b in every.telling(net, "A", n=10):  # it changes the answer only where the second gives
        assert not a.values["first"]
        assert not b.values["first"]
    with pytest.raises(BadBehaviour, match="never changes the answer"):
        every.behaviour(net, "thing")


def test_answers_that_hold_one_another_are_told_apart_by_those_that_only_one_prompt_has(net: Network) -> None:
    """Of later and earlier years, the earlier one's answers hold the later one's: the prompts change places."""
    later = {"Ann": ["Bob", "Eve", "Tom"], "Bob": ["Eve", "Tom"], "Eve": ["Tom"]}
    every = cases(net, "then {A} met", {"A": list(later)}, lambda A: [f" {name}" for name in later[A]], n=3)
    pairs = every.behaviour(net, "A")
    assert pairs.n == 3
    for right, wrong in zip(pairs.right_text, pairs.wrong_text, strict=True):
        assert not set(right) & set(wrong)
        assert max(map(NAMES.index, (w.strip() for w in wrong))) < min(
            map(NAMES.index, (r.strip() for r in right))
        )


def test_what_never_varies_and_what_varies_together_is_told(net: Network) -> None:
    every = cases(
        net, "{A} met {B} {C}", {"A": NAMES[:2], "B": ["Tom"], "C": lambda A: A}, lambda A: f" {A}", n=2
    )
    assert every.steady == ("B",)
    assert every.together == (("A", "C"),)
    assert any("'B' never varies" in note for note in every.notes)
    rows = [
        {"text": f"{a} met {b}", "answer": " to", "a": a, "b": b} for a, b in (("Ann", "Bob"), ("Eve", "Tom"))
    ]
    told = cases_from(net, rows)
    assert told.together == (("a", "b"),)
    assert any("One with a = 'Ann' and b = 'Tom' would." in note for note in told.notes)


def test_a_prompt_that_would_tell_what_varies_together_is_made_from_the_frames(net: Network) -> None:
    for seed in range(20):
        few = cases(
            net, "{A} met {B}", {"A": ["Ann", "Bob"], "B": ["Tom", "Eve"]}, lambda A: f" {A}", n=2, seed=seed
        )
        if few.together:
            break
    assert few.together == (("A", "B"),)
    (note,) = [note for note in few.notes if "vary together" in note]
    (text,) = [
        t for a in ("Ann", "Bob") for b in ("Tom", "Eve") if f"One like {(t := f'{a} met {b}')!r}" in note
    ]
    assert text not in {case.text for case in few}
    both = {"C": lambda A: A, "D": lambda A: A * 2}
    alike = cases(net, "{A} met", {"A": ["Ann", "Bob"], **both}, lambda A: f" {A}", n=2)
    assert any("'C' and 'D'" in note and "No prompt of these frames would" in note for note in alike.notes)


def test_crossed_pairs_of_many_groups_are_all_that_there_are() -> None:
    rows = [
        Case(str(i), (i % 7, i // 4), {"a": i}, ((" x", (1,)),), {"s": (i % 2, i % 2 + 1)}) for i in range(20)
    ]
    every = Cases("many", tuple(rows))
    wanted = {
        (a.text, b.text) for a in rows for b in rows
        if a is not b and a.ids != b.ids and a.spans == b.spans
    }  # fmt: skip
    assert {(a.text, b.text) for a, b in every.crossed(10_000)} == wanted
    assert len(every.crossed(25, seed=3)) == 25
    assert every.crossed(25, seed=3) != every.crossed(25, seed=4)


def test_fewer_prompts_than_asked_are_told(net: Network) -> None:
    every = cases(net, "{A} met", {"A": NAMES}, lambda A: " to", n=50)
    assert len(every) == 5
    assert any("There are 5 different prompts; 50 were asked for" in note for note in every.notes)


# --------------------------------------------------------------------------------------------------------- bad input

BAD: dict[str, tuple[Callable[[Network], Any], str]] = {
    "a misspelt slot": (lambda net: cases(net, "{Aa} met", {"A": NAMES}, lambda A: A), "slot 'Aa'.*Did you mean A"),
    "a misspelt variable": (
        lambda net: cases(net, "{A} met", {"A": NAMES, "S": lambda Aa: Aa}, lambda A: A), "'S' reads 'Aa'.*Did you mean A"
    ),
    "an answer that reads none": (lambda net: cases(net, "{A} met", {"A": NAMES}, lambda B: B), "The answer reads 'B'"),
    "values that are a text": (lambda net: cases(net, "{A} met", {"A": "Ann"}, lambda A: A), "values of 'A' are 'Ann'"),
    "values that are none": (lambda net: cases(net, "{A} met", {"A": []}, lambda A: A), "values of 'A'"),
    "values of no kind": (lambda net: cases(net, "{A} met", {"A": [None]}, lambda A: A), "values of 'A'"),
    "an answer that is a text": (lambda net: cases(net, "{A} met", {"A": NAMES}, " Ann"), "answer is ' Ann'"),
    "an answer that gives none": (lambda net: cases(net, "{A} met", {"A": NAMES}, lambda A: None), "is None"),
    "an answer that gives a number": (lambda net: cases(net, "{A} met", {"A": NAMES}, lambda A: 3), "is 3"),
    "a function that fails": (lambda net: cases(net, "{A} met", {"A": NAMES}, lambda A: A["x"]), "TypeError"),
    "a variable that fails": (
        lambda net: cases(net, "{A} met", {"A": NAMES, "S": lambda A: 1 / 0}, lambda A: A), "variable 'S'.*ZeroDivision"
    ),
    "a variable that is a list": (
        lambda net: cases(net, "{A} met", {"A": NAMES, "S": lambda A: [A]}, lambda A: A), "variable 'S'"
    ),
    "a function without names": (lambda net: cases(net, "{A} met", {"A": NAMES}, lambda *a: "x"), "have no names"),
    "a built-in function": (lambda net: cases(net, "{A} met", {"A": NAMES}, len), "names|parameters"),
    "no variable": (lambda net: cases(net, "Ann met", {}, lambda: " to"), "no variable"),
    "only derived ones": (lambda net: cases(net, "{S} met", {"S": lambda: "Ann"}, lambda S: S), "computed from others"),
    "no frame": (lambda net: cases(net, [], {"A": NAMES}, lambda A: A), "frames are"),
    "frames of numbers": (lambda net: cases(net, [3], {"A": NAMES}, lambda A: A), "frames, not \\[3\\]"),
    "one to differ that is not free": (
        lambda net: cases(net, "{A} met", {"A": NAMES}, lambda A: A, differ=["Aa"]), "'Aa' is no free variable"
    ),
    "the name of the last token": (lambda net: cases(net, "{last}", {"last": NAMES}, lambda last: last), "last token"),
    "none asked for": (lambda net: cases(net, "{A} met", {"A": NAMES}, lambda A: A, n=0), "n=0"),
    "values that never stand together": (
        lambda net: cases(net, "{A} {B}", {"A": ["Ann"], "B": ["Ann"]}, lambda A: A, differ=["A", "B"]), "No prompt"
    ),
    "a derived variable to change": (lambda net: made(net).changed(net, "S"), "'S'.*is derived"),
    "a variable that is not there": (lambda net: made(net).changed(net, "thnig"), "Did you mean thing"),
    "no pairs asked for": (lambda net: made(net).changed(net, "A", n=0), "n=0"),
    "values of a variable that is not there": (lambda net: made(net).values("x"), "no variable 'x'"),
    "rows that are none": (lambda net: cases_from(net, "Ann"), "no table"),
    "no rows": (lambda net: cases_from(net, []), "no rows"),
    "a row without an answer": (lambda net: cases_from(net, [{"text": "Ann", "A": 1}]), "no 'answer'"),
    "a table without variables": (lambda net: cases_from(net, [{"text": "Ann", "answer": " to"}]), "no variable"),
    "rows of other columns": (
        lambda net: cases_from(net, [{"text": "Ann", "answer": " to", "A": 1}, {"text": "Bob", "answer": " to", "B": 1}]),
        "same columns",
    ),
    "a value that is missing": (
        lambda net: cases_from(net, pd.DataFrame({"text": ["Ann"], "answer": [" to"], "A": [float("nan")]})), "A = nan"
    ),
    "words that are not there": (
        lambda net: cases_from(net, [{"text": "Ann met", "answer": " to", "A": 1, "spans": {"who": "Bob"}}]), "'Bob'"
    ),
    "a span beyond the prompt": (
        lambda net: cases_from(net, [{"text": [1, 2], "answer": 3, "A": 1, "spans": {"who": [1, 9]}}]), "2 tokens"
    ),
    "a derived column that is not there": (
        lambda net: cases_from(net, [{"text": "Ann", "answer": " to", "A": 1}], derived=["B"]), "no column 'B'"
    ),
    "cases that there are not": (lambda net: cases_of("pronuon", net), "Did you mean pronoun"),
    "no cases": (lambda net: Cases("x", ()), "no cases"),
    "cases of other variables": (
        lambda net: Cases("x", (Case("a", (1,), {"A": 1}, ()), Case("b", (2,), {"B": 1}, ()))), "Case 1 has values of B"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD, ids=lambda what: what.replace(" ", "-"))
def test_what_cannot_be_meant_is_refused_in_a_sentence(net: Network, what: str) -> None:
    call, says = BAD[what]
    with pytest.raises(CutawayError, match=f"(?s){says}"):
        call(net)


def test_an_answer_that_melts_into_the_prompt_is_refused() -> None:
    net = cutaway.open("zoo:tales")
    with pytest.raises(BadBehaviour, match="does not begin with a token of its own"):
        cases(net, "{A} was hap", {"A": ["Tom", "Lily"]}, lambda A: "py", n=2)


def test_values_of_unequal_numbers_of_tokens_make_no_pairs(net: Network) -> None:
    every = cases(net, "then {A} met", {"A": ["Ann", "Mary Jane"]}, lambda A: f" {A}", n=2)
    assert len(every) == 2
    with pytest.raises(BadBehaviour, match="differ in 'A' alone.*as many tokens"):
        every.changed(net, "A")
    with pytest.raises(BadBehaviour, match="words at the same tokens"):
        every.crossed(3)


def test_one_prompt_cannot_be_halved(net: Network) -> None:
    with pytest.raises(BadBehaviour, match="cannot be halved"):
        cases(net, "then {A} met", {"A": ["Ann"]}, lambda A: " to", n=1).halves()


# ------------------------------------------------------------------------------------------------------------- tables


def rows() -> list[dict[str, Any]]:
    return [
        {"text": f"{a} met {b} . {a if first else b} gave the {thing} to", "answer": f" {b if first else a}", "A": a,
         "B": b, "first": first, "thing": thing, "spans": {"A": a, "S": [a if first else b, 2]}}
        for a in NAMES for b in NAMES if a != b for first in (True, False) for thing in THINGS
    ]  # fmt: skip


@pytest.mark.parametrize("form", [lambda r: r, pd.DataFrame, tuple, iter])
def test_a_table_gives_cases_with_its_columns_as_variables(net: Network, form: Callable[[Any], Any]) -> None:
    every = cases_from(net, form(rows()), derived={"S": lambda A, B, first: A if first else B})
    assert every.frames is None
    assert every.free == ("A", "B", "first", "thing")
    assert every.variables == ("A", "B", "first", "thing", "S")
    for case in every:
        assert shown(net, case, "A") == case.values["A"]
        assert shown(net, case, "S") == case.values["S"]
        assert case.spans["S"][0] == 5
        assert shown(net, case, "thing") == case.values["thing"]  # stands once: it needs no span of its own
    for a, b in every.changed(net, "A", n=20):
        assert {v for v in every.free if a.values[v] != b.values[v]} == {"A"}


def test_halves_of_a_table_keep_what_differs_in_one_variable_together(net: Network) -> None:
    every = cases_from(net, rows())
    halves = every.halves()
    assert not {c.ids for c in halves[0]} & {c.ids for c in halves[1]}
    for half in halves:
        for variable in ("A", "first", "thing"):
            assert half.changed(net, variable, n=4)


def test_halves_of_a_table_of_recurring_values_hold_all_of_these(net: Network) -> None:
    table = [
        {"text": f"{name} met {thing}", "answer": " yes" if one == two else " no", "one": one, "two": two}
        for i, name in enumerate(NAMES) for j, thing in enumerate(THINGS) for one, two in [(i % 2, j % 2)]
    ]  # fmt: skip
    for half in cases_from(net, table).halves():
        assert {(c.values["one"], c.values["two"]) for c in half} == {(0, 0), (0, 1), (1, 0), (1, 1)}
        assert half.behaviour(net, "one", n=3).n == 3


def test_prompts_of_token_ids(net: Network) -> None:
    table = [
        {"text": [1 + a, 9, 1 + b], "answer": [1 + a], "a": a, "b": b, "spans": {"a": [0, 1]}, "answer_pos": 2}
        for a in range(3) for b in range(3)
    ]  # fmt: skip
    every = cases_from(net, table)
    assert every.cases[0].ids == (1, 9, 1)
    assert every.cases[0].answers == (("1", (1,)),)
    assert every.cases[0].spans == {"a": (0, 1), LAST: (2, 3)}
    pairs = every.behaviour(net, "a", n=4)
    assert not pairs.from_text
    assert pairs.n == 4
    assert performance(net, pairs).accuracy.n == 4


def test_rows_that_say_the_same_count_once(net: Network) -> None:
    twice = cases_from(net, rows()[:4] * 2)
    assert len(twice) == 4
    assert any("4 rows say what another row says" in note for note in twice.notes)


# ------------------------------------------------------------------------------------------------------ ready cases

GENERATOR = {"capitals": "facts"}
#: Which variables change the answer by themselves.
TELLING = {
    "ioi": {"A", "B", "first"}, "greater-than": {"year"}, "agreement": {"number", "tense"}, "pronoun": {"gender"},
    "capitals": {"country"},
}  # fmt: skip


#: Of which this small network knows the words.
KNOWN = [name for name in READY if name != "cities"]


@pytest.mark.parametrize("name", KNOWN)
def test_ready_cases_use_the_frames_and_words_of_the_generator(tales_net: Network, name: str) -> None:
    every = cases_of(name, tales_net, 60)
    assert len(every) > 20
    pairs = generators.GENERATORS[GENERATOR.get(name, name)](tales_net, 200)
    known = {word for text in pairs.clean for word in text.split() if not word.isdigit()}
    words = {word for case in every for word in case.text.split() if not word.isdigit()}
    assert len(words & known) > 0.6 * len(words)
    forms = {len(frame.split()) for frame in pairs.template}
    assert {len(case.template.split()) for case in every} <= forms | {n + 1 for n in forms}


@pytest.mark.parametrize("name", KNOWN)
def test_what_changes_the_answer_of_ready_cases(tales_net: Network, name: str) -> None:
    every = cases_of(name, tales_net, 60)
    telling = set()
    for variable in every.free:
        try:
            every.behaviour(tales_net, variable, n=4)
        except BadBehaviour:
            continue
        telling.add(variable)
    assert telling == TELLING[name]


REFUSED = {("stories", "capitals"), ("stories", "cities")}


@pytest.mark.parametrize("tokenizer", ["gpt2", "stories"])
@pytest.mark.parametrize("name", READY)
def test_ready_cases_of_other_tokenizers(net_of: Callable[[str], Network], tokenizer: str, name: str) -> None:
    if (tokenizer, name) in REFUSED:
        with pytest.raises(BadBehaviour, match="needs"):
            cases_of(name, net_of(tokenizer), 24)
        return
    every = cases_of(name, net_of(tokenizer), 24)
    assert len(every) >= 8
    assert every.halves()


def test_ready_cases_are_performed_by_who_knows_them(tales_net: Network) -> None:
    assert performance(
        tales_net, cases_of("pronoun", tales_net, 60).behaviour(tales_net, "gender", n=30)
    ).does_it


def test_there_are_no_other_ready_cases(tales_net: Network) -> None:
    with pytest.raises(NotFound, match="There are no cases of 'docstrings'"):
        cases_of("docstrings", tales_net)


def test_a_table_is_refused_where_it_is_a_mapping(net: Network) -> None:
    with pytest.raises(BadInput, match="no table"):
        cases_from(net, {"text": ["a"]})
