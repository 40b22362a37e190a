"""What cannot be opened, run or looked up is refused at once, with a sentence on what is wrong and one on what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cutaway
from cutaway.errors import BadInput, CorruptFile, NotFinite, NotFound
from cutaway.network.certification.certify import check_padding
from cutaway.network.certification.identities import new_ledgers
from cutaway.network.inputs import Inputs
from cutaway.network.views import without_number
from cutaway.zoo.tiny import tiny

IDS = [[5, 6, 7, 8]]


def _tiny(kind) -> Any:
    return tiny(kind)


@pytest.fixture
def folder(tmp_path):
    _tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def net(tiny_gpt2):
    return cutaway.open(tiny_gpt2)


def _rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def _sentences(error):
    assert error.problem.endswith((".", "?"))
    assert error.remedy.endswith(".")
    assert ".." not in error.problem.replace("...", "")


NAME = "model.layers.1.mlp.down_proj.weight"


def test_a_checkpoint_that_lacks_a_weight(folder):
    _rewrite(folder, lambda t: t.pop(NAME))
    with pytest.raises(CorruptFile, match=NAME) as caught:
        cutaway.open(folder)
    _sentences(caught.value)


def test_a_checkpoint_with_a_weight_of_another_shape(folder):
    _rewrite(folder, lambda t: t.update({NAME: t[NAME][:-1].clone()}))
    with pytest.raises(CorruptFile, match=f"another shape {NAME}"):
        cutaway.open(folder)


def test_a_checkpoint_with_more_than_is_needed(folder):
    _rewrite(folder, lambda t: t.update({"something.else": torch.zeros(2)}))
    assert cutaway.open(folder).n_layers == 3


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5", "gemma2"])
def test_tied_weights_do_not_count_as_missing(kind, tmp_path):
    _tiny(kind).save_pretrained(tmp_path)
    assert cutaway.open(tmp_path).n_layers >= 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_numbers(tiny_gpt2, value, dtype):
    with torch.no_grad():
        tiny_gpt2.transformer.h[1].mlp.c_fc.weight[3, 4] = value
    tiny_gpt2.to(dtype)
    with pytest.raises(NotFinite, match=r"h\.1\.mlp\.c_fc\.weight") as caught:
        cutaway.open(tiny_gpt2)
    _sentences(caught.value)
    assert not cutaway.open(tiny_gpt2, certify=False).certificate.made


def test_padding_is_not_judged_on_nan():
    inputs = Inputs({}, None, 1)
    mask = torch.ones(1, 2, dtype=torch.bool)
    ledgers = new_ledgers()
    nan = torch.full((1, 2, 3), float("nan"))
    for side in ("left", "right"):
        found = check_padding(lambda s: (inputs, mask), side, lambda i: nan, nan, ledgers, 1e-5)
        assert found is None
        assert not ledgers[f"{side} padding"].errors


def test_nan_errors_do_not_hold():
    ledger = new_ledgers()["resid_post"]
    ledger.note("0", float("nan"))
    check = ledger.check(1e-5)
    assert check is not None
    assert not check.holds


def test_an_infinite_error_is_shown():
    reason = "resid_post does not hold at {}: relative error {}, tolerance 5e-05."
    assert without_number(reason.format(3, "inf")) == reason.format(3, "inf").replace("at 3", "there")
    assert without_number(reason.format(3, "0.21")) == "resid_post does not hold there, tolerance 5e-05."
    assert without_number("No information.") == "No information."


@pytest.mark.parametrize("model", [None, 5, "", "  ", b"x", ["gpt2"]])
def test_what_is_not_a_model(model):
    with pytest.raises(BadInput, match="not a model") as caught:
        cutaway.open(model)
    _sentences(caught.value)


@pytest.mark.parametrize(
    "options", [{"dtype": 5}, {"dtype": ["float32"]}, {"device": "foo"}, {"device": "meta"}]
)
def test_loading_options_of_the_wrong_kind(folder, options):
    with pytest.raises(BadInput) as caught:
        cutaway.open(folder, **options)
    _sentences(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_a_device_that_is_not_there(folder):
    with pytest.raises(BadInput, match="'cuda' is not available") as caught:
        cutaway.open(folder, device="cuda")
    _sentences(caught.value)


def test_a_type_with_its_prefix(folder):
    assert cutaway.open(folder, dtype="torch.float64", certify=False).dtype == torch.float64


@pytest.mark.parametrize("content", [None, [1, 2], "text", 3])
def test_a_configuration_that_is_not_a_mapping(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CorruptFile, match="instead of a configuration"):
        cutaway.open(Path(folder))


def test_broken_json_is_told_in_sentences(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(CorruptFile, match="not JSON") as caught:
        cutaway.open(folder)
    _sentences(caught.value)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    import transformers

    def fail(*args, **kwargs):
        raise OSError(
            "We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection"
        )

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(NotFound, match="connection to the Hub failed") as caught:
        cutaway.open("someone/model")
    _sentences(caught.value)


@pytest.mark.parametrize(
    "inputs",
    [
        5,
        None,
        2.5,
        b"text",
        [],
        [[]],
        [-1, 3],
        [[3, -1]],
        [1.5, 2.5],
        [[1.5, 2.5]],
        [True, False],
        [None],
        ["text", 5],
        [5, "text"],
        [[5], "text"],
        [5, [6]],
        [[5], 6],
        [["text"]],
        [[[5]]],
        "no tokenizer here",
        torch.zeros(1, 2, 3, dtype=torch.long),
        torch.tensor(5),
        torch.ones(1, 3, dtype=torch.bool),
        torch.zeros(0, 3, dtype=torch.long),
        torch.tensor([[-1, 4]]),
        torch.tensor([[4, 1000]]),
    ],
)
def test_what_is_not_a_prompt(net, inputs):
    with pytest.raises(BadInput) as caught:
        net.run(inputs)
    _sentences(caught.value)


@pytest.mark.parametrize("inputs", [torch.rand(1, 3), {"a": 1}])
def test_what_cannot_be_encoded(net, inputs):
    with pytest.raises(BadInput) as caught:
        net.encode(inputs)
    _sentences(caught.value)


@pytest.mark.parametrize(
    "inputs",
    [
        [5, 6, 7],
        (5, 6, 7),
        torch.tensor([5, 6, 7]),
        torch.tensor([[5, 6, 7]], dtype=torch.int32),
        np.array([5, 6, 7]),
        np.array([[5, 6, 7]]),
        list(np.array([5, 6, 7])),
        [torch.tensor([5, 6, 7])],
        list(torch.tensor([5, 6, 7])),
        iter([[5, 6, 7]]),
    ],
)
def test_all_ways_to_write_one_prompt(net, inputs):
    assert net.encode(inputs).ids.tolist() == [[5, 6, 7]]


def test_a_kept_site_is_looked_up_by_layer(net):
    run = net.run(IDS, keep=["resid_post"])
    with pytest.raises(NotFound, match="no layer was named") as caught:
        run["resid_post"]
    _sentences(caught.value)
    assert 'run["resid_post", 2]' in caught.value.remedy
    assert 'run.stack("resid_post")' in caught.value.remedy


def test_layers_are_counted_from_the_end(net):
    run = net.run(IDS, keep=["resid_post"])
    assert torch.equal(run["resid_post", -1], run["resid_post", 2])
    assert torch.equal(run["resid_post.-3"], run["resid_post", 0])
    assert ("resid_post", -1) in run
    with pytest.raises(NotFound, match="cannot be counted from the end"):
        run["resid_post", -4]
    some = net.run(IDS, keep=["resid_post.0", "resid_post.2"])
    with pytest.raises(NotFound, match=r"layers \[0, 2\]") as caught:
        some["resid_post", -1]
    _sentences(caught.value)
    with pytest.raises(NotFound, match="was not kept"):
        some["z", -1]
    with pytest.raises(NotFound, match="cannot be counted from the end"):
        net.run(IDS, keep=["resid_post.0", "z"])["resid_post", -1]
