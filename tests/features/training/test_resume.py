"""A training that is stopped, killed or out of disk goes on bit for bit, and nothing that was kept is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.features.training.beds import network, planted, recipe, texts
from tests.features.training.killed_training import written

import cutaway
from cutaway import features
from cutaway.errors import BadInput, CorruptFile, SaveFailed, Stopped
from cutaway.features.training import train_dictionaries, train_on_rows
from cutaway.features.training.saving import CHECKPOINT, QUESTION, TrainingFolder
from cutaway.results import Budget, Progress, Work, atomic

ROOT = Path(__file__).resolve().parents[3]
ROWS, _ = planted(900)


def train(folder: Path | None, work: Work | None = None, **changed: Any) -> Any:
    given = {"tokens": 1500, "keep_every": 0, "folder": folder, "work": work} | changed
    return train_on_rows(given.pop("rows", ROWS), given.pop("recipes", recipe()), **given)


def stopping(after: int) -> Work:
    """Work that is asked to end at a step."""
    seen: list[Progress] = []

    def hear(progress: Progress) -> None:
        if progress.price is None:
            seen.append(progress)
        if len(seen) >= after:
            work.stop()

    work = Work(hear)
    return work


def test_what_is_killed_at_any_moment_ends_as_what_was_not() -> None:
    moments = ["rows:1", "rows:26:20", "rows:60", "texts:31", "texts:50:30", "seldom:40"]
    script = Path(__file__).with_name("killed_training.py")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), *moments], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [r["moment"] for r in rows] == moments, done.stderr[-2000:]
    for row in rows:
        assert row["killed"], row
        assert row["complete"], row
        assert row["equal"], row
        assert row["files"] >= 6, row
        assert row["left"] == [], row
    first = {row["moment"]: row["first"] for row in rows}
    assert first["rows:60"] > first["rows:26:20"] > first["rows:1"]
    assert first["seldom:40"] <= 64  # nothing was kept, so it began anew


def test_what_is_stopped_comes_back_as_it_stands_and_goes_on(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    part = train(tmp_path / "part", stopping(9))
    assert not part.complete
    assert "stopped before the end" in part.headline
    assert part.trained[0].rows < 1500
    assert features.read(tmp_path / "part" / "rows").said["complete"] is False
    assert not cutaway.load(tmp_path / "part").complete
    assert written(tmp_path / "part") != written(tmp_path / "whole")
    again = train(tmp_path / "part")
    assert again.complete
    assert written(tmp_path / "part") == written(tmp_path / "whole")
    assert again.trained[0].curve == whole.trained[0].curve
    assert not (tmp_path / "part" / CHECKPOINT).exists()


def test_what_is_finished_is_read_and_not_trained_again(tmp_path: Path) -> None:
    first = train(tmp_path / "a")
    heard: list[Progress] = []
    again = train(tmp_path / "a", Work(heard.append))
    assert heard == []
    assert again.headline == first.headline
    assert again["rows"].hash == first["rows"].hash


def test_texts_stopped_while_they_are_read_go_on(tmp_path: Path) -> None:
    net = network()

    def call(folder: Path, work: Work | None = None) -> Any:
        return train_dictionaries(
            net, iter(texts(200)), at="resid_post.0", latents=24, k=3, tokens=1400, batch=64, controls=(), folder=folder,
            keep_every=0, work=work,
        )  # fmt: skip

    call(tmp_path / "whole")
    assert not call(tmp_path / "part", stopping(12)).complete
    assert call(tmp_path / "part").complete
    assert written(tmp_path / "part") == written(tmp_path / "whole")


def test_stopped_before_the_first_step_nothing_comes_back(tmp_path: Path) -> None:
    work = Work()
    work.stop()
    with pytest.raises(Stopped):
        train(tmp_path / "a", work)
    assert train(tmp_path / "a").complete


def test_a_budget_of_time_ends_it_with_what_is_there(tmp_path: Path) -> None:
    part = train(tmp_path / "a", Work(budget=Budget(seconds=0.3)), tokens=800_000)
    assert not part.complete
    assert (tmp_path / "a" / CHECKPOINT).exists()


@pytest.mark.parametrize(
    "changed", [{"recipes": recipe(k=4)}, {"rows": ROWS + 1}, {"tokens": 1600}, {"longest": 50.0}]
)
def test_another_question_in_the_same_folder_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    train(tmp_path / "a", stopping(5))
    before = (tmp_path / "a" / CHECKPOINT).read_bytes()
    with pytest.raises(SaveFailed, match="another question"):
        train(tmp_path / "a", **changed)
    assert (tmp_path / "a" / CHECKPOINT).read_bytes() == before


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SaveFailed, match="holds something else"):
        train(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / QUESTION).write_text("mine")
    with pytest.raises(SaveFailed):
        train(tmp_path / "b")
    assert [f.name for f in sorted(tmp_path.iterdir())] == ["b", "notes.txt"]
    assert (tmp_path / "b" / QUESTION).read_text() == "mine"


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole")
    writes = 0
    real = atomic.os.fsync

    def full(handle: int) -> None:
        nonlocal writes
        writes += 1
        if writes > 8:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(SaveFailed, match="No space left"):
        train(tmp_path / "a")
    monkeypatch.setattr(atomic.os, "fsync", real)
    kept = TrainingFolder(tmp_path / "a").kept()
    assert kept is not None
    assert kept[0]["students"][0]["steps"] == 7
    assert not [f for f in (tmp_path / "a").iterdir() if f.name.startswith(".")]
    assert train(tmp_path / "a").headline == whole.headline
    assert written(tmp_path / "a") == written(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_said(tmp_path: Path, damage: str) -> None:
    train(tmp_path / "a", stopping(5))
    file = tmp_path / "a" / CHECKPOINT
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes({"truncated": content[:-50], "flipped": content, "empty": b""}[damage])
    with pytest.raises(CorruptFile, match="not as it was written"):
        train(tmp_path / "a")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path)
    assert folder.kept() is None
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor(5), "c": torch.zeros(0, 3)}
    folder.keep({"x": 0.1 + 0.2, "y": [None, "z"]}, tensors)
    found = folder.kept()
    assert found is not None
    assert found[0] == {"x": 0.1 + 0.2, "y": [None, "z"]}
    assert all(torch.equal(found[1][name], value) for name, value in tensors.items())
    folder.done()
    folder.done()
    assert folder.kept() is None


@pytest.mark.parametrize("changed", [{"keep_every": -1.0}, {"longest": 0.5}, {"tokens": 0}, {"tokens": 1}])
def test_settings_out_of_range_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="out of range"):
        train(None, **changed)
