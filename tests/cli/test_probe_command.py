"""`cutaway probe` from a file to a saved page, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutaway.cli.main import app
from cutaway.probes import Probe, Probing, Use
from cutaway.recipes.tales.prompts import FEMALE, MALE

runner = CliRunner()


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows = [
        {"text": f"{name} was sad because", "gender": gender, "name": name}
        for gender, people in (("girl", FEMALE), ("boy", MALE))
        for name in people
    ]
    file = tmp_path / "names.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def words(file: Path, *more: str) -> list[str]:
    return ["probe", "zoo:tales", "--data", str(file), "--label", "gender", "--set", "permutations=40", *more]


def test_from_a_file_to_a_verdict_and_a_page(names: Path, tmp_path: Path) -> None:
    answers = ["--answer", "girl= she", "--answer", "boy= he"]
    done = runner.invoke(app, words(names, "--group", "name", *answers, "--out", "found", "--json"))
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["finding"]["verdict"] == "encoded and used"
    assert data["use"]["claim"]["verdict"] == "supported"
    assert len(data["cells"]) == 4
    assert Probing.load(tmp_path / "found" / "probing").headline() == data["headline"]
    assert Probe.load(tmp_path / "found" / "probe").label == "gender"
    assert Use.load(tmp_path / "found" / "use").verdict == "encoded and used"
    page = (tmp_path / "found" / "report.html").read_text()
    assert "Where it is encoded" in page
    assert "Whether it is used" in page


def test_for_people(names: Path) -> None:
    done = runner.invoke(app, words(names, "--set", "use=false", "--by", "layer,position", "--set", "n=60"))
    assert done.exit_code == 0, done.output
    assert "random weights" in done.stdout
    assert "resid_post" in done.stdout


def test_errors_are_two_lines(names: Path) -> None:
    done = runner.invoke(app, ["probe", "zoo:tales", "--data", str(names), "--label", "gendr"])
    assert done.exit_code == 2
    assert "no column 'gendr'" in done.output
    done = runner.invoke(app, words(names, "--group", "name", "--answer", "girl"))
    assert done.exit_code == 2
    assert "CLASS=word" in done.output
    done = runner.invoke(app, ["probe", "zoo:tales", "--data", "none.csv", "--label", "x", "--json"])
    assert json.loads(done.stdout)["error"]["kind"] == "NotFound"
