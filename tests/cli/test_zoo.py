"""`cutaway zoo`: list, show, verify, make, text."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutaway.cli.main import app

runner = CliRunner()
NAME = "superposition-llama"


def as_json(*words: str, code: int = 0) -> dict:
    done = runner.invoke(app, ["zoo", *words, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_list_and_show() -> None:
    names = {card["name"] for card in as_json("list")["networks"]}
    assert {NAME, "unread-gpt2", "tales"} <= names
    assert as_json("show", NAME)["truth"]["nodes"] == ["a0.h1", "m0"]
    shown = runner.invoke(app, ["zoo", "show", NAME]).stdout
    assert "pentagon" in shown
    assert "~without" in shown
    assert as_json("show", "superposition-lama", code=2)["error"]["kind"] == "NotFound"


def test_verify_says_what_holds_with_its_exit_code() -> None:
    found = as_json("verify", NAME, "--n", "16")
    assert found["specimens"][0]["holds"]
    found = as_json("verify", f"{NAME}~shuffled", "--n", "16", code=1)
    assert not found["specimens"][0]["holds"]
    found = as_json("verify", NAME, "--twins", "--n", "16")
    assert [s["holds"] for s in found["specimens"]] == [True, False, False, False]
    assert found["all as expected"]


def test_make_writes_a_folder_that_can_be_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_json("make", NAME)["accuracy"]["top1"] == 1.0
    assert as_json("verify", f"zoo-{NAME}", "--n", "16")["specimens"][0]["holds"]
    weights = Path(f"zoo-{NAME}/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert as_json("verify", f"zoo-{NAME}", code=2)["error"]["kind"] == "CorruptFile"
    Path("mine").mkdir()
    Path("mine/x").touch()
    assert as_json("make", NAME, "--out", "mine", code=2)["error"]["kind"] == "BadInput"


def test_text_comes_with_labels() -> None:
    done = runner.invoke(app, ["zoo", "text", "induction-llama", "--tokens", "30", "--labels"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(len(r["tokens"]) for r in rows) >= 30
    assert all(r["labels"]["role"][-1] == "answer" for r in rows)
    assert runner.invoke(app, ["zoo", "text", "induction-llama"]).stdout.startswith("BOS ")


def test_a_killed_recipe_goes_on(tmp_path: Path) -> None:
    """kill -9 in the middle of a training: the next run starts from the last checkpoint."""
    script = (
        "from pathlib import Path\n"
        "from cutaway.recipes.natural.gpt2 import build\n"
        "from cutaway.recipes.training import Rhythm, Schedule, begun, train\n"
        "from cutaway.recipes.workshop import Workshop\n"
        "import torch\n"
        "def loss(model, step):\n"
        "    print(step, flush=True)\n"
        "    ids = torch.full((2, 4), step % 5)\n"
        "    return model(input_ids=ids, labels=ids).loss\n"
        "run = begun(build(5, 4, 1, 8, 2, 8, 0), Schedule(100000), Workshop(Path('work')), 'x')\n"
        "train(run, loss, rhythm=Rhythm(save_seconds=0.05))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    starts = []
    for _ in range(2):
        run = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert run.stdout is not None
        starts.append(int(run.stdout.readline()))
        checkpoint = tmp_path / "work" / "x.checkpoint"
        patience = time.monotonic() + 60
        while not checkpoint.exists() and time.monotonic() < patience:
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    assert starts[0] == 0
    assert starts[1] > 0
