"""Moving a direction, and what the output does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xor_networks import ANSWERS, Specimen

import cutaway
from cutaway.errors import BadInput
from cutaway.probes import (
    ProbeData,
    ProbeOptions,
    UseOptions,
    probe,
    use,
)
from cutaway.probes.map.verdict import USED

YES_NO = {"0": ANSWERS["no"], "1": ANSWERS["yes"]}


QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def labelled(made: Specimen, name: str) -> ProbeData:
    return ProbeData(made.prompts, made.labels[name], name=name)


def test_a_flip_moves_the_output_and_random_directions_do_not(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    tested = use(net, found, data, answers=YES_NO, options=UseOptions())
    flip = tested.effect("flip")
    assert 0.8 < flip.share.value < 1.2
    assert np.quantile(np.abs(flip.others), 0.9) < 0.5
    random = np.array_split(np.abs(flip.others), 2)[
        0
    ]  # the others are probes of permuted labels, partly of this one
    assert random.max() < 0.7
    assert np.abs(flip.others).max() < flip.share.value
    assert 0.3 < tested.effect("project out").share.value < 0.7
    assert 0.3 < tested.effect("erase").share.value < 0.7
    assert tested.effect("erase").p < 0.1
    assert tested.cosines["the probe's direction"] > 0.4
    added = [e for e in tested.effects if e.name == "add" and e.along == "the difference of means"]
    assert [e.share.value for e in added] == sorted(e.share.value for e in added)
    again = use(net, found, data, options=UseOptions())  # by the output's own contrast
    assert again.claim.verdict == "supported"


def test_tests_are_saved_and_loaded(net: cutaway.Network, made: Specimen, tmp_path: Path) -> None:
    data = labelled(made, "used")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    tested = use(net, found, data, answers=YES_NO, options=UseOptions())
    again = cutaway.probes.Use.load(tested.save(tmp_path / "use"))
    assert again.to_dict() == tested.to_dict()
    assert again.verdict == tested.verdict == USED
    assert "cosine" in str(tested)
    assert len(tested.to_pandas()) == len(tested.effects)
    assert tested.plot().data


def test_causal_tests_say_what_they_need(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    with pytest.raises(BadInput, match="no answer for the class '0'"):
        use(net, found, data, answers={"1": 1})
    with pytest.raises(BadInput, match="before the place"):
        use(net, found, data, answers=YES_NO, options=UseOptions(read=0))
    with pytest.raises(BadInput, match="too few"):
        UseOptions(directions=3)
    with pytest.raises(BadInput, match="No probe was fitted"):
        use(net, found, data, where={"layer": 1})


def test_a_behaviour_in_the_place_of_data() -> None:
    """The probe of names' gender, tested on the pronoun behaviour: its corrupted prompts have the other gender."""
    from cutaway.recipes.tales.prompts import FEMALE, MALE

    net = cutaway.open("zoo:tales")
    rows = [
        {"text": f"{name} was {mood} because", "gender": gender, "name": name}
        for gender, people in (("girl", FEMALE), ("boy", MALE))
        for name in people
        for mood in ("sad", "happy")
    ]
    found = probe(net, rows, at="resid_post.2", label="gender", group="name", options=QUICK)
    pronoun = cutaway.behaviour("pronoun", net, n=40)
    tested = use(net, found, pronoun, options=UseOptions())
    assert tested.metric == "logit_diff of 'pronoun'"
    flip = tested.effect("flip", "the difference of means")
    assert flip.share.value > 0.4  # on sentence frames that the probe was not fitted on
    assert flip.p < 0.06
    assert tested.cosines["the difference of means"] > 0.5
    with pytest.raises(BadInput, match="no span 'verb'"):
        use(net, found, pronoun, pos="verb")
    with pytest.raises(BadInput, match="no span 'verb'"):
        use(net, found, "pronoun", pos="verb")  # a behaviour by its name
    greater = cutaway.behaviour("list-copying", net, n=12, force=True)
    with pytest.raises(BadInput, match="of one class"):
        use(net, found, greater)


def test_use_asks_for_the_label_that_was_probed_and_for_answers_that_differ(
    net: cutaway.Network, made: Specimen
) -> None:
    found = probe(net, labelled(made, "used"), at="resid_post.0", options=QUICK)
    with pytest.raises(BadInput, match="the data are labelled with 'unread'"):
        use(net, found, labelled(made, "unread"))
    with pytest.raises(BadInput, match="same answers"):
        use(net, found, labelled(made, "used"), answers={"0": ANSWERS["yes"], "1": ANSWERS["yes"]})
    turned = {"0": ANSWERS["yes"], "1": ANSWERS["no"]}
    tested = use(net, found, labelled(made, "used"), answers=turned)
    assert any("against the answers" in note for note in tested.claim.notes)


def test_use_compares_two_of_several_classes(net: cutaway.Network, made: Specimen) -> None:
    three = np.where(np.arange(240) % 6 == 0, 2, np.asarray(made.labels["used"]))
    data = ProbeData(made.prompts, three, "multiclass", ("a", "b", "c"), name="three")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    assert use(net, found, data).effects
