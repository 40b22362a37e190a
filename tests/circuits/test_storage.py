"""Circuits on disk: scores of single examples take the room of the edges that there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from cutaway.circuits import Circuit, Scores, storage
from cutaway.circuits.graph.nodes import standard


def made(n: int = 12) -> Circuit:
    graph, rng = standard(4, 3), np.random.default_rng(0)
    sizes = 10.0 ** rng.integers(-5, 3, size=(n, 1, 1))
    examples = (rng.normal(size=(n, *graph.shape)) * sizes * graph.allowed).astype(np.float32)
    inside = graph.allowed & (rng.random(graph.shape) < 0.2)
    scores = Scores(graph, examples.mean(0, dtype=float), "eap-ig", examples=examples)
    return Circuit(graph, inside, scores)


def test_small_ones_are_read_back_bitwise_in_half_the_room(tmp_path: Path) -> None:
    circuit = made()
    assert circuit.scores is not None
    assert circuit.scores.examples is not None
    again = Circuit.load(circuit.save(tmp_path / "c"))
    assert again.scores is not None
    assert np.array_equal(again.scores.examples, circuit.scores.examples)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(again.scores.values, circuit.scores.values)
    (stored,) = [
        t for name, t in load_file(tmp_path / "c" / "tensors.safetensors").items() if "examples" in name
    ]
    assert stored.numel() == 12 * circuit.graph.n_edges


def test_many_are_kept_to_three_digits_and_all_else_bitwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = made(40)
    assert circuit.scores is not None
    assert circuit.scores.examples is not None
    monkeypatch.setattr(storage, "_MANY", 1000)
    again = Circuit.load(circuit.save(tmp_path / "c"))
    assert again.scores is not None
    assert again.scores.examples is not None
    assert again.scores.examples.dtype == np.float32
    each = circuit.scores.examples
    largest = np.abs(each).max((1, 2), keepdims=True)
    assert (
        np.abs(again.scores.examples - each) <= np.maximum(2.0**-11 * np.abs(each), 2.0**-24 * largest)
    ).all()
    assert np.array_equal(again.scores.values, circuit.scores.values)
    assert np.array_equal(again.membership, circuit.membership)
    before, after = circuit.scores.intervals(), again.scores.intervals()
    moved = np.abs(after.low - before.low) / (before.high - before.low)
    assert np.nanmedian(moved[circuit.graph.allowed]) < 5e-4
    names = load_file(tmp_path / "c" / "tensors.safetensors")
    assert sum(t.numel() * t.element_size() for n, t in names.items() if "examples" in n) < 0.3 * each.nbytes


def test_scores_where_there_is_no_edge_are_not_lost(tmp_path: Path) -> None:
    circuit = made()
    assert circuit.scores is not None
    assert circuit.scores.examples is not None
    w, r = np.argwhere(~circuit.graph.allowed)[0]
    circuit.scores.examples[3, w, r] = 5.0
    again = Circuit.load(circuit.save(tmp_path / "c"))
    assert again.scores is not None
    assert np.array_equal(again.scores.examples, circuit.scores.examples)  # pyright: ignore[reportArgumentType]
