"""What reading texts announces of memory is what it takes, counted by the bytes of the tensors that are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cutaway
from cutaway.network import Network
from cutaway.network.allocations import peak_bytes
from cutaway.results import Budget, Progress, Work
from cutaway.zoo.tiny import tiny


@pytest.fixture(scope="module")
def net() -> Network:
    size = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
    return cutaway.open(tiny("llama", num_hidden_layers=4, head_dim=64, **size))


def announced(call: Any, budget: int | None) -> int:
    heard: list[Progress] = []
    call(Work(heard.append, Budget(memory=budget)))
    (price,) = (progress.price for progress in heard if progress.price is not None)
    assert price.memory is not None
    return price.memory


@pytest.mark.parametrize("budget", [None, 48 << 20])
@pytest.mark.parametrize("at", ["resid_post", "resid_post.1", "mlp_act"])
def test_activations_take_what_they_announce(
    net: Network, tmp_path: Path, at: str, budget: int | None
) -> None:
    rows = np.random.default_rng().integers(5, 60, (300, 24)).tolist()
    said = announced(
        lambda work: cutaway.activations(net, rows, at=at, folder=tmp_path / "a", work=work), budget
    )
    work = Work(budget=Budget(memory=budget))
    took = peak_bytes(lambda: cutaway.activations(net, rows, at=at, folder=tmp_path / "b", work=work))
    assert said == pytest.approx(took, rel=0.2)


@pytest.mark.parametrize("budget", [None, 24 << 20])
def test_top_examples_take_what_they_announce(net: Network, budget: int | None) -> None:
    rows = np.random.default_rng().integers(5, 60, (200, 24)).tolist()
    said = announced(lambda work: cutaway.top_examples(net, rows, of="n1.3", work=work), budget)
    work = Work(budget=Budget(memory=budget))
    took = peak_bytes(lambda: cutaway.top_examples(net, rows, of="n1.3", work=work))
    assert said == pytest.approx(took, rel=0.2)
