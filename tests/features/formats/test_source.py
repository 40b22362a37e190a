"""Files of dictionaries looked into: nothing run, nothing read that is not asked for, damage named."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cutaway.errors import BadFormat, CorruptFile, NotFound, UnsafeFile
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import DictionaryFiles, Format, recognised


class Touches:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return touched, (str(self.path),)


def touched(path: str) -> None:
    Path(path).write_text("run")


def tensors(folder: Path, name: str = "a.safetensors") -> Path:
    save_file({"W_enc": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, folder / name)
    return folder / name


# what lies there ------------------------------------------------------------------------------------------------------


def test_nothing_at_a_path_offers_what_is_near(tmp_path: Path) -> None:
    tensors(tmp_path, "layer_1.safetensors")
    with pytest.raises(NotFound, match=r"Did you mean layer_1\.safetensors"):
        DictionaryFiles.of(tmp_path / "layer_l.safetensors")
    with pytest.raises(NotFound, match="nothing at"):
        DictionaryFiles.of(tmp_path / "no" / "such" / "place")


@pytest.mark.parametrize("files", [[], ["config.json"], ["readme.md", "cfg.yaml"]])
def test_a_folder_without_tensors_is_no_source(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadFormat, match="no file of tensors"):
        DictionaryFiles.of(tmp_path)


def test_a_folder_shows_files_to_a_depth_of_two_and_a_file_its_configurations(tmp_path: Path) -> None:
    tensors(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    for depth in ("one", "one/two", "one/two/three"):
        (tmp_path / depth).mkdir()
        tensors(tmp_path / depth)
    whole = DictionaryFiles.of(tmp_path)
    assert whole.files == ("a.safetensors", "cfg.json", "one/a.safetensors", "one/two/a.safetensors")
    assert whole.has("cfg.json", "one/a.safetensors")
    assert not whole.has("cfg.json", "one/two/three/a.safetensors")
    single = DictionaryFiles.of(tmp_path / "a.safetensors")
    assert single.files == ("a.safetensors", "cfg.json")
    assert single.folder == tmp_path


def test_names_like_a_pattern_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for n in (10, 2, 1):
        tensors(tmp_path, f"layer_{n}.safetensors")
    found = DictionaryFiles.of(tmp_path).like("layer_*.safetensors")
    assert found == ["layer_1.safetensors", "layer_2.safetensors", "layer_10.safetensors"]


# configurations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", '{"a": 1, "b": {"c": [1, 2]}}', {"a": 1, "b": {"c": [1, 2]}}),
        ("c.yaml", "a: 1\nb:\n  c: [1, 2]\n", {"a": 1, "b": {"c": [1, 2]}}),
        ("c.yml", "a: .5", {"a": 0.5}),
        ("c.json", "[1, 2]", {}),
        ("c.yaml", "", {}),
    ],
)
def test_a_configuration_is_a_mapping_or_nothing(name: str, text: str, said: object, tmp_path: Path) -> None:
    tensors(tmp_path)
    (tmp_path / name).write_text(text)
    assert DictionaryFiles.of(tmp_path).config(name) == said
    assert DictionaryFiles.of(tmp_path).config("other.json") == {}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch {mark}']",
        "a: !!python/object/new:pathlib.Path ['{mark}']",
        "a: !!python/name:os.system",
        "!!python/object/apply:builtins.open ['{mark}', 'w']",
    ],
)
def test_yaml_with_tags_of_python_is_refused_and_builds_nothing(text: str, tmp_path: Path) -> None:
    tensors(tmp_path)
    mark = tmp_path / "mark"
    (tmp_path / "config.yaml").write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(UnsafeFile, match=r"config\.yaml is no plain YAML"):
        DictionaryFiles.of(tmp_path).config("config.yaml")
    assert not mark.exists()


@pytest.mark.parametrize("text", ["{", '{"a": }', "\x00\x01", '{"a": 1'])
def test_broken_json_is_named(text: str, tmp_path: Path) -> None:
    tensors(tmp_path)
    (tmp_path / "cfg.json").write_text(text)
    with pytest.raises(CorruptFile, match=r"cfg\.json cannot be read"):
        DictionaryFiles.of(tmp_path).config("cfg.json")


# safetensors -------------------------------------------------------------------------------------------------------------


def test_keys_and_shapes_come_from_the_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DictionaryFiles.of(tensors(tmp_path))

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the tensors were opened")

    monkeypatch.setattr("cutaway.features.formats.source.safe_open", forbidden)
    assert source.keys("a.safetensors") == {"W_enc", "b"}
    assert source.shapes("a.safetensors") == {"W_enc": (2, 3), "b": (3,)}


@pytest.mark.parametrize("cut", [0, 4, 8, 30, -1, -9])
def test_a_truncated_file_is_named_before_anything_is_mapped(cut: int, tmp_path: Path) -> None:
    path = tensors(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    source = DictionaryFiles.of(tmp_path)
    with pytest.raises(CorruptFile, match=r"a\.safetensors"):
        source.tensors("a.safetensors")
    with pytest.raises(CorruptFile, match=r"a\.safetensors"):
        source.keys("a.safetensors")


def test_a_header_that_is_no_json_or_too_long_is_named(tmp_path: Path) -> None:
    for content in (
        b"\xff" * 100,
        (2**60).to_bytes(8, "little") + b"{}",
        (8).to_bytes(8, "little") + b"not json",
    ):
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(CorruptFile, match="not a safetensors file"):
            DictionaryFiles.of(tmp_path).keys("a.safetensors")


def test_a_mapping_of_tensors_behaves_as_one(tmp_path: Path) -> None:
    held = DictionaryFiles.of(tensors(tmp_path)).tensors("a.safetensors")
    assert sorted(held) == ["W_enc", "b"]
    assert len(held) == 2
    assert "W_dec" not in held
    assert held.get("W_dec") is None
    with pytest.raises(KeyError):
        held["W_dec"]
    assert torch.equal(held["b"], torch.ones(3))


LAZY = """
import os, sys
import torch
from cutaway.features.formats import DictionaryFiles
from cutaway.features.formats.circuit_tracer import FORMATS

