"""A real pretrained network, where its folder is named: read while the user generates, and opened again elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutaway

PROMPTS = ["The capital of France is", "When Mary and John went to the store, John gave a drink to"]


@pytest.fixture(scope="module")
def folder() -> Path:
    named = os.environ.get("CUTAWAY_SMOLLM2")
    if not named or not Path(named).is_dir():
        pytest.skip("CUTAWAY_SMOLLM2 does not name the folder of SmolLM2-135M")
    return Path(named)


@pytest.fixture(scope="module")
def net(folder: Path) -> cutaway.Network:
    return cutaway.open(str(folder), dtype="float32")


def test_reading_while_the_user_generates(net: cutaway.Network) -> None:
    tokens = net.encode(PROMPTS[0])
    given = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}
    options = {
        "max_new_tokens": 8,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    bare = net.model.generate(**given, **options)
    with net.attached(reads=["resid_post", "z"]) as attached:
        watched = net.model.generate(**given, **options)
    assert torch.equal(bare.sequences, watched.sequences)
    assert all(torch.equal(a, b) for a, b in zip(bare.logits, watched.logits, strict=True))
    whole = net.run(watched.sequences[:, :-1], keep=["resid_post", "z"], logits=False)
    start = tokens.width
    assert len(attached.runs) == 8
    for site in ("resid_post", "z"):
        for layer in (0, 14, 29):
            parts = torch.cat([run[site, layer] for run in attached.runs], 1)
            scale = float(whole[site, layer].abs().max())
            assert float((parts - whole[site, layer]).abs().max()) <= 1e-4 * scale
            alone = net.run(tokens, keep=[site], layers=[layer], logits=False)[site, layer]
            assert torch.equal(parts[:, :start], alone)


def test_another_process_opens_the_same(net: cutaway.Network) -> None:
    said = json.dumps(net.opened.to_dict())
    code = (
        "import cutaway, json, sys; from cutaway.network.opened import Opened; "
        "print(cutaway.open(**Opened.from_dict(json.loads(sys.argv[1]))).hash)"
    )
    done = subprocess.run([sys.executable, "-c", code, said], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == net.hash


def test_the_second_opening_examines_nothing(
    net: cutaway.Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUTAWAY_CACHE", str(tmp_path))
    cutaway.open(str(folder), dtype="float32")
    monkeypatch.setattr("cutaway.network.opening.examine_model", None)
    again = cutaway.open(str(folder), dtype="float32")
    assert again.remembered
    assert again.certificate == net.certificate
    assert (again.hash, again.sites()) == (net.hash, net.sites())
    assert torch.equal(again.run(PROMPTS[0]).logits, net.run(PROMPTS[0]).logits)


def test_years_are_compared_by_their_digits(net: cutaway.Network) -> None:
    years = cutaway.behaviour("greater-than", net, n=32)  # NotPerformed otherwise
    assert cutaway.performance(net, years).accuracy.value > 0.9


def test_capitals_in_conversation(net: cutaway.Network) -> None:
    if not getattr(net.tokenizer, "chat_template", None):
        pytest.skip("this network was not trained on conversations")
    capitals = {
        "France": "Paris",
        "Italy": "Rome",
        "Spain": "Madrid",
        "Japan": "Tokyo",
        "Egypt": "Cairo",
        "Cuba": "Havana",
    }
    shots = [("Germany", "Berlin"), ("Poland", "Warsaw")]
    turns = [
        {"role": role, "content": said}
        for land, city in shots
        for role, said in (("user", f"What is the capital of {land}?"), ("assistant", city))
    ]
    asked = {
        land: [*turns, {"role": "user", "content": f"What is the capital of {land}?"}] for land in capitals
    }
    rows = [
        {"clean": asked[a], "corrupted": asked[b], "right": capitals[a], "wrong": capitals[b]}
        for a in capitals
        for b in capitals
        if a != b
    ]
    pairs = cutaway.behaviour(rows, net, system="Answer with one word.", aligned=True)
    assert cutaway.performance(net, pairs).does_it
    reply = net.generate(net.chat("What is the capital of France?"), 60)
    assert "Paris" in reply.replies[0]
    assert reply.ended == (True,)
