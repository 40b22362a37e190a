from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2LMHeadModel
from typer.testing import CliRunner

from cutaway.cli import question
from cutaway.cli.common import STOPPED, WRONG, Common
from cutaway.cli.main import app
from cutaway.effects import Effects
from cutaway.errors import BadInput

runner = CliRunner()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def as_json(*words: str) -> dict:
    done = runner.invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_help_is_quick_and_loads_no_torch() -> None:
    heavy = ("torch", "transformers", "plotly", "matplotlib", "xarray")
    code = f"import sys, cutaway.cli.main; print([m for m in {heavy} if m in sys.modules])"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - began < 10
    assert "explain" in runner.invoke(app, ["--help"]).stdout


def test_open() -> None:
    done = runner.invoke(app, ["open", "zoo:tales"])
    assert done.exit_code == 0
    assert "resid_pre" in done.stdout
    data = as_json("open", "zoo:tales")
    assert data["layers"] == 4
    assert data["certificate"]["checks"]
    assert "z.3" in data["sites"]


def test_run_shows_next_tokens_and_saves(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    words = [
        "run",
        "zoo:tales",
        "Mary was sad because",
        "--keep",
        "resid_post",
        "--keep",
        "z.1",
        "--top",
        "3",
        "--save",
        "run.safetensors",
    ]
    data = as_json(*words)
    assert len(data["next"]) == 3
    assert data["next"][0]["token"].strip() == "she"
    assert set(data["kept"]) == {"resid_post.0", "resid_post.1", "resid_post.2", "resid_post.3", "z.1"}
    assert set(load_file(tmp_path / "run.safetensors")) == {*data["kept"], "logits"}
    assert "she" in runner.invoke(app, [*words, "--overwrite"]).stdout


def test_patch_saves_numbers_and_figure(tmp_path: Path) -> None:
    words = [
        "patch",
        "zoo:tales",
        "--behaviour",
        "pronoun",
        "--at",
        "z",
        "--by",
        "layer,head",
        "--n",
        "16",
        "--out",
        "here",
    ]
    data = as_json(*words)
    assert data["complete"] is True
    assert len(data["cells"]) == 16
    assert Effects.load(tmp_path / "here").dims == ("layer", "head")
    assert (tmp_path / "here" / "report.html").is_file()
    done = runner.invoke(app, [*words, "--overwrite"])
    assert done.exit_code == 0
    assert "saved" in done.stderr
    assert "here" in done.stderr
    assert "95 % interval" in done.stdout


def test_explain_writes_a_report(tmp_path: Path) -> None:
    data = as_json("explain", "zoo:tales", "-b", "pronoun", "--n", "24", "--no-controls", "--out", "out")
    assert data["claim"]["verdict"] == "inconclusive"
    done = runner.invoke(
        app,
        [
            "explain",
            "zoo:tales",
            "-b",
            "pronoun",
            "--n",
            "24",
            "--no-controls",
            "--out",
            "out",
            "--overwrite",
        ],
    )
    assert done.stdout.startswith("inconclusive")
    assert "kept alone" in done.stdout
    assert "report.html" in done.stderr
    assert data["command"].startswith("cutaway explain zoo:tales --behaviour pronoun --n 24")
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_zoo_list() -> None:
    assert "tales" in [card["name"] for card in as_json("zoo", "list")["networks"]]
    assert "zoo:tales" in runner.invoke(app, ["zoo", "list"]).stdout


@pytest.mark.parametrize(
    ("words", "kind", "part"),
    [
        (["open", "zoo:tails"], "NotFound", "tales"),
        (["run", "zoo:tales", "Mary", "--keep", "resid_pots"], "NotFound", "resid_post"),
        (["patch", "zoo:tales", "-b", "pronouns"], "NotFound", "pronoun"),
        (
            ["patch", "zoo:tales", "-b", "pronoun", "--n", "8", "--at", "resid_pre", "--by", "layer,head"],
            "BadInput",
            "no heads",
        ),
        (["explain", "nowhere/at-all", "-b", "pronoun"], None, ""),
    ],
)
def test_errors_are_two_lines_without_a_traceback(
    words: list[str], kind: str | None, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is None:
        words = ["explain", "./no-such-folder", "-b", "pronoun"]
    done = runner.invoke(app, words)
    assert done.exit_code == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2, done.stderr
    assert kind is None or lines[0].startswith(kind)
    assert part in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    machine = runner.invoke(app, [*words, "--json"])
    assert machine.exit_code == 2
    assert set(json.loads(machine.stdout)["error"]) == {"kind", "problem", "remedy"}


def test_debug_shows_the_error_itself() -> None:
    from cutaway.errors import NotFound

    done = runner.invoke(app, ["open", "zoo:tails", "--debug"])
    assert isinstance(done.exception, NotFound)


def test_a_behaviour_that_is_not_done_is_refused_with_the_figures(
    tiny_gpt2: GPT2LMHeadModel, tmp_path: Path
) -> None:
    tiny_gpt2.save_pretrained(tmp_path / "random")
    done = runner.invoke(app, ["explain", "random", "-b", "induction", "--n", "16"])
    assert done.exit_code == 2
    assert "NotPerformed" in done.stderr
    assert "of 16 prompts" in done.stderr


def test_ctrl_c_in_a_sweep_saves_and_ends_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cutaway.cli.progress import PipedLines

    def stop(_self: object, progress: Any) -> None:
        if progress.price is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(PipedLines, "__call__", stop)
    words = [
        "patch",
        "zoo:tales",
        "-b",
        "pronoun",
        "--at",
        "z",
        "--by",
        "layer,head,position",
        "--n",
        "32",
        "--out",
        "part",
    ]
    done = runner.invoke(app, words)
    assert done.exit_code == 130, done.output
    assert "Stopped" in done.stderr
    assert not Effects.load(tmp_path / "part").complete


def test_ctrl_c_while_opening_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(question, "network", interrupted)
    assert runner.invoke(app, ["open", "zoo:tales"]).exit_code == 130


def test_a_full_disk_does_not_lose_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    words = [
        "patch",
        "zoo:tales",
        "-b",
        "pronoun",
        "--at",
        "mlp_write",
        "--by",
        "layer",
        "--n",
        "8",
        "--out",
        "file/out",
    ]
    done = runner.invoke(app, [*words, "--json"])
    assert done.exit_code == 0
    assert "temporary folder" in done.stderr
    assert all(Path(path).exists() for path in json.loads(done.stdout)["saved"])


def test_an_unexpected_error_is_two_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("odd [/bold] thing")

    monkeypatch.setattr(question, "network", broken)
    done = runner.invoke(app, ["open", "zoo:tales"])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "ValueError odd [/bold] thing",
        "What to do Run again with --debug to see where.",
    ]
    machine = runner.invoke(app, ["open", "zoo:tales", "--json"])
    assert json.loads(machine.stdout)["error"]["kind"] == "ValueError"
    assert isinstance(runner.invoke(app, ["open", "zoo:tales", "--debug"]).exception, ValueError)


def test_usage_errors_and_ctrl_c_are_json_where_json_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["open", "--json"], ["opne", "--json"], ["patch", "zoo:tales", "--n", "many", "--json"]):
        done = runner.invoke(app, words)
        assert done.exit_code == 2
        assert json.loads(done.stdout)["error"]["kind"] == "UsageError"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(question, "network", interrupted)
    done = runner.invoke(app, ["open", "zoo:tales", "--json"])
    assert done.exit_code == 130
    assert json.loads(done.stdout)["error"]["kind"] == "Stopped"