def resident():
    # anonymous and file pages of this process [bytes], of which mapped pages count once they are touched
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

FORMATS[0].read(DictionaryFiles.of(sys.argv[2]))  # modules that are loaded once
before = resident()
made = FORMATS[0].read(DictionaryFiles.of(sys.argv[1]))
rows = made.directions()[1000:1100].clone(), made.encoders[0].weight[:, 1000:1100].clone()
print(resident() - before, float(rows[0].sum()), float(rows[1].sum()))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_dictionary_of_200_megabytes_is_opened_and_read_by_slices(tmp_path: Path) -> None:
    d, f = 1024, 25_000
    for name, size in (("large", f), ("small", 1100)):
        (tmp_path / name).mkdir()
        made = {"W_enc": torch.ones(size, d), "W_dec": torch.full((size, d), 2.0)}
        made |= {"b_enc": torch.zeros(size), "b_dec": torch.zeros(d)}
        save_file(made, tmp_path / name / "layer_0.safetensors")
    assert os.path.getsize(tmp_path / "large" / "layer_0.safetensors") > 200e6
    script = tmp_path / "lazy.py"
    script.write_text(textwrap.dedent(LAZY))
    done = subprocess.run(
        [sys.executable, script, tmp_path / "large", tmp_path / "small"],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    grown, out, read = done.stdout.split()
    assert (float(out), float(read)) == (2.0 * 100 * d, 1.0 * 100 * d)
    assert int(grown) < 12e6, f"{int(grown) / 1e6:.1f} MB became resident"


# npz -----------------------------------------------------------------------------------------------------------------------


def test_arrays_of_npz_are_tensors(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.ones((2, 3), np.float32), threshold=np.zeros(3))
    held = DictionaryFiles.of(tmp_path).tensors("params.npz")
    assert torch.equal(held["W_enc"], torch.ones(2, 3))
    assert DictionaryFiles.of(tmp_path).shapes("params.npz") == {"W_enc": (2, 3), "threshold": (3,)}


def test_npz_with_objects_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    np.savez(tmp_path / "params.npz", W_enc=np.array([Touches(mark)], dtype=object))
    with pytest.raises(UnsafeFile, match="pickled objects"):
        DictionaryFiles.of(tmp_path).tensors("params.npz")
    assert not mark.exists()


@pytest.mark.parametrize("cut", [0, 10, 100, -30])
def test_a_truncated_npz_is_named(cut: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.ones((20, 30)))
    whole = (tmp_path / "params.npz").read_bytes()
    (tmp_path / "params.npz").write_bytes(whole[:cut])
    with pytest.raises(CorruptFile, match=r"params\.npz"):
        DictionaryFiles.of(tmp_path).tensors("params.npz")


def test_an_npz_whose_array_is_cut_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as out:
        out.writestr("W_enc.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'")
    with pytest.raises(CorruptFile, match=r"params\.npz"):
        DictionaryFiles.of(tmp_path).tensors("params.npz")


# pt ------------------------------------------------------------------------------------------------------------------------


def test_a_state_dict_is_mapped_and_flattened(tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    torch.save({"sae": {"W": weight, "k": 3}, "version": "2"}, tmp_path / "ae.pt")
    source = DictionaryFiles.of(tmp_path)
    held = source.tensors("ae.pt")
    assert torch.equal(held["sae.W"], weight)
    assert (held["sae.k"], held["version"]) == (3, "2")
    assert source.shapes("ae.pt") == {"sae.W": (3, 4)}
    assert source.keys("ae.pt") == {"sae.W", "sae.k", "version"}


@pytest.mark.parametrize("way", ["torch", "pickle", "old"])
def test_a_hostile_pickle_runs_nothing(way: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = {"W": torch.zeros(2), "cfg": Touches(mark)}
    if way == "pickle":
        (tmp_path / "ae.pt").write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, tmp_path / "ae.pt", _use_new_zipfile_serialization=way == "torch")
    with pytest.raises((UnsafeFile, CorruptFile), match=r"ae\.pt"):
        DictionaryFiles.of(tmp_path).tensors("ae.pt")
    assert not mark.exists()


def test_the_owner_is_told_the_line_that_writes_tensors_alone(tmp_path: Path) -> None:
    torch.save({"state_dict": {"W": torch.zeros(2)}, "cfg": Path("x")}, tmp_path / "ae.pt")
    with pytest.raises(UnsafeFile) as caught:
        DictionaryFiles.of(tmp_path).tensors("ae.pt")
    line = caught.value.remedy.split("`")[1]
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True)
    assert DictionaryFiles.of(tmp_path / "ae.safetensors").keys("ae.safetensors") == {"W"}


@pytest.mark.parametrize("cut", [0, 10, 200, -40])
def test_a_truncated_pt_is_named(cut: int, tmp_path: Path) -> None:
    torch.save({"W": torch.zeros(20, 20)}, tmp_path / "ae.pt")
    whole = (tmp_path / "ae.pt").read_bytes()
    (tmp_path / "ae.pt").write_bytes(whole[:cut])
    with pytest.raises(CorruptFile, match=r"ae\.pt"):
        DictionaryFiles.of(tmp_path).tensors("ae.pt")


def test_a_pt_that_is_no_mapping_is_no_dictionary(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "ae.pt")
    with pytest.raises(BadFormat, match="not tensors by name"):
        DictionaryFiles.of(tmp_path).tensors("ae.pt")


# recognition -------------------------------------------------------------------------------------------------------------


def never(_: DictionaryFiles) -> Dictionary:
    raise AssertionError("nothing is read to recognise")


def test_recognition_is_by_what_is_there_and_says_what_it_found(tmp_path: Path) -> None:
    tensors(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({"kind": "one"}))
    one = Format("one", "the one", lambda s: s.config("cfg.json").get("kind") == "one", never)
    other = Format("other", "the other", lambda s: "W_dec" in s.keys("a.safetensors"), never)
    too = Format("too", "also", lambda s: "b" in s.keys("a.safetensors"), never)
    source = DictionaryFiles.of(tmp_path)
    assert recognised(source, {"one": one, "other": other}).name == "one"
    with pytest.raises(BadFormat, match="may be one and too"):
        recognised(source, {"one": one, "other": other, "too": too})
    with pytest.raises(BadFormat, match=r"no known format: a\.safetensors holds W_enc, b"):
        recognised(source, {"other": other})
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b")
    with pytest.raises(BadFormat, match=r"a folder with 1 in it.*Give one of them: .*b\."):
        recognised(source, {"other": other})
    assert recognised(source, {"one": one, "other": other, "too": too}, "too").name == "too"
    with pytest.raises(BadFormat, match=r"no format 'tow'.*Did you mean too"):
        recognised(source, {"one": one, "too": too}, "tow")
