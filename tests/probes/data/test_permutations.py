"""Permutations of labels, and what they are a null for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xor_networks import Specimen

import cutaway
from cutaway.probes import (
    ProbeData,
    ProbeOptions,
    probe,
)
from cutaway.probes.data.folds import assign_folds, families
from cutaway.probes.data.permutations import ExchangeRule, different, permutations
from cutaway.probes.map.setting import Setting
from cutaway.probes.map.significance import significance
from cutaway.probes.map.verdict import ENCODED

QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def test_permutations_keep_what_the_groups_fix(made: Specimen) -> None:
    whole = np.repeat(np.arange(30) % 2, 8)
    data = ProbeData(made.prompts, whole, groups=tuple(np.arange(240) // 8))
    family = families(data)
    nearly = whole.copy()
    nearly[::8] = 1 - nearly[::8]  # one of eight is otherwise: the group still counts as one
    for labels in (whole, nearly):
        exchange = ExchangeRule.of(labels, family, 5)
        assert (exchange.how, exchange.blind) == ("groups", False)
        folds = assign_folds(data, family, 5, 0)
        exchanged = permutations(labels, family, 40, 0, exchange, folds)
        for row in exchanged:
            assert sorted(row) == list(range(240))
            assert all(len({whole[i] for i in row[8 * g : 8 * g + 8]}) == 1 for g in range(30))
            assert (folds[row] == folds).all()
        assert len({tuple(row) for row in exchanged.tolist()}) > 35
    mixed = np.tile([0, 1], 120)
    exchange = ExchangeRule.of(mixed, family, 5)
    assert exchange == ExchangeRule("examples within groups", False)
    exchanged = permutations(mixed, family, 5, 0, exchange)
    assert all(row[8 * g : 8 * g + 8].sum() == 4 for row in mixed[exchanged] for g in range(30))


def test_permutations_of_few_or_uneven_groups_cross_blind_folds(made: Specimen) -> None:
    uneven = np.concatenate([np.repeat(np.arange(20), 10), 20 + np.arange(40)])
    labels = (uneven % 2).astype(int)
    data = ProbeData(made.prompts, labels, groups=tuple(uneven))
    family = families(data)
    exchange = ExchangeRule.of(labels, family, 5)
    assert (exchange.how, exchange.blind) == ("groups", True)
    other = ProbeData(made.prompts, 1 - labels, groups=tuple(uneven))
    folds = assign_folds(data, family, 5, 0, blind=True)
    assert (folds == assign_folds(other, family, 5, 0, blind=True)).all()  # the labels play no part
    assert np.bincount(folds).min() > 40
    exchanged = permutations(labels, family, 20, 0, exchange, folds)
    assert any((folds[row] != folds).any() for row in exchanged)
    assert all(len(set(labels[row])) == 2 for row in exchanged)
    few = np.repeat(np.arange(12), 20)
    assert ExchangeRule.of(few % 2, families(ProbeData(made.prompts, few % 2, groups=tuple(few))), 5).blind


def test_permutation_tests_of_noise_keep_their_level() -> None:
    """Group labels of pure noise on features that vary by group: the rate of p <= 0.1 must be near 0.1, in four classes,
    where folds that know the labels would give about twice that."""
    rng, hits, runs = np.random.default_rng(0), 0, 150
    groups = np.repeat(np.arange(40), 5)
    for seed in range(runs):
        labels = rng.permutation(np.arange(40) % 4)[groups]
        data = ProbeData(
            [f"t{i}" for i in range(200)], labels, "multiclass", tuple("abcd"), groups=tuple(groups)
        )
        setting = Setting.of(data, ProbeOptions(permutations=39, penalties=(0.1,)), seed)
        x = torch.tensor(rng.normal(size=(40, 8))[groups] + 0.3 * rng.normal(size=(200, 8)))
        found = setting.held_out(x, setting.labellings())
        scores = found.scores.numpy()
        hits += significance(scores[:1], scores[None, 1:])["p"][0] <= 0.1
    assert 2 <= hits <= 27  # 15 expected, deviation 3.7


def test_permutations_without_a_score_count_against_the_label() -> None:
    null = np.array([[0.1, np.nan, np.nan, 0.2]])
    assert significance(np.array([0.9]), null)["p"][0] == pytest.approx(3 / 5)
    nothing = significance(np.array([0.9]), np.full((1, 4), np.nan))
    assert nothing["p"][0] == nothing["p_best"][0] == 1.0


def test_groups_whose_size_goes_with_the_label_are_still_exchanged(
    net: cutaway.Network, made: Specimen
) -> None:
    """Groups of three of one class and of two of the other: exchanging like sizes only would leave all labels alone."""
    truth = np.asarray(made.labels["used"])
    ones, zeros = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    keep = [*ones[: len(ones) // 3 * 3], *zeros[: len(zeros) // 2 * 2]]
    groups = [f"a{i // 3}" for i in range(len(ones) // 3 * 3)] + [
        f"b{i // 2}" for i in range(len(zeros) // 2 * 2)
    ]
    data = ProbeData([made.prompts[i] for i in keep], truth[keep], name="used", groups=tuple(groups))
    found = probe(net, data, at="resid_post.0", options=QUICK)
    assert found.finding.word == ENCODED
    assert different(data.labels, Setting.of(data, QUICK).permuted) >= 19


def test_values_that_jitter_within_groups_are_exchanged_by_group() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    values = rng.normal(size=40)[groups]
    data = ProbeData([f"t{i}" for i in range(200)], values, "continuous", (), groups=tuple(groups))
    family = families(data)
    assert ExchangeRule.of(values + 0.01 * rng.normal(size=200), family, 5).how == "groups"
    assert ExchangeRule.of(rng.normal(size=200), family, 5).how == "examples within groups"
