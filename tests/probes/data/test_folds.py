"""Splits that do not part what belongs together."""

from __future__ import annotations

import numpy as np
import pytest
from xor_networks import Specimen

import cutaway
from cutaway.errors import BadInput
from cutaway.probes import (
    ProbeData,
    ProbeOptions,
    probe,
)
from cutaway.probes.data.folds import assign_folds, families
from cutaway.probes.map.verdict import ENCODED

QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def test_tokens_of_a_text_stay_together(net: cutaway.Network, made: Specimen) -> None:
    n = len(made.prompts)
    data = ProbeData(
        made.prompts,
        np.tile([0, 1], n),
        name="place",
        rows=np.repeat(np.arange(n), 2),
        spans=((0, 1), (1, 2)) * n,
    )
    family = families(data)
    assert family.count == n
    folds = assign_folds(data, family, 5, 0)
    assert all(folds[2 * i] == folds[2 * i + 1] for i in range(n))
    found = probe(net, data, at="resid_post", options=QUICK)
    assert float(found.data["score"].max()) > 0.9
    with pytest.raises(BadInput, match="outside its 3 tokens"):
        probe(net, ProbeData(made.prompts, np.tile([0, 1], n // 2), spans=((0, 9),) * n), options=QUICK)


def test_equal_texts_are_found_and_kept_together(net: cutaway.Network, made: Specimen) -> None:
    prompts = made.prompts[:60] * 2
    labels = np.tile(made.labels["used"][:60], 2)
    data = ProbeData(prompts, labels)
    family = families(data)
    assert family.count == 60
    assert "60 inputs repeat others" in family.notes[0]
    folds = assign_folds(data, family, 5, 0)
    assert (folds[:60] == folds[60:]).all()
    torn = ProbeData(prompts, np.concatenate([labels[:60], 1 - labels[:60]]))
    assert any("different labels" in note for note in families(torn).notes)
    noted = probe(net, data, options=QUICK)
    assert any("repeat others" in note for note in noted.data.attrs["notes"])


def test_groups_are_not_parted_and_classes_are_spread(made: Specimen) -> None:
    groups = tuple(np.arange(240) // 8)
    data = ProbeData(made.prompts, made.labels["used"], groups=groups)
    folds = assign_folds(data, families(data), 5, 0)
    for g in set(groups):
        assert len({folds[i] for i in range(240) if groups[i] == g}) == 1
    shares = [data.labels[folds == f].mean() for f in range(5)]
    assert max(shares) - min(shares) < 0.2
    assert np.bincount(folds).min() > 30


def test_fewer_examples_than_folds(net: cutaway.Network, made: Specimen) -> None:
    with pytest.raises(BadInput, match="3 examples in 3 groups cannot be split into 5"):
        probe(net, ProbeData(made.prompts[:3], np.array([0, 1, 0])))
    with pytest.raises(BadInput, match="in 2 groups"):
        probe(net, ProbeData(made.prompts[:40], made.labels["used"][:40], groups=tuple("ab" * 20)))
    lone = np.zeros(40, dtype=int)
    lone[:3] = 1
    with pytest.raises(BadInput, match="fall into one fold"):
        probe(net, ProbeData(made.prompts[:40], lone, groups=("x",) * 3 + tuple(range(37))))


def test_more_sources_than_fits(net: cutaway.Network, made: Specimen) -> None:
    from cutaway.probes.data.folds import source_folds

    folds, names, note = source_folds([f"s{i}" for i in range(240)], 20)
    assert len(set(folds.tolist())) == len(names) == 20
    assert note is not None
    assert "240 sources" in note
    data = ProbeData(made.prompts, made.labels["used"], name="used", sources=tuple(range(240)))
    assert probe(net, data, at="resid_post.0", options=QUICK).finding.word == ENCODED
