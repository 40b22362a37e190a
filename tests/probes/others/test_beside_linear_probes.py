"""Nonlinear, pooled and contrast-consistent probes, on networks of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from xor_networks import Specimen

import cutaway
from cutaway.errors import BadInput
from cutaway.probes import ProbeData, ProbeOptions, probe
from cutaway.probes.others.contrast_consistent import contrast_consistent
from cutaway.probes.others.nonlinear import beside_linear
from cutaway.probes.others.pooled import pooled

QUICK = ProbeOptions(permutations=20, untrained=False, n_boot=60)


def test_a_hidden_layer_finds_what_only_a_bend_can_read(net: cutaway.Network, made: Specimen) -> None:
    data = ProbeData(made.prompts, made.labels["absent"], name="absent")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    bend = beside_linear(net, found, data)
    assert bend.linear.value < 0.65
    assert bend.bent
    assert "hidden layer" in str(bend)
    linear = ProbeData(made.prompts, made.labels["used"], name="used")
    assert not beside_linear(net, probe(net, linear, at="resid_post.0", options=QUICK), linear).bent


def test_pooling_finds_the_place(net: cutaway.Network, made: Specimen) -> None:
    """The label is the first token's bit; at the embedding it stands at the first position only."""
    bit = np.array([(row[0] - 3) // 6 & 1 for row in made.prompts])
    data = ProbeData(made.prompts, bit, name="bit")
    found = pooled(net, data, at="embed", options=QUICK)
    assert found.pooled.value > 0.95
    assert found.last.value == pytest.approx(0.5, abs=0.1)
    assert float(found.attention[:, 2].mean()) < 0.4
    with pytest.raises(BadInput, match="is 2 sites"):
        pooled(net, data, at="resid_post")


def test_contrast_consistent_search_finds_an_opposition_without_labels(
    net: cutaway.Network, made: Specimen
) -> None:
    """Pairs that differ in `used` only through the second token: the two members have opposite values of it."""
    by_code: dict[tuple[int, int], list[list[int]]] = {}
    for row, value in zip(made.prompts, made.labels["used"], strict=True):
        by_code.setdefault((row[0], int(value)), []).append(row)
    pairs, labels = [], []
    rng = np.random.default_rng(0)
    for (first, value), rows in by_code.items():
        for mine, other in zip(rows, by_code.get((first, 1 - value), []), strict=False):
            if value == 1:
                swap = int(rng.integers(2))
                pairs.append((mine, other) if swap else (other, mine))
                labels.append(swap)
    assert len(pairs) > 20
    found = contrast_consistent(net, pairs, at="resid_post.1", labels=labels)
    assert found.accuracy is not None
    assert found.accuracy.value > 0.8
    assert "up to the sign" in str(found)
    assert contrast_consistent(net, pairs, at="resid_post.1").accuracy is None
    with pytest.raises(BadInput, match="too few"):
        contrast_consistent(net, pairs[:3], at="resid_post.1")
    with pytest.raises(BadInput, match="not one 0 or 1"):
        contrast_consistent(net, pairs, at="resid_post.1", labels=labels[:3])
