"""The door to the shipped networks: known names open, unknown ones are helped, damaged ones are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cutaway import zoo
from cutaway.errors import CorruptFile, CutawayError, NotFound
from cutaway.zoo import loaders


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shelf that a test may damage."""
    shutil.copytree(zoo.path("tales"), tmp_path / "tales")
    monkeypatch.setattr(loaders, "_shelf", lambda: tmp_path)
    return tmp_path / "tales"


def test_tales_opens_with_plain_transformers() -> None:
    folder = zoo.path("tales")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.vocab_size == len(tokenizer)
    prompt = tokenizer("When Mary and John went to the park, John gave the ball to", return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=2)
    assert tokenizer.decode(out[0, -2:]) == " Mary."


def test_weights_are_small() -> None:
    assert (zoo.path("tales") / "model.safetensors").stat().st_size <= 4_000_000


def test_card_says_what_the_network_is() -> None:
    card = zoo.card("tales")
    assert card["licence"] == "Apache-2.0"
    assert card["seed"] == card["recipe"]["seed"]
    model, _ = zoo.load("tales")
    assert card["architecture"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert all(0 <= row["low"] <= row["top1"] <= row["high"] <= 1 for row in card["accuracy"].values())


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(NotFound, match="Did you mean 'tales'"):
        zoo.path("tale")
    with pytest.raises(CutawayError, match="The zoo ships: .*tales"):
        zoo.path("zzz")


def test_changed_weights_are_refused(shelf: Path) -> None:
    weights = shelf / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for door in (zoo.path, zoo.load, zoo.card):
        with pytest.raises(CorruptFile, match=r"model\.safetensors"):
            door("tales")


def test_truncated_and_missing_weights_are_refused(shelf: Path) -> None:
    weights = shelf / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptFile):
        zoo.path("tales")
    weights.unlink()
    with pytest.raises(CorruptFile, match="missing"):
        zoo.path("tales")


def test_an_unreadable_card_is_refused(shelf: Path) -> None:
    (shelf / "card.json").write_text(json.dumps({"sha256": {}})[:-3])
    with pytest.raises(CorruptFile, match="card"):
        zoo.path("tales")
