"""Interventions saved and loaded: the same edits, bit for bit."""

import json

import pytest
import torch

import cutaway
from cutaway.errors import BadFormat, BadInput, CorruptFile, NotFound
from cutaway.interventions import Ablate, Add, Apply, Clamp, Interchange, Patch, Project, Scale, load, save
from cutaway.network import Site
from cutaway.zoo.tiny import tiny

IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])


def edits(net):
    source = net.run(IDS.flip(1), keep=["z.1", "resid_pre.1"])
    return [
        Patch("z.1", source, head=[0, 2], pos=[[0, 1], [2, 3]]),
        Patch(("resid_pre", 1), source["resid_pre.1"], pos=slice(1, 3)),
        Ablate(Site("mlp_out", 0), "mean", row=1),
        Add("resid_post.1", torch.randn(net.d_model), scale=0.5, pos=-1),
        Scale("v", 2.0, layer=range(0, 2)),
        Project("resid_post.0", torch.randn(2, net.d_model)),
        Interchange("resid_pre.1", source, torch.randn(1, net.d_model)),
        Clamp("mlp_act.1", low=0.0),
    ]


def test_a_round_trip_is_bit_exact(tmp_path):
    net = cutaway.open(tiny("gpt2"))
    listed = edits(net)
    save(listed, tmp_path / "edits")
    again = load(tmp_path / "edits")
    assert [type(e) for e in again] == [type(e) for e in listed]
    assert torch.equal(net.run(IDS, edits=again).logits, net.run(IDS, edits=listed).logits)
    for a, b in zip(listed, again, strict=True):
        assert torch.equal(net.run(IDS, edits=[a]).logits, net.run(IDS, edits=[b]).logits), a


def test_a_function_cannot_be_saved(tmp_path):
    with pytest.raises(BadInput, match="cannot be saved"):
        save([Apply("z.1", torch.relu)], tmp_path / "edits")
    assert not (tmp_path / "edits").exists()


def test_damaged_files_are_refused(tmp_path):
    folder = tmp_path / "edits"
    save([Add("resid_post.1", torch.ones(4))], folder)
    with pytest.raises(NotFound):
        load(tmp_path / "nothing")
    tensors = folder / "tensors.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:20])
    with pytest.raises(CorruptFile):
        load(folder)
    tensors.write_bytes(whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    for change, error in [
        ({"format": "other"}, BadFormat),
        ({"interventions": [{"kind": "Explode", "at": "z"}]}, NotFound),
        ({"interventions": [{"kind": "Apply", "at": "z"}]}, NotFound),
        ({"interventions": [{"kind": "Scale", "at": "z", "factor": 1, "speed": 2}]}, BadFormat),
    ]:
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(error):
            load(folder)
