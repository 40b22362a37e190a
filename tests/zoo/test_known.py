"""Cases and algorithms of specimens by name: right answers, places that there are, unknown names helped."""

from __future__ import annotations

import numpy as np
import pytest

import cutaway
from cutaway import zoo
from cutaway.algorithms import algorithms_of
from cutaway.behaviours.cases import cases_of
from cutaway.errors import BadInput, NotFound
from cutaway.zoo.known import KnownAlgorithm
from cutaway.zoo.registry import all_specimens, known

KNOWN = [name for name, what in all_specimens().items() if what.known is not None]


@pytest.mark.parametrize("name", KNOWN)
def test_cases_and_algorithms_fit_the_network_and_each_other(name: str) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    net, ways = cutaway.open(f"zoo:{name}"), algorithms_of(f"zoo:{name}")
    for kind in known(name).cases:
        cases = cases_of(f"zoo:{name}", net, 64, seed, kind=kind)
        words = set(zoo.specimen(name).task.words)
        assert all(set(case.text.split()) <= words for case in cases), seed
        for algorithm, where in ways.values():
            algorithm.require(cases)
            assert set(where) <= set(algorithm.variables)
            for place in (place for places in where.values() for place in places):
                place.require(net, cases.cases)
            if not name.startswith("proxy"):
                told = [algorithm.answers(case.values) for case in cases]
                assert told == [tuple(text for text, _ in case.answers) for case in cases], seed
    assert [way.runs for way in known(name).algorithms] == [True, False]


def test_the_ways_of_two_networks_of_a_task_are_the_same_in_another_order() -> None:
    for one, other in (
        ("duplicate", "counted-duplicate"), ("fourier-addition", "table-addition"), ("two-step", "one-step")
    ):  # fmt: skip
        assert list(algorithms_of(f"zoo:{one}-llama")) == list(algorithms_of(f"zoo:{other}-llama"))[::-1]


def test_places_of_the_way_that_it_goes_are_those_of_the_truth() -> None:
    for name in ("two-step-gpt2", "one-step-llama"):
        truth = {v.name: (v.site, v.head) for v in zoo.truth(name).variables}
        _, where = next(iter(algorithms_of(f"zoo:{name}").values()))
        for variable, (place,) in where.items():
            part = place.named
            assert part is not None
            site = f"z.{part.layer}" if part.kind == "head" else f"mlp_out.{part.layer}"
            assert truth[variable] == (site, part.index)


def test_a_twin_has_what_its_specimen_has() -> None:
    assert list(algorithms_of("zoo:two-step-gpt2~free")) == list(algorithms_of("zoo:two-step-gpt2"))
    net = cutaway.open("zoo:proxy-agreement-gpt2~goal")
    assert (
        cases_of("zoo:proxy-agreement-gpt2~goal", net, 8).free
        == cases_of("zoo:proxy-agreement-gpt2", net, 8).free
    )


def test_unknown_names_and_kinds_are_helped() -> None:
    net = cutaway.open("zoo:proxy-agreement-gpt2")
    with pytest.raises(NotFound, match="apart"):
        cases_of("zoo:proxy-agreement-gpt2", net, 8, kind="appart")
    with pytest.raises(NotFound, match="two-step-gpt2"):
        cases_of("zoo:lookup-gpt2", net, 8)
    with pytest.raises(NotFound, match="two-step-gpt2"):
        algorithms_of("zoo:two-stp-gpt2")
    with pytest.raises(BadInput, match="one kind only"):
        cases_of("pronoun", net, 8, kind="apart")
    with pytest.raises(BadInput, match="knd"):
        cases_of("zoo:two-step-gpt2", net, 8, knd="apart")  # type: ignore[call-arg]


def test_algorithms_that_the_network_runs_come_first() -> None:
    way = KnownAlgorithm("a", {}, lambda x: x, {}, runs=False)
    made = zoo.specimen("two-step-gpt2").known
    assert made is not None
    assert [a.runs for a in type(made)(made.cases, (way, *made.algorithms)).algorithms] == [
        True,
        False,
        False,
    ]
