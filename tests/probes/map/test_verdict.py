"""The verdicts on networks with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from xor_networks import ANSWERS, Specimen, specimen

import cutaway
from cutaway import zoo
from cutaway.errors import BadInput
from cutaway.probes import (
    ProbeData,
    ProbeOptions,
    UseOptions,
    probe,
    use,
)
from cutaway.probes.map.verdict import ABSENT, CONFOUNDED, ENCODED, UNDECIDED, UNUSED, USED

YES_NO = {"0": ANSWERS["no"], "1": ANSWERS["yes"]}


QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def labelled(made: Specimen, name: str) -> ProbeData:
    return ProbeData(made.prompts, made.labels[name], name=name)


@pytest.mark.parametrize("seed", [100, 101])
def test_the_verdicts_on_networks_of_known_truth(seed: int) -> None:
    """A smaller version of benchmarks/probe_verdicts.py, on seeds of its own."""
    made = specimen(seed)
    net = cutaway.open(made.model)
    for name, right in (("used", USED), ("unread", UNUSED), ("absent", ABSENT), ("noise", ABSENT)):
        data = labelled(made, name)
        found = probe(net, data, at="resid_post", options=ProbeOptions(permutations=60), seed=seed)
        word = found.finding.word
        if word == ENCODED:
            tested = use(net, found, data, answers=YES_NO, options=UseOptions(), seed=seed)
            word = tested.finding.word
        assert word == right, (name, str(found))


def test_a_label_of_the_tokens_is_confounded_with_them(net: cutaway.Network, made: Specimen) -> None:
    bit = np.array([(row[0] - 3) // 6 & 1 for row in made.prompts])
    found = probe(net, ProbeData(made.prompts, bit, name="bit"), at="resid_post.0", options=QUICK)
    assert found.finding.word == CONFOUNDED
    assert "the tokens alone" in found.finding.confounds
    assert not found.finding.encoded.supported  # type: ignore[union-attr]


def test_a_label_that_goes_with_a_known_column_is_confounded_with_it(
    net: cutaway.Network, made: Specimen
) -> None:
    used = made.labels["used"]
    data = ProbeData(made.prompts, used, name="used", also={"copy": used})
    found = probe(net, data, at="resid_post.0", options=QUICK)
    assert str(found.finding) == "confounded (with the column 'copy')"


def test_a_label_that_holds_in_each_source_by_another_rule_is_confounded_with_the_source(
    net: cutaway.Network, made: Specimen
) -> None:
    used = made.labels["used"]
    source = np.arange(len(used)) % 2
    mixed = np.where(source == 1, used, 1 - used)
    prompts = [[*row[:2], 4 if s else 5, row[2]] for row, s in zip(made.prompts, source, strict=True)]
    same = ProbeData(made.prompts, used, name="used", sources=tuple(source.tolist()))
    assert probe(net, same, at="resid_post.0", options=QUICK).finding.word == ENCODED
    other = ProbeData(prompts, mixed, name="mixed", sources=tuple(source.tolist()))
    assert probe(net, other, at="resid_post.0", options=QUICK).finding.word != ENCODED


@pytest.mark.parametrize(("twin", "right"), [("", UNUSED), ("~used", USED), ("~without", CONFOUNDED)])
def test_the_note_that_nobody_reads(twin: str, right: str) -> None:
    """A zoo network that notes a variable for nobody, its twin that reads it, and its twin that does not note it: what is
    left of the variable there is what the tokens tell anyway."""
    net = cutaway.open(f"zoo:unread-llama{twin}")
    drawn = [label for label in zoo.specimen("unread-llama").task.labels("note", 300, 7) if label.value < 2]
    data = ProbeData([list(d.ids) for d in drawn], np.array([d.value for d in drawn]), name="note")
    found = probe(net, data, options=ProbeOptions(permutations=40, n_boot=200))
    word = found.finding.word
    if word == ENCODED:
        answers = {"0": [1, 2, 3, 4], "1": [5, 6, 7, 8]}
        word = use(net, found, data, answers=answers, options=UseOptions()).finding.word
    assert word == right, str(found)


def test_few_permutations_are_refused_and_none_leaves_the_verdict_open(
    net: cutaway.Network, made: Specimen
) -> None:
    with pytest.raises(BadInput, match="at least 19"):
        ProbeOptions(permutations=10)
    found = probe(
        net, labelled(made, "used"), at="resid_post.0", options=ProbeOptions(permutations=0, folds=3)
    )
    assert found.finding.word == UNDECIDED
    assert found.finding.encoded is not None
    assert found.finding.encoded.verdict == "inconclusive"


def test_absence_of_evidence_is_no_refutation(net: cutaway.Network, made: Specimen) -> None:
    data = ProbeData(made.prompts[:8], np.arange(8) % 2, name="few")
    found = probe(
        net, data, at="resid_post.0", options=ProbeOptions(permutations=19, folds=2, untrained=False)
    )
    assert found.finding.encoded is not None
    assert found.finding.encoded.verdict == "inconclusive"
    tested = use(net, found, data, answers=YES_NO)
    assert tested.claim.verdict == "inconclusive"
    assert any("too few" in note for note in tested.claim.notes)
    assert any("verdict on encoding" in note for note in tested.claim.notes)
