"""Formulas of evaluation and the hypothesis tests, against their definitions, scipy, and cases that are known."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cutaway.circuits import Circuit, EdgeBench, score, wiring
from cutaway.circuits.evaluation.completeness import completeness, influence, marginal
from cutaway.circuits.evaluation.faithfulness import SHARES, circuits_by_size, curve, dynamic, size_needed
from cutaway.circuits.evaluation.hypotheses import (
    beats_random,
    equivalence,
    hsic,
    independence,
    least_for_equivalence,
    least_for_wins,
    minimality,
)
from cutaway.circuits.evaluation.stability import (
    against_truth,
    between,
    jaccard,
    over_bootstrap,
)
from cutaway.circuits.passes.ablation import WAYS, ablation
from cutaway.errors import BadBehaviour, BadInput, NotFound
from cutaway.statistics import auroc, average_precision, log_binomial_tail


@given(st.integers(1, 400), st.data(), st.floats(0.01, 0.99))
def test_binomial_tails_are_exact(n: int, data: st.DataObject, p: float):
    k = data.draw(st.integers(0, n))
    above, whole = p.as_integer_ratio()
    terms = [math.comb(n, i) * above**i * (whole - above) ** (n - i) for i in range(n + 1)]
    upper, lower = (float(Fraction(sum(part), whole**n)) for part in (terms[k:], terms[: k + 1]))
    assert math.exp(log_binomial_tail(n, k, p)) == pytest.approx(upper, rel=1e-8, abs=1e-300)
    assert math.exp(log_binomial_tail(n, k, p, "lower")) == pytest.approx(lower, rel=1e-8, abs=1e-300)


def test_tails_do_not_underflow():
    assert log_binomial_tail(50_000, 50_000, 0.5) == pytest.approx(50_000 * math.log(0.5))
    assert math.isfinite(log_binomial_tail(20_000, 15_000, 0.5))


def test_equivalence():
    rng = np.random.default_rng(0)
    network = rng.standard_normal(200)
    same = equivalence(network, network + rng.standard_normal(200) * 1e-3)
    assert same.passed
    # a large difference of the means that wins half of the time is equivalent: it is wins that count
    lopsided = np.where(np.arange(200) % 2 == 0, network + 100, network - 0.01)
    assert equivalence(network, lopsided).passed
    worse = equivalence(network, network - 1e-6)
    assert worse.passed is False
    assert worse.statistic == 0.0
    assert equivalence(network, network).statistic == 0.5
    few = equivalence(network[:4], network[:4] - 1)
    assert few.passed is None
    assert few.least == least_for_equivalence(0.1, 0.05)


def test_equivalence_p_is_the_supremum_over_the_null():
    n, wins, eps = 60, 45, 0.1
    network = np.zeros(n)
    circuit = np.where(np.arange(n) < wins, 1.0, -1.0)
    distance = wins / n - 0.5

    def outside(p: float) -> float:
        return scipy.stats.binom.sf(wins - 1, n, p) + scipy.stats.binom.cdf(n - wins, n, p)

    worst = max(outside(p) for p in np.linspace(0.5 - eps, 0.5 + eps, 201))
    assert equivalence(network, circuit, eps).p == pytest.approx(worst, rel=1e-6)
    assert distance > eps


def test_equivalence_keeps_its_level():
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(300):
        wins = rng.random(80) < 0.6  # on the edge of the null
        rejected += equivalence(np.zeros(80), np.where(wins, 1.0, -1.0)).passed is False
    assert rejected / 300 <= 0.08


def test_independence():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(80)
    assert independence(x, rng.standard_normal(80)).passed
    assert independence(x, x**2).passed is False  # dependent, and not correlated
    assert hsic(x, x) > hsic(x, rng.permutation(x))
    n = len(x)
    h = np.eye(n) - 1 / n
    k = np.exp(
        -(np.subtract.outer(x, x) ** 2)
        / (2 * np.median(np.abs(np.subtract.outer(x, x))[~np.eye(n, dtype=bool)]) ** 2)
    )
    assert hsic(x, x) == pytest.approx(np.trace(k @ h @ k @ h) / n**2)


def test_minimality():
    reference = np.random.default_rng(0).random(60) * 0.01
    good, q = minimality(["a", "b"], np.array([0.5, 0.4]), reference)
    assert good.passed
    assert (q == 1).all()
    bad, q = minimality(["a", "b"], np.array([0.5, 0.0]), reference)
    assert bad.passed is False
    assert q[1] < 0.05 < q[0]


def test_beating_random_circuits():
    assert least_for_wins(0.9, 0.05) == 29
    assert beats_random("x", "", 1.0, np.zeros(40)).passed
    assert beats_random("x", "", 1.0, np.zeros(20)).passed is None
    assert beats_random("x", "", 0.0, np.zeros(40)).passed is None  # all do the same: nothing to compare with


@given(st.integers(0, 1000))
def test_auroc_is_the_probability_of_order(seed: int):
    rng = np.random.default_rng(seed)
    scores, known = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.4
    if known.any() and not known.all():
        above = scores[known][:, None] - scores[~known][None]
        assert auroc(scores, known) == pytest.approx((above > 0).mean() + 0.5 * (above == 0).mean())
    assert average_precision(np.array([3.0, 2, 1]), np.array([True, False, True])) == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_faithfulness_by_hand(gpt2, pairs):
    scores = score(gpt2, pairs, method="eap-ig")
    bench = EdgeBench.of(gpt2, pairs)
    found = curve(bench, scores)
    assert found.values[-1] == pytest.approx(1.0)
    masks = circuits_by_size(scores, SHARES)
    for i, mask in enumerate(masks):
        own = bench.metric([mask])[0]
        wanted = (own.mean() - bench.empty.mean()) / (bench.whole.mean() - bench.empty.mean())
        assert found.values[i] == pytest.approx(wanted, abs=1e-5)
    x, y = np.array(SHARES), np.array(found.values)
    assert found.cpr == pytest.approx(sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(9)))
    z = np.abs(1 - y)
    assert found.cmd == pytest.approx(sum((x[i + 1] - x[i]) * (z[i + 1] + z[i]) / 2 for i in range(9)))
    assert size_needed(found, 0.0) == SHARES[0] or min(found.values) < 0
    shares = dynamic(bench, bench.metric([masks[5]])[0])
    assert np.nanmin(shares) >= 0
    assert np.nanmax(shares) <= 1


def test_ends(gpt2, pairs):
    bench = EdgeBench.of(gpt2, pairs)
    graph = wiring(gpt2).graph
    assert np.allclose(bench.metric([graph.allowed])[0], bench.whole)
    assert np.allclose(bench.metric([graph.allowed & False])[0], bench.empty)


@pytest.mark.parametrize("how", [w for w in WAYS if w != "optimal"])
def test_ablations(how: str, gpt2, pairs):
    """Nothing in: every writer writes its ablated value, whatever it is, in all ways of running."""
    found = wiring(gpt2)
    bench = EdgeBench.of(gpt2, pairs, how)
    rng = np.random.default_rng(0)
    nodes = rng.random(found.graph.shape[0]) > 0.5
    edges = found.graph.allowed & nodes[:, None]
    almost = edges.copy()
    almost[found.graph.edge("m2->logits")] ^= True
    assert np.allclose(bench.metric([nodes])[0], bench.metric([edges])[0], atol=1e-5)
    assert not np.allclose(bench.metric([almost])[0], bench.metric([edges])[0], atol=1e-9)


def test_unknown_ablations_and_spans(gpt2, pairs):
    found = wiring(gpt2)
    with pytest.raises(NotFound, match="counterfactual"):
        ablation(found, EdgeBench.of(gpt2, pairs).pairs, "counterfactul")
    from dataclasses import replace

    bare = replace(pairs, spans={})
    with pytest.raises(BadBehaviour, match="no spans"):
        EdgeBench.of(gpt2, bare, "mean-by-span")


def test_a_degenerate_gap_is_refused_with_both_values(gpt2, pairs):
    flat = pairs.with_metric(lambda logits, answers: logits[:, 0] * 0 + 2.5)
    with pytest.raises(BadBehaviour, match=r"m\(N\) = 2\.5 .* m\(∅\) = 2\.5"):
        EdgeBench.of(gpt2, flat)


def test_completeness_of_everything_and_of_little(gpt2, pairs):
    bench = EdgeBench.of(gpt2, pairs)
    graph = wiring(gpt2).graph
    scores = score(gpt2, pairs, method="eap")
    whole = Circuit(graph, graph.allowed, scores)
    done = completeness(bench, whole, subsets=4)
    assert done.knockout == pytest.approx(0.0, abs=1e-9)
    assert done.influence == pytest.approx(1.0)
    little = Circuit(graph, graph.matrix(["input->m0", "m0->logits"]), scores)
    assert completeness(bench, little, subsets=4).knockout > 0
    assert influence(scores, little.membership) < 1
    effects = marginal(bench, whole, "node")
    assert len(effects.names) == graph.shape[0] - 1
    with pytest.raises(BadInput):
        marginal(bench, whole, "layer")


def test_stability(gpt2, pairs):
    scores = score(gpt2, pairs, method="eap")
    estimate, often = over_bootstrap(scores, 20, samples=20)
    assert 0 < estimate.value <= 1
    assert often.max() <= 1
    assert jaccard(often > 2, often > 3) == 1.0
    assert between([often > 0, often > 0]) == 1.0
    known = scores.graph.allowed & (
        np.abs(scores.values) > np.quantile(np.abs(scores.values[scores.graph.allowed]), 0.9)
    )
    assert against_truth(scores, known).auroc == 1.0


def test_learned_constants_hurt_less_than_means(gpt2, pairs):
    from cutaway.circuits import learn_constants

    graph = wiring(gpt2).graph
    kept = graph.allowed & (np.random.default_rng(0).random(graph.shape) > 0.3)
    kl = pairs.with_metric("kl")
    learned = learn_constants(gpt2, pairs, kept, rounds=25)
    means = EdgeBench.of(gpt2, kl, "mean").metric([kept])[0].mean()
    ours = EdgeBench.of(gpt2, kl, "optimal", prepared=learned).metric([kept])[0].mean()
    assert ours < means
