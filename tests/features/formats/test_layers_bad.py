"""Files with several layers that are damaged, incomplete or of another kind: clear errors, nothing run, nothing silent."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.features.formats.layers import FORMATS, opened
from tests.features.formats.packing import unpacked
from torch import Tensor

from cutaway.errors import BadFormat, BadInput, CorruptFile, CutawayError, NotFinite, UnsafeFile
from cutaway.features.formats import DictionaryFiles, recognised

#: A case of each format, its file of weights, a key in it, and a configuration.
ONE = [
    ("circuit_tracer", "set-jump-skip-mid-f32", "layer_1.safetensors", "b_enc", "config.yaml"),
    ("circuit_tracer", "clt-jumprelu-4-mid-f32", "W_enc_1.safetensors", "b_enc_1", "config.yaml"),
    ("circuit_tracer", "mwhanna-relu-wanb-f32", "layer_1.safetensors", "b_dec", "wanb-config.yaml"),
    ("gemma_clt", "gemma-affine-f32", "params_layer_1.safetensors", "b_dec", "config.json"),
    ("llamascopium", "clt-jumprelu-inference-weighted-f32", "sae_weights.safetensors", "b_E", "config.json"),
    ("llamascopium", "sae-jumprelu-inference-f32", "sae_weights.safetensors", "W_D", "config.json"),
    ("llamascopium", "crosscoder-relu-inference-f32", "sae_weights.safetensors", "b_D", "config.json"),
    ("clt_forge", "forge-clt-scaled-f32", "clt_weights.safetensors", "W_dec", "cfg.json"),
    ("crosslayer_transcoder", "jumprelu-clt-f32", "checkpoint.safetensors", "decoder.W_1", "config.yaml"),
    ("crosslayer_coding", "none-jumprelu-f32", "clt.safetensors",
     "decoder_module.decoders.0->1.bias_param", "cfg.json"),
]  # fmt: skip
IDS = [f"{row[0]}-{row[1]}" for row in ONE]
each = pytest.mark.parametrize(("family", "name", "file", "key", "config"), ONE, ids=IDS)


def read(folder: Path, format: str) -> Any:
    """Read with the format that is asked for, as a caller may."""
    source = DictionaryFiles.of(folder)
    return recognised(source, FORMATS, asked=format).read(source).checked()


def changed(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    held = {key: value.clone() for key, value in load_file(path).items()}
    change(held)
    save_file(held, path)


@each
def test_a_truncated_or_corrupt_file_is_named(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    format = opened(folder).format
    whole = (folder / file).read_bytes()
    for broken in (whole[:-5], whole[:20], b"", b"\xff" * 64, whole[:8] + b"{" * 40):
        (folder / file).write_bytes(broken)
        with pytest.raises(CorruptFile, match=file):
            read(folder, format)


@each
def test_a_missing_key_is_named(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    format = opened(folder).format
    changed(folder / file, lambda held: held.pop(key))
    with pytest.raises(BadFormat, match=key.replace("->", ".*")):
        read(folder, format)


@each
def test_a_key_that_the_format_does_not_have_is_not_ignored(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    format = opened(folder).format
    changed(folder / file, lambda held: held.update(scaling_factor=torch.ones(3)))
    with pytest.raises(BadFormat, match="scaling_factor"):
        read(folder, format)


@each
def test_a_tensor_of_another_shape_or_of_whole_numbers_is_named(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    format = opened(folder).format
    before = load_file(folder / file)[key]
    changed(folder / file, lambda held: held.update({key: before[..., :-1].clone()}))
    with pytest.raises(CutawayError, match=r"shape|reads"):
        read(folder, format)
    changed(folder / file, lambda held: held.update({key: before.long()}))
    with pytest.raises(BadFormat, match="not floating-point"):
        read(folder, format)


@each
def test_nan_and_infinity_in_weights_are_refused(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    format = opened(folder).format
    for bad in (float("nan"), float("inf")):
        changed(folder / file, lambda held, bad=bad: held[key].view(-1)[0:1].fill_(bad))
        with pytest.raises(NotFinite, match="NaN or infinity"):
            read(folder, format)


@each
def test_a_configuration_that_is_broken_is_named(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    (folder / config).write_text(
        "{" if config.endswith(".json") else "a: [b\nc: !!python/object/apply:os.system ['x']"
    )
    with pytest.raises((CorruptFile, UnsafeFile), match=config):
        opened(folder)


@each
def test_a_setting_that_nobody_understands_is_told(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    if config == "wanb-config.yaml":
        pytest.skip("wandb's settings are those of its training, kept as they are")
    folder, _ = unpacked(family, name, tmp_path)
    text = (folder / config).read_text()
    if config.endswith(".json"):
        (folder / config).write_text(json.dumps(json.loads(text) | {"new_trick": 3}))
    else:
        inner = "  new_trick: 3\n" if text.startswith("model:") else "new_trick: 3\n"
        (folder / config).write_text(
            text.replace("model:\n", f"model:\n{inner}") if inner[0] == " " else text + inner
        )
    assert any("new_trick" in note for note in opened(folder).notes)


@each
def test_mixed_types_are_noted_and_computed_with(
    family: str, name: str, file: str, key: str, config: str, tmp_path: Path
) -> None:
    folder, expected = unpacked(family, name, tmp_path)
    weights = next(
        k for k in load_file(folder / file) if k.lower().startswith(("w_e", "encoder")) and "bias" not in k
    )
    changed(folder / file, lambda held: held.update({weights: held[weights].bfloat16()}))
    made = opened(folder)
    assert any("several types" in note for note in made.notes)
    rows = torch.cat([expected[f"x.{i}"] for i in range(len(made.reads[0]))], -1)
    assert made.encode(rows).dtype == torch.float32


class Touches:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return touched, (str(self.path),)


def touched(path: str) -> None:
    Path(path).write_text("run")


@pytest.mark.parametrize(
    ("family", "name", "file"),
    [
        ("llamascopium", "sae-jumprelu-pt-f32", "sae_weights.pt"),
        ("crosscoders", "kissane-cc_weights-f32", "cc_weights.pt"),
        ("crosscoders_learned", "learned-relu-f32", "ae.pt"),
    ],
)
def test_a_hostile_pickle_is_refused_and_runs_nothing(
    family: str, name: str, file: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    assert (folder / file).exists()
    mark = tmp_path / "mark"
    torch.save({"W_E": torch.zeros(2), "evil": Touches(mark)}, folder / file)
    with pytest.raises(UnsafeFile, match=file):
        opened(folder)
    with (folder / file).open("wb") as stream:
        pickle.dump({"W_E": Touches(mark)}, stream)
    with pytest.raises((UnsafeFile, CorruptFile), match=file):
        opened(folder)
    assert not mark.exists()


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "lorsa"])
def test_files_that_are_said_to_be_of_another_format_are_refused(format: str, tmp_path: Path) -> None:
    cases = [("circuit_tracer", "set-relu-mid-f32"), ("llamascopium", "sae-relu-inference-f32"),
             ("crosscoders", "kissane-cc_weights-f32")]  # fmt: skip
    for family, name in cases:
        folder, _ = unpacked(family, name, tmp_path)
        if opened(folder).format != format:
            with pytest.raises(CutawayError):
                read(folder, format)


def test_sizes_of_another_run_are_noticed(tmp_path: Path) -> None:
    folder, _ = unpacked("circuit_tracer", "mwhanna-relu-wandb-f32", tmp_path)
    text = (folder / "wandb-config.yaml").read_text()
    (folder / "wandb-config.yaml").write_text(text.replace("value: 10", "value: 11"))
    with pytest.raises(BadFormat, match="d_feature 11, and the weights have 10"):
        opened(folder)
    folder, _ = unpacked("circuit_tracer", "set-relu-mid-f32", tmp_path)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("transcoder_set", "cross_layer_transcoder"))
    with pytest.raises(BadFormat, match="model_kind"):
        opened(folder)


@pytest.mark.parametrize(
    ("family", "name", "config", "key", "size"),
    [
        ("llamascopium", "sae-relu-inference-f32", "config.json", "d_model", 5),
        ("llamascopium", "clt-relu-inference-f32", "config.json", "expansion_factor", 2.0),
        ("clt_forge", "forge-clt-f32", "cfg.json", "d_latent", 20),
        ("crosslayer_coding", "none-relu-f32", "cfg.json", "num_features", 20),
        ("crosslayer_coding", "none-relu-f32", "cfg.json", "num_layers", 4),
        ("crosscoders", "kissane-cc_weights-f32", "cfg.json", "dict_size", 20),
        ("crosscoders_learned", "learned-relu-f32", "config.json", "activation_dim", 20),
    ],
)
def test_a_configuration_of_another_size_is_refused(
    family: str, name: str, config: str, key: str, size: float, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    assert opened(folder).encoders
    said = json.loads((folder / config).read_text())
    (folder / config).write_text(json.dumps(said | {key: size}))
    with pytest.raises(BadFormat):
        opened(folder)


def test_decode_says_that_it_needs_rows_for_a_skip(tmp_path: Path) -> None:
    made = opened(unpacked("circuit_tracer", "set-relu-skip-mid-f32", tmp_path)[0])
    with pytest.raises(BadInput, match="depends on the row"):
        made.decode([torch.zeros(2, 10)] * 3)
