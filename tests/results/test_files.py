"""Saving replaces what is its own, loses nothing of anybody else's, and reading notices every change."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from cutaway.errors import BadFormat, CorruptFile, SaveFailed
from cutaway.results import add_page, atomic_folder, load_folder, remove_saved, save_folder
from cutaway.results import atomic as atomics
from cutaway.results.files import belongs


def saved(place, value=1.0, **more):
    table = pd.DataFrame({"a": [value, 2.0]})
    return save_folder(
        place, {"kind": "x", "value": value}, {"t": torch.full((4,), value)}, {"one": table}, **more
    )


def test_what_lies_beside_a_result_stays(tmp_path):
    place = saved(tmp_path / "r")
    (place / "notes.txt").write_text("mine")
    (place / "raw" / "deep").mkdir(parents=True)
    (place / "raw" / "deep" / "data.csv").write_text("1,2")
    (place / "empty").mkdir()
    os.symlink("/nowhere", place / "link")
    saved(place / "run2", 5.0)
    saved(place, 2.0)
    assert load_folder(place).manifest["value"] == 2.0
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "raw" / "deep" / "data.csv").read_text() == "1,2"
    assert (place / "empty").is_dir()
    assert os.readlink(place / "link") == "/nowhere"
    assert load_folder(place / "run2").manifest["value"] == 5.0
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(
    "manifest",
    [
        '{"name": "my web app"}',
        "[]",
        "{",
        '{"sha256": 3, "tables": []}',
        '{"sha256": {"a": 1}, "tables": []}',
    ],
)
def test_a_foreign_manifest_makes_no_folder_ours(tmp_path, manifest):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text(manifest)
    (tmp_path / "app" / "code.py").write_text("1")
    with pytest.raises(SaveFailed, match="is not a saved result"):
        saved(tmp_path / "app")
    assert (tmp_path / "app" / "manifest.json").read_text() == manifest
    assert (tmp_path / "app" / "code.py").read_text() == "1"
    with pytest.raises(BadFormat):
        load_folder(tmp_path / "app")


def test_a_file_of_the_users_in_the_way_is_refused_and_nothing_changes(tmp_path):
    place = save_folder(tmp_path / "r", {"kind": "x", "value": 1.0})
    (place / "one.csv").write_text("mine")
    with pytest.raises(SaveFailed, match=r"one\.csv is in the way"):
        saved(place, 2.0)
    assert (place / "one.csv").read_text() == "mine"
    assert load_folder(place).manifest["value"] == 1.0
    (place / "report.html").write_text("mine")
    with pytest.raises(SaveFailed, match="not the result's to replace"):
        add_page(place, "<p>ours")
    assert (place / "report.html").read_text() == "mine"


def test_an_old_page_never_stands_beside_new_results(tmp_path):
    place = saved(tmp_path / "r")
    add_page(place, "<p>one")
    add_page(place, "<p>two")
    assert (place / "report.html").read_text() == "<p>two"
    assert load_folder(place).manifest["value"] == 1.0
    saved(place, 2.0)
    assert not (place / "report.html").exists()
    inner = save_folder(place / "r2", {"kind": "y"}, parts={"maps/z": lambda p: saved(p, 3.0)})
    assert belongs(inner, inner) >= {"maps/z/manifest.json", "maps/z/tensors.safetensors", "maps/z/one.csv"}
    save_folder(inner, {"kind": "y"})
    assert not (inner / "maps").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ""])
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    place = save_folder(tmp_path / "r", {"kind": "x"})
    said = json.loads((place / "manifest.json").read_text())
    for change in (
        {"tables": [name]},
        {"sha256": {name: "0"}},
        {"tables": [name], "sha256": {f"{name}.csv": "0"}},
    ):
        (place / "manifest.json").write_text(json.dumps(said | {"sha256": {}} | change))
        with pytest.raises((CorruptFile, BadFormat)):
            load_folder(place)
    (place / "manifest.json").write_text(
        json.dumps(said | {"parts": ["../r3"], "pages": [name], "sha256": {}})
    )
    saved(tmp_path / "r3")
    saved(place)
    assert (tmp_path / "secret.csv").exists()
    assert load_folder(tmp_path / "r3")


def test_links_are_not_followed(tmp_path):
    place = saved(tmp_path / "r")
    (place / "one.csv").rename(tmp_path / "elsewhere.csv")
    os.symlink(tmp_path / "elsewhere.csv", place / "one.csv")
    with pytest.raises(CorruptFile):
        load_folder(place)
    with pytest.raises(BadFormat):
        load_folder(saved(tmp_path / "other")).read("../elsewhere.csv")


def test_every_flipped_byte_is_noticed(tmp_path):
    place, random = saved(tmp_path / "r", 0.1234567), np.random.default_rng()
    for file in sorted(place.iterdir()):
        content = file.read_bytes()
        for _ in range(60):
            at, bit = int(random.integers(len(content))), int(random.integers(8))
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            if chr(content[at]).isspace() and file.suffix == ".json":
                continue
            file.write_bytes(bytes(damaged))
            with pytest.raises((CorruptFile, BadFormat)):
                load_folder(place)
        file.write_bytes(content)
    assert load_folder(place).manifest["value"] == 0.1234567


def save_until(place, way, step):
    """In a process of its own, killed at its n-th step on the disk: the exit status, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = iter(range(1, 1000))

    def stopping(function):
        def call(*args, **keywords):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **keywords)

        return call

    for name in ("rename", "replace", "link", "unlink"):
        setattr(os, name, stopping(getattr(os, name)))
    atomics._exchanged = stopping(atomics._exchanged) if way == "exchange" else lambda *_: False
    save_folder(place, {"kind": "x", "value": 2.0}, files={"extra": "2"})
    os._exit(0)


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_killed_at_any_step_leaves_the_old_or_the_new_one_and_no_leftovers(tmp_path, way):
    place = tmp_path / "here" / "r"
    for step in range(1, 60):
        saved(place)
        (place / "notes").write_text("mine")
        status = save_until(place, way, step)
        value = load_folder(place).manifest["value"]
        assert value in (1.0, 2.0)
        assert (place / "notes").read_text() == "mine"
        if status == 0:
            assert value == 2.0
            break
        assert status == -signal.SIGKILL
    assert 3 < step < 59
    saved(place, 3.0)
    assert [p.name for p in place.parent.iterdir()] == ["r"]


