"""What kind of work parts do: against cards of the zoo, beside twins and random weights; edges by brute force."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.algorithms.roles.known_roles import cases_known, known, variables_of

import cutaway
from cutaway.algorithms.carried.pairs import pairs_of
from cutaway.algorithms.roles import PartRoles, RoleLimits
from cutaway.algorithms.roles.acting import RoleActs
from cutaway.algorithms.roles.candidates import ROLES, _nearest
from cutaway.algorithms.roles.edges import (
    brought_from_other,
    duplicate_edges,
    induction_edges,
    looking_elsewhere,
    previous_edges,
    span_edges,
)
from cutaway.algorithms.roles.half import RoleHalf
from cutaway.algorithms.roles.weights import RoleWeights, ranks
from cutaway.behaviours.cases import cases_of
from cutaway.errors import BadInput, NotFound
from cutaway.interventions import Apply, Patch
from cutaway.network.parts import Part, parts_of
from cutaway.network.sites import Site
from cutaway.results import Progress, Work

#: Networks of each kind of mechanism; `benchmarks/roles.py` asks all of them.
ASKED = (
    "induction-gpt2",
    "copy-suppression-llama",
    "backup-neox",
    "redundant-gpt2",
    "superposition-llama",
    "duplicate-neox",
)


@cache
def found(name: str, **options: Any) -> PartRoles:
    net = cutaway.open(f"zoo:{name}")
    cases = cases_known(name, net)
    return cutaway.roles(net, cases, variables=variables_of(cases), n=24, **options)


@cache
def half(name: str = "induction-gpt2") -> RoleHalf:
    net = cutaway.open(f"zoo:{name}")
    cases = cases_known(name, net)
    pairs, _ = pairs_of(net, cases, variables_of(cases), 12, 0)
    return RoleHalf.of(net, pairs[0], False, parts_of(net), Work())


@pytest.mark.parametrize("name", ASKED)
def test_the_role_that_the_card_states_is_supported(name: str) -> None:
    result = found(name)
    for one in known():
        if one.specimen == name:
            assert one.role in result.of(one.part)


@pytest.mark.parametrize("name", ["induction-gpt2~random", "copy-suppression-llama~random"])
def test_no_role_is_supported_with_random_weights(name: str) -> None:
    assert not any(claim.supported for claim in found(name).claims)


def test_twins_without_a_backup_have_none() -> None:
    for name in ("backup-gpt2~without", "redundant-gpt2~without"):
        assert not any(t.role == "backup" and t.claim.supported for t in found(name).tests)


def test_the_neurons_behind_a_pentagon_of_features_are_named() -> None:
    assert set(found("superposition-llama").neurons("m0")) == {f"n0.{i}" for i in range(5)}


def test_a_high_score_of_which_nothing_comes_is_refuted() -> None:
    net = cutaway.open("zoo:tales")
    told = cutaway.roles(net, cases_of("pronoun", net, 96), ["a2.h1", "a2.h3"], variables=["gender"], n=16)
    refuted = [t for t in told.tests if t.claim.verdict == "refuted"]
    assert refuted
    for test in refuted:
        assert test.effect.interval is not None
        assert test.effect.interval.high < told.limits["acts"]
        assert test.role not in told.of(test.part)


def test_edges_are_those_of_their_definition() -> None:
    one = half()
    for make, holds in (
        (previous_edges, lambda ids, d, s: s == d - 1 and s > 0),
        (duplicate_edges, lambda ids, d, s: s < d and ids[s] == ids[d]),
        (induction_edges, lambda ids, d, s: 0 < s < d and ids[s - 1] == ids[d]),
    ):
        mask = make(one).mask
        for row in range(one.n):
            start, ids = int(one.first[row]), list(one.behaviour.clean_ids[row])
            for d in range(len(ids)):
                for s in range(len(ids)):
                    assert bool(mask[row, start + d, start + s]) == holds(ids, d, s)


def _without(mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Scores of one row with those of head 1 masked."""

    def edit(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[:, 1] = value[:, 1].masked_fill(mask, -1e30)
        return value

    return edit


def test_a_head_without_edges_is_the_network_with_those_scores_masked() -> None:
    one, head = half(), Part("head", 1, 1)
    edges = induction_edges(one)
    acts = RoleActs(one)
    acts.given(Site("z", 1), looking_elsewhere(one, head, edges), 1)
    lost = acts.run(Work(), "by sweep").shares[0]
    for row in range(3):
        ids, start = one.behaviour.clean_ids[row], int(one.first[row])
        mask = edges.mask[row, start : start + len(ids), start : start + len(ids)]

        logits = one.net.run([list(ids)], edits=[Apply("scores.1", _without(mask))]).logits
        assert logits is not None
        metric = float(logits[0, -1, one.right[row]] - logits[0, -1, one.wrong[row]])
        expected = (one.ends.clean.metric[row] - metric) / one.scale.gap
        assert lost[row] == pytest.approx(expected, abs=1e-3)


def test_what_a_head_brings_from_everywhere_is_its_value_in_the_other_prompt() -> None:
    one, head = half(), Part("head", 1, 1)
    everywhere = span_edges(one, one.ids >= 0, "everywhere")
    z = one.at_answer(brought_from_other(one, head, everywhere))
    other = one.at_answer(one.kept(Site("z", 1), second=True))
    assert torch.allclose(z[:, 1], other[:, 1], atol=1e-4)
    assert torch.equal(z[:, 0], one.at_answer(one.kept(Site("z", 1)))[:, 0])


def test_exchanging_a_part_is_patching_it_by_hand() -> None:
    one = half()
    acts = RoleActs(one)
    cell = acts.exchanged(Part("head", 0, 1))
    lost = acts.run(Work(), "by sweep").shares[cell]
    for row in range(3):
        clean, other = (list(ids[row]) for ids in (one.behaviour.clean_ids, one.behaviour.corrupted_ids))
        source = one.net.run([other], keep=["z.0"], logits=False)
        logits = one.net.run([clean], edits=[Patch("z.0", source, head=1)]).logits
        assert logits is not None
        metric = float(logits[0, -1, one.right[row]] - logits[0, -1, one.wrong[row]])
        assert lost[row] == pytest.approx((one.ends.clean.metric[row] - metric) / one.scale.gap, abs=1e-3)


def test_weights_match_same_tokens_as_full_matrices_do() -> None:
    one, head = half("duplicate-neox"), Part("head", 0, 2)
    weights = RoleWeights.of(one.net, one.ids, [0], 0, Work())
    w = weights.layer(0)
    x = weights.embedded
    assert w.reader is not None
    centred = x - x.mean(-1, keepdim=True) if w.reader.centred else x
    x = x / centred.square().mean(-1, keepdim=True).sqrt()
    scores = (x @ w.q[2] + w.q_bias[2]) @ (x @ w.k[2]).T
    expected = [(row[i] > np.delete(row, i)).mean() for i, row in enumerate(scores.numpy())]
    assert weights.same_token(head) == pytest.approx(expected, abs=0.1)
    assert np.mean(weights.same_token(head)[:10]) > 0.75


def test_ranks_and_nearest_means_on_random_rows() -> None:
    rng = np.random.default_rng(3)
    logits = torch.as_tensor(rng.normal(size=(20, 7)))
    wanted = torch.as_tensor(rng.integers(7, size=20))
    expected = [
        np.mean(np.delete(row, w) < row[w]) for row, w in zip(logits.numpy(), wanted.tolist(), strict=True)
    ]
    assert ranks(logits, wanted) == pytest.approx(expected)
    labels = np.repeat([4, 9], 15)
    rows = rng.normal(size=(30, 3)) + labels[:, None]
    assert _nearest(rows, labels).mean() > 0.95
    assert _nearest(rng.normal(size=(30, 3)), labels).mean() < 0.85


def test_the_result_is_saved_shown_and_read_in_words(tmp_path: Path) -> None:
    result = found("superposition-llama")
    result.save(tmp_path / "roles")
    again = cutaway.load(tmp_path / "roles")
    assert isinstance(again, PartRoles)
    assert again.to_dict() == result.to_dict()
    assert again.claims == result.claims
    assert "m0" in result.parts
    assert any("MLP 0 looks up the answer" in line for line in result.sentences())
    assert len(result.sentences(every=True)) > len(result.sentences())
    assert set(result.to_pandas()["role"]) <= set(ROLES)
    assert [section.title for section in result.page().sections][:2] == ["In words", "What parts do"]
    with pytest.raises(BadInput, match="was not asked"):
        result.of("a9.h9")


def test_parts_of_what_was_carried_are_asked_and_without_controls_nothing_is_supported() -> None:
    net = cutaway.open("zoo:superposition-gpt2")
    cases = cases_known("superposition-gpt2", net)
    carried = cutaway.carried(net, cases, ["what"], n=12)
    result = cutaway.roles(net, cases, carried=carried, variables=["what"], n=12, controls=False)
    assert set(result.parts) == {"a0.h1", "m0"}
    assert result.tests
    assert not any(claim.supported for claim in result.claims)


def test_what_is_stopped_comes_back_in_part() -> None:
    net = cutaway.open("zoo:superposition-gpt2")
    cases = cases_known("superposition-gpt2", net)

    def listen(progress: Progress) -> None:
        if progress.label.startswith("testing"):
            work.stop()

    work = Work(listener=listen)
    result = cutaway.roles(net, cases, variables=["what"], n=12, work=work)
    assert not result.complete
    assert "Partial" in result.headline
    assert not any(claim.supported for claim in result.claims)


def test_what_cannot_be_asked_is_refused() -> None:
    net = cutaway.open("zoo:superposition-gpt2")
    cases = cases_known("superposition-gpt2", net)
    with pytest.raises(BadInput, match="are no cases"):
        cutaway.roles(net, "ioi")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="n=2"):
        cutaway.roles(net, cases, n=2)
    with pytest.raises(NotFound):
        cutaway.roles(net, cases, ["a7.h0"])
    with pytest.raises(BadInput, match="no limits"):
        cutaway.roles(net, cases, limits=3)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="no result of carried"):
        cutaway.roles(net, cases, carried=cases)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        RoleLimits(acts=2.0)
