"""`make`: whole or not at all, resumed after a kill, refused early where it cannot end well."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import cutaway
from cutaway import zoo
from cutaway.errors import CorruptFile, NotFound, SaveFailed
from cutaway.recipes import making
from cutaway.recipes.making import make
from cutaway.recipes.workshop import Workshop
from cutaway.zoo.registry import all_specimens

NAME = "superposition-llama"


def test_made_again_it_is_the_shipped_network(tmp_path: Path) -> None:
    folder = make(NAME, tmp_path / "made")
    shipped = zoo.path(NAME)
    a, b = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (folder, shipped))
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    new, old = (json.loads((f / "card.json").read_text()) for f in (folder, shipped))
    assert new["accuracy"] == old["accuracy"]
    assert new["truth"]["nodes"] == old["truth"]["nodes"]
    assert not (tmp_path / "made.work").exists()
    make(NAME, folder)  # a specimen may be replaced


def test_unknown_names_get_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="superposition-llama"):
        make("superposition-lama", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_other_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SaveFailed, match="no specimen"):
        make(NAME, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_full_disk_is_noticed_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(SaveFailed, match="MB free"):
        make(NAME, tmp_path / "x")


@pytest.mark.parametrize("where", ["weights", "card"])
def test_a_disk_that_fills_while_saving_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    old = make(NAME, tmp_path / "made")
    before = (old / "card.json").read_bytes()

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    if where == "weights":
        monkeypatch.setattr(making, "save_model", full)
    else:
        monkeypatch.setattr(making, "card_of", full)
    with pytest.raises(SaveFailed, match="No space left"):
        make(NAME, old)
    assert (old / "card.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name != "made"] in ([], ["made.work"])


def test_checkpoints_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(tmp_path)
    assert shop.load("x") is None
    shop.save("x", {"step": 1})
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("cutaway.results.files.os.replace", lambda *a: (_ for _ in ()).throw(full))
    with pytest.raises(SaveFailed, match="No space left"):
        shop.save("x", {"step": 2})
    monkeypatch.undo()
    assert shop.load("x") == {"step": 1}
    (tmp_path / "x.checkpoint").write_bytes(io.BytesIO(b"half a file").getvalue())
    with pytest.raises(CorruptFile, match="Remove it"):
        shop.load("x")
    shop.discard()
    assert not tmp_path.exists()


def test_every_specimen_lies_on_the_shelf_and_is_small() -> None:
    ours = {s.name for s in all_specimens().values() if s.family in ("constructed", "trained naturally")}
    assert ours <= set(zoo.names())
    for name in zoo.names():
        size = sum(f.stat().st_size for f in zoo.path(name).glob("*.safetensors"))
        assert size <= (5_000_000 if name.startswith("tales") else 1_000_000), name
    total = sum(f.stat().st_size for name in zoo.names() for f in zoo.path(name).rglob("*.safetensors"))
    assert total <= 25_000_000


def test_every_specimen_loads_with_plain_transformers() -> None:
    for name in zoo.names():
        folder = zoo.path(name)
        model = AutoModelForCausalLM.from_pretrained(folder)
        vocabulary = zoo.card(name)["architecture"]["vocabulary"]
        assert model(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, vocabulary), name
        assert sum(p.numel() for p in model.parameters()) == zoo.card(name)["architecture"]["parameters"], (
            name
        )


def test_twins_and_checkpoints_open_by_name() -> None:
    for twin in ("random", "shuffled", "without"):
        net = cutaway.open(f"zoo:{NAME}~{twin}")
        assert net.certificate.made
    with pytest.raises(NotFound, match="no twin 'evil'"):
        cutaway.open(f"zoo:{NAME}~evil")
    with pytest.raises(NotFound, match="no folder for a checkpoint"):
        cutaway.open(f"zoo:{NAME}@step9")
    with pytest.raises(NotFound, match="no folder"):
        zoo.path(f"{NAME}@../{NAME}")
