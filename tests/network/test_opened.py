"""How a network was opened: told, handed on, and opened again in another process."""

import json
import subprocess
import sys

import pytest
import torch

import cutaway
from cutaway.errors import BadInput, UnknownOption
from cutaway.network import opening
from cutaway.network.opened import Opened
from cutaway.network.opening import Scheme
from cutaway.zoo.tiny import tiny

ELSEWHERE = """
import json, sys
import cutaway
from cutaway.network.opened import Opened
net = cutaway.open(**Opened.from_dict(json.loads(sys.argv[1])))
print(net.hash, net.dtype, net.certificate.made)
"""


@pytest.fixture
def folder(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_another_process_opens_the_same(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    net = cutaway.open("model", dtype=torch.float64, device="cpu", load={"attn_implementation": "eager"})
    assert net.name == "model"
    told = json.dumps(net.opened.to_dict())
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, told], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == [net.hash, "torch.float64", "True"]


@pytest.mark.parametrize("name", ["zoo:induction-gpt2", "zoo:induction-gpt2~random"])
def test_names_of_the_zoo(name):
    net = cutaway.open(name, certify=False)
    assert net.opened.model == name
    again = cutaway.open(**Opened.from_dict(json.loads(json.dumps(net.opened.to_dict()))))
    assert again.hash == net.hash
    assert again.opened.to_dict() == net.opened.to_dict()
    assert not again.certificate.made


def test_a_module_in_hand_says_why_it_cannot(folder):
    net = cutaway.open(tiny("llama"))
    assert json.loads(json.dumps(net.opened.to_dict()))["reason"] == net.opened.reason
    with pytest.raises(BadInput, match="LlamaForCausalLM was a module in hand"):
        cutaway.open(**net.opened)
    with pytest.raises(BadInput, match="drawn at random"):
        cutaway.open(**cutaway.open(folder).randomized().opened)
    with pytest.raises(BadInput, match="tokenizer in hand"):
        cutaway.open(**cutaway.open(folder, tokenizer=lambda text: text, certify=False).opened)


def test_an_example_is_handed_on(folder):
    example = {"input_ids": torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])}
    net = cutaway.open(folder, example=example)
    told = Opened.from_dict(json.loads(json.dumps(net.opened.to_dict())))
    assert torch.equal(told.example["input_ids"], example["input_ids"])
    assert cutaway.open(**told).hash == net.hash


@pytest.mark.parametrize("in_hand", [False, True])
def test_unknown_options_are_refused(folder, in_hand):
    model = tiny("llama") if in_hand else folder
    with pytest.raises(UnknownOption, match="certfy.*certify"):
        cutaway.open(model, certfy=False)
    with pytest.raises(UnknownOption, match="attn_implementation"):
        cutaway.open(model, attn_implementation="eager")


def test_options_of_transformers_go_through_load(folder):
    net = cutaway.open(folder, load={"attn_implementation": "eager"})
    assert net.config._attn_implementation == "eager"
    with pytest.raises(BadInput, match="dtype="):
        cutaway.open(folder, load={"dtype": torch.float64})
    with pytest.raises(BadInput, match="in hand"):
        cutaway.open(tiny("llama"), load={"attn_implementation": "eager"})


def test_a_scheme_is_a_row_of_the_table(folder, monkeypatch):
    module = type(sys)("shelf_of_this_test")
    module.path = lambda name: folder.parent / name
    monkeypatch.setitem(sys.modules, "shelf_of_this_test", module)
    shelf = Scheme("shelf_of_this_test:path", "shelf_of_this_test:load", made="~")
    monkeypatch.setitem(opening.SCHEMES, "shelf", shelf)
    net = cutaway.open("shelf:model")
    assert (net.name, net.hash) == ("shelf:model", cutaway.open(folder).hash)
