"""What the command line says of itself: order, examples that run, no squeezed columns, the nearest word."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer.main
from typer.testing import CliRunner

from cutaway import features
from cutaway.behaviours import GENERATORS, TOLD, BuiltIn
from cutaway.cli import helping
from cutaway.cli.main import app
from cutaway.features.dictionaries import Decoder, Encoder, ReLU
from cutaway.features.formats.places import hook_place
from cutaway.verbs import VERBS

runner = CliRunner()


def commands() -> list[str]:
    """The words of every command: "patch", "zoo list"."""
    program = typer.main.get_command(app)
    held = program.commands  # type: ignore[attr-defined]
    groups = {name: command.commands for name, command in held.items() if hasattr(command, "commands")}
    return [
        *(c for c in held if c not in groups),
        *(f"{g} {c}" for g, inside in groups.items() for c in inside),
    ]


@pytest.fixture(autouse=True)
def _narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_the_commands_stand_in_the_order_in_which_one_works() -> None:
    said = runner.invoke(app, ["--help"]).stdout
    order = [
        "open",
        "sites",
        "run",
        "behaviours",
        "lens",
        "stream",
        "patch",
        "explain",
        "trace",
        "test",
        "probe",
        "show",
    ]
    places = [said.index(f"\n  {name} ") for name in order]
    assert places == sorted(places)
    for example in helping.examples(""):
        assert f"\n  {example}\n" in said
    assert runner.invoke(app, []).stdout == said


def test_every_group_names_commands_that_are_there_and_every_verb_has_one() -> None:
    there = {name.partition(" ")[0] for name in commands()}
    assert {name for _, names, _ in helping.GROUPS for name in names} == there
    for row in VERBS.values():
        assert not row.command or helping.group_of(row.command) < len(helping.GROUPS) - 1, row.name


@pytest.mark.parametrize("name", commands())
def test_help_has_room_for_its_words_and_an_example(name: str) -> None:
    done = runner.invoke(app, [*name.split(), "--help"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    options = [line for line in lines if line.startswith("  ") and "  " in line.strip()]
    assert max(len(line) - len(line.lstrip()) for line in lines) <= 30  # what an option means begins by then
    assert options
    examples = helping.examples(name)
    assert examples, f"{name} has no example"
    assert all(f"\n  {helping.broken(example)}\n" in done.stdout for example in examples)
    assert all(
        shlex.split(example)[: 1 + len(name.split())] == ["cutaway", *name.split()] for example in examples
    )


#: Examples that take long, or need what a reader has; what they do is run by other tests, and their words by the next one.
_LONG = ("my-model", "behaviours zoo:tales", "zoo:tales --by head")
_OTHERWISE = ("ablate", "steer", "paths", "explain", "test", "probe", "zoo make", "zoo verify", "zoo bench")


def _axes(hook: str, width: int) -> features.Dictionary:
    """A latent for each direction of each axis: it leaves nothing unexplained."""
    place = hook_place(hook, width)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    encoder, decoder = Encoder(both.T, torch.zeros(2 * width), ReLU()), Decoder(0, 0, both)
    return features.Dictionary(
        "autoencoder", (encoder,), (decoder,), (torch.zeros(width),), ((place,),), (place,)
    )


def test_the_examples_run(tmp_path: Path) -> None:
    """In the order of the table: what an example needs is made by one before it."""
    names = ["trace", *(n for n in helping.EXAMPLES if n != "trace")]
    rows = [f'"Text {i} was {mood}",{mood}' for i in range(12) for mood in ("sad", "glad")]
    names = (("Lily", "she"), ("Tom", "he"), ("Nina", "she"), ("Ben", "he"), ("Anna", "she"), ("Sam", "he"))
    prompts = [
        f"{name} {was} because,{said},{'she' if said == ' she' else 'he'},{was}"
        for name, one in names
        for was in ("was happy", "was sad", "was very tired", "was glad")
        for said in (f" {one}",)
    ]
    (tmp_path / "prompts.csv").write_text("\n".join(["text,answer,gender,template", *prompts]) + "\n")
    (tmp_path / "labelled.csv").write_text("\n".join(["text,mood", *rows]) + "\n")
    (tmp_path / "texts.txt").write_text("\n".join(row.partition(",")[0].strip('"') for row in rows) + "\n")
    features.write(_axes("blocks.2.hook_resid_post", 128), tmp_path / "my-sae")
    for name in names:
        for example in helping.examples(name):
            if any(word in example for word in _LONG):
                continue
            words = shlex.split(example)[1:]
            short = ["--n", "8"] if "-b" in words and name != "trace" else []
            if name in _OTHERWISE:
                continue
            done = runner.invoke(app, [*words, *short, *(["--force"] if short else [])])
            assert done.exit_code == 0, f"{example}: {done.output}"


def test_the_words_of_every_example_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that are not run here: opening the network is as far as they come."""

    class Far(Exception):
        pass

    def far(*_: object, **__: object) -> None:
        raise Far

    for where in ("cutaway.cli.question.network", "cutaway.calibration.verify", "cutaway.recipes.making.make",
                  "cutaway.calibration.bench.bench"):  # fmt: skip
        monkeypatch.setattr(where, far)
    for name in _OTHERWISE:
        for example in helping.examples(name):
            done = runner.invoke(app, shlex.split(example)[1:] + ["--debug"])
            assert isinstance(done.exception, Far), f"{example}: {done.output}"


