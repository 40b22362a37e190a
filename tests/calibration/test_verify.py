"""`verify` holds on specimens and fails on their twins, on damaged truths and on damaged weights."""

import dataclasses

import numpy as np
import pytest
import torch

import cutaway
from cutaway import zoo
from cutaway.calibration import recovery, verify, verify_twins
from cutaway.calibration.checks import run_check
from cutaway.calibration.subject import Subject
from cutaway.calibration.verify import subject_of
from cutaway.errors import NotFound
from cutaway.network.parts import Edge, Part
from cutaway.statistics import auroc
from cutaway.zoo.registry import all_specimens

FEW = ["duplicate-llama", "redundant-gpt2", "unread-gpt2"]


@pytest.mark.parametrize("name", FEW)
def test_it_holds_on_the_specimen_and_on_no_twin(name: str) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    found = verify(name, n=16, seed=seed)
    assert found.holds, str(found)
    twins = verify_twins(name, n=16, seed=seed)
    assert {t.name.partition("~")[2] for t in twins} >= {"random", "shuffled", "without"}
    assert not any(t.holds for t in twins), [t.name for t in twins if t.holds]


def test_the_twin_without_the_note_fails_only_there() -> None:
    failed = {
        e.name
        for e in verify("unread-gpt2~without", n=16, checks=["behaviour", "inert", "variables"]).failures
    }
    assert failed == {"decodes: note"}


def test_the_twin_without_backup_fails_where_it_is_missed() -> None:
    failed = {e.name for e in verify("backup-gpt2~without", n=32, checks=["behaviour", "needed"]).failures}
    assert failed == {"spared: head 0.1 (zero)", "spared: head 0.1 (mean)"}


def damaged(name: str, **changes: object) -> Subject:
    subject = subject_of(name, n=32)
    return dataclasses.replace(subject, truth=dataclasses.replace(subject.truth, **changes))  # type: ignore[arg-type]


def test_a_false_node_is_found_out() -> None:
    truth = zoo.truth("induction-neox")
    more = damaged("induction-neox", nodes=(*truth.nodes, Part("mlp", 0)))
    assert not all(e.passed for e in run_check("needed", more))
    fewer = damaged("induction-neox", nodes=truth.nodes[:1])
    assert not all(e.passed for e in run_check("inert", fewer))


def test_a_false_edge_is_found_out() -> None:
    truth = zoo.truth("duplicate-llama")
    more = damaged("duplicate-llama", edges=(*truth.edges, Edge.parse("input->logits")))
    assert [e.passed for e in run_check("edges", more)][0] is False
    fewer = damaged("duplicate-llama", edges=truth.edges[:-1])
    assert [e.passed for e in run_check("edges", fewer)][1] is False


def test_a_false_direction_is_found_out() -> None:
    truth = zoo.truth("superposition-gpt2")
    rows = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).tolist()
    wrong = tuple(dataclasses.replace(v, basis=tuple(map(tuple, rows))) for v in truth.variables)
    subject = damaged("superposition-gpt2", variables=wrong)
    assert not any(e.passed for e in run_check("variables", subject) if e.name.startswith("interchange"))


def test_a_network_with_another_shape_is_not_verified() -> None:
    other = cutaway.open("zoo:lookup-gpt2")
    assert not verify("induction-gpt2", net=other, n=16).holds


def test_unknown_checks_and_names_are_refused() -> None:
    with pytest.raises(NotFound, match="inert"):
        verify("unread-gpt2", checks=["inrt"])
    with pytest.raises(NotFound, match="Did you mean"):
        verify("unread-gtp2")


@pytest.mark.parametrize("name", ["copy-suppression-llama", "redundant-neox", "fourier-addition-gpt2"])
def test_exact_patching_recovers_the_nodes(name: str) -> None:
    assert recovery(name, n=32).auroc >= 0.95


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, known = tuple(rng.integers(0, 5, 30) / 5), tuple(rng.random(30) < 0.4)
    ins = [s for s, k in zip(scores, known, strict=True) if k]
    outs = [s for s, k in zip(scores, known, strict=True) if not k]
    pairs = [(a > b) + 0.5 * (a == b) for a in ins for b in outs]
    assert auroc(scores, known) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc((1.0,), (True,)))


def test_every_specimen_opens_with_a_full_certificate() -> None:
    for name in [name for name in all_specimens() if name in zoo.names()]:
        certificate = cutaway.open(f"zoo:{name}").certificate
        assert certificate.bitwise, name
        assert [c.name for c in certificate.checks if not c.holds] == [], name
