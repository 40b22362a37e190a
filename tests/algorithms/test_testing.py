"""The verb: against exchanges made by hand, its price, its stops, its files, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_algorithms import algorithm_of, cases_of, stated
from known_algorithms import places_of as true_places

import cutaway
from cutaway.algorithms import Algorithm, AlgorithmLimits, AlgorithmTest, VariablePlace, places_of
from cutaway.algorithms.exchanges import AnswerChoices, Predictions, draw_exchanges, pool_of, run_exchanges
from cutaway.algorithms.places import said, shams
from cutaway.behaviours.cases import Cases
from cutaway.errors import BadBehaviour, BadInput, CutawayError, NotFound, Stopped
from cutaway.results import Budget, Progress, Stages, Work

NAME = "agreement-gpt2"


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open(f"zoo:{NAME}")


@pytest.fixture(scope="module")
def cases() -> Cases:
    return cases_of(NAME, 80)


@pytest.fixture(scope="module")
def true() -> Algorithm:
    return algorithm_of(NAME)


@pytest.fixture(scope="module")
def found(net: cutaway.Network, cases: Cases, true: Algorithm) -> AlgorithmTest:
    rival = cutaway.algorithm("only the tense", verb=lambda w1: w1, answer=lambda verb: _now(verb))
    return cutaway.test_algorithm(net, cases, true, true_places(NAME), rivals=[rival], n=40)


def _now(time: str) -> str:
    return "was" if time in ("yesterday", "once", "then") else "is"


def test_the_statement_of_the_zoo_and_the_algorithm_over_words_agree(cases: Cases, true: Algorithm) -> None:
    assert all(true.answers(case.values) == tuple(text for text, _ in case.answers) for case in cases)
    task = stated(NAME)
    base, source = (np.array([case.ids for case in cases.cases[i : i + 20]]) for i in (0, 20))
    for name in true.by_name:
        right = task.answers(base, {name: (np.ones(20, bool), task.values(source)[name])})
        for i in range(20):
            value = true.run(cases.cases[20 + i].values)[name]
            (answer,) = true.answers(cases.cases[i].values, {name: value})
            assert answer == task.vocabulary[int(right[i].argmax())]


def test_an_exchange_is_the_one_that_hooks_make(net: cutaway.Network, cases: Cases, true: Algorithm) -> None:
    choices = AnswerChoices.of(cases)
    made = draw_exchanges(Predictions(true, choices), ["number"], pool_of(cases, 12, 0), 12, 0)
    where = {"number": places_of(true_places(NAME)["number"])}
    part = cutaway.Part.parse(where["number"][0].part)
    assert part.layer is not None
    assert part.index is not None
    told = run_exchanges(net, made, where, choices, Work(), "")
    width = (net.d_model or 0) // (net.n_heads or 1)
    columns = slice(part.index * width, (part.index + 1) * width)
    module = net.model.transformer.h[part.layer].attn.c_proj
    for exchange, token in zip(made, told, strict=True):
        held: list[torch.Tensor] = []
        hook = module.register_forward_pre_hook(lambda _m, args, held=held: held.append(args[0].clone()))
        net.model(torch.tensor([exchange.sources["number"].ids]))
        hook.remove()

        def put(_m: Any, args: Any, held: list[torch.Tensor] = held) -> Any:
            value = args[0].clone()
            value[:, -1, columns] = held[0][:, -1, columns]
            return (value, *args[1:])

        hook = module.register_forward_pre_hook(put)
        logits = net.model(torch.tensor([exchange.base.ids])).logits[0, -1]
        hook.remove()
        tokens = torch.tensor(choices.tokens)
        assert token == int(tokens[logits[tokens].argmax()])


def test_three_in_four_exchanges_change_the_answer_and_are_what_the_algorithm_says(
    cases: Cases, true: Algorithm
) -> None:
    choices = AnswerChoices.of(cases)
    predicts = Predictions(true, choices)
    for name in true.by_name:
        made = draw_exchanges(predicts, [name], pool_of(cases, 80, 3), 80, 3)
        assert len(made) == 80
        assert sum(e.changes for e in made) == 60
        for e in made:
            given = {name: true.run(e.sources[name].values)[name]}
            assert e.wanted == choices.of_texts(true.answers(e.base.values, given))


def test_what_it_took_is_what_it_said(net: cutaway.Network, cases: Cases, true: Algorithm) -> None:
    heard: list[Progress] = []
    found = cutaway.test_algorithm(net, cases, true, true_places(NAME), n=30, work=Work(heard.append))
    (report,) = [report for report in heard if report.price is not None]
    price = report.price
    assert price is not None
    assert report.forwards + price.forwards == pytest.approx(found.provenance.forwards, rel=0.02)
    assert price.least < price.forwards


def test_stopped_early_it_gives_what_is_finished_and_supports_nothing(
    net: cutaway.Network, cases: Cases, true: Algorithm
) -> None:
    whole = cutaway.test_algorithm(net, cases, true, true_places(NAME), n=30)
    least = whole.prompts + 30 * (2 + 1.5 + 2)
    part = cutaway.test_algorithm(
        net, cases, true, true_places(NAME), n=30, work=Work(budget=Budget(forwards=least + 5))
    )
    assert not part.complete
    assert part.claim.verdict == "inconclusive"
    assert [v.accuracy for v in part.variables] == [v.accuracy for v in whole.variables]
    with pytest.raises(Stopped):
        cutaway.test_algorithm(
            net, cases, true, true_places(NAME), n=30, work=Work(budget=Budget(forwards=20))
        )


def test_what_was_killed_goes_on(net: cutaway.Network, cases: Cases, true: Algorithm, tmp_path: Path) -> None:
    where = {"number": true_places(NAME)["number"]}
    first = cutaway.test_algorithm(net, cases, true, where, n=20, work=Work(stages=Stages(tmp_path)))
    again = cutaway.test_algorithm(net, cases, true, where, n=20, work=Work(stages=Stages(tmp_path)))
    assert again.variables == first.variables
    assert again.provenance.forwards == 0 < first.provenance.forwards
    other = cutaway.algorithm("turned", number=lambda w1: w1, answer=lambda number: _now(number))
    with pytest.raises(BadInput, match="another question"):
        cutaway.test_algorithm(net, cases, other, where, n=20, work=Work(stages=Stages(tmp_path)))


def test_it_repeats_and_is_loaded_as_it_was(
    found: AlgorithmTest, net: Any, cases: Any, true: Any, tmp_path: Path
) -> None:
    opened = cutaway.load(found.save(tmp_path / "test"))
    assert opened.to_dict() == found.to_dict()
    assert opened.headline == found.headline
    again = cutaway.test_algorithm(net, cases, true, true_places(NAME), n=40)
    assert again.variables == found.variables


def test_it_shows_itself(found: AlgorithmTest, shows_itself: Any) -> None:
    shows_itself(found)
    page = found.page()
    assert [s.title for s in page.sections][:3] == ["The algorithm", "Each variable exchanged", "Rivals"]
    frame = found.to_pandas()
    assert set(frame["variable"]) == {"number", "tense", "verb", "all at once"}
    assert frame["accuracy"].between(0, 1).all()


def test_a_subspace_that_is_everything_does_what_the_whole_value_does(
    net: cutaway.Network, cases: Cases, true: Algorithm
) -> None:
    whole = cutaway.test_algorithm(net, cases, true, {"verb": "resid_post.1@last"}, n=40)
    basis = torch.linalg.qr(torch.randn(48, 48)).Q
    inside = cutaway.test_algorithm(
        net, cases, true, {"verb": VariablePlace("resid_post.1", "last", basis)}, n=40
    )
    assert inside["verb"].accuracy == whole["verb"].accuracy
    assert any("'verb' gives the other prompt's answer" in note for note in whole.notes)
    assert whole.verdict == "inconclusive"  # an exchange of everything would have passed
    assert "Every variable" in whole.claim.notes[0]
    assert len(whole["verb"].shams) == 3  # the same site at other tokens
    few = cutaway.test_algorithm(
        net, cases, true, {"verb": VariablePlace("resid_post.1", "last", basis[:1])}, n=40
    )
    assert few["verb"].accuracy.value < 0.6
    assert few.verdict != "supported"


def test_places_are_read_and_written() -> None:
    for text in ("a1.h0@last", "m0@S", "resid_post.2@all", "a1.h0@S + m1@last", "enc.a0.h1@S"):
        assert said(places_of(text)) == text
    assert said(places_of(["head 1.0", "MLP 2 @ S"])) == "a1.h0@all + m2@S"
    assert places_of("a1.h0")[0].words == "head 1.0 everywhere"
    for wrong in ("", "@S", "a1.h0@", " + ", 3, [], None, ["a0.h0", 2], "a0.h0@S + a0.h0@S"):
        with pytest.raises(BadInput):
            places_of(wrong)


def test_shams_are_others_of_the_same_kind(net: cutaway.Network, cases: Cases) -> None:
    places = places_of("a1.h0@last + m0@last")
    taken = [*places, *places_of("a0.h1@last")]
    for sham in shams(net, places, taken, cases.cases, 3, 0):
        assert [p.part[0] for p in sham] == ["a", "m"]
        assert not {p.part for p in sham} & {p.part for p in taken}
        assert {p.span for p in sham} == {"last"}
    both = places_of("m0@last + m1@last")
    others = shams(net, both[:1], both, cases.cases, 3, 0)  # no MLP is left: the same one at other tokens
    assert len(others) == 3
    assert all(p.part == "m0" and p.span not in ("last", "w6") for (p,) in others)


@pytest.mark.parametrize(
    ("where", "kind", "says"),
    [
        ({"numbr": "a0.h0"}, BadInput, "Did you mean number"),
        ({"number": "a9.h0@last"}, CutawayError, "9"),
        ({"number": "a0.h9@last"}, CutawayError, "9"),
        ({"number": "resid_pots.1@last"}, NotFound, "resid_post"),
        ({"number": "resid_post@last"}, BadInput, "2 sites"),
        ({"number": "a0.h0@lats"}, BadInput, "Did you mean last"),
        ({"number": "logits@last"}, CutawayError, "logits"),
        ({"number": VariablePlace("a0.h0", "last", torch.eye(48))}, BadInput, "that place has 12"),
        ({}, BadInput, "variable: place"),
        ("a0.h0", BadInput, "places"),
        ({"number": None}, BadInput, "no place"),
    ],
)
def test_places_that_are_not_there_are_refused(
    net: cutaway.Network, cases: Cases, true: Algorithm, where: Any, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        cutaway.test_algorithm(net, cases, true, where)


def test_bad_questions_are_refused(net: cutaway.Network, cases: Cases, true: Algorithm) -> None:
    where = {"number": "a0.h0@last"}
    constant = cutaway.algorithm("constant", number=lambda w0: w0, answer=lambda number: "is")
    failing = cutaway.algorithm("failing", number=lambda w1: 1 / 0, answer=lambda number: "is")
    spaced = cutaway.algorithm("spaced", number=lambda w1: w1, answer=lambda number: " is")
    for algorithm, says in (
        (constant, "'<bos>' in every held-out prompt"), (failing, "ZeroDivisionError"), (spaced, "Did you mean 'is'"),
        ("no algorithm", "takes an algorithm"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=says):
            cutaway.test_algorithm(net, cases, algorithm, where)
    for rivals in (["x"], "x", [(true, {})], [cutaway.algorithm("other", answer=lambda w1: "is")], 3):
        with pytest.raises(BadInput):
            cutaway.test_algorithm(net, cases, true, where, rivals=rivals)
    for n in (0, -1, 10**9):
        with pytest.raises(BadInput, match="exchanges are asked for"):
            cutaway.test_algorithm(net, cases, true, where, n=n)
    with pytest.raises(BadInput, match="takes cases"):
        cutaway.test_algorithm(net, [1], true, where)
    with pytest.raises(BadInput, match="accuracy"):
        AlgorithmLimits(accuracy=2)


def test_answers_of_several_tokens_are_read_by_their_first(
    net: cutaway.Network, cases: Cases, true: Algorithm
) -> None:
    def longer(case: Any) -> Any:
        return replace(case, answers=tuple((text, (*ids, 5, 6)) for text, ids in case.answers))

    long = Cases("long", tuple(longer(case) for case in cases))
    found = cutaway.test_algorithm(net, long, true, {"verb": true_places(NAME)["verb"]}, n=20, controls=False)
    assert found["verb"].accuracy.value == 1


def test_answers_that_share_a_first_token_count_as_one_and_all_alike_are_refused(cases: Cases) -> None:
    def merged(case: Any, same: tuple[str, ...]) -> Any:
        return replace(case, answers=tuple((t, (1, *i) if t in same else i) for t, i in case.answers))

    two = AnswerChoices.of(Cases("two", tuple(merged(c, ("is", "was")) for c in cases)))
    assert len(two.tokens) == 3
    assert "begin with the same token" in two.notes[0]
    with pytest.raises(BadBehaviour, match="cannot be told apart"):
        AnswerChoices.of(Cases("one", tuple(merged(c, ("is", "was", "are", "were")) for c in cases)))


def test_a_variable_without_effect_is_said_to_have_none(net: cutaway.Network, cases: Cases) -> None:
    idle = cutaway.algorithm(
        "idle", idle=lambda w1: w1, verb=lambda w1, w2, w3, w6: (w1, (w3 if w2 == "the" else w6)[-1] == "s"),
        answer=lambda verb: {"is": "are", "was": "were"}[_now(verb[0])] if verb[1] else _now(verb[0]),
    )  # fmt: skip
    made = cutaway.test_algorithm(net, cases, idle, {"idle": "a0.h0@w0"}, n=20)
    assert made.verdict == "inconclusive"
    assert "Only 0 exchanges of 'idle' change the answer" in made.claim.notes[0]