def test_the_options_of_all_commands_are_those_of_common() -> None:
    from dataclasses import fields

    from cutaway.cli.common import Common

    assert {f.name for f in fields(Common)} | {"help"} == set(helping.SHARED)


def test_a_verb_without_an_example_of_its_own_has_one_from_its_row() -> None:
    assert " ".join(helping.example(VERBS["ablate"])) == "cutaway ablate zoo:tales -b pronoun"
    assert " ".join(helping.example(VERBS["test"])) == "cutaway test zoo:tales pronoun-circuit -b pronoun"


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["opne", "zoo:tales"], "'open'"),
        (["zoo", "lsit"], "'list'"),
        (["patch", "zoo:tales", "--bahaviour", "pronoun"], "--behaviour"),
        (["patch"], "cutaway patch --help"),
    ],
)
def test_a_misspelt_word_gets_the_nearest_in_two_lines(words: list[str], near: str) -> None:
    done = runner.invoke(app, words)
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr
    assert near in done.stderr.splitlines()[1]
    said = json.loads(runner.invoke(app, [*words, "--json"]).stdout)["error"]
    assert near in said["remedy"]


def test_the_program_is_started_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cutaway", "--version"], capture_output=True, text=True, check=True
    )
    from cutaway import __version__

    assert done.stdout.strip() == __version__


def test_behaviours_are_told_with_a_pair_each() -> None:
    assert list(TOLD) == list(GENERATORS)
    said = runner.invoke(app, ["behaviours"]).stdout
    for name, told in TOLD.items():
        assert name in said
        assert told.says[:30] in said


@pytest.mark.parametrize("told", [TOLD[name] for name in ("ioi", "agreement", "pronoun", "facts")])
def test_the_pairs_that_are_told_are_of_equal_length_with_answers_of_one_token(
    told: BuiltIn, gpt2_tokenizer
) -> None:
    clean, corrupted, right, wrong = (
        gpt2_tokenizer(t)["input_ids"] for t in (told.clean, told.corrupted, told.right, told.wrong)
    )
    assert len(clean) == len(corrupted)
    assert clean != corrupted
    assert len(right) == len(wrong) == 1


def test_behaviours_of_a_network_are_measured() -> None:
    done = runner.invoke(app, ["behaviours", "zoo:tales", "--n", "16", "--json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)["behaviours"]}
    assert rows.keys() == GENERATORS.keys()
    assert rows["pronoun"]["does it"] is True
    assert rows["docstring"]["does it"] is False
    assert rows["pronoun"]["right"].startswith(("0.9", "1.0"))


def test_sites_of_a_network_are_told_with_their_axes_and_what_is_refused() -> None:
    done = runner.invoke(app, ["sites", "zoo:tales", "--json"])
    data = json.loads(done.stdout)
    rows = {row["name"]: row for row in data["sites"]}
    assert rows["z"]["axes"] == {"pos": "p", "head": 4, "head_width": 32}
    assert rows["pattern"]["shape"] == "head 4, dest, src"
    assert rows["mlp_act"]["layers"] == "0-3"
    assert any("pos_embed" in row["sites"] for row in data["refused"])
    shown = runner.invoke(app, ["sites", "zoo:tales"]).stdout
    assert "pos, head 4, head_width 32" in shown
    assert "refused pos_embed" in shown


def test_the_zoo_is_listed_in_one_line_each() -> None:
    done = runner.invoke(app, ["zoo", "list"])
    lines = done.stdout.strip().splitlines()
    assert len(lines) == len(json.loads(runner.invoke(app, ["zoo", "list", "--json"]).stdout)["networks"])
    assert all(line.startswith("zoo:") for line in lines)
    assert any(line.endswith("in the tense of the sentence.") for line in lines)  # whole in a pipe
