"""A plain list of prompts: it can be measured and ablated; what exchanges activations refuses, and says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cutaway
from cutaway.behaviours import Behaviour, read, write
from cutaway.errors import BadBehaviour, BadFormat
from cutaway.network import Network


@pytest.fixture(scope="module")
def plain(tales_net: Network) -> Behaviour:
    pairs = cutaway.behaviour("pronoun", tales_net, n=24)
    rows = [{"clean": c, "right": r[0]} for c, r in zip(pairs.clean, pairs.right_text, strict=True)]
    return cutaway.behaviour(pd.DataFrame(rows), tales_net)


def test_each_prompt_is_told_from_another_of_the_list(plain: Behaviour) -> None:
    assert not plain.paired
    assert "nothing can be patched" in str(plain)
    assert set(plain.corrupted) <= set(plain.clean)
    for row in range(plain.n):
        twin = plain.clean.index(plain.corrupted[row])
        assert plain.right[twin] == plain.wrong[row] != plain.right[row]
    halves = [{*half.clean, *half.corrupted} for half in (plain.discovery, plain.held_out)]
    assert not halves[0] & halves[1]


def test_it_is_performed_and_ablated(tales_net: Network, plain: Behaviour) -> None:
    assert cutaway.performance(tales_net, plain).does_it
    effects = cutaway.ablate(tales_net, plain, by=["layer"], how="zero", layers=[0])
    edited = [
        tales_net.run(prompt, edits=[cutaway.Ablate("z", layer=0, how="zero")], logits="last").logits
        for prompt in plain.clean
    ]
    metric = [
        float(logits[0, -1, r[0]] - logits[0, -1, w[0]])
        for logits, r, w in zip(edited, plain.right, plain.wrong, strict=True)
    ]
    ends = effects.to_dict()
    by_hand = (np.mean(metric) - ends["clean_metric"]) / ends["gap"]
    assert float(effects.data["effect"].mean()) == pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda net, b: cutaway.patch(net, b),
        lambda net, b: cutaway.patch(net, b, by=["layer"]),
        lambda net, b: cutaway.attribution_patch(net, b, by=["layer"]),
        lambda net, b: cutaway.plan(net, b, by=["layer"]),
        lambda net, b: cutaway.path_patch(net, b, senders=["a0.h1"]),
        lambda net, b: cutaway.trace(net, b),
        lambda net, b: cutaway.explain(net, b),
    ],
)
def test_what_exchanges_activations_refuses(tales_net: Network, plain: Behaviour, ask: object) -> None:
    with pytest.raises(BadBehaviour, match="plain list of prompts") as caught:
        ask(tales_net, plain)  # type: ignore[operator]
    assert "cutaway.ablate" in caught.value.remedy


def test_without_answers_they_are_the_networks_own(tales_net: Network, plain: Behaviour) -> None:
    own = cutaway.behaviour(list(plain.clean), tales_net, force=True)
    for row in range(own.n):
        assert own.right[row] == (int(tales_net.run(own.clean[row]).logits[0, -1].argmax()),)
    assert any("likeliest next token" in note for note in own.notes)
    assert cutaway.performance(tales_net, own).accuracy.value == 1


def test_it_stays_so_in_a_file(tales_net: Network, plain: Behaviour, tmp_path: Path) -> None:
    again = read(write(plain, tmp_path / "plain.jsonl"), tales_net)
    assert isinstance(again, Behaviour)
    assert (again.hash, again.paired) == (plain.hash, False)


def test_lists_that_cannot_be_told_apart_or_mix(tales_net: Network, plain: Behaviour) -> None:
    with pytest.raises(BadBehaviour, match="same answer"):
        cutaway.behaviour([{"clean": c, "right": " she"} for c in plain.clean], tales_net)
    rows = [
        {"clean": "Mary was", "right": " sad"},
        {"clean": "Tom was", "corrupted": "Ann was", "right": " a"},
    ]
    with pytest.raises(BadFormat, match="corrupted"):
        cutaway.behaviour(rows, tales_net)
