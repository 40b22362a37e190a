"""The map: its figures, its probes, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from xor_networks import ANSWERS, Specimen

import cutaway
from cutaway.errors import BadFormat, BadInput
from cutaway.probes import (
    Probe,
    ProbeData,
    ProbeOptions,
    Probing,
    UseOptions,
    probe,
    use,
)
from cutaway.probes.map.verdict import ENCODED
from cutaway.results import Work

YES_NO = {"0": ANSWERS["no"], "1": ANSWERS["yes"]}


QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def labelled(made: Specimen, name: str) -> ProbeData:
    return ProbeData(made.prompts, made.labels[name], name=name)


def test_sums_alone_find_what_activations_find(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    kept = probe(net, data, at="z", by=("layer", "head", "position"), options=QUICK)
    summed = probe(
        net,
        data,
        at="z",
        by=("layer", "head", "position"),
        options=ProbeOptions(permutations=30, untrained=False, memory=0),
    )
    assert summed.what == "R²"
    assert "sums alone" in summed.data.attrs["kept"]
    assert summed.places.cells == kept.places.cells
    both = [labelled(made, "used"), "resid_post"]
    a = probe(net, both[0], at="resid_post", options=QUICK)
    b = probe(net, both[0], at="resid_post", options=ProbeOptions(permutations=30, untrained=False, memory=0))
    assert b.finding.word == a.finding.word == ENCODED
    assert float(b.data["score"].max()) > 0.9
    for mine, theirs in zip(a.probes, b.probes, strict=True):
        assert torch.allclose(mine.centres, theirs.centres, atol=1e-4)
    with pytest.raises(BadInput, match="needs the activations"):
        probe(net, data, options=ProbeOptions(kind="logistic", memory=0))


def test_by_head_and_position(net: cutaway.Network, made: Specimen) -> None:
    found = probe(net, labelled(made, "used"), at="z", by=("layer", "head", "position"), options=QUICK)
    assert found.data["score"].dims == ("layer", "head", "position")
    assert found.data["score"].shape == (2, 2, 3)
    assert found.probe(layer=1, head=0, position=2).d == 24
    assert found.plot().data
    whole = probe(net, labelled(made, "used"), at="z", pos=[0, -1], options=QUICK)
    assert whole.data["score"].shape == (2, 2)
    assert whole.probe(layer=1, position=-1).d == 48


@pytest.mark.parametrize("kind", ["logistic", "lda", "means", "mass-mean"])
def test_other_kinds_find_it_too(net: cutaway.Network, made: Specimen, kind: str) -> None:
    penalties = (10.0,) if kind == "logistic" else None  # the others have none
    few = {"permutations": 20, "untrained": False, "n_boot": 50, "control_tasks": 1, "folds": 3}
    options = ProbeOptions(kind=kind, penalties=penalties, **few)
    found = probe(net, labelled(made, "used"), at="resid_post.0", options=options)
    assert float(found.data["score"].max()) > 0.95
    assert use(net, found, labelled(made, "used"), answers=YES_NO, options=UseOptions()).claim.supported


def test_classes_values_and_several_labels(net: cutaway.Network, made: Specimen) -> None:
    used, unread = made.labels["used"], made.labels["unread"]
    four = ProbeData(made.prompts, 2 * used + unread, "multiclass", tuple("abcd"), "four")
    found = probe(net, four, at="resid_post.0", options=QUICK)
    assert found.finding.word == ENCODED
    assert found.what == "balanced accuracy"
    assert found.histogram().data
    noise = np.random.default_rng(0).normal(size=len(used))
    found = probe(
        net,
        ProbeData(made.prompts, used + 0.2 * noise, "continuous", (), "value"),
        at="resid_post.0",
        options=QUICK,
    )
    assert float(found.data["score"].max()) > 0.7
    assert found.finding.word == ENCODED
    assert use(
        net, found, ProbeData(made.prompts, used + 0.2 * noise, "continuous", (), "value")
    ).claim.supported
    table = np.stack([used, unread], 1)
    found = probe(
        net,
        ProbeData(made.prompts, table, "multilabel", ("a", "b"), "both"),
        at="resid_post.0",
        options=QUICK,
    )
    assert float(found.data["score"].max()) > 0.95


def test_results_and_probes_are_saved_and_loaded(
    net: cutaway.Network, made: Specimen, tmp_path: Path
) -> None:
    data = labelled(made, "used")
    found = probe(net, data, at="resid_post", options=QUICK)
    again = Probing.load(found.save(tmp_path / "found"))
    assert again.headline() == found.headline()
    assert again.finding.to_dict() == found.finding.to_dict()
    pd.testing.assert_frame_equal(again.to_pandas(), found.to_pandas())
    best = Probe.load(found.probe(layer=0).save(tmp_path / "probe"))
    run = net.run(made.prompts[:20], keep=["resid_post.0"])
    assert torch.equal(best.on(run), found.probe(layer=0).on(run))
    assert (best.predict(run["resid_post.0"][:, -1]).numpy() == made.labels["used"][:20]).mean() > 0.9
    quiet = net.run(made.prompts[:20], keep=["resid_post.0"], edits=[best.project_out()])
    assert float(best.outputs(quiet["resid_post.0"][:, -1]).std()) < 1e-5
    net.run(made.prompts[:3], edits=[best.add(0.5)])
    with pytest.raises(BadFormat):
        Probe.load(tmp_path / "found")
    for text in (str(found), found._repr_html_(), repr(best)):
        assert "used" in text


def test_the_same_seed_gives_the_same_figures(net: cutaway.Network, made: Specimen) -> None:
    a, b = (probe(net, labelled(made, "noise"), at="resid_post", options=QUICK) for _ in range(2))
    pd.testing.assert_frame_equal(a.to_pandas(), b.to_pandas())
    c = probe(
        net,
        labelled(made, "noise"),
        at="resid_post",
        options=ProbeOptions(permutations=30, untrained=False),
        seed=1,
    )
    assert a.to_pandas()["score"].tolist() != c.to_pandas()["score"].tolist()


def test_progress_is_reported(net: cutaway.Network, made: Specimen) -> None:
    told: list[str] = []
    probe(net, labelled(made, "used"), options=QUICK, work=Work(lambda p: told.append(p.label)))
    assert {"reading", "probing"} <= set(told)
