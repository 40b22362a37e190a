"""Is it the intended computation: on networks whose computation is known, with what is intended and feared turned round."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from known_algorithms import algorithm_of, cases_of, places_of

import cutaway
from cutaway.algorithms import Algorithm
from cutaway.algorithms.intended import IntendedLimits, IntendedTest, intended
from cutaway.algorithms.intended.apart import come_apart
from cutaway.algorithms.intended.telling import ANOTHER, INTENDED, MIXTURE, NOT_SHOWN, SAME
from cutaway.behaviours.cases import Case, Cases, choose_cases
from cutaway.errors import BadBehaviour, BadInput, CutawayError, Stopped, UnknownOption
from cutaway.network import Network
from cutaway.results import Progress, Work

NAMES = ["Mary", "John", "Anna", "Tom", "Lucy", "James", "Emma", "Peter"]
FRAMES = [
    "When {A} and {B} went to park , {S} gave the ball to",
    "Then {A} and {B} went to school , {S} sold the cup to",
]
WHERE = {"duplicate": "a0.h3@all", "inhibited": "a1.h0@all", "receiver": "a2.h2@all"}


@cache
def network(name: str = "indirect-object-gpt2") -> Network:
    return cutaway.open(f"zoo:{name}")


def giving(frames: Any = tuple(FRAMES), n: int = 120, name: str = "who gets it", **other: Any) -> Cases:
    variables = {
        "A": NAMES,
        "B": NAMES,
        "first": [True, False],
        "S": lambda A, B, first: A if first else B,
    } | other
    variables = {k: v for k, v in variables.items() if v is not None}
    answer = other.get("answer") or (lambda A, B, S: f" {B if S == A else A}")
    variables.pop("answer", None)
    return cutaway.cases(network(), list(frames), variables, answer, differ=["A", "B"], name=name, n=n)


def the_other() -> Algorithm:
    return cutaway.algorithm(
        "the other one", duplicate=lambda A, S: 0 if S == A else 1, inhibited=lambda duplicate: duplicate,
        receiver=lambda A, B, inhibited: (B, A)[inhibited], answer=lambda receiver: f" {receiver}",
    )  # fmt: skip


def the_first() -> Algorithm:
    return cutaway.algorithm("the first one", receiver=lambda A: A, answer=lambda receiver: f" {receiver}")


@pytest.mark.parametrize("name", ["indirect-object-gpt2", "indirect-object-llama"])
def test_what_a_network_was_trained_to_is_intended_and_turned_round_it_is_refuted(name: str) -> None:
    net = network(name)
    found = intended(net, giving(), the_other(), [the_first()])
    assert found.follows == INTENDED
    assert found.verdict == "supported"
    assert [claim.verdict for claim in found.feared_claims] == ["refuted"]
    one = found.here.followed[0]
    assert one.own is not None
    assert one.n == one.at_hand + one.made >= 40
    turned = intended(net, giving(), the_first(), the_other())
    assert turned.follows == "feared: the other one"
    assert turned.verdict == "refuted"
    assert turned.feared_claims[0].verdict == "supported"
    assert "which is feared" in turned.headline


@pytest.mark.parametrize("name", ["agreement-gpt2", "agreement-llama"])
def test_the_verb_agrees_with_its_subject_and_not_with_the_noun_before_it(name: str) -> None:
    def verb(number: bool, tense: bool) -> str:
        return ("were" if tense else "are") if number else ("was" if tense else "is")

    nearest = cutaway.algorithm(
        "agrees with the last noun", number=lambda w6: w6.endswith("s"),
        tense=lambda w1: w1 in ("yesterday", "once", "then"), answer=verb,
    )  # fmt: skip
    goal, where = algorithm_of(name), {"number": places_of(name)["number"]}
    found = intended(network(name), cases_of(name, 400), goal, nearest, where=where, n=60)
    assert found.follows == INTENDED
    assert found.here.followed[0].made == 0  # these prompts came without frames
    assert found.inside is not None
    assert found.inside["number"].accuracy.value > 0.95
    assert found.inside.rivals[0].claim.verdict == "refuted"
    turned = intended(network(name), cases_of(name, 400), nearest, goal, n=60)
    assert turned.verdict == "refuted"


def test_the_mechanism_is_told_as_well_and_a_shift_keeps_it() -> None:
    shift = giving(FRAMES[1:], 80, "another frame")
    found = intended(network(), giving(), the_other(), the_first(), where=WHERE, shifted=shift, n=40)
    assert found.inside is not None
    assert found.inside.verdict == "supported"
    assert found.inside.rivals[0].claim.verdict == "refuted"
    assert found.shift == SAME
    assert found.shift_claim is not None
    assert found.shift_claim.supported
    assert len(found.sentences) == 3
    assert found.follows_shifted == INTENDED


def test_a_shift_without_places_or_on_which_something_else_is_done_is_not_the_same_mechanism() -> None:
    shift = giving(FRAMES[1:], 60, "another frame")
    plain = intended(network(), giving(), the_other(), the_first(), shifted=shift, n=60)
    assert plain.shift == NOT_SHOWN
    assert any("No places" in note for note in plain.shift_claim.notes)  # type: ignore[union-attr]
    # in the shifted cases the variables are called otherwise: what is intended there is not what the network does
    turned = giving(FRAMES, 60, "turned", first=None, S=lambda A, B: B, A=NAMES)
    swapped = Cases("turned round", tuple(_turned(case) for case in giving()), derived=("S",))
    other = intended(network(), giving(), the_other(), the_first(), shifted=swapped, n=60)
    assert other.shift == ANOTHER
    assert other.follows_shifted.startswith("feared") or other.shifted_claim.verdict == "refuted"  # type: ignore[union-attr]
    assert len(turned) > 0


def _turned(case: Case) -> Case:
    """The same prompt of which it is said that the name that does not come again gave."""
    values = dict(case.values)
    values["S"] = values["B"] if values["S"] == values["A"] else values["A"]
    answer = f" {values['B'] if values['S'] == values['A'] else values['A']}"
    ids = network().continuation_ids(answer)
    return Case(
        case.text, case.ids, values, ((answer, tuple(ids)),), case.spans, case.template, case.answer_pos
    )


def test_a_mixture_is_inconclusive_and_its_shares_are_told() -> None:
    early = ("Anna", "Emma", "James", "John")
    right = lambda A, B, S: B if S == A else A  # noqa: E731
    one = cutaway.algorithm(
        "right for early names",
        who=right,
        answer=lambda who, A, B: f" {who if A in early else B if who == A else A}",
    )
    two = cutaway.algorithm(
        "right for late names",
        who=right,
        answer=lambda who, A, B: f" {who if A not in early else B if who == A else A}",
    )
    found = intended(network(), giving(), one, two)
    assert found.follows == MIXTURE
    assert found.verdict == "inconclusive"
    share = found.here.followed[0]
    assert share.own is not None
    assert share.other is not None
    assert 0.2 < share.own.value < 0.8
    assert share.own.value + share.other.value == pytest.approx(1.0)


def test_random_weights_follow_neither() -> None:
    fresh = network().randomized(3)
    found = intended(fresh, giving(), the_other(), the_first())
    assert found.verdict != "supported"
    assert all(claim.verdict != "supported" for claim in found.feared_claims)


def test_where_the_prompts_at_hand_never_come_apart_others_are_made() -> None:
    cases = giving()
    always = cases.take([i for i, case in enumerate(cases) if case.values["S"] == case.values["B"]])
    found = intended(network(), always, the_other(), the_first(), n=60)
    one = found.here.followed[0]
    assert one.at_hand == 0
    assert one.made >= 40
    assert any("were made on which they do" in note for note in found.notes)
    assert found.follows == INTENDED


def test_where_they_can_never_come_apart_it_is_said_which_prompts_would_tell() -> None:
    locked = giving(first=None, S=lambda A, B: B, answer=lambda A: f" {A}")
    with pytest.raises(
        BadBehaviour, match=r"the same answer. Prompts would tell them apart in which, for example, A="
    ):
        intended(network(), locked, the_other(), the_first())
    table = Cases("a table", tuple(c for c in giving() if c.values["S"] == c.values["B"]))
    with pytest.raises(BadBehaviour, match="came without frames"):
        intended(network(), table, the_other(), the_first())
    same = cutaway.algorithm("the same by another name", answer=lambda A, B, S: f" {B if S == A else A}")
    with pytest.raises(BadBehaviour, match="one computation"):
        intended(network(), giving(), the_other(), same)


def test_one_of_several_feared_that_cannot_be_told_caps_the_verdict() -> None:
    same = cutaway.algorithm("the same by another name", answer=lambda A, B, S: f" {B if S == A else A}")
    found = intended(network(), giving(), the_other(), [the_first(), same], n=60)
    assert found.verdict == "inconclusive"
    assert any("'the same by another name' is not told apart" in note for note in found.claim.notes)


def test_nothing_feared_supports_nothing() -> None:
    found = intended(network(), giving(), the_other(), n=40)
    assert found.verdict == "inconclusive"
    assert found.feared_claims == ()


def test_without_controls_nothing_is_supported() -> None:
    found = intended(network(), giving(), the_other(), the_first(), controls=False, n=60)
    assert found.verdict == "inconclusive"
    assert all(claim.verdict != "supported" for claim in found.feared_claims)


def test_prompts_with_chosen_values_are_of_the_same_half_and_new() -> None:
    held = giving(n=60).halves()[1]
    made = choose_cases(network(), held, 30, lambda v: v["S"] == v["A"], seed=2)
    assert len(made.cases) > 10
    assert all(case.values["A"] == case.values["S"] for case in made.cases)
    assert not {case.ids for case in made.cases} & {case.ids for case in held}
    assert all(held.same_half(case) for case in made.cases)
    none = choose_cases(network(), held, 5, lambda v: False)
    assert not none.cases
    assert none.every
    assert none.tried == 128


def test_coming_apart_is_having_no_answer_in_common() -> None:
    several = cutaway.algorithm("several", answer=lambda a: ("x", a))
    single = cutaway.algorithm("single", answer=lambda a: "x" if a == "z" else "q")
    assert not come_apart(several, single, {"a": "z"})
    assert come_apart(several, single, {"a": "y"})


def test_it_is_saved_loaded_drawn_and_told(tmp_path: Path) -> None:
    from cutaway.reports import render

    found = intended(network(), giving(), the_other(), the_first(), where=WHERE, n=24)
    again = cutaway.load(found.save(tmp_path / "intended"))
    assert isinstance(again, IntendedTest)
    assert again.to_dict() == found.to_dict()
    assert again.headline == found.headline
    assert found.plot().data
    assert "What is used inside" in render(found.page())
    assert set(found.to_pandas()["what"]) >= {"as intended", "as feared", "neither", "where all agree"}


def test_a_stop_keeps_what_was_answered() -> None:
    work = Work(lambda p: work.ends.set() if p.label.startswith("exchanging") else None)
    found = intended(network(), giving(), the_other(), the_first(), where=WHERE, n=40, work=work)
    assert not found.complete
    assert found.inside is None
    assert found.verdict == "inconclusive"
    early = Work(_at_once := lambda p: early.ends.set() if p.price is None else None)
    assert _at_once is not None
    with pytest.raises(Stopped):
        intended(network(), giving(), the_other(), the_first(), n=40, work=early)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"cases": 3}, BadInput), ({"feared": "the first"}, BadInput), ({"feared": [3]}, BadInput), ({"n": 0}, BadInput),
        ({"limits": 3}, BadInput), ({"shifted": 3}, BadInput), ({"intended": 3}, BadInput), ({"wher": WHERE}, UnknownOption),
        ({"where": {"nothing": "a0.h0"}}, BadInput),
        ({"feared": cutaway.algorithm("absent", answer=lambda nobody: nobody)}, BadInput),
        ({"feared": cutaway.algorithm("raises", answer=lambda A: A[99])}, BadInput),
        ({"feared": cutaway.algorithm("the other one", answer=lambda A: A)}, BadInput),
        ({"feared": cutaway.algorithm("no such answer", answer=lambda A: " zebra")}, BadInput),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said(change: dict[str, Any], error: type[CutawayError]) -> None:
    asked: dict[str, Any] = {
        "cases": giving(),
        "intended": the_other(),
        "feared": the_first(),
        "n": 20,
    } | change
    with pytest.raises(error):
        intended(network(), **asked)


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput):
        IntendedLimits(follows=1.5)


def test_a_listener_hears_the_price_beforehand() -> None:
    heard: list[Progress] = []
    found = intended(
        network(), giving(), the_other(), the_first(), where=WHERE, n=30, work=Work(heard.append)
    )
    priced = [p for p in heard if p.price is not None]
    assert len(priced) == 1
    assert priced[0].price is not None
    assert priced[0].price.forwards == pytest.approx(found.provenance.forwards, rel=0.3)
