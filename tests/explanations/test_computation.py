"""What is computed: stages in order, a story made from claims alone, five answers, and what is not told."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cutaway
from cutaway.behaviours.cases import LAST, cases, cases_of
from cutaway.cli.main import app
from cutaway.errors import BadBehaviour, BadInput, NotFound, NotPerformed, UnknownOption
from cutaway.explanations.computation import Computation, cases_for, parts, stated
from cutaway.explanations.computation.claimed import claims_of
from cutaway.explanations.computation.example import TaskExample
from cutaway.explanations.computation.questions import NOT_SHOWN
from cutaway.network.parts import Part
from cutaway.reports import render
from cutaway.results import Price, Work

runner = CliRunner()
#: Of the network's parts those that carry the gender, and two that do not.
PARTS = ("a0.h0", "m0", "a1.h2", "a2.h1", "a2.h3", "m2")


@pytest.fixture(scope="module")
def tales():
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pronoun(tales):
    return cases_of("pronoun", tales, 96)


@pytest.fixture(scope="module")
def heard() -> list[Price]:
    return []


@pytest.fixture(scope="module")
def told(tales, pronoun, heard: list[Price]) -> Computation:
    work = Work(lambda progress: heard.append(progress.price) if progress.price is not None else None)
    return cutaway.computation(tales, pronoun, depth="what", parts=PARTS, work=work)


def test_what_it_takes_is_said_once_beforehand(told: Computation, heard: list[Price]):
    assert len(heard) == 1
    assert 0.65 < told.provenance.forwards / heard[0].forwards < 1.5
    assert [name for name, _ in heard[0].parts][0] == "what each part carries"


def test_the_variable_moves_from_the_name_to_the_end(told: Computation):
    """As the grammar has it: gender is known at the name, and needed behind the last word."""
    assert told.complete
    frame = told.results["carried"].to_pandas()
    shown = frame.loc[frame["verdict"].str.startswith("this variable"), ["part", "span"]]
    spans = set(shown["span"])
    assert spans == {"name", LAST}
    early = [Part.parse(p).layer or 0 for p, s in shown.itertuples(index=False) if s == "name"]
    late = [Part.parse(p).layer or 0 for p, s in shown.itertuples(index=False) if s == LAST]
    assert max(early) < min(late)


def test_every_sentence_is_made_from_a_claim_and_links_to_its_section(told: Computation):
    sections = {section.name for section in told.page().sections}
    verdicts = {claim.verdict for claim in told.claims}
    assert 4 <= len(told.story) <= 10
    for said in told.story:
        assert said.anchor in sections
        assert said.verdict is None or said.verdict in verdicts
        assert said.text.endswith(".")
        assert ".." not in said.text
    html = render(told.page())
    for said in told.story:
        assert f'href="#{said.anchor}"' in html
        assert f'id="{said.anchor}"' in html


def test_figures_of_the_story_are_those_of_the_results(told: Computation):
    frame = told.results["carried"].to_pandas()
    best = frame.loc[frame["verdict"] != "", "held"].max()
    shares = [int(n) for said in told.story for n in re.findall(r"(\d+) %", said.text)]
    assert round(100 * best) in shares


def test_what_was_not_asked_is_answered_by_not_shown(told: Computation):
    assert len(told.questions) == 5
    by_question = {said.head: said for said in told.questions}
    for question in ("What computation is the network performing?", "Is it the intended objective?"):
        assert by_question[question].text.startswith(NOT_SHOWN)
        assert by_question[question].verdict is None
    assert by_question["How are the features represented?"].verdict == "supported"


def test_it_is_saved_and_loaded(told: Computation, tmp_path: Path):
    again = cutaway.load(told.save(tmp_path / "told"))
    assert isinstance(again, Computation)
    assert again.story == told.story
    assert again.questions == told.questions
    assert list(again.results) == list(told.results)
    assert again.to_pandas().equals(told.to_pandas())
    assert len(told.claims) == sum(len(claims_of(result)) for result in told.results.values())


def test_the_drawing_stands_on_the_words_of_a_prompt(told: Computation):
    figure = told.plot()
    assert list(told.example.words)[told.example.at["name"]] == told.example.variables["who"].split("/")[0]
    drawn = [t.strip() for trace in figure.data for t in (trace.text or ())]
    assert "MLP 0" in drawn
    assert told.example.answer.strip() in drawn


def test_stopped_it_keeps_what_is_finished_and_says_what_is_not(tales, pronoun):
    work = Work()
    heard: list[str] = []

    def listen(progress) -> None:
        heard.append(progress.label)
        if progress.label.startswith("how variables move"):
            work.ends.set()

    found = cutaway.computation(
        tales, pronoun, depth="what", parts=PARTS[:3], work=replace(work, listener=listen)
    )
    assert not found.complete
    assert "carried" in found.results
    assert dict(found.missing)
    assert any("not reached" in why for _, why in found.missing)
    assert found.headline.startswith("Partial")
    assert any("not told" in said.text for said in found.story)


def test_a_network_that_does_not_do_the_task_is_refused(tales, pronoun):
    with pytest.raises(NotPerformed):
        cutaway.computation(tales.randomized(1), pronoun, depth="what", parts=PARTS)


def test_of_a_large_network_the_strongest_are_asked_and_that_is_said(tales, pronoun, monkeypatch):
    monkeypatch.setattr(parts, "WHOLE", 4)
    first = (Part.parse("a3.h1"),)
    chosen, words = parts.strongest(tales, pronoun, ("gender",), 6, first, 0, Work())
    assert len(chosen) == 6
    assert first[0] in chosen
    assert {"m2", "m0"} <= {str(part) for part in chosen}
    assert "Of the others nothing is said" in words


def test_a_prompt_in_pieces_is_the_prompt(tales, pronoun):
    for case in pronoun.cases[:8]:
        example = TaskExample.of(tales, replace(pronoun, cases=(case, *pronoun.cases[:4])))
        joined = "".join(example.words).replace("·", "").replace(" ", "")
        assert joined == "".join(tales.token_strings(case.ids)).replace(" ", "")
        assert example.at[LAST] == len(example.words) - 1
        assert TaskExample.from_dict(example.to_dict()) == example


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"depth": "waht"}, UnknownOption, "what"),
        ({"depth": "where"}, BadInput, "explain"),
        ({"depht": "what"}, UnknownOption, "depth"),
        ({"variables": ["gendr"]}, BadInput, "gender"),
        ({"variables": ["name"]}, BadInput, "derived"),
        ({"parts": ["a9.h0"]}, NotFound, "a9"),
        ({"feared": ["gender"]}, BadInput, "two variables"),
        ({"n": 1}, BadInput, "pairs"),
    ],
)
def test_what_is_asked_wrongly_is_refused(tales, pronoun, options, error, match):
    with pytest.raises(error, match=match):
        cutaway.computation(tales, pronoun, **({"depth": "what"} | options))


def test_without_a_variable_that_changes_the_answer_there_is_nothing_to_tell(tales):
    same = cases(
        tales, "{name} was sad because", {"name": ["Lily", "Nina", "Anna", "Kate"]}, lambda name: " she", n=4
    )
    with pytest.raises(BadBehaviour, match="changes the answer"):
        cutaway.computation(tales, same, depth="what")


def test_a_behaviour_brings_its_cases(tales):
    known = cases_for(tales, cutaway.behaviour("pronoun", tales, n=24))
    assert "gender" in known.free
    other = cases_for(tales, replace(cutaway.behaviour("pronoun", tales, n=24), name="mine"))
    assert other.variables == ("name", "pair")


def test_an_explanation_goes_on_to_what(tales, tmp_path: Path):
    found = cutaway.explain(tales, cutaway.behaviour("pronoun", tales, n=64), depth="what", controls=False)
    assert found.computation is not None
    assert "gender" in found.computation.results["carried"].variables
    names = [section.name for section in found.page().sections]
    assert names[0] == "story"
    assert len(names) == len(set(names))
    again = cutaway.load(found.save(tmp_path / "explained"))
    assert again.computation.story == found.computation.story


def test_a_table_on_the_command_line(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prompts.csv").write_text("text,answer,gender\nLily was sad because, she,she\n", encoding="utf-8")
    both = runner.invoke(app, ["carried", "zoo:tales", "--table", "prompts.csv", "-b", "pronoun"])
    assert both.exit_code != 0
    assert "at once" in both.output
    neither = runner.invoke(app, ["carried", "zoo:tales"])
    assert neither.exit_code != 0
    assert "--table" in neither.output
    missing = runner.invoke(app, ["carried", "zoo:tales", "--table", "none.csv"])
    assert missing.exit_code != 0
    assert "none.csv" in missing.output
    other = runner.invoke(app, ["carried", "zoo:tales", "--table", "prompts.txt"])
    assert other.exit_code != 0
    assert ".jsonl" in other.output


def test_what_is_feared_is_the_answer_with_one_variable_taken_for_another(tales):
    agreement = cases_of("agreement", tales, 48)
    wanted = stated(agreement, None, ["number=other_number"])
    assert wanted.intended is not None
    proxy = wanted.feared[0]
    apart = 0
    for case in agreement:
        right = {text for text, _ in case.answers}
        assert set(wanted.intended.answers(case.values)) == right
        same = case.values["number"] == case.values["other_number"]
        assert (set(proxy.answers(case.values)) == right) is same
        apart += not same
    assert apart
    for text, match in (
        ("number", "two variables"),
        ("numbr=other_number", "number"),
        ("day=tense", "does not depend"),
    ):
        with pytest.raises(BadInput, match=match):
            stated(agreement, None, text)
    with pytest.raises(BadInput, match="no algorithm"):
        stated(agreement, None, [3])
    pairs = cases_for(tales, replace(cutaway.behaviour("agreement", tales, n=24), name="mine"))
    with pytest.raises(BadInput, match="rule"):
        stated(pairs, None, ["subject=pair"])


def test_what_is_asked_of_a_computation_needs_a_depth(tales, pronoun):
    with pytest.raises(BadInput, match="depth"):
        cutaway.explain(tales, "pronoun", cases=pronoun)
