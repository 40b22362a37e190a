"""Judging: what evidence, controls and caps give; limits; the scale; the machine of controls."""

from __future__ import annotations

import numpy as np
import pytest

from cutaway.circuits import CircuitLimits
from cutaway.claims import Control, Evidence
from cutaway.errors import BadBehaviour, Stopped
from cutaway.explanations import SearchLimits
from cutaway.results import Work
from cutaway.statistics import Estimate, Interval, ratio_of
from cutaway.trials import (
    GapScale,
    Limits,
    Outcome,
    any_of,
    claim_of,
    inside,
    must_fail,
    other_rows,
    percent,
    sham,
    verdict_of,
)
from cutaway.trials.scale import NO_GAP


@pytest.mark.parametrize(
    ("tests", "controls", "verdict"),
    [
        ([True, True], [True], "supported"),
        ([True, False], [True], "refuted"),
        ([True, None], [True], "inconclusive"),
        ([True], [False], "inconclusive"),
        ([True], [None], "inconclusive"),
        ([], [True], "inconclusive"),
        ([True], [], "supported"),
    ],
)
def test_the_verdict_that_tests_and_controls_give(
    tests: list[bool | None], controls: list[bool | None], verdict: str
) -> None:
    assert (
        verdict_of([Evidence("e", passed=p) for p in tests], [Control("c", passed=p) for p in controls])
        == verdict
    )


def test_what_caps_a_verdict_never_hides_a_failed_test() -> None:
    good, bad = Evidence("a", passed=True), Evidence("b", passed=False)
    assert verdict_of([good], caps=["stopped"]) == "inconclusive"
    assert verdict_of([good, bad], caps=["stopped"]) == "refuted"
    claim = claim_of("x", [good], notes=["beside"], caps=["stopped"])
    assert claim.verdict == "inconclusive"
    assert claim.notes == ("stopped", "beside")


def test_of_tests_of_which_one_is_enough_all_must_fail() -> None:
    good, bad, open_ = (Evidence("e", passed=p) for p in (True, False, None))
    assert any_of([bad, good]) == "supported"
    assert any_of([bad, bad]) == "refuted"
    assert any_of([bad, open_]) == "inconclusive"
    assert any_of([good], [Control("c", passed=False)]) == "inconclusive"
    assert any_of([good], caps=["few"]) == any_of([bad], caps=["few"]) == "inconclusive"


def test_an_interval_is_inside_outside_or_neither() -> None:
    def estimate(low: float, high: float) -> Estimate:
        return Estimate((low + high) / 2, Interval(low, high), 20)

    assert inside(estimate(0.8, 0.9), 0.7, 1.3) is True
    assert inside(estimate(0.1, 0.2), 0.7, 1.3) is False
    assert inside(estimate(1.4, 1.5), 0.7, 1.3) is False
    assert inside(estimate(0.6, 0.9), 0.7, 1.3) is None
    assert inside(Estimate(0.9, None, 1), 0.7, 1.3) is None
    assert percent(-0.001) == "0 %"


def test_limits_are_said_once() -> None:
    shared = Limits().to_dict()
    for more in (SearchLimits, CircuitLimits):
        assert {name: more().to_dict()[name] for name in shared} == shared
        assert more.of(Limits(kept=0.9)).kept == 0.9
        assert more.of(None) == more()


def test_shares_and_their_intervals() -> None:
    rng = np.random.default_rng(0)
    empty, whole = rng.normal(0, 0.1, 20), rng.normal(2, 0.1, 20)
    scale = GapScale(empty, whole, None)
    assert scale.gap == pytest.approx(whole.mean() - empty.mean())
    assert scale.share(whole).value == pytest.approx(1)
    assert scale.shares(np.stack([empty, whole, (empty + whole) / 2])) == pytest.approx([0, 1, 0.5])
    assert scale.share(whole) == ratio_of(whole - empty, whole - empty, None)
    assert scale.difference(whole, empty).value == pytest.approx(1)
    assert scale.told
    assert scale.caps == ()


def test_a_gap_within_its_own_error_caps_everything() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 16)
    noise -= noise.mean() - 0.01
    scale = GapScale(np.zeros(16), noise)
    assert not scale.told
    assert scale.caps == (NO_GAP,)
    good = Evidence("a", passed=True)
    assert verdict_of([good], caps=scale.caps) == "inconclusive"


def test_another_row_of_the_same_group() -> None:
    lengths = [5, 7, 5, 5, 9, 7]
    for rng in (None, np.random.default_rng(1)):
        order = other_rows(lengths, rng)
        assert sorted(order) == list(range(6))
        assert all(lengths[i] == lengths[row] for i, row in enumerate(order))
        assert [i for i, row in enumerate(order) if i == row] == [4]


class _Net:
    """What a control needs of a network, where its procedure is made up."""


@pytest.fixture
def a_behaviour_that_is_not_done(monkeypatch: pytest.MonkeyPatch):
    from contextlib import nullcontext
    from types import SimpleNamespace

    from cutaway.trials import controls

    done = SimpleNamespace(
        accuracy=Estimate(0.4, Interval(0.2, 0.6), 10), does_it=False, needed=None, sentence="No."
    )
    monkeypatch.setattr(controls, "performance", lambda *_, **__: done)
    monkeypatch.setattr(controls, "ends_kept", lambda *_: nullcontext())


def _control(procedure) -> Control:
    return must_fail("Random weights", "Fresh weights", _Net(), None, procedure, Work())  # type: ignore[arg-type]


def test_a_control_passes_where_the_whole_procedure_supports_nothing(a_behaviour_that_is_not_done) -> None:
    good, bad = Evidence("a", passed=True), Evidence("Performs it", passed=False)
    control = _control(lambda *_: Outcome((bad, good), "2 of 9 parts"))
    assert control.passed is True
    assert "refused, the behaviour is not performed (40 % right)" in control.sentence
    assert "picked 2 of 9 parts. Verdict: refuted (by the interventions alone: supported)" in control.sentence
    assert "Only the test whether it does the behaviour stood in the way." in control.sentence
    assert _control(lambda *_: Outcome((good, good), "2 of 9 parts")).passed is False
    assert _control(lambda *_: Outcome((good, good), "2 of 9 parts", ("no gap",))).passed is True


def test_a_refusal_passes_and_an_error_leaves_it_open(a_behaviour_that_is_not_done) -> None:
    from cutaway.errors import OutOfMemory

    def fails(error: Exception):
        def procedure(*_: object) -> Outcome:
            raise error

        return procedure

    assert _control(fails(BadBehaviour("No gap."))).passed is True
    assert _control(fails(OutOfMemory("Full."))).passed is None
    with pytest.raises(Stopped):
        _control(fails(Stopped("Enough.")))


def test_writing_values_over_themselves_may_change_little() -> None:
    assert sham(0.001, Limits()).passed is True
    assert sham(0.02, Limits()).passed is False
