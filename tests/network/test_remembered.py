"""What opening finds out is remembered by what the network is, and by nothing less."""

import json
import os
import shutil

import pytest
import torch
from torch import nn

import cutaway
from cutaway.network import cache, opening
from cutaway.network.cache import cache_folder, recall, remember
from cutaway.network.remembered import key_of
from cutaway.zoo.tiny import tiny


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CUTAWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def entries(place):
    return sorted(place.glob("*.json"))


def test_the_second_opening_examines_nothing_and_is_the_same_network(folder, kept, monkeypatch):
    first = cutaway.open(folder)
    assert not first.remembered
    with monkeypatch.context() as patch:
        patch.setattr(opening, "examine_model", None)
        again = cutaway.open(folder)
    assert again.remembered
    assert again.sites() == first.sites()
    assert again.certificate == first.certificate
    assert (again.hash, repr(again.anatomy)) == (first.hash, repr(first.anatomy))
    ids = torch.tensor([[5, 6, 7, 8]])
    sites = [str(site) for site in first.sites()]
    one, other = first.run(ids, keep=sites), again.run(ids, keep=sites)
    assert all(torch.equal(one[site], other[site]) for site in sites)
    edits = [cutaway.Ablate("z", layer=1, head=0)]
    assert torch.equal(first.run(ids, edits=edits).logits, again.run(ids, edits=edits).logits)


def test_the_hash_of_a_remembered_network_follows_its_weights(folder, kept):
    cutaway.open(folder)
    net = cutaway.open(folder)
    before = net.hash
    with torch.no_grad():
        next(net.model.parameters()).view(-1)[3] += 1
    assert net.remembered
    assert net.hash != before


def test_a_file_changed_under_the_same_size_and_date_is_another_network(folder, kept):
    cutaway.open(folder)
    file = folder / "model.safetensors"
    state, raw = file.stat(), bytearray(file.read_bytes())
    raw[-8] ^= 1
    file.write_bytes(bytes(raw))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert not cutaway.open(folder).remembered


def test_two_exchanged_numbers_are_another_network(folder):
    model = opening.open_network(folder).model
    weight = next(p for p in model.parameters() if p.ndim == 2).data.view(-1)
    before = key_of(model)
    kept = weight.clone()
    weight[[10, 11]] = weight[[11, 10]].clone()
    assert key_of(model) != before
    weight.copy_(kept)
    weight[[0, 4]] = weight[[4, 0]].clone()
    assert key_of(model) != before
    weight.copy_(kept)
    assert key_of(model) == before


def test_another_type_or_attention_is_another_network(folder, kept):
    cutaway.open(folder)
    assert not cutaway.open(folder, dtype="bfloat16").remembered
    assert not cutaway.open(folder, load={"attn_implementation": "eager"}).remembered
    assert cutaway.open(folder, dtype="bfloat16").remembered


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:100], lambda raw: raw.replace(b"resid_pre", b"resid_mid"), lambda raw: b"[]"]
)
def test_a_damaged_entry_is_made_anew(folder, kept, damage):
    before = cutaway.open(folder).certificate
    (entry,) = entries(kept)
    entry.write_bytes(damage(entry.read_bytes()))
    again = cutaway.open(folder)
    assert not again.remembered
    assert again.certificate == before
    assert cutaway.open(folder).remembered


def test_an_entry_of_another_network_is_not_taken(folder, kept, tmp_path):
    cutaway.open(folder)
    (mine,) = entries(kept)
    tiny("gpt2").save_pretrained(tmp_path / "other")
    cutaway.open(tmp_path / "other")
    (other,) = set(entries(kept)) - {mine}
    shutil.copy(other, mine)
    assert not cutaway.open(folder).remembered


def test_an_entry_that_names_modules_that_are_not_there_is_not_taken(folder, kept):
    net = cutaway.open(folder)
    key = key_of(net.model)
    content = json.loads(json.dumps(recall("opening", key)).replace("self_attn", "elsewhere"))
    remember("opening", key, content)
    assert not cutaway.open(folder).remembered


def test_it_is_switched_off_by_the_variable_and_by_the_option(folder, kept, monkeypatch):
    cutaway.open(folder, remember=False)
    assert not kept.exists()
    cutaway.open(folder)
    assert not cutaway.open(folder, remember=False).remembered
    monkeypatch.setenv("CUTAWAY_CACHE", "off")
    assert cache_folder() is None
    assert not cutaway.open(folder).remembered


def test_a_disk_that_takes_nothing_does_not_matter(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUTAWAY_CACHE", str(tmp_path / "file"))
    assert cutaway.open(folder).n_layers == 3
    assert not cutaway.open(folder).remembered


def test_the_folder_is_bounded_and_what_is_not_ours_stays(kept, monkeypatch):
    monkeypatch.setattr(cache, "MOST_ENTRIES", 3)
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    for number in range(6):
        assert remember("test", str(number), {"number": number})
        for age, path in enumerate(sorted(entries(kept), key=os.path.getmtime, reverse=True)):
            os.utime(path, (1e9 - age, 1e9 - age))
    assert len(entries(kept)) == 3
    assert recall("test", "5") == {"number": 5}
    assert recall("test", "0") is None
    assert (kept / "notes.txt").read_text() == "mine"


def test_the_folder_is_where_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("CUTAWAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cutaway"


def _other_forward(self, hidden_states, *args, **kwargs):
    return hidden_states


def test_code_of_other_origin_is_not_remembered(folder, monkeypatch):
    model = opening.open_network(folder).model
    assert key_of(model) is not None
    mlp = model.model.layers[0].mlp
    with monkeypatch.context() as patch:
        patch.setattr(type(mlp), "forward", _other_forward)
        assert key_of(model) is None
    handle = mlp.register_forward_hook(lambda *_: None)
    assert key_of(model) is None
    handle.remove()
    mlp.forward = lambda x: x
    assert key_of(model) is None
    del mlp.forward
    model.model.layers[0].mlp = type("Own", (nn.Identity,), {"__module__": "mine"})()
    assert key_of(model) is None
