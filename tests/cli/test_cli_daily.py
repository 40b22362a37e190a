"""The daily commands: patterns, two prompts, induction heads, top examples, activations, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cutaway
from cutaway.cli.main import app

runner = CliRunner()
TEXT, OTHER = "Mary was sad because", "John was sad because"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("texts.txt").write_text(f"{TEXT}\n{OTHER}\n\nMary saw a dog\n", encoding="utf-8")


def ran(*words: str) -> str:
    done = runner.invoke(app, [*words])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str) -> str:
    done = runner.invoke(app, [*words])
    assert done.exit_code == 2, done.output
    return done.output


def test_a_run_says_what_comes_next() -> None:
    said = ran("run", "zoo:tales", TEXT, "--keep", "resid_post", "--new", "2")
    assert "' she'" in said
    assert "nats a token" in said
    assert "resid_post.0 to 3" in said
    assert "goes on" in said
    data = json.loads(ran("run", "zoo:tales", TEXT, "--json", "--new", "2"))
    assert data["next"][0]["token"] == " she"
    assert data["loss"] > 0
    assert data["continued"].startswith("she") or data["continued"].startswith(" she")
    assert "no chat template" in refused("run", "zoo:tales", TEXT, "--chat")


def test_patterns_and_two_prompts_and_induction_heads() -> None:
    assert "Of 16 heads, head " in ran("patterns", "zoo:tales", TEXT, "-o", "all")
    assert Path("all/report.html").exists()
    some = json.loads(
        ran("patterns", "zoo:tales", TEXT, "--layers", "1-2", "--heads", "a2.h1", "--weighted", "--json")
    )
    assert some["heads"] == ["a2.h1"]
    assert some["weighted"] is not None
    assert "no attention head" in refused("patterns", "zoo:tales", TEXT, "--heads", "n2.1")
    assert "the other with" in ran("compare-prompts", "zoo:tales", TEXT, OTHER, "-o", "both")
    assert cutaway.load("both").kind == "side-by-side"
    assert "equal" in refused("compare-prompts", "zoo:tales", TEXT, TEXT)
    assert "induction" in ran("induction-heads", "zoo:tales", "--n", "12", "--length", "8", "-o", "heads")
    assert cutaway.load("heads").kind == "induction-heads"


def test_top_examples_and_activations() -> None:
    said = ran(
        "top-examples", "zoo:tales", "--of", "n2.7,a1.h0", "--file", "texts.txt", "--k", "2", "-o", "top"
    )
    assert "Neuron 2.7 is strongest on" in said
    found = cutaway.load("top")
    assert [f.name for f in found.features] == ["n2.7", "a1.h0"]
    assert found.empty == 1
    assert "neurons 0 to" in refused("top-examples", "zoo:tales", "--of", "n2.99999", "--file", "texts.txt")
    assert "no file" in refused("top-examples", "zoo:tales", "--of", "n2.7", "--file", "text.txt")
    ran("activations", "zoo:tales", "--at", "resid_post.2,z.1", "--file", "texts.txt", "-o", "acts")
    kept = cutaway.load("acts")
    assert kept.sites == ("resid_post.2", "z.1")
    assert kept.folder == Path("acts")
    assert Path("acts/report.html").exists()
    ran("activations", "zoo:tales", "--at", "resid_post.2,z.1", "--file", "texts.txt", "--resume", "acts")
    assert len(cutaway.load("acts")) == len(kept)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert "something else" in refused(
        "activations", "zoo:tales", "--at", "embed", "--file", "texts.txt", "-o", "mine", "--overwrite"
    )
