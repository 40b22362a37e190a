"""Algorithms proposed on networks whose algorithm is known: at its places, others ruled out, none of twins."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.algorithms.proposing.tasks import stated_places, task_cases

import cutaway
from cutaway.algorithms.carried import CarriedVariables, carried
from cutaway.algorithms.places import places_of
from cutaway.algorithms.proposing import ProposalLimits, ProposedAlgorithm, propose_algorithm
from cutaway.algorithms.proposing.assembling import assembled, chosen_places
from cutaway.algorithms.proposing.known import by_way_of, known_task, others
from cutaway.algorithms.proposing.result import NOT_TOLD_APART, RULED_OUT, TriedPlace
from cutaway.algorithms.proposing.rules import UNKNOWN, KnownRow, commonest, decides, needed, rows_of, rule_of
from cutaway.algorithms.proposing.telling import telling_prompts
from cutaway.behaviours.cases import Cases
from cutaway.errors import BadInput, NotPerformed, Stopped
from cutaway.network import Network
from cutaway.results import Budget, Progress, Work
from cutaway.statistics import Estimate

NAME = "cases-gpt2"
QUICK = ProposalLimits(rivals=4)


@cache
def opened(name: str) -> tuple[Network, Cases]:
    net = cutaway.open(f"zoo:{name}")
    return net, task_cases(name, net, 160)


@cache
def table() -> CarriedVariables:
    return carried(*opened(NAME))


@cache
def found() -> ProposedAlgorithm:
    return propose_algorithm(*opened(NAME), table(), n=120, limits=QUICK)


# ------------------------------------------------------------------------------------------------------ what is proposed


def test_the_algorithm_that_it_was_trained_to_is_proposed_at_its_places() -> None:
    made, where = found(), stated_places(NAME)
    assert made.verdict == "supported", made.claim
    called = {"left": "left", "right": "right", "larger": "larger", "outcome": "result"}
    assert {step.variable: step.place for step in made.steps} == {
        own: where[its] for own, its in called.items()
    }
    assert made.test is not None
    assert min(v.accuracy.value for v in made.test.variables) >= 0.95
    assert len(made.ruled_out) >= 2
    assert made["larger"].reads == ("left_at_last", "right_at_last") or made["larger"].reads == (
        "right_at_last",
        "left_at_last",
    )


def test_a_variable_that_the_answer_does_not_need_is_not_proposed_and_its_way_is_ruled_out() -> None:
    net, cases = opened("indirect-object-gpt2")
    made = propose_algorithm(
        net, cases, carried(net, cases, controls=False), n=60, controls=False, limits=QUICK
    )
    assert {step.variable for step in made.steps} == {"first", "outcome"}
    assert [place.split("@")[0] for place in made.where.values()] == [
        place.split("@")[0] for place in stated_places("indirect-object-gpt2").values()
    ]
    assert "the answer by way of S" in made.ruled_out
    assert made.verdict == "inconclusive"  # other places and random weights were not asked for


def test_what_the_evidence_says_of_the_others_is_what_their_tests_say() -> None:
    made = found()
    assert made.test is not None
    rivals = {rival.name: rival for rival in made.test.rivals}
    for one in made.considered:
        assert one.outcome != RULED_OUT or rivals[one.name].claim.verdict == "refuted"
        assert one.outcome != NOT_TOLD_APART or rivals[one.name].apart.n < QUICK.differ
    assert set(rivals) == {one.name for one in made.considered}
    assert len(made.claims) == 1 + len(rivals)


@pytest.mark.parametrize("twin", ["random", "shuffled"])
def test_nothing_is_supported_of_twins(twin: str) -> None:
    net, cases = opened(f"{NAME}~{twin}")
    with pytest.raises(NotPerformed):
        propose_algorithm(net, cases)
    forced = carried(net, cases, force=True, controls=False, n=12)
    made = propose_algorithm(net, cases, forced, n=40, limits=QUICK)
    assert made.verdict != "supported"
    assert made.headline.startswith("None of the algorithms that were considered is supported")
    made.page()
    made.plot()


def test_it_is_saved_loaded_and_shown(tmp_path: Path, shows_itself: Any) -> None:
    made = found()
    again = cutaway.load(made.save(tmp_path / "proposed"))
    assert isinstance(again, ProposedAlgorithm)
    assert again.to_dict() == made.to_dict()
    assert (again.headline, again.sentences, again.where) == (made.headline, made.sentences, made.where)
    shows_itself(made)
    assert len(made.to_pandas()) == len(made.tried)
    assert [section.title for section in made.page().sections][:2] == ["The algorithm", "Tested"]


def test_its_prices_hold_and_it_can_be_stopped() -> None:
    net, cases = opened(NAME)
    table()
    heard: list[Progress] = []
    made = propose_algorithm(net, cases, table(), n=40, limits=QUICK, work=Work(heard.append))
    prices = [report.price for report in heard if report.price is not None]
    assert len(prices) == 2  # what is looked for, then what is tested
    assert sum(price.forwards for price in prices) == pytest.approx(made.provenance.forwards, rel=0.3)
    part = propose_algorithm(
        net, cases, table(), n=40, limits=QUICK, work=Work(budget=Budget(forwards=0.9 * prices[0].forwards))
    )
    assert not part.complete
    assert part.verdict == "inconclusive"
    assert part.headline.startswith("Partial")
    part.page()
    with pytest.raises(Stopped):
        propose_algorithm(net, cases, table(), n=40, work=Work(budget=Budget(forwards=20)))


def test_bad_questions_are_refused() -> None:
    net, cases = opened(NAME)
    with pytest.raises(BadInput, match="takes cases"):
        propose_algorithm(net, "cases")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="exchanges are asked for"):
        propose_algorithm(net, cases, n=0)
    with pytest.raises(BadInput, match="no table"):
        propose_algorithm(net, cases, [1])  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="of other cases"):
        propose_algorithm(net, task_cases(NAME, net, 40, seed=5), table())
    with pytest.raises(BadInput, match="Make it of this network"):
        propose_algorithm(cutaway.open("zoo:cases-gpt2-seed1"), cases, table())
    with pytest.raises(BadInput, match="taken"):
        ProposalLimits(taken=2)


# ------------------------------------------------------------------------- rules, against what they were made of


@pytest.mark.parametrize("seed", range(4))
def test_rules_give_back_the_answers_of_the_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds: dict[str, Any] = {
        "copy": lambda a, b, c: f" {a}",
        "pick": lambda a, b, c: f" {(a, b)[c]}",
        "table": lambda a, b, c: f" {'xyz'[(a + b) % 3]}",
    }
    drawn = [tuple(int(i) for i in rng.integers(0, (5, 5, 2))) for _ in range(400)]
    for kind, answer in kinds.items():
        rows = [KnownRow({"a": a, "b": b + 7 * (kind != "table"), "c": c}, ()) for a, b, c in drawn]
        rows = [replace(row, answers=(answer(**row.values),)) for row in rows]
        reads = needed(rows, ["a", "b", "c"])
        assert set(reads) == {"copy": {"a"}, "pick": {"a", "b", "c"}, "table": {"a", "b"}}[kind]
        rule = rule_of(rows, reads)
        assert rule.listed is (kind == "table")
        for row in rows:
            said = rule.function(*(row.values[name] for name in rule.reads))
            assert row.answers == ((said,) if isinstance(said, str) else said)


def test_what_no_row_says_is_not_made_up() -> None:
    rows = [KnownRow({"a": i % 3}, (f" {'xyz'[i % 3]}",)) for i in range(30)]
    assert rule_of(rows, ["a"]).function(7) == (UNKNOWN,)
    assert commonest(rows, ["a"]).function(7) == (UNKNOWN,)
    unique = [KnownRow({"a": i}, (str(i % 2),)) for i in range(50)]
    assert not decides(unique, ["a"])  # each value stands once: nothing shows that it decides anything
    assert decides(unique, ["a"], 0)


def test_the_ways_beside_the_cases_own_are_found_and_give_its_answers() -> None:
    _, cases = opened("indirect-object-gpt2")
    rows = rows_of(cases)
    task = known_task(cases, ("A", "B", "first"), rows)
    assert task.on_the_way == ()
    (way,) = others(cases, task, rows)
    assert (way.by, way.says) == ("S", "the one of A and B that is not S")
    algorithm = way.algorithm()
    for row in rows[:100]:
        assert algorithm.answers(row.values) == row.answers
    assert by_way_of(task, "first", rows) is None or "first" in task.free


def test_steps_are_put_in_the_order_of_the_network() -> None:
    _, cases = opened(NAME)
    rows = rows_of(cases)
    task = known_task(cases, ("left", "right"), rows)
    sure = Estimate(1.0, None, 40)
    tried = [
        TriedPlace(name, place, sure, sure, True)
        for name, place in (
            ("outcome", "m1@last"), ("left", "a0.h3@last"), ("larger", "m0@last"), ("right", "a1.h0@last"),
            ("left", "a1.h1@last"), ("left", "a0.h1@left"),
        )
    ]  # fmt: skip
    made = assembled(task, chosen_places(task, tried, []))
    reads = {step.name: set(step.reads) for step in made.algorithm.steps}
    # the right digit comes later than the MLP that compares, which therefore reads it off the prompt
    assert next(r for name, r in reads.items() if name == "larger") & {"right"}
    assert reads["outcome"] == {"larger", "left_at_last_2", "right_at_last"}
    assert {made.variable[name] for name in made.where} == {"left", "right", "larger", "outcome"}
    for case in cases.cases[:40]:
        assert made.algorithm.answers(case.values) == tuple(text for text, _ in case.answers)


def test_prompts_that_would_tell_two_algorithms_apart_do() -> None:
    _, cases = opened(NAME)
    rows = rows_of(cases)
    one = cutaway.algorithm("adds", sum=lambda left, right: left + right, answer=lambda sum: f" {sum % 10}")
    same = cutaway.algorithm(
        "adds", sum=lambda left, right: (left + right) % 10, answer=lambda sum: f" {sum}"
    )
    late = cutaway.algorithm("takes", sum=lambda left, right: left - right, answer=lambda sum: f" {sum % 10}")
    where = {"sum": places_of("m0@last")}
    assert telling_prompts(cases, one, where, same, where, rows).startswith(
        "No prompt with these values would"
    )
    assert "by the one" in telling_prompts(cases, one, where, late, where, rows)
