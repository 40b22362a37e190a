"""`cutaway lens` and `cutaway stream`: tables, JSON, figures, and every bad input in two lines."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutaway.cli.main import app
from cutaway.cli.question import layers as numbers
from cutaway.errors import BadInput

runner = CliRunner()
TEXT = "Mary was sad because"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def as_json(*words: str) -> dict:
    done = runner.invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words: str) -> str:
    done = runner.invoke(app, [*words])
    assert done.exit_code == 2, done.output
    return done.output


def test_stream_shows_who_wrote_it() -> None:
    paths = as_json("expand", "zoo:tales", TEXT, "--target", " she", "--foil", " he", "--depth", "1")
    assert paths["error"] < 1e-4
    data = as_json("stream", "zoo:tales", TEXT, "--target", " she", "--foil", " he")
    assert data["error"] < 1e-4
    assert sum(c["mean"] for c in data["contributions"]) == pytest.approx(data["wanted"][0][0], abs=1e-3)
    assert Path(data["saved"][-1]).read_text(encoding="utf-8").startswith("<!")
    done = runner.invoke(
        app, ["stream", "zoo:tales", TEXT, "--target", " she", "--by", "layer", "--out", "here"]
    )
    assert done.exit_code == 0, done.output
    assert "layer 3" in done.stdout
    assert Path("here/report.html").exists()


def test_stream_refuses() -> None:
    assert "--first-token" in refused("stream", "zoo:tales", TEXT, "--target", " she he")
    assert (
        as_json("stream", "zoo:tales", TEXT, "--target", " she he", "--first-token")["what"]
        == "logit of ' she'"
    )
    refused("stream", "zoo:tales", TEXT, "--target", "")
    refused("stream", "zoo:tales", TEXT, "--target", " she", "--pos", "77")
    refused("stream", "zoo:tales", TEXT, "--target", " she", "--by", "token")
    refused("stream", "zoo:tales", "Mary " * 200, "--target", " she")


def test_lens_reads_and_saves() -> None:
    data = as_json("lens", "zoo:tales", TEXT, "--layers", "2-4", "--target", " she")
    assert data["layers"] == [2, 3, 4]
    assert data["top"][-1][-1][0] == " she"
    assert data["target"]["probability"][-1][-1] > 0.5
    assert all(Path(path).exists() for path in data["saved"])


def test_lens_fits_compares_saves_and_loads(tmp_path: Path) -> None:
    from cutaway.recipes.tales.scenes import stories

    text = tmp_path / "text.txt"
    text.write_text("\n".join(s.text for s in islice(stories("cli"), 60)), encoding="utf-8")
    words = (
        "lens",
        "zoo:tales",
        TEXT,
        "--lens",
        "tuned",
        "--fit-on",
        str(text),
        "--set",
        "steps=4",
        "--keep",
        "kept",
    )
    data = as_json(*words)
    assert {row["lens"] for row in data["report"]["lenses"]} == {"tuned", "logit", "constant"}
    assert Path("kept/manifest.json").exists()
    again = as_json("lens", "zoo:tales", TEXT, "--load", "kept")
    assert again["probability"] == data["probability"]
    future = as_json("lens", "zoo:tales", TEXT, "--lens", "future", "--fit-on", str(text), "--set", "ahead=2")
    assert future["ahead"] == 2
    assert future["kl"][0][-1] is None


def test_lens_refuses() -> None:
    refused("lens", "zoo:tales", TEXT, "--lens", "tuned")
    refused("lens", "zoo:tales", TEXT, "--lens", "magnifying")
    for unread in (["--set", "steps=5"], ["--set", "ahead=2"], ["--keep", "kept"], ["--fit-on", "text.txt"]):
        assert f"takes no {' '.join(unread[:1])}" in refused("lens", "zoo:tales", TEXT, *unread)
    assert "takes no --set steps" in refused(
        "lens", "zoo:tales", TEXT, "--lens", "future", "--set", "steps=5"
    )
    assert "is loaded takes no --fit-on" in refused(
        "lens", "zoo:tales", TEXT, "--load", "a", "--fit-on", "text.txt"
    )
    assert "empty" in refused("lens", "zoo:tales", TEXT, "--layers", "3-2")
    refused("lens", "zoo:tales", TEXT, "--layers", "x")
    refused("lens", "zoo:tales", TEXT, "--layers", "9")
    refused("lens", "zoo:tales", "Mary " * 200)
    refused("lens", "zoo:tales", TEXT, "--lens", "tuned", "--fit-on", "nothing.txt")
    refused("lens", "zoo:tales", TEXT, "--load", "nothing")
    refused("lens", "zoo:tales", TEXT, "--target", " she he")


def test_ranges() -> None:
    assert numbers("0-2,5") == [0, 1, 2, 5]
    with pytest.raises(BadInput):
        numbers("2-1")