def test_every_site_can_be_saved_and_a_bad_place_costs_nothing(tmp_path: Path) -> None:
    words = ["run", "zoo:tales", "Mary was sad because", "--keep", "*", "--save"]
    assert Path(as_json(*words, "all.safetensors")["saved"]).is_file()
    (tmp_path / "file").write_text("in the way")
    data = as_json(*words, "file/out.safetensors")
    assert Path(data["saved"]).is_file()
    assert data["saved"] != "file/out.safetensors"


def test_remedies_speak_of_options_and_an_unknown_device_is_named(
    tiny_gpt2: GPT2LMHeadModel, tmp_path: Path
) -> None:
    done = runner.invoke(app, ["open", "zoo:tales", "--device", "foo"])
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 2
    assert "'foo'" in done.stderr
    tiny_gpt2.save_pretrained(tmp_path / "random")
    done = runner.invoke(app, ["patch", "random", "-b", "induction", "--n", "16"])
    assert "--force" in done.stderr
    assert "force=True" not in done.stderr


def test_unaligned_pairs_of_a_file_are_left_out_with_a_remark(tmp_path: Path) -> None:
    from cutaway import behaviour, open
    from cutaway.behaviours import write

    made = behaviour("pronoun", open("zoo:tales"), n=12)
    file = write(made, tmp_path / "pairs.csv")
    lines = file.read_text().splitlines()
    cells = lines[1].split(",")
    cells[1] = f"{cells[1].split()[0]} {cells[1]}"
    file.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    words = ["patch", "zoo:tales", "-b", "pairs.csv", "--at", "resid_post.3", "--out", "out", "--force"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "1 rows were left out" in done.stderr


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ("90", {"seconds": 90.0}),
        ("1.5m", {"seconds": 90.0}),
        ("500forwards", {"forwards": 500.0}),
        ("1 forward, 2GiB", {"forwards": 1.0, "memory": 2 << 30}),
        (None, {}),
    ],
)
def test_a_budget_is_time_forwards_or_memory(given: str | None, allowed: dict[str, float]) -> None:
    assert Common(budget=given).limits() == allowed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-5s", "positive number"),
        ("0forwards", "positive number"),
        ("", "positive number"),
        ("5m,", "positive number"),
        ("500forwrads", "Did you mean 500forwards"),
        ("2gib,1TiB", "Did you mean 1.iB"),
        ("5s,1m", "names seconds twice"),
        ("nanforwards", "positive number"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(given: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Common(budget=given).limits()


def test_a_command_ends_where_its_forwards_are_spent(tmp_path: Path) -> None:
    words = ["patch", "zoo:tales", "--behaviour", "pronoun", "--n", "32", "--at", "z", "--by", "layer,head"]
    done = runner.invoke(app, [*words, "--budget", "150forwards", "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == STOPPED
    saved = Effects.load(tmp_path / "out")
    assert not saved.data.attrs["complete"]
    assert saved.provenance.forwards > 150 - 64  # making the behaviour took the rest
    done = runner.invoke(app, [*words, "--budget", "1forwards"])
    assert done.exit_code == STOPPED


def test_a_small_circuit_connects_and_an_empty_one_is_no_success(tmp_path: Path) -> None:
    words = ["trace", "zoo:tales", "-b", "pronoun", "--n", "24"]
    done = as_json(*words, "--edges", "0.02", "-o", str(tmp_path / "small"))
    assert 0 < len(done["edges"]) <= 9
    assert any("No path from the input to the logits" in note for note in done["notes"])
    empty = runner.invoke(
        app, [*words, "-m", "acdc", "--set", "threshold=1000000.0", "-o", str(tmp_path / "none")]
    )
    assert empty.exit_code == WRONG
    assert "The circuit is empty" in empty.output
    assert "Test it" not in empty.output
