"""How probes lie to the direction that controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xor_networks import Specimen

import cutaway
from cutaway.probes import (
    ProbeData,
    ProbeOptions,
    probe,
)
from cutaway.probes.map.controlling import controlling
from cutaway.probes.map.setting import Setting
from cutaway.probes.reading.beds import bed_of_data, contrast_score

QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def labelled(made: Specimen, name: str) -> ProbeData:
    return ProbeData(made.prompts, made.labels[name], name=name)


def test_every_probe_says_how_it_lies_to_the_direction_that_controls(
    net: cutaway.Network, made: Specimen
) -> None:
    found = probe(net, labelled(made, "used"), at="resid_post", options=QUICK)
    cosines = found.data["means_cosine"].values.ravel()
    assert np.abs(cosines[0]) > 0.3  # read there by the next layer
    assert found.probe(layer=0).about["means_cosine"] == pytest.approx(cosines[0])
    assert "direction that controls" in str(found)
    # by hand: the gradients of one fold at the first layer's end, of one prompt after the other
    data = labelled(made, "used")
    setting = Setting.of(data, QUICK)
    control = controlling(net, data, found.places, setting.folds)
    rows = torch.nonzero(torch.as_tensor(setting.folds == 1))[:, 0]
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 256 // QUICK.folds)).long()]
    bed = bed_of_data(net, data, found.places, found.places.cells[0])
    score, _ = contrast_score(net, bed.take(rows))
    total = torch.zeros(net.d_model).double()
    for row in rows.tolist():
        ids = net.encode([made.prompts[row]]).ids
        hidden: list[torch.Tensor] = []

        def hook(
            module: torch.nn.Module, given: object, out: torch.Tensor, hidden: list[torch.Tensor] = hidden
        ) -> None:
            out = out[0] if isinstance(out, tuple) else out
            out.retain_grad()
            hidden.append(out)

        handle = made.model.transformer.h[0].register_forward_hook(hook)
        logits = made.model(ids).logits[:, -1]
        handle.remove()
        score(logits, torch.tensor([0])).sum().backward()
        assert hidden[0].grad is not None
        slope = hidden[0].grad[0, -1].double()
        total += slope / slope.norm()
    mine = control.directions[found.number(layer=0)][1]
    assert torch.allclose(mine, total / len(rows), atol=1e-4)


def test_noise_lies_nowhere_to_the_direction_that_controls(net: cutaway.Network, made: Specimen) -> None:
    """Activations and outputs of the same prompts vary together: what is compared must be found on different ones."""
    rng = np.random.default_rng(4)
    cosines = []
    for memory in (2**30, 0):
        for _ in range(6):
            data = ProbeData(made.prompts, rng.permutation(np.arange(240) % 2), name="noise")
            options = ProbeOptions(folds=4, permutations=0, untrained=False, baselines=False, memory=memory)
            found = probe(net, data, at="resid_post", options=options)
            cosines.append([found.data[k].values.ravel() for k in ("cosine", "means_cosine")])
    assert np.abs(np.mean(cosines, axis=(0, 2))).max() < 0.15


def test_where_the_output_cannot_be_differentiated_a_note_says_so(
    net: cutaway.Network, made: Specimen
) -> None:
    labels = np.stack([made.labels["used"], made.labels["unread"]], 1)
    data = ProbeData(made.prompts, labels, "multilabel", ("used", "unread"), name="both")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    assert np.isnan(found.data["cosine"].values).all()
    assert any("direction that controls" in note for note in found.data.attrs["notes"])
    assert found.controls() == ""
