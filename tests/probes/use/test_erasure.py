"""Erasing a label while a network runs, and probing again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from xor_networks import Specimen, specimen

import cutaway
from cutaway.errors import BadInput
from cutaway.interventions import load, save
from cutaway.probes import Eraser, Leace, ProbeData, leace, reprobe
from cutaway.probes.use.erasure import concept_of


def test_classes_and_values() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (3000,), generator=draw)
    x = torch.randn(3000, 10, generator=draw).double() + 2 * torch.nn.functional.one_hot(labels, 10).double()
    data = ProbeData([[0]] * 3000, labels.numpy(), "multiclass", tuple("abcd"))
    eraser = Leace(10, 4).update(x, concept_of(data)).eraser
    assert eraser.rank == 3
    means = torch.stack([eraser(x)[labels == c].mean(0) for c in range(4)])
    assert float((means - means[0]).abs().max()) < 1e-9
    value = x[:, :1] + torch.randn(3000, 1, generator=draw)
    erased = Leace(10, 1).update(x, value).eraser(x)
    assert float(((erased - erased.mean(0)).T @ (value - value.mean())).abs().max() / 3000) < 1e-9


def test_erasing_while_the_network_runs(tmp_path: Path) -> None:
    made = specimen(0)
    net = cutaway.open(made.model)
    data = ProbeData(made.prompts, made.labels["used"], name="used")
    eraser = leace(net, data, at="resid_post.0")[cutaway.Site("resid_post", 0)]
    edit = eraser.intervention("resid_post.0", pos=-1)
    save(edit, tmp_path / "edit")
    z = torch.as_tensor(made.labels["used"])
    for change in (edit, load(tmp_path / "edit")[0]):
        with net.edit(change):
            found = cutaway.probe(
                net, data, at="resid_post.0", options=cutaway.probes.ProbeOptions(untrained=False)
            )
            run = net.run(made.prompts, logits="last")
        assert float(found.data["score"].max()) < 0.6
        assert run.logits is not None
        yes = run.logits[:, 0, 1] - run.logits[:, 0, 2]
        assert abs(float(yes[z == 1].mean() - yes[z == 0].mean())) < 0.5
    again = Eraser.load(eraser.save(tmp_path / "eraser"))
    x = torch.randn(4, 48)
    assert torch.equal(again(x), eraser(x))


def test_erase_needs_shapes_that_go_together() -> None:
    net = cutaway.open(specimen(0).model)
    with pytest.raises(BadInput, match="do not go together"):
        net.run(
            [[1, 2]],
            edits=[cutaway.Erase("resid_post.0", torch.ones(48, 1), torch.ones(2, 48), torch.ones(48))],
        )


def test_reprobing_after_erasure(net: cutaway.Network, made: Specimen) -> None:
    for name in ("used", "unread"):
        data = ProbeData(made.prompts, made.labels[name], name=name)
        found = reprobe(net, data, at="resid_post.0")
        assert found.before.value > 0.95
        assert found.erased
        assert 0.3 < found.after.value < 0.7
    both = made.labels["used"] * 2 + made.labels["unread"]
    four = reprobe(net, ProbeData(made.prompts, both, "multiclass", tuple("abcd")), at="resid_post.0")
    assert four.erased
    assert four.after.value < 0.4
    value = both + np.random.default_rng(0).normal(size=len(both))
    assert reprobe(net, ProbeData(made.prompts, value, "continuous", ()), at="resid_post.0").erased
    with pytest.raises(BadInput, match="2 places"):
        reprobe(net, data, at="resid_post")
