"""Checks of networks that were trained naturally: they hold, and a false statement is found out."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import cutaway
from cutaway import zoo
from cutaway.calibration import verify, verify_twins
from cutaway.calibration.checks import run_check
from cutaway.calibration.subject import Subject
from cutaway.calibration.verify import subject_of
from cutaway.recipes.natural.modular import Grokking, P, answers, waves
from cutaway.zoo.registry import all_specimens

NATURAL = [s.name for s in all_specimens().values() if s.family == "trained naturally"]


@pytest.mark.parametrize("name", NATURAL)
def test_it_holds_and_no_twin_does(name: str) -> None:
    found = verify(None, name, n=48, seed=11)
    assert found.holds, str(found)
    assert not any(t.holds for t in verify_twins(name, n=48, seed=11))


def with_facts(name: str, **facts: object) -> Subject:
    subject = subject_of(name, n=32)
    truth = dataclasses.replace(subject.truth, facts={**subject.truth.facts, **facts})
    return dataclasses.replace(subject, truth=truth)


def test_other_frequencies_are_found_out() -> None:
    keys = zoo.truth("modular-addition").facts["key_frequencies"]
    others = [k for k in range(1, P // 2 + 1) if k not in keys]
    assert not any(
        e.passed for e in run_check("frequencies", with_facts("modular-addition", key_frequencies=others))
    )


def test_a_false_role_is_found_out() -> None:
    wrong = ({"role": "previous token", "at_least": 0.9},)
    assert not all(e.passed for e in run_check("roles", with_facts("sorting", roles=wrong)))


def test_the_quick_forward_is_the_models_own() -> None:
    model, _ = zoo.load("modular-addition")
    pairs = torch.randint(P, (40, 2), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([pairs, torch.full((40, 1), P)], 1)
    with torch.no_grad():
        wanted = model(ids).logits[:, -1, :P]
        assert torch.allclose(answers(model, pairs), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_it_remembered_before_it_understood() -> None:
    recipe = Grokking()
    train, test = recipe.split()
    assert len(train) == int(0.3 * P * P)
    assert len({tuple(p) for p in torch.cat([train, test]).tolist()}) == P * P
    before, after = (
        recipe.figures(zoo.load(name)[0]) for name in ("modular-addition@before", "modular-addition")
    )
    assert before["train accuracy"] == 1.0
    assert before["test accuracy"] < 0.5
    assert after["test accuracy"] == 1.0
    stages = zoo.card("modular-addition")["accuracy"]["stages"]
    assert before["test loss"] == pytest.approx(stages["before"]["test loss"], rel=1e-3)


def test_waves_are_orthogonal() -> None:
    rows = waves().flatten(0, 1)
    assert torch.allclose(rows @ rows.T * (2 / P), torch.eye(len(rows), dtype=torch.float64), atol=1e-9)


def test_chance_is_what_the_shuffled_twin_has() -> None:
    pairs = Grokking().split()[1]
    with torch.no_grad():
        logits = answers(zoo.load("modular-addition~shuffled")[0], pairs)
    assert float(cross_entropy(logits, pairs.sum(1) % P)) > math.log(P) - 0.1


def test_checkpoints_open_with_their_tokenizer() -> None:
    net = cutaway.open("zoo:modular-addition@before")
    assert net.encode("3 5 =").ids.tolist() == [[3, 5, P]]
