"""The table of verbs, walked: every verb is there, says what it does, and refuses what it does not know."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

import cutaway
from cutaway.cli.common import Common
from cutaway.cli.main import app
from cutaway.cli.question import ASKING
from cutaway.errors import BadInput, CutawayError, NotFound, UnknownOption
from cutaway.results import KINDS
from cutaway.verbs import REQUIRED, VERBS, Verb, signature, verb

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROWS = list(VERBS.values())


def ids(row: Verb) -> str:
    return row.name


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_a_verb_is_public_and_takes_what_its_row_says(row: Verb) -> None:
    function = getattr(cutaway, row.name)
    assert function is row.find()
    parameters = list(inspect.signature(function).parameters.values())
    assert tuple(p.name for p in parameters[: len(row.takes)]) == row.takes
    keywords = [p for p in parameters[len(row.takes) :] if p.kind is not p.VAR_KEYWORD]
    assert all(p.kind is p.KEYWORD_ONLY for p in keywords), [
        p.name for p in keywords if p.kind is not p.KEYWORD_ONLY
    ]
    may = {p.name for p in keywords} | {p.name for p in parameters if p.default is not p.empty}
    assert set(row.shown) <= may
    assert [p.name for p in signature(row.where)] == [
        p.name if p.kind is not p.VAR_KEYWORD else f"**{p.name}" for p in parameters
    ]
    assert not row.result or row.result in KINDS


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_defaults_are_read_as_they_are(row: Verb) -> None:
    parameters = inspect.signature(row.find()).parameters
    for p in signature(row.where):
        if p.name.startswith("**"):
            continue
        default = parameters[p.name].default
        if isinstance(p.default, str) and not isinstance(default, str):
            continue  # a constant by its name
        assert (p.default is REQUIRED) == (default is inspect.Parameter.empty)
        if isinstance(default, str | int | float | bool | tuple | None) and p.default is not REQUIRED:
            assert p.default == default


@pytest.mark.parametrize("row", [r for r in ROWS if r.shown], ids=ids)
def test_what_a_command_shows_is_explained_in_the_docstring(row: Verb) -> None:
    said = {p.name: p.says for p in row.options()}
    assert [name for name in row.shown if not said[name]] == []


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_an_unknown_option_is_refused_with_the_nearest_name(row: Verb) -> None:
    known = [p.name for p in signature(row.where) if p.name not in row.takes and not p.name.startswith("**")]
    if not known:
        pytest.skip("it takes no keywords")
    wanted = max(known, key=len)
    misspelt = wanted[0] + wanted[2] + wanted[1] + wanted[3:] if len(wanted) > 3 else wanted + "s"
    if misspelt == wanted:
        misspelt = wanted + "e"
    values: list[Any] = _question(row)
    with pytest.raises(UnknownOption, match=re.escape(repr(misspelt))) as caught:
        row.find()(*values, **{misspelt: 1})
    assert wanted in str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_values_of_another_type_are_refused(row: Verb) -> None:
    values = _question(row)
    tried = 0
    for p in signature(row.where):
        if (
            p.annotation in ("int", "float", "bool", "str", "int | None", "float | None", "str | None")
            and p.name not in row.takes
        ):
            tried += 1
            with pytest.raises(CutawayError):
                row.find()(*values, **{p.name: object()})
    if not tried:
        pytest.skip("it has no plain keyword")


@pytest.mark.parametrize("row", [r for r in ROWS if r.takes], ids=ids)
def test_a_verb_without_its_question_says_what_it_needs(row: Verb) -> None:
    with pytest.raises(BadInput, match="needs"):
        row.find()()


def _question(row: Verb) -> list[Any]:
    """Values for what comes before the keywords: a network, and nothing that could be mistaken for work."""
    net = cutaway.open("zoo:induction-gpt2")
    given = {
        "net": net,
        "model": "zoo:induction-gpt2",
        "behaviour": "induction",
        "source": "induction",
        "path": "nowhere",
    }
    return [given.get(name) for name in row.takes]


def test_trace_refuses_the_option_of_a_method_that_does_not_exist() -> None:
    net = cutaway.open("zoo:induction-gpt2")
    pairs = cutaway.behaviour("zoo:induction-gpt2", net, n=8, force=True)
    with pytest.raises(UnknownOption, match="stpes.*steps"):
        cutaway.trace(net, pairs, stpes=50)


def test_unknown_names_of_the_public_face() -> None:
    with pytest.raises(AttributeError):
        _ = cutaway.pacth
    with pytest.raises(NotFound, match="patch"):
        verb("pacth")


def commands() -> dict[str, Any]:
    group = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for sub, inner in getattr(command, "commands", {"": command}).items():
            found[f"{name} {sub}".strip()] = inner
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_has_at_most_eight_options_of_its_own(name: str) -> None:
    """Beside those that all commands share, and those by which a behaviour or two prompts are named."""
    shared = {f.name for f in fields(Common)} | set(ASKING)
    own = [p.name for p in commands()[name].params if p.name not in shared and p.param_type_name == "option"]
    assert len(own) <= 8, own


def test_every_command_is_told_in_the_docs() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [name for name in commands() if f"cutaway {name}" not in page] == []


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kind_of_result_names_a_class_that_is_one(name: str) -> None:
    kind = KINDS[name].find()
    assert kind.kind == name
    for wanted in ("to_dict", "to_pandas", "plot", "page", "save", "load", "_repr_html_"):
        assert callable(getattr(kind, wanted)), wanted


def test_options_dataclasses_that_verbs_name_exist() -> None:
    for row in ROWS:
        for parameter, where in row.more:
            module, _, name = where.partition(":")
            assert parameter in {p.name for p in row.parameters()}
            assert fields(getattr(importlib.import_module(module), name))
