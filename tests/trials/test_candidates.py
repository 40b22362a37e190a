"""Sets of parts and circuits as candidates of one trial, and base runs that are kept while somebody asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour, performance
from cutaway.circuits import CircuitLimits, EdgeBench
from cutaway.circuits.candidate import CircuitCandidate
from cutaway.network import Network
from cutaway.network.parts import Part, parts_of
from cutaway.sweeps import keeping_base_runs
from cutaway.trials import Bench, Limits, PartSet, ends_kept, put_to_test

NAME = "zoo:induction-gpt2"


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open(NAME)


@pytest.fixture(scope="module")
def pairs(net: Network) -> Behaviour:
    return cutaway.behaviour(NAME, net, n=40, force=True)


def test_a_set_of_parts_and_a_circuit_go_through_the_same_trial(net: Network, pairs: Behaviour) -> None:
    known = PartSet((Part("head", 0, 1), Part("head", 1, 1)), parts_of(net))
    trial = put_to_test(Bench.of(net, pairs.held_out), known, Limits(random=12))
    assert trial.kept.value == pytest.approx(1, abs=0.05)
    assert trial.left.value == pytest.approx(0, abs=0.05)
    assert trial.sham == pytest.approx(0, abs=1e-6)
    circuit = CircuitCandidate(cutaway.trace(net, pairs))
    by_edges = put_to_test(EdgeBench.of(net, pairs.held_out), circuit, CircuitLimits(random=12))
    assert by_edges.kept.value == pytest.approx(1, abs=0.05)
    assert by_edges.left.value == pytest.approx(0, abs=0.05)
    assert by_edges.sham is None
    assert len(by_edges.kept_random) == 12
    assert circuit.size <= circuit.total
    assert circuit.words.startswith("input")


def test_what_was_tried_is_not_run_again(net: Network, pairs: Behaviour, count_rows) -> None:
    bench = Bench.of(net, pairs.held_out)
    sets = [[Part("head", 0, 1)], [Part("head", 1, 1)]]
    first = bench.keep_only(sets)
    with count_rows(net) as rows:
        assert np.array_equal(bench.keep_only(sets[::-1]), first[::-1])
    assert rows.linear == 0


def test_sets_and_effects_are_the_same_with_base_runs_kept(net: Network, pairs: Behaviour) -> None:
    half = pairs.discovery
    sets = [[Part("head", 0, 1)], [Part("head", 1, 1), Part("mlp", 0)], []]
    bench = Bench.of(net, half)
    plain = [bench.keep_only(sets), bench.remove(sets), bench.restore(sets)]
    effects = cutaway.patch(net, half, at="z", by=("layer", "head"))
    with ends_kept(net, pairs):
        bench = Bench.of(net, half)
        kept = [bench.keep_only(sets), bench.remove(sets), bench.restore(sets)]
        again = cutaway.patch(net, half, at="z", by=("layer", "head"))
    for a, b in zip(plain, kept, strict=True):
        assert b == pytest.approx(a, abs=1e-4)
    assert again.mean.values == pytest.approx(effects.mean.values, abs=1e-5)


def test_base_runs_are_forgotten_when_nobody_asks_any_more(
    net: Network, pairs: Behaviour, count_rows
) -> None:
    from cutaway.sweeps.base_runs import base_runs

    runs = base_runs(net)
    with ends_kept(net, pairs):
        assert runs._known
        with keeping_base_runs(net):
            pass
        assert runs._known
        with count_rows(net) as rows:
            performance(net, pairs)
            Bench.of(net, pairs.discovery)
            Bench.of(net, pairs.held_out)
        assert rows.linear == 0
    assert not runs._known


def test_explain_measures_each_end_once(count_rows) -> None:
    """At most 170 forwards of all prompts, and no end of a half is run whole a second time.

    The version before took 180, counted by the linear maps that really run, and 240 by what layers are handed (a layer that
    is called for one of its sublayers, or for some of its rows, counts there as a whole).
    """
    torch.manual_seed(0)
    net = cutaway.open("zoo:tales")
    pairs = cutaway.behaviour("pronoun", net, n=96, seed=0)
    ends = {
        tuple(map(tuple, ids)): 0
        for half in (pairs.discovery, pairs.held_out, pairs)
        for ids in (half.clean_ids, half.corrupted_ids)
    }
    with count_rows(net, ends) as rows:
        explanation = cutaway.explain(net, pairs, seed=0)
    tokens = sum(map(len, (*pairs.clean_ids, *pairs.corrupted_ids)))
    assert explanation.verdict == "supported"
    assert rows.linear / rows.per_token / tokens <= 170
    assert rows.layers / net.n_layers / tokens <= 180
    assert max(ends.values()) == 1, ends
