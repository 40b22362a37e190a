"""Variables that several parts carry together: a head split into four that bring a quarter each, and its twins."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.algorithms.carried.specimens import cases_of_specimen, stated

import cutaway
from cutaway.algorithms.carried import CarriedLimits, CarriedVariables
from cutaway.algorithms.carried.exchanging import VariableExchange
from cutaway.behaviours.cases import Cases
from cutaway.interventions import Patch
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.reports import Table
from cutaway.results import Work
from cutaway.zoo.loaders import load

NAME = "agreement-gpt2"
#: More than a quarter, less than all of it: what one of four heads alone must not reach.
LIMITS = CarriedLimits(carries=0.6)


def split(name: str, head: int, layer: int) -> Network:
    """The network with one head as four of a quarter each: the other heads of the layer, which are not read, become it."""
    model: Any
    model, tokenizer = load(name)
    attention = model.transformer.h[layer].attn
    width = model.config.n_embd // model.config.n_head
    mine = slice(head * width, (head + 1) * width)
    with torch.no_grad():
        whole = attention.c_proj.weight[mine].clone()
        for other in range(model.config.n_head):
            there = slice(other * width, (other + 1) * width)
            for begin in (0, model.config.n_embd, 2 * model.config.n_embd):
                source = slice(begin + mine.start, begin + mine.stop)
                target = slice(begin + there.start, begin + there.stop)
                attention.c_attn.weight[:, target] = attention.c_attn.weight[:, source].clone()
                attention.c_attn.bias[target] = attention.c_attn.bias[source].clone()
            attention.c_proj.weight[there] = whole / model.config.n_head
    return cutaway.open(model, tokenizer=tokenizer)


@cache
def halved() -> tuple[Network, Cases, CarriedVariables]:
    part = Part.parse(stated(NAME)["number"].partition("@")[0])
    assert part.index is not None
    assert part.layer is not None
    net = split(NAME, part.index, part.layer)
    cases = cases_of_specimen(NAME, net)
    return net, cases, cutaway.carried(net, cases, limits=LIMITS)


def test_a_variable_that_nothing_carries_alone_is_found_spread_over_its_parts() -> None:
    _, _, result = halved()
    assert not result.carriers("number")
    (one,) = [one for one in result.spread if one.variable == "number"]
    assert set(one.parts) <= {"a1.h0", "a1.h1", "a1.h2", "a1.h3"}
    assert one.span == "last"
    assert one.largest < 0.6 < one.held.ends()[0]
    assert one.claim.verdict == "supported", one.claim
    assert one.random is None or one.random.value < one.held.value
    assert "number is spread over" in result.headline


def test_parts_exchanged_together_are_what_patching_them_together_gives() -> None:
    net, cases, _ = halved()
    pairs = cases.halves()[0].behaviour(net, "number", n=8)
    two = ((Part("head", 1, 0), "last"), (Part("head", 1, 2), "last"))
    moved = VariableExchange.of(net, pairs, [two, two[:1]], Work()).run(Work(), "")
    clean, corrupted = pairs.clean_tokens(net), pairs.corrupted_tokens(net)
    source = net.run(clean, keep=["z.1"], logits=False)
    edits = [Patch("z.1", source, pos=-1, head=h) for h in (0, 2)]
    rows = torch.arange(pairs.n)
    right, wrong = (torch.tensor([one[0] for one in side]) for side in (pairs.right, pairs.wrong))
    for place, some in enumerate((edits, edits[:1])):
        logits = net.run(corrupted, edits=some, logits="last").logits
        assert logits is not None
        metric = (logits[rows, -1, right] - logits[rows, -1, wrong]).double().numpy()
        np.testing.assert_allclose(moved.result.values[place], metric, atol=1e-4)


@pytest.mark.parametrize("twin", ["", "~shuffled", "~random"])
def test_where_one_part_carries_it_or_none_nothing_is_spread(twin: str) -> None:
    net = cutaway.open(f"zoo:{NAME}{twin}")
    result = cutaway.carried(net, cases_of_specimen(f"{NAME}{twin}", net), force=True)
    assert not [one for one in result.spread if one.claim.supported]
    assert twin or not result.spread


def test_it_is_saved_and_shown(tmp_path: Path, shows_itself: Any) -> None:
    _, _, result = halved()
    again = cutaway.load(result.save(tmp_path / "spread"))
    assert isinstance(again, CarriedVariables)
    assert again.spread == result.spread
    tables = [
        block for section in again.page().sections for block in section.blocks if isinstance(block, Table)
    ]
    assert [table.rows[0][-1] for table in tables if table.head[0] == "together"] == ["supported"]
    shows_itself(result)