def test_two_renames_where_the_disk_cannot_exchange(tmp_path, monkeypatch):
    monkeypatch.setattr(atomics, "_exchanged", lambda *_: False)
    place = saved(tmp_path / "r")
    (place / "notes").write_text("mine")
    saved(place, 2.0)
    assert load_folder(place).manifest["value"] == 2.0
    assert (place / "notes").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_long_names_and_folders_that_are_links(tmp_path):
    saved(tmp_path / ("n" * 240))
    real = saved(tmp_path / "real")
    os.symlink(real, tmp_path / "latest")
    saved(tmp_path / "latest", 4.0)
    assert (tmp_path / "latest").is_symlink()
    assert load_folder(real).manifest["value"] == 4.0
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaveFailed):
        saved(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "no", belongs) as work:
        (work / "a").write_text(str(1 // 0))
    assert not (tmp_path / "no").exists()


def test_c3_a_result_that_is_not_made_again_does_not_stand_beside_newer_ones(tmp_path):
    place = saved(tmp_path / "held-out", parts={"inner": lambda at: saved(at)})
    add_page(place, "<p>old")
    remove_saved(place)
    assert list(tmp_path.iterdir()) == []
    remove_saved(place)
    saved(place)
    (place / "notes.txt").write_text("mine")
    remove_saved(place)
    assert [p.name for p in place.iterdir()] == ["notes.txt"]
    (place / "manifest.json").write_text("{}")
    with pytest.raises(SaveFailed, match="not a saved result"):
        remove_saved(place)
