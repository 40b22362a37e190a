"""Networks trained to an algorithm: proved, and not proved on their twins; the checks against hands-on interventions."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import cutaway
from cutaway import zoo
from cutaway.calibration import recovery, verify, verify_twins
from cutaway.calibration.stated import held
from cutaway.calibration.verify import subject_of
from cutaway.interventions import Patch
from cutaway.recipes.interchange.catalogue import specimens

SHIPPED = [s.name for s in specimens() if s.name in zoo.names()]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_one_is_verified_and_its_nodes_are_found(name):
    found = verify(None, name, n=48, seed=5)
    assert found.holds, found.failures
    assert recovery(name, n=32, seed=5).auroc >= 0.95


@pytest.mark.parametrize("name", SHIPPED[::4])
def test_they_open_with_a_full_certificate_and_in_plain_transformers(name):
    net = cutaway.open(f"zoo:{name}")
    assert net.certificate.bitwise
    assert all(check.holds for check in net.certificate.checks)
    bare = AutoModelForCausalLM.from_pretrained(zoo.path(name)).eval()
    ids = torch.tensor([zoo.specimen(name).task.pairs(1, 0)[0].clean])
    logits = net.run(ids).logits
    assert logits is not None
    assert torch.equal(bare(input_ids=ids).logits, logits)
    tokenizer = AutoTokenizer.from_pretrained(zoo.path(name))
    words = zoo.specimen(name).task.words
    assert tokenizer(" ".join(words[i] for i in ids[0, 1:]))["input_ids"] == ids[0].tolist()


@pytest.mark.parametrize("name", SHIPPED[::3])
def test_twins_fail_where_they_should(name):
    assert not any(twin.holds for twin in verify_twins(name, n=48))
    free = {evidence.name: evidence.passed for evidence in verify(None, f"{name}~free", n=48).evidence}
    assert free["behaviour"]  # it does the task as well
    assert not free["inert: all (corrupted)"]
    shuffled = {
        evidence.name: evidence.passed for evidence in verify(None, f"{name}~shuffled", n=48).evidence
    }
    assert not shuffled["behaviour"]


def test_held_is_what_interventions_by_hand_give():
    """The variable's place from the corrupted prompt and its reader's from the clean one, at their positions."""
    subject = subject_of("agreement-gpt2", n=16)
    by_name = {variable.name: variable for variable in subject.truth.variables}
    number, verb = by_name["number"], by_name["verb"]
    assert number.head is not None
    edits = [
        Patch(number.site, subject.from_corrupted, head=number.head, pos=-1),
        Patch(verb.site, subject.from_clean, pos=-1),
    ]
    by_hand = abs(subject.effect(edits)).mean()
    found = next(e for e in held(subject) if e.name == "held: number")
    assert found.value == pytest.approx(float(by_hand), abs=1e-6)
    loose = abs(subject.effect(edits[:1])).mean()
    assert loose > 10 * by_hand


def test_a_network_whose_reader_is_cut_off_is_not_proved():
    """With the verb's MLP silenced in the weights, the specimen's own checks say so."""
    net = cutaway.open("zoo:agreement-gpt2")
    with torch.no_grad():
        for parameter in net.model.get_submodule("transformer.h.1.mlp.c_proj").parameters():
            parameter.zero_()
    assert not verify(net, "agreement-gpt2", n=32).holds


def test_tales_does_its_eight_behaviours_and_its_twins_do_not():
    found = verify(None, "tales", seed=2)
    assert found.holds, found.failures
    assert len([e for e in found.evidence if e.name.startswith("does: ")]) == 8
    for twin in verify_twins("tales"):
        assert not twin.holds
