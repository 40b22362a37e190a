"""`cutaway.trace` and `cutaway.test` on a network whose circuit is known, and on twins that lack it."""

from __future__ import annotations

import numpy as np
import pytest

import cutaway
from cutaway.calibration import bench
from cutaway.calibration.verify import subject_of
from cutaway.circuits import Circuit, CircuitLimits, wiring
from cutaway.errors import BadBehaviour, BadInput, NotFound
from cutaway.results import load

NAME = "induction-gpt2"
QUICK = CircuitLimits(random=30, subsets=0, edges=4, bootstrap=3)


@pytest.fixture(scope="module")
def subject():
    return subject_of(NAME, n=48, seed=0)


@pytest.fixture(scope="module")
def tested(subject):
    circuit = cutaway.trace(subject.net, subject.behaviour)
    return circuit, cutaway.test(subject.net, circuit, subject.behaviour)


def test_a_known_circuit_is_found_and_supported(tested, subject):
    circuit, result = tested
    assert {"a0.h1", "a1.h1"} <= set(circuit.nodes)
    assert "a0.h1->a1.h1<k>" in circuit
    assert result.verdict == "supported", str(result)
    assert [c.name for c in result.claim.controls] == [
        "Random circuits",
        "Random weights",
        "Contrast beside random weights",
        "Shuffled answers",
    ]
    assert all(c.passed for c in result.claim.controls)
    names = [t.name for t in result.trial.tests]
    assert names == ["Equivalence", "Independence", "Minimality", "Sufficiency", "Partial necessity"]
    assert result.trial.curve is not None


def test_without_controls_nothing_is_supported(tested, subject):
    circuit, _ = tested
    assert (
        cutaway.test(subject.net, circuit, subject.behaviour, controls=False, limits=QUICK).verdict
        == "inconclusive"
    )
    found_on = cutaway.test(subject.net, circuit, subject.behaviour.discovery, controls=False, limits=QUICK)
    assert found_on.verdict != "supported"
    assert any("discovery" in note for note in found_on.claim.notes)


def test_a_wrong_circuit_is_refuted(subject):
    graph = wiring(subject.net).graph
    wrong = Circuit.of_edges(graph, ["input->a0.h0<v>", "a0.h0->logits"], name="wrong")
    assert (
        cutaway.test(subject.net, wrong, subject.behaviour, controls=False, limits=QUICK).verdict == "refuted"
    )


def test_everything_explains_nothing(subject):
    graph = wiring(subject.net).graph
    everything = Circuit(graph, graph.allowed, name="all")
    result = cutaway.test(subject.net, everything, subject.behaviour, controls=False, limits=QUICK)
    small = next(e for e in result.claim.evidence if e.name == "Small")
    assert small.passed is None
    assert result.verdict != "supported"


def test_too_few_examples_name_the_least(tested, subject):
    circuit, _ = tested
    few = subject.behaviour.held_out[:4]
    with pytest.raises(BadBehaviour, match=r"at least 7 examples.*there are 4"):
        cutaway.test(subject.net, circuit, few, require=["equivalence"])
    with pytest.raises(BadInput, match="no test"):
        cutaway.test(subject.net, circuit, few, require=["luck"])
    result = cutaway.test(
        subject.net, circuit, few, controls=False, limits=CircuitLimits(random=5, subsets=0)
    )
    assert result.trial.test("Equivalence").passed is None


def test_negative_controls_are_not_supported():
    done = bench.negatives(4, [NAME, "agreement-llama"], limits=CircuitLimits(random=30, subsets=0))
    assert done.tries == 4
    assert done.supported == 0, done.examples


def test_the_bench_scores_known_circuits(subject):
    table = bench.bench([NAME], ["eap-ig", "random", "node-patching"], n=32, seeds=(0,))
    best = next(r for r in table.rows if r.method == "eap-ig")
    assert best.auroc == 1.0
    assert best.auroc_nodes == 1.0
    assert next(r for r in table.rows if r.method == "node-patching").auroc is None
    assert table.methods()[0] == "eap-ig"
    known, exact = bench.known(wiring(subject.net).graph, subject.truth)
    assert exact
    assert known.sum() == len(subject.truth.edges)


def test_save(tested, tmp_path):
    _, result = tested
    folder = result.save(tmp_path / "t")
    assert (folder / "nodes.csv").is_file()
    assert np.isfinite(result.trial.kept.value)
    again = load(folder)
    assert again.claim == result.claim
    assert again.limits == result.limits
    assert again.circuit.edges == result.circuit.edges
    assert again.trial.to_dict() == result.trial.to_dict()
    assert again.page().headline == result.page().headline
    assert again.to_pandas().equals(result.to_pandas())


def test_bad_questions(subject):
    with pytest.raises(NotFound, match="selection"):
        cutaway.trace(subject.net, subject.behaviour, select="best")
    with pytest.raises(BadInput, match="scores nodes"):
        cutaway.trace(subject.net, subject.behaviour, method="atp", edges=5)
    with pytest.raises(BadInput, match="threshold"):
        cutaway.trace(subject.net, subject.behaviour, select="threshold")
    with pytest.raises(BadInput):
        cutaway.trace(subject.net, subject.behaviour, edges=10**9)
