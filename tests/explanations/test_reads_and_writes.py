"""What each component writes and reads: the same figures as attribution, on a network with known heads; refusals kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway.explanations.reads_and_writes import ReadsAndWrites, reads_and_writes
from cutaway.explanations.reads_and_writes_section import reads_and_writes_section
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.stream import logit_attribution
from cutaway.zoo.tiny import tiny

MEMBERS = [Part("head", 0, 0), Part("head", 2, 1), Part("mlp", 2), Part("mlp", 3)]


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def found(net: Network) -> ReadsAndWrites:
    return reads_and_writes(net, cutaway.behaviour("pronoun", net, n=24), MEMBERS)


def test_adds_what_attribution_says(net: Network, found: ReadsAndWrites) -> None:
    held = cutaway.behaviour("pronoun", net, n=24).held_out
    n = min(16, held.n)
    at = torch.tensor([[p % len(r)] for p, r in zip(held.answer_pos[:n], held.clean_ids[:n], strict=True)])
    right, wrong = ([answers[i][0] for i in range(n)] for answers in (held.right, held.wrong))
    whole = logit_attribution(net, [list(r) for r in held.clean_ids[:n]], target=right, foil=wrong, pos=at)
    assert [p.part.words for p in found.parts] == ["head 0.0", "head 2.1", "MLP 2", "MLP 3"]
    assert found.parts[2].adds.value == pytest.approx(float(whole["mlp 2"].mean()), abs=1e-4)
    assert found.parts[1].adds.value == pytest.approx(float(whole["head 2.1"].mean()), abs=1e-4)
    assert found.whole == pytest.approx(float(np.mean(whole.wanted)), abs=1e-4)


def test_the_gender_is_moved_from_the_name_and_said_as_a_pronoun(found: ReadsAndWrites) -> None:
    head, mlp = found.parts[1], found.parts[2]
    assert head.moves_from[0][0] == "name"
    assert set(mlp.raises) & {" he", " she", " him", " her", " his"}
    assert sum(share for _, share in head.reads_from) > 0.5  # who wrote the gender that the head moves
    assert all(share <= 1.5 for part in found.parts for _, share in part.reads_from)


def test_the_section_says_it_is_no_test(found: ReadsAndWrites) -> None:
    (section,) = reads_and_writes_section(found)
    assert "no test" in section.lead
    assert len(section.blocks) == 2
    assert reads_and_writes_section(ReadsAndWrites()) == []


def test_what_is_refused_is_said(found: ReadsAndWrites) -> None:
    torch.manual_seed(0)
    net = cutaway.open(tiny("bert").eval())
    from cutaway.behaviours.examples import Example, assemble

    answer = lambda token: ((str(token), (token,)),)  # noqa: E731
    rows = [
        Example("", "", (5 + i, 6, 7), (25 + i, 6, 7), answer(11), answer(12), template=str(i))
        for i in range(12)
    ]
    refused = reads_and_writes(net, assemble("made up", rows), [Part("mlp", 0)])
    assert refused.parts == ()
    assert "more than one matrix" in refused.reason
    assert reads_and_writes_section(refused)


def test_rows_are_run_for_all_members_together(net: Network) -> None:
    """At the answer, by source (three runs: the stream, patterns, values), and where members read: each side once."""
    pairs = cutaway.behaviour("pronoun", net, n=24)
    rows: list[int] = []
    hook = net.model.register_forward_pre_hook(
        lambda _module, _args, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        few, many = (reads_and_writes(net, pairs, members) for members in (MEMBERS[:1], MEMBERS))
    finally:
        hook.remove()
    assert sum(rows) == 2 * (1 + 3 + 1) * (few.n + many.n)
    assert few.parts == many.parts[:1]
