"""Networks whose algorithm is known: it is supported at its places, plausible others are refuted, twins support nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from known_algorithms import algorithm_of, outcome, places_of, stated

import cutaway
from cutaway.algorithms import Algorithm

NAMES = (
    "agreement-gpt2",
    "docstring-gpt2",
    "cases-gpt2",
    "indirect-object-gpt2",
    "brackets-gpt2",
    "greater-than-gpt2",
)
Wrong = Callable[[], tuple[Algorithm, dict[str, str]]]


@pytest.mark.parametrize("name", NAMES)
def test_the_algorithm_that_it_was_trained_to_is_supported(name: str) -> None:
    found = outcome(name)
    assert found.verdict == "supported", found.claim
    assert min(v.accuracy.value for v in found.variables) >= 0.95
    assert found.plain.value >= 0.95
    assert found.agrees == 1
    assert found.joint is not None
    assert found.joint.value >= 0.95


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("twin", ["~free", "~shuffled", "~random"])
def test_no_twin_is_said_to_run_it(name: str, twin: str) -> None:
    found = outcome(name, twin=twin, n=100)
    assert found.verdict != "supported"
    if found.plain.value < 0.9:
        assert found.verdict == "inconclusive"
        assert "plain prompts" in found.claim.notes[0]


def _plural(word: str) -> bool:
    return word.endswith("s")


def _past(word: str) -> bool:
    return word in ("yesterday", "once", "then")


def _verb(plural: bool, past: bool) -> str:
    return ("were" if past else "are") if plural else ("was" if past else "is")


def nearest_noun() -> tuple[Algorithm, dict[str, str]]:
    """The verb agrees with the noun that stands last."""
    made = cutaway.algorithm(
        "agrees with the last noun", number=lambda w6: _plural(w6), tense=lambda w1: _past(w1), verb=_verb_of,
        answer=lambda verb: verb,
    )  # fmt: skip
    return made, places_of("agreement-gpt2")


def _verb_of(number: bool, tense: bool) -> str:
    return _verb(number, tense)


def number_joins_late() -> tuple[Algorithm, dict[str, str]]:
    """Right answers, but the number joins behind the last MLP."""
    made = cutaway.algorithm(
        "the number joins late", number=lambda w2, w3, w6: _plural(w3 if w2 == "the" else w6),
        tense=lambda w1: _past(w1), verb=lambda tense: tense, answer=lambda number, verb: _verb(number, verb),
    )  # fmt: skip
    return made, places_of("agreement-gpt2")


def number_and_tense_turned() -> tuple[Algorithm, dict[str, str]]:
    """The true algorithm with two places exchanged."""
    where = places_of("agreement-gpt2")
    return algorithm_of("agreement-gpt2"), where | {"number": where["tense"], "tense": where["number"]}


def the_name_at_once() -> tuple[Algorithm, dict[str, str]]:
    """The first head already holds the argument itself."""
    made = cutaway.algorithm(
        "finds the argument at once", place=lambda w4, w5, w6, w7, w8, w12: _nth(w4, w5, w6, w7, w8, w12),
        argument=lambda place: place, answer=lambda argument: argument,
    )  # fmt: skip
    return made, places_of("docstring-gpt2")


def _nth(*words: str) -> str:
    return words[("first", "second", "third", "fourth", "fifth").index(words[-1])]


def always_the_third() -> tuple[Algorithm, dict[str, str]]:
    """Whatever is asked for, the third argument, except that the first is known."""
    made = cutaway.algorithm(
        "first or third", place=lambda w12: 0 if w12 == "first" else 2,
        argument=lambda w4, w5, w6, w7, w8, place: (w4, w5, w6, w7, w8)[place], answer=lambda argument: argument,
    )  # fmt: skip
    return made, places_of("docstring-gpt2")


def no_cases() -> tuple[Algorithm, dict[str, str]]:
    """Right answers, but nothing reads whether the first digit is the larger."""
    made = cutaway.algorithm(
        "compares in the last step", left=lambda w1: int(w1), right=lambda w4: int(w4),
        larger=lambda left, right: left > right,
        result=lambda left, right: (left + right if left > right else left - right) % 10,
        answer=lambda result: str(result),
    )  # fmt: skip
    return made, places_of("cases-gpt2")


def always_adds() -> tuple[Algorithm, dict[str, str]]:
    """The digits are added whichever is larger."""
    where = places_of("cases-gpt2")
    made = cutaway.algorithm(
        "adds", left=lambda w1: int(w1), right=lambda w4: int(w4), result=lambda left, right: (left + right) % 10,
        answer=lambda result: str(result),
    )  # fmt: skip
    return made, {name: place for name, place in where.items() if name != "larger"}


def carries_the_name() -> tuple[Algorithm, dict[str, str]]:
    """Right answers, but the giver's name is carried, not its place."""
    made = cutaway.algorithm(
        "carries the giver's name", duplicate=lambda w9: w9, inhibited=lambda duplicate: duplicate,
        receiver=lambda w2, w4, inhibited: w4 if inhibited == w2 else w2, answer=lambda receiver: receiver,
    )  # fmt: skip
    return made, places_of("indirect-object-gpt2")


