"""Damaged, incomplete and hostile files of every format: a sentence, never a traceback, and nothing is run."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.features.formats.cases import CASES, FORMATS, Case

from cutaway.errors import BadFormat, CorruptFile, CutawayError, NotFinite, NotFound, UnsafeFile
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import DictionaryFiles, recognised

#: One case of each format, and of each class of dictionary_learning.
CHOSEN = [
    "saelens/standard-none-float32", "saelens/gated-none-float32", "saelens/jumprelu-none-float32",
    "saelens/topk-covariance_whitening-float32", "saelens/jumprelu_skip_transcoder-none-float32", "saelens/old-four",
    "dictionary_learning/AutoEncoder-float32", "dictionary_learning/AutoEncoderNew-float32",
    "dictionary_learning/GatedAutoEncoder-float32", "dictionary_learning/JumpReluAutoEncoder-float32",
    "dictionary_learning/AutoEncoderTopK-float32", "dictionary_learning/BatchTopKSAE-float32",
    "dictionary_learning/MatryoshkaBatchTopKSAE-float32", "dictionary_learning/backup-BatchTopKSAE",
    "sparsify/topk-autoencoder-float32", "sparsify/groupmax-transcoder-float32-skip", "releases/gemma-scope-float32",
    "releases/gemma-scope-transcoder-float32", "releases/gemma-scope-2-transcoder_affine", "releases/llama-scope-jumprelu",
    "releases/llama-scope-r1", "torch_files/openai-topk-float32", "torch_files/qwen-scope", "torch_files/goodfire",
    "torch_files/attention-autoencoders", "torch_files/prisma-gated", "torch_files/prisma-transcoder-skip",
    "torch_files/transcoder_circuits-nested", "torch_files/transcoder_circuits-safetensors",
]  # fmt: skip
each = pytest.mark.parametrize("name", CHOSEN)


def copied(name: str, place: Path) -> tuple[Case, Path]:
    """A case whose files may be damaged, and its largest file of tensors."""
    case = CASES[name]
    shutil.copytree(case.folder, place / "case")
    case = Case(place / "case", case.about)
    files = [case.source().folder / file for file in case.source().tensor_files if "whitening" not in file]
    return case, max(files, key=lambda file: file.stat().st_size)


def read(case: Case) -> Dictionary:
    """As one that does not know the format, where it can be recognised."""
    source = case.source()
    asked = case.about["format"]
    row = recognised(source, FORMATS, asked if asked == "gemma-scope-transcoder" else None)
    return row.opened(source, **case.about.get("given", {})).checked()


def tensors(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix == ".npz":
        return {k: torch.from_numpy(v) for k, v in np.load(file).items()}
    return torch.load(file, weights_only=True)


def store(file: Path, values: dict[str, Any]) -> None:
    if file.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in values.items()}, file)
    elif file.suffix == ".npz":
        np.savez(file, **{k: v.numpy() for k, v in values.items()})
    else:
        torch.save(values, file)


@each
def test_a_truncated_file_is_said_to_be(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    content = file.read_bytes()
    for part in (0, 3, len(content) // 3, len(content) - 40):
        file.write_bytes(content[:part])
        with pytest.raises(CorruptFile):
            read(case)


@each
def test_noise_in_place_of_a_header_is_refused(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    content = bytearray(file.read_bytes())
    content[:24] = bytes(range(200, 224))
    file.write_bytes(bytes(content))
    with pytest.raises((CorruptFile, UnsafeFile)):
        read(case)


def parts(values: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Each tensor of a file with the mapping that holds it."""
    found = [(values, key) for key, value in values.items() if torch.is_tensor(value)]
    for key in ("state_dict", "ae"):
        found += [(values[key], inner) for inner in values.get(key, {})]
    return found


