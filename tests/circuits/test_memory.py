"""What tracing announces of memory is what it takes, counted by the bytes of the tensors that are made."""

from __future__ import annotations

from typing import Any

import pytest

import cutaway
from cutaway.network.allocations import peak_bytes
from cutaway.results import Progress, Work


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("eap", {"edges": 40}),
        ("eap-ig", {"steps": 4, "edges": 40}),
        ("mask-edges", {"rounds": 3}),
        ("atp-star", {"nodes": 6}),
        ("clean-corrupted", {"edges": 40}),
        ("relp", {"edges": 40}),
    ],
)
def test_tracing_takes_what_it_announces(method: str, options: dict[str, Any]) -> None:
    net = cutaway.open("zoo:tales")
    pairs = cutaway.behaviour("pronoun", net, n=48, seed=11)
    heard: list[Progress] = []
    cutaway.trace(net, pairs, method=method, force=True, work=Work(heard.append), **options)
    (said,) = (progress.price.memory for progress in heard if progress.price is not None)
    took = peak_bytes(lambda: cutaway.trace(net, pairs, method=method, force=True, **options))
    assert said == pytest.approx(took, rel=0.2)


@pytest.mark.parametrize(
    ("method", "options"),
    [("node-patching", {"nodes": 2}), ("eap", {})],
    ids=["one by one", "a size that is searched"],
)
def test_what_cannot_be_told_from_a_few_pairs_is_not_announced(method: str, options: dict[str, Any]) -> None:
    net = cutaway.open("zoo:induction")
    pairs = cutaway.behaviour("zoo:induction", net, n=8)
    heard: list[Progress] = []
    cutaway.trace(net, pairs, method=method, force=True, work=Work(heard.append), **options)
    assert [p.price.memory for p in heard if p.price is not None] == [None]
