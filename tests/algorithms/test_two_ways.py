"""Networks that solve one task in different ways: the way that each was made to go is supported, the other refuted."""

from __future__ import annotations

from typing import Any

import pytest

import cutaway
from cutaway.algorithms import algorithms_of
from cutaway.behaviours.cases import cases_of

#: The networks, with the variables of the other way whose exchange gives it away.
GIVEN_AWAY = {
    "duplicate-gpt2": {"counts"},
    "counted-duplicate-llama": {"found"},
    "fourier-addition-gpt2": {"first", "second"},
    "table-addition-neox": {"wave1", "wave2", "wave3", "wave5"},
    "two-step-gpt2": {"being"},
    "two-step-llama": {"being"},
    "one-step-gpt2": {"town", "carried", "pet"},
}


def outcome(name: str, way: int, **options: Any) -> Any:
    """The test of a way on a network, or on the twin that is named."""
    net = cutaway.open(f"zoo:{name}")
    algorithm, where = list(algorithms_of(f"zoo:{name}").values())[way]
    cases = cases_of(f"zoo:{name}", net, 256, seed=3)
    return cutaway.test_algorithm(net, cases, algorithm, where, **options)


@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_the_way_that_it_goes_is_supported_and_the_other_refuted(name: str) -> None:
    found = outcome(name, 0, n=120)
    assert found.verdict == "supported", found.claim
    assert min(v.accuracy.value for v in found.variables) >= 0.95
    other = outcome(name, 1, n=80, controls=False)
    assert other.verdict == "refuted", other.claim
    assert other.plain.value == other.agrees == 1  # it answers just as well
    assert {v.name for v in other.variables if v.accuracy.value < 0.9} == GIVEN_AWAY[name]


@pytest.mark.parametrize("name", ["two-step-gpt2~free", "one-step-llama~shuffled"])
def test_a_network_that_was_left_alone_is_said_to_go_neither_way(name: str) -> None:
    for way in (0, 1):
        assert outcome(name, way, n=60).verdict != "supported"


def test_what_holds_the_town_is_neither_the_being_nor_the_answer() -> None:
    """In both networks of the task a being of the same town changes nothing but the pet, and only in one of them is there a
    place that leaves the pet, too."""
    for name, kept in (("two-step-gpt2", 1.0), ("one-step-gpt2", 0.0)):
        net = cutaway.open(f"zoo:{name}")
        cases = cases_of(f"zoo:{name}", net, 256, seed=4)
        (_, where), told = list(algorithms_of(f"zoo:{name}").values())[0], []
        (place,) = where["carried" if "carried" in where else "being"]
        pets = [case for case in cases if case.values["asked"] == "pet"]
        for base in pets[:24]:
            source = next(
                other for other in pets
                if base.aligned(other) and base.template == other.template and base.values["own"] != other.values["own"]
                and base.values["town"] != other.values["town"]
            )  # fmt: skip
            run = net.run([list(source.ids)], keep=[str(place.site(net))], logits=False)
            logits = net.run([list(base.ids)], edits=[place.edit(net, [base], run)], logits="last").logits
            assert logits is not None
            told.append(int(logits[0, -1].argmax()) == base.answers[0][1][0])
        assert sum(told) / len(told) == kept