def the_receiver_at_once() -> tuple[Algorithm, dict[str, str]]:
    """Right answers, but the receiver's name is known from the first head on."""
    made = cutaway.algorithm(
        "finds the receiver at once", duplicate=lambda w2, w4, w9: w4 if w9 == w2 else w2,
        inhibited=lambda duplicate: duplicate, receiver=lambda inhibited: inhibited, answer=lambda receiver: receiver,
    )  # fmt: skip
    return made, places_of("indirect-object-gpt2")


WRONG: dict[str, tuple[Wrong, ...]] = {
    "agreement-gpt2": (nearest_noun, number_joins_late, number_and_tense_turned),
    "docstring-gpt2": (the_name_at_once, always_the_third),
    "cases-gpt2": (no_cases, always_adds),
    "indirect-object-gpt2": (carries_the_name, the_receiver_at_once),
}


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, several in WRONG.items() for w in several])
def test_a_plausible_wrong_algorithm_is_refuted(name: str, wrong: Wrong) -> None:
    algorithm, where = wrong()
    found = outcome(name, algorithm, where, controls=False)
    assert found.verdict == "refuted", found.claim


@pytest.mark.parametrize("name", WRONG)
def test_rivals_are_refuted_beside_the_true_one(name: str) -> None:
    rivals: list[Any] = [wrong() for wrong in WRONG[name]]
    found = outcome(name, rivals=rivals)
    assert found.verdict == "supported", found.claim
    assert [rival.claim.verdict for rival in found.rivals] == ["refuted"] * len(rivals)
    for rival in found.rivals:
        if rival.apart.n >= 20:
            assert rival.apart.own is not None
            assert rival.apart.other is not None
            assert rival.apart.own.value > rival.apart.other.value


def test_a_rival_is_not_beaten_by_a_wrong_algorithm() -> None:
    algorithm, where = number_joins_late()
    found = outcome(
        "agreement-gpt2", algorithm, where, rivals=[algorithm_of("agreement-gpt2")], controls=False
    )
    assert found.verdict == "refuted"
    rival = found.rivals[0]
    assert rival.claim.verdict == "inconclusive"  # its controls were not run
    assert min(e.value for e in rival.variables.values()) >= 0.95
    assert rival.apart.n >= 20
    assert rival.apart.other is not None
    assert rival.apart.other.value >= 0.95


def test_a_rival_without_differences_is_said_not_to_be_told_apart() -> None:
    name = "agreement-gpt2"
    same = algorithm_of(name)
    found = outcome(
        name, rivals=[Algorithm("the same in other words", same.steps, same.answer)], controls=False
    )
    assert found.rivals[0].apart.n == 0
    assert any("not told apart" in note for note in found.notes)
    assert all(e.passed for e in found.claim.evidence)


def test_places_in_the_zoo_are_those_of_its_truth() -> None:
    for name in NAMES:
        truth = {v.name: (v.site, v.head) for v in cutaway.zoo.truth(name).variables}
        for variable in stated(name).variables:
            site = variable.part.site
            assert site is not None
            assert truth[variable.name] in (
                (str(site), variable.part.index),
                (f"mlp_out.{variable.part.layer}", None),
            )
