"""Which variable each part carries: against networks whose algorithm is stated, against patching by hand, beside twins."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.algorithms.carried.specimens import cases_of_specimen, stated

import cutaway
from cutaway.algorithms.carried import CarriedLimits, CarriedVariables
from cutaway.algorithms.carried.answering import answered, answers_by
from cutaway.algorithms.carried.exchanging import VariableExchange
from cutaway.algorithms.carried.standing import corrected, shuffled, standing_out
from cutaway.algorithms.carried.telling import ALONE, NOT_SHOWN, ONLY, OPEN, SEVERAL, verdict_on
from cutaway.behaviours.cases import Cases, cases_from, cases_of
from cutaway.errors import BadBehaviour, BadInput, NotFound, NotPerformed, Stopped
from cutaway.interventions import Patch
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.results import Budget, Progress, Work
from cutaway.statistics import Estimate, Interval

#: Specimens, and of each variable that can be exchanged by itself where it is said to live, by the names of their algorithm.
STATED: dict[str, dict[str, tuple[str, ...]]] = {
    "agreement-gpt2": {"number": ("number",), "tense": ("tense",)},
    "agreement-llama": {"number": ("number",), "tense": ("tense",)},
    "greater-than-gpt2": {"year": ("year",), "direction": ("direction",)},
    "greater-than-llama": {"year": ("year",), "direction": ("direction",)},
    "cases-gpt2": {"left": ("left",), "right": ("right",)},
    "cases-gpt2-seed1": {"left": ("left",), "right": ("right",)},
    "indirect-object-gpt2": {"first": ("duplicate", "inhibited")},
    "indirect-object-llama": {"first": ("duplicate", "inhibited")},
}
#: The variable that all others are joined to, and lives in one place.
JOINED = {"agreement": "verb", "greater-than": "possible", "cases": "result", "indirect-object": "receiver"}
#: Where only some of the effect is brought by exchanging it where it is said to live: fewer places are asked for.
SPANS = {"indirect-object": ["everywhere", "last"]}


@cache
def opened(name: str) -> tuple[Network, Cases]:
    net = cutaway.open(f"zoo:{name}")
    return net, cases_of_specimen(name, net)


@cache
def found(name: str, force: bool = False) -> CarriedVariables:
    net, cases = opened(name)
    spans = next((spans for task, spans in SPANS.items() if name.startswith(task)), None)
    return cutaway.carried(net, cases, spans=spans, force=force)


def places(result: CarriedVariables, variable: str, verdicts: tuple[str, ...]) -> set[str]:
    table = result.to_pandas()
    rows = table.loc[(table["variable"] == variable) & table["verdict"].isin(verdicts)]
    return {f"{row['part']}@{row['span']}" for row in rows.to_dict("records")}


@pytest.mark.parametrize("name", STATED)
def test_a_stated_variable_is_found_where_it_lives_and_nowhere_else(name: str) -> None:
    result, where = found(name), stated(name)
    for variable, lives in STATED[name].items():
        wanted = {where[v] for v in lives}
        found_at = set(result.carriers(variable))
        assert wanted <= found_at
        everywhere = {at.split("@")[0] for at in wanted if at.endswith("@everywhere")}
        assert all(
            at.split("@")[0] in everywhere for at in found_at - wanted
        )  # its last token is a part of that
        assert result.claim(variable).supported
        for at in wanted:
            part, span = at.split("@")
            row = result.to_pandas().set_index(["variable", "part", "span"]).loc[(variable, part, span)]
            assert row["held"] > 0.8


@pytest.mark.parametrize("name", STATED)
def test_what_the_variables_are_joined_to_is_told_from_them(name: str) -> None:
    """The MLP or head in which all meet brings every variable, and is not said to carry one alone."""
    result, where = found(name), stated(name)
    at = where[JOINED[next(task for task in JOINED if name.startswith(task))]]
    for variable in STATED[name]:
        assert at in places(result, variable, (SEVERAL,))
        assert at not in result.carriers(variable)
        assert at in result.carriers(variable, alone=False)


@pytest.mark.parametrize(
    "name", ["agreement-gpt2", "greater-than-gpt2", "cases-gpt2", "indirect-object-gpt2"]
)
@pytest.mark.parametrize("twin", ["random", "shuffled"])
def test_twins_are_refused_and_nothing_is_supported_of_them_by_force(name: str, twin: str) -> None:
    net, cases = opened(f"{name}~{twin}")
    with pytest.raises(NotPerformed):
        cutaway.carried(net, cases)
    try:
        result = found(f"{name}~{twin}", force=True)
    except BadBehaviour:
        return  # it answers both prompts alike
    assert not any(claim.supported for claim in result.claims)
    assert "no variable" in result.headline.lower()


def test_of_answers_that_hold_one_another_the_second_prompt_need_not_be_answered_otherwise() -> None:
    """Every year that is later than the later of two is later than the earlier, too."""
    net, cases = opened("greater-than-gpt2")
    done = cutaway.performance(net, cases.halves()[1].behaviour(net, "year", n=24))
    alike = replace(done, does_it=False, needed=35, missed=("corrupted prompts may be answered alike",))
    assert answers_by(alike, one_sided=True)
    assert answered(alike, one_sided=True).passed
    assert "it is not asked whether" in answered(alike, one_sided=True).sentence
    assert not answers_by(alike, one_sided=False)
    assert answered(alike, one_sided=False).passed is None
    for figure in ("contrast", "size"):
        assert not answers_by(replace(alike, **{figure: estimate(0.1, 0.2)}), one_sided=True)
    assert not answers_by(replace(alike, accuracy=estimate(0.7)), one_sided=True)


def test_gender_moves_from_the_name_to_the_end() -> None:
    net = cutaway.open("zoo:tales")
    result = cutaway.carried(net, cases_of("pronoun", net, 128))
    assert result.claim("gender").supported
    layers: dict[str, list[int]] = {"name": [], "last": []}
    for at in result.carriers("gender"):
        part, span = at.split("@")
        layers[span].append(Part.parse(part).layer or 0)
    assert min(layers["name"]) < min(layers["last"])
    assert max(layers["name"]) < max(layers["last"])
    assert any("'place' of 'pronoun' never changes the answer" in note for note in result.notes)
    assert set(result.verdict.ravel()) <= {"", ONLY, NOT_SHOWN}  # there is no other variable to tell it from


def test_a_share_is_what_patching_by_hand_gives() -> None:
    net, cases = opened("agreement-gpt2")
    pairs = cases.halves()[0].behaviour(net, "number", n=12)
    at = [
        (part, span) for part in map(Part.parse, ("a1.h0", "a0.h3", "m0", "m1")) for span in ("noun", "last")
    ]
    moved = VariableExchange.of(net, pairs, at, Work()).run(Work(), "by hand")
    rows = torch.arange(pairs.n)
    clean, corrupted = pairs.clean_tokens(net), pairs.corrupted_tokens(net)
    right, wrong = (torch.tensor([one[0] for one in side]) for side in (pairs.right, pairs.wrong))

    def metric(tokens: Any, edits: Any = ()) -> np.ndarray:
        logits = net.run(tokens, edits=edits, logits="last").logits
        assert logits is not None
        last = logits[:, -1]
        return (last[rows, right] - last[rows, wrong]).double().numpy()

    base, whole = metric(corrupted), metric(clean)
    source = net.run(clean, keep=["z", "mlp_write"], logits=False)
    for i, (part, span) in enumerate(at):
        pos = 3 if span == "noun" else 6
        site = "z" if part.kind == "head" else "mlp_write"
        more = {} if part.index is None else {"head": part.index}
        values = metric(corrupted, [Patch(f"{site}.{part.layer}", source, pos=pos, **more)])
        np.testing.assert_allclose(moved.shares[i], (values - base) / (whole - base).mean(), atol=1e-5)
        assert moved.estimate(i).value == pytest.approx(
            float((values - base).mean() / (whole - base).mean()), abs=1e-5
        )


def test_nothing_stands_out_where_values_are_shuffled() -> None:
    net, cases = opened("agreement-gpt2")
    limits = CarriedLimits(shuffled=20)
    at = [(part, "last") for part in map(Part.parse, ("a1.h0", "a0.h3", "m1"))]
    moved = {
        name: VariableExchange.of(net, cases.halves()[0].behaviour(net, name, n=24), at, Work()).run(
            Work(), ""
        )
        for name in ("number", "tense")
    }
    q = corrected(moved, 0)
    assert standing_out(moved["number"].shares.mean(1), q["number"], limits)
    counts = shuffled(moved, limits, 0)
    assert {len(turns) for turns in counts.values()} == {20}
    assert sum(count > 0 for turns in counts.values() for count in turns) <= 4


def estimate(value: float, half: float | None = 0.02) -> Estimate:
    return Estimate(value, None if half is None else Interval(value - half, value + half), 24)


@pytest.mark.parametrize(
    ("own", "other", "q", "verdict"),
    [
        (0.9, 0.01, 0.001, ALONE), (0.9, 0.9, 0.001, SEVERAL), (0.9, -0.3, 0.001, SEVERAL), (0.9, 0.10, 0.001, OPEN),
        (0.21, 0.01, 0.001, NOT_SHOWN), (0.9, 0.01, 0.06, NOT_SHOWN), (0.1, 0.0, 0.001, NOT_SHOWN), (0.9, None, 0.001, ONLY),
    ],
)  # fmt: skip
def test_what_a_place_is_found_to_be(own: float, other: float | None, q: float, verdict: str) -> None:
    held = {"a": estimate(own)} | ({} if other is None else {"b": estimate(other)})
    assert verdict_on("a", held, q, CarriedLimits()) == verdict


def test_without_an_interval_nothing_is_shown() -> None:
    assert verdict_on("a", {"a": estimate(0.9, None)}, 0.001, CarriedLimits()) == NOT_SHOWN
    assert verdict_on("a", {"a": estimate(0.9), "b": estimate(0.0, None)}, 0.001, CarriedLimits()) == OPEN


# ----------------------------------------------------------------------------------------------------------- the result


def test_it_is_saved_loaded_and_shown(tmp_path: Path, shows_itself: Any) -> None:
    result = found("agreement-gpt2")
    again = cutaway.load(result.save(tmp_path / "carried"))
    assert isinstance(again, CarriedVariables)
    for name in ("share", "held", "q", "verdict", "known_zero"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert again.claims == result.claims
    assert (again.headline, again.pairs, again.limits) == (result.headline, result.pairs, result.limits)
    assert again.carriers() == result.carriers()
    shows_itself(result)
    assert result.to_dict()["network"] == "zoo:agreement-gpt2"
    page = result.page()
    assert [section.title for section in page.sections][:2] == ["number", "tense"]


def test_its_table_has_a_row_for_every_part_span_and_variable() -> None:
    result = found("agreement-gpt2")
    table = result.to_pandas()
    assert len(table) == 2 * len(result.parts) * len(result.spans)
    assert result.spans == ("time", "noun", "last")
    zeros = table.loc[table["known_zero"]]
    assert len(zeros)
    assert (zeros["share"] == 0).all()
    both = table.set_index(["variable", "part", "span"])
    assert (
        both.loc["number"].loc[(slice(None), "time"), "known_zero"]
    ).all()  # the number is spoken behind it
    assert result.plot("tense").data
    assert "head 1.0" in "".join(result.grid("number").rows)
    with pytest.raises(BadInput, match="Did you mean tense"):
        result.plot("tens")


def test_the_same_seed_gives_the_same_figures() -> None:
    net, cases = opened("agreement-gpt2")
    one, two = (cutaway.carried(net, cases, n=8, controls=False) for _ in range(2))
    np.testing.assert_array_equal(one.share, two.share)
    np.testing.assert_array_equal(one.held, two.held)


def test_without_controls_nothing_is_supported() -> None:
    net, cases = opened("agreement-gpt2")
    result = cutaway.carried(net, cases, controls=False)
    assert result.carriers("number")
    assert {claim.verdict for claim in result.claims} == {"inconclusive"}
    assert all("No controls were run." in claim.notes for claim in result.claims)


def test_parts_spans_and_variables_can_be_chosen() -> None:
    net, cases = opened("agreement-gpt2")
    result = cutaway.carried(net, cases, ["number"], parts=["head 1.0", "m1"], spans=["last"], n=8)
    assert (result.variables, result.parts, result.spans) == (("number",), ("a1.h0", "m1"), ("last",))
    assert result.share.shape == (1, 2, 1)


def test_what_these_prompts_cannot_tell_is_said() -> None:
    net, cases = opened("agreement-gpt2")
    rows = [
        {
            "text": list(c.ids),
            "answer": [ids[0] for _, ids in c.answers],
            **c.values,
            "again": c.values["number"],
        }
        for c in cases
    ]
    result = cutaway.carried(net, cases_from(net, rows, derived=["again"]), parts=["a1.h0"], n=6)
    assert any("'number' and 'again' vary together" in note for note in result.notes)
    assert any("'scene'" in note and "never changes the answer" in note for note in result.notes)


def test_a_variable_by_which_the_network_does_not_answer_is_left_out_and_told() -> None:
    """The verb is right by tense alone where every verb is said to be of the singular: the number is not answered by."""
    net, cases = opened("agreement-gpt2")
    rows = []
    for c in cases:
        other = c.values["number"] if c.values["scene"] % 2 else 1 - int(c.values["number"])
        answers = {(d.values["number"], d.values["tense"]): [ids[0] for _, ids in d.answers] for d in cases}
        rows.append({"text": list(c.ids), "answer": answers[other, c.values["tense"]], **c.values})
    result = cutaway.carried(net, cases_from(net, rows), parts=["a0.h3"], n=12, force=False)
    assert result.variables == ("tense",)
    assert any("'number', which is left out" in note for note in result.notes)


# ---------------------------------------------------------------------------------------------------- price and stopping


def test_the_price_is_told_first_and_holds() -> None:
    net, cases = opened("greater-than-gpt2")
    net.forget()
    heard: list[Progress] = []
    result = cutaway.carried(net, cases, work=Work(heard.append))
    priced = [report for report in heard if report.price is not None]
    assert len(priced) == 1
    assert heard[0] is priced[0]
    price = priced[0].price
    assert price is not None
    assert priced[0].forwards + price.forwards == pytest.approx(result.provenance.forwards, rel=0.3)
    assert {what for what, _ in price.parts} == {
        "each part at each span",
        "testing on held-out pairs",
        "controls",
    }


@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_what_is_stopped_comes_back_in_part_and_supports_nothing(share: float) -> None:
    net, cases = opened("cases-gpt2")
    whole = found("cases-gpt2")
    net.forget()
    result = cutaway.carried(net, cases, work=Work(budget=Budget(forwards=share * whole.provenance.forwards)))
    assert not result.complete
    assert result.headline.startswith("Partial")
    assert not any(claim.supported for claim in result.claims)
    there = np.isfinite(result.share)
    assert there.any()
    np.testing.assert_allclose(result.share[there], whole.share[there], atol=1e-5)
    result.page()


def test_a_budget_that_is_too_small_is_refused() -> None:
    net, cases = opened("cases-gpt2")
    net.forget()
    with pytest.raises(Stopped):
        cutaway.carried(net, cases, work=Work(budget=Budget(forwards=1)))


# ------------------------------------------------------------------------------------------------------------ bad input


def test_bad_questions_are_refused() -> None:
    net, cases = opened("agreement-gpt2")
    with pytest.raises(BadInput, match="are no cases"):
        cutaway.carried(net, "pronoun")
    with pytest.raises(BadInput, match="Did you mean number"):
        cutaway.carried(net, cases, ["nmber"])
    with pytest.raises(BadInput, match="Did you mean noun"):
        cutaway.carried(net, cases, spans=["nuon"])
    with pytest.raises(NotFound, match="no part 'a7.h7'"):
        cutaway.carried(net, cases, parts=["a7.h7"])
    with pytest.raises(BadInput, match="at least 6"):
        cutaway.carried(net, cases, n=3)
    with pytest.raises(BadBehaviour, match="never changes the answer"):
        cutaway.carried(net, cases, ["scene"])
    with pytest.raises(BadInput, match="carries"):
        CarriedLimits(carries=3.0)
    few = cases_from(net, [{"text": [1, 2, i], "answer": 3, "x": i} for i in range(4)])
    with pytest.raises(BadBehaviour, match="No variable of 'cases' changes the answer"):
        cutaway.carried(net, few)
