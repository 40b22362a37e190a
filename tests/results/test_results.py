from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cutaway.errors import BadFormat, CorruptFile, SaveFailed, Stopped
from cutaway.results import (
    Budget,
    Price,
    Provenance,
    Work,
    atomic_folder,
    atomic_write,
    load_folder,
    save_folder,
    to_json,
)
from cutaway.results.files import belongs
from cutaway.statistics import Estimate, Interval


def contents(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From the `after`-th flush to disk on, the disk is full."""
    calls = iter(range(10_000))

    def fsync(_: int) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cutaway.results.files.os.fsync", fsync)


def save_one(path: Path, value: float) -> Path:
    tensors = {"a": torch.full((2, 3), value), "b": torch.arange(6).view(2, 3).T}
    tables = {"rows": pd.DataFrame({"x": [1, 2], "y": [value, 0.5]})}
    return save_folder(path, {"kind": "test", "value": value}, tensors, tables, {"report.html": "<p>é</p>"})


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    assert atomic_write(path, "é").read_text("utf-8") == "é"
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert contents(tmp_path) == ["deep", "deep/a.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~int_umask()


def int_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = atomic_write(tmp_path / "a.json", "old")
    full_disk(monkeypatch, 0)
    with pytest.raises(SaveFailed, match="No space left.*still in memory"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert contents(tmp_path) == ["a.json"]


def test_an_interrupt_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cutaway.results.files.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a.json", "new")
    with pytest.raises(KeyboardInterrupt):
        save_one(tmp_path / "result", 1.0)
    assert contents(tmp_path) == []


def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere; the next test takes a path nobody can write")
        with pytest.raises(SaveFailed, match="Permission denied"):
            atomic_write(folder / "a.json", "x")
        with pytest.raises(SaveFailed, match="Permission denied"):
            save_one(folder / "result", 1.0)
        assert contents(folder) == []
    finally:
        folder.chmod(0o700)


def test_a_path_nobody_can_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SaveFailed):
        atomic_write(tmp_path / "file" / "a.json", "x")
    with pytest.raises(SaveFailed):
        save_one(tmp_path / "file" / "result", 1.0)
    assert contents(tmp_path) == ["file"]


def test_a_folder_survives_the_round_trip(tmp_path: Path) -> None:
    path = save_one(tmp_path / "result", 1.5)
    back = load_folder(path)
    assert back.manifest == {"kind": "test", "value": 1.5}
    assert torch.equal(back.tensors["a"], torch.full((2, 3), 1.5))
    assert torch.equal(back.tensors["b"], torch.arange(6).view(2, 3).T)
    assert back.tables["rows"].to_dict("list") == {"x": [1, 2], "y": [1.5, 0.5]}
    assert back.read("report.html").decode() == "<p>é</p>"
    assert back.files == ("report.html",)
    save_one(path, 2.5)
    assert load_folder(path).manifest["value"] == 2.5
    assert contents(tmp_path) == [
        "result", "result/manifest.json", "result/report.html", "result/rows.csv",
        "result/tensors.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_disk_that_fills_up_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, replacing: bool
) -> None:
    path = tmp_path / "result"
    if replacing:
        save_one(path, 1.0)
    before = contents(tmp_path)
    full_disk(monkeypatch, after)
    with pytest.raises(SaveFailed):
        save_one(path, 2.0)
    assert contents(tmp_path) == before
    if replacing:
        assert load_folder(path).manifest["value"] == 1.0


def test_a_rename_that_fails_puts_the_old_result_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_one(tmp_path / "result", 1.0)
    real, calls = os.rename, iter(range(100))

    def rename(source: Path, target: Path) -> None:
        if next(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr("cutaway.results.atomic._exchanged", lambda *_: False)
    monkeypatch.setattr("cutaway.results.atomic.os.rename", rename)
    with pytest.raises(SaveFailed, match="Input/output"):
        save_one(path, 2.0)
    assert load_folder(path).manifest["value"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(SaveFailed, match="not a saved result"), atomic_folder(tmp_path / "photos", belongs):
        pass
    assert (tmp_path / "photos" / "cat.jpg").exists()
    with pytest.raises(SaveFailed, match="cannot be called"):
        save_folder(tmp_path / "r", {}, files={"../x": "y"})


def test_what_was_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    path = save_one(tmp_path / "result", 1.0)
    data = (path / "tensors.safetensors").read_bytes()
    (path / "tensors.safetensors").write_bytes(data[:-4])
    with pytest.raises(CorruptFile, match="not as it was"):
        load_folder(path)
    (path / "tensors.safetensors").unlink()
    with pytest.raises(CorruptFile, match="missing"):
        load_folder(path)
    with pytest.raises(BadFormat, match="not a saved result"):
        load_folder(tmp_path)
    (path / "manifest.json").write_text("[]")
    with pytest.raises(BadFormat):
        load_folder(path)


def test_json_of_what_results_hold() -> None:
    value = {
        "estimate": Estimate(0.5, Interval(0.4, 0.6), 3),
        "array": np.arange(3),
        "tensor": torch.tensor([1.0]),
        "dtype": torch.bfloat16,
        "path": Path("a/b"),
        "set": {2, 1},
    }
    back = json.loads(to_json(value))
    assert back["estimate"]["interval"]["low"] == 0.4
    assert back["array"] == [0, 1, 2]
    assert (back["dtype"], back["path"], back["set"]) == ("bfloat16", "a/b", [1, 2])
    assert json.loads(to_json({"x": [float("nan"), float("inf"), 1.5]})) == {"x": [None, None, 1.5]}
    with pytest.raises(TypeError):
        to_json(io.BytesIO())


def test_provenance() -> None:
    net = SimpleNamespace(name="zoo:tales", hash="abc", device=torch.device("cpu"), dtype=torch.float32)
    made = Provenance.of(net, "def", seed=3, seconds=1.5)
    assert made.dtype == "float32"
    assert made.versions["torch"] == torch.__version__
    assert Provenance.from_dict(json.loads(to_json(made))) == made
    with pytest.raises(BadFormat):
        Provenance.from_dict({"colour": "red"})


def test_a_budget_of_memory_that_is_too_small_is_refused_with_what_would_be_enough() -> None:
    price = Price(100, memory=5 * 2**20 + 1, least=100)
    for enough in (5 * 2**20, 6 * 2**20):
        Work(budget=Budget(memory=enough)).announce("tracing", price)
    with pytest.raises(Stopped, match="100 KiB of memory is too small for anything") as refused:
        Work(budget=Budget(memory=100 << 10)).announce("tracing", price)
    assert refused.value.remedy.startswith("6 MiB of memory would be enough")