@each
def test_a_missing_tensor_is_named_or_not_needed(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    wanted, whole = case.expected, len(parts(tensors(file)))
    refused = 0
    for i in range(whole):
        values = tensors(file)
        holder, key = parts(values)[i]
        value = holder.pop(key)
        kept = file.read_bytes()
        store(file, values)
        try:
            found = read(case)
        except CutawayError:
            refused += 1
        else:
            same = torch.allclose(found.encode(wanted["rows"]), wanted["latents"], atol=1e-5)
            assert same or any("never set" in note for note in found.notes), key
            assert value.numel() != found.decoders[0].weight.numel() or "linear" in key
        file.write_bytes(kept)
    assert refused >= 3


@each
def test_a_tensor_of_another_shape_is_refused(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    for i in range(len(parts(tensors(file)))):
        values = tensors(file)
        holder, key = parts(values)[i]
        if holder[key].ndim == 0 or any(word in key for word in ("stats", "latents_", "group_sizes")):
            continue
        holder[key] = holder[key][:-1].clone()
        kept = file.read_bytes()
        store(file, values)
        with pytest.raises(CutawayError):
            read(case)
        file.write_bytes(kept)


@each
def test_nan_in_weights_is_named(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    values = tensors(file)
    matrices = [(h, k) for h, k in parts(values) if h[k].ndim == 2]
    for holder, key in matrices[:1]:
        holder[key][0, 0] = float("nan")
    store(file, values)
    with pytest.raises(NotFinite, match="holds NaN"):
        read(case)


@each
def test_mixed_types_are_used_as_they_are_and_said(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    values = tensors(file)
    matrices = [(h, k) for h, k in parts(values) if h[k].ndim == 2]
    holder, key = matrices[-1]
    holder[key] = holder[key].double()
    store(file, values)
    found, wanted = read(case), case.expected
    assert any("several types" in note for note in found.notes)
    assert torch.allclose(found.encode(wanted["rows"]), wanted["latents"], atol=1e-4)
    holder[key] = holder[key].to(torch.int32)
    store(file, values)
    with pytest.raises(CutawayError):
        read(case)


@each
def test_a_damaged_configuration_is_refused(name: str, tmp_path: Path) -> None:
    case, _ = copied(name, tmp_path)
    configs = sorted((case.folder / case.about["path"]).rglob("*.json"))
    for file in configs:
        kept = file.read_text()
        file.write_text(kept[: len(kept) // 2])
        with pytest.raises(CorruptFile):
            read(case)
        file.write_text(kept)


#: What no setting of any configuration may be.
ODD: tuple[Any, ...] = ("?", None, [], {}, -1, 0, 2.5, True)


@each
def test_odd_settings_are_refused_or_change_nothing_unsaid(name: str, tmp_path: Path) -> None:
    """Whatever a setting is replaced by, reading gives a sentence or a dictionary, and never another kind of error."""
    case, _ = copied(name, tmp_path)
    rows, count = case.expected["rows"], 0
    for file in sorted((case.folder / case.about["path"]).rglob("*.json")):
        kept = file.read_text()
        for path, value in settings(json.loads(kept)):
            for odd in ODD:
                if odd == value and type(odd) is type(value):
                    continue
                file.write_text(json.dumps(changed(json.loads(kept), path, odd)))
                count += 1
                try:
                    read(case).encode(rows)
                except CutawayError:
                    continue
        file.write_text(kept)
    assert count > 20 or not list((case.folder / case.about["path"]).rglob("*.json"))


def settings(config: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every setting of a configuration, with those inside it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in config.items():
        found.append(((*path, key), value))
        if isinstance(value, dict):
            found += settings(value, (*path, key))
    return found


def changed(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """The configuration with one setting replaced."""
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


class Booby:
    """What runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@each
def test_a_hostile_pickle_is_refused_and_not_run(name: str, tmp_path: Path) -> None:
    case, file = copied(name, tmp_path)
    if file.suffix not in (".pt", ".pth"):
        pytest.skip("its files hold no pickles")
    touched = tmp_path / "touched"
    values = tensors(file)
    for content in (zipped({**values, "cfg": Booby(touched)}), pickle.dumps({**values, "cfg": Booby(touched)}),
                    zipped(Booby(touched))):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(UnsafeFile):
            read(case)
    assert not touched.exists()


def zipped(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_an_npz_of_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    case, file = copied("releases/gemma-scope-float32", tmp_path)
    touched = tmp_path / "touched"
    held = np.empty(1, dtype=object)
    held[0] = Booby(touched)
    np.savez(file, **{k: v.numpy() for k, v in tensors(file).items() if k != "threshold"}, threshold=held)
    with pytest.raises(UnsafeFile, match="pickled objects"):
        read(case)
    assert not touched.exists()


def test_a_yaml_that_would_build_objects_is_refused(tmp_path: Path) -> None:
    save_file({"D": torch.zeros(2, 2), "E": torch.zeros(2, 2), "b": torch.zeros(2), "attn_layers.0.k": torch.zeros(2)},
              tmp_path / "latest_ckpt.safetensors")  # fmt: skip
    touched = tmp_path / "touched"
    (tmp_path / "conf.yaml").write_text(f"a: !!python/object/apply:pathlib.Path.touch [{touched}]\n")
    with pytest.raises(UnsafeFile, match="no plain YAML"):
        DictionaryFiles.of(tmp_path).config("conf.yaml")
    assert not touched.exists()


def test_temporal_autoencoders_are_recognised_and_refused(tmp_path: Path) -> None:
    save_file({"D": torch.zeros(2, 2), "E": torch.zeros(2, 2), "b": torch.zeros(2), "attn_layers.0.k": torch.zeros(2)},
              tmp_path / "latest_ckpt.safetensors")  # fmt: skip
    (tmp_path / "conf.yaml").write_text("llm: gemma\n")
    row = recognised(DictionaryFiles.of(tmp_path), FORMATS)
    assert row.name == "temporal"
    with pytest.raises(BadFormat, match="no row is encoded by itself"):
        row.opened(DictionaryFiles.of(tmp_path))


@pytest.mark.parametrize("name", ["matching_pursuit", "temporal"])
def test_saelens_refuses_what_its_own_package_saved_of_these(name: str) -> None:
    folder = CASES["saelens/standard-none-float32"].folder.parent / "refused" / name
    row = recognised(DictionaryFiles.of(folder), FORMATS)
    with pytest.raises(BadFormat, match=name):
        row.opened(DictionaryFiles.of(folder))


@dataclass
class Settings:
    """A configuration that a package pickles beside its tensors."""

    d_in: int = 6


def test_the_line_for_a_pickled_configuration_writes_a_file_that_is_read(tmp_path: Path) -> None:
    case, file = copied("torch_files/transcoder_circuits-nested", tmp_path)
    state = tensors(file)["state_dict"]
    torch.save({"cfg": Settings(), "state_dict": state}, file)
    with pytest.raises(UnsafeFile) as refused:
        read(case)
    line = re.search(r"`(.+)`", str(refused.value))
    assert line
    root = str(Path(__file__).parents[3])
    script = f"import sys; sys.path[:0] = [{root!r}]\nimport {Settings.__module__}\n{line.group(1)}"
    subprocess.run([sys.executable, "-c", script], cwd=file.parent, check=True, capture_output=True)
    file.unlink()
    found, wanted = read(case), case.expected
    assert found.format == "transcoder_circuits"
    assert torch.allclose(found.reconstruct(wanted["rows"]), wanted["reconstruction"], atol=1e-5)


def test_nothing_there_and_no_tensors_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        DictionaryFiles.of(tmp_path / "away")
    with pytest.raises(BadFormat, match="no file of tensors"):
        DictionaryFiles.of(tmp_path)
    save_file({"something": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(BadFormat, match="no known format: model.safetensors holds something"):
        recognised(DictionaryFiles.of(tmp_path), FORMATS)
