"""Weights in other forms: GGUF, shards, half precision, adapters, quantised; each opens, or it is said why not."""

import json
import re
import struct
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import cutaway
from cutaway.errors import BadInput, CorruptFile, NotFound, NoWeights, OutOfMemory
from cutaway.network import files
from cutaway.zoo.tiny import tiny

sys.path.insert(0, str(Path(__file__).parent))

from gguf_files import write_gguf

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**shape, **heads)).eval()


@pytest.fixture
def folder(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def certified(net):
    return bool(net.certificate.checks) and all(check.holds for check in net.certificate.checks)


# GGUF ----------------------------------------------------------------------------------------------------------------


def test_a_gguf_file_is_the_network_that_was_written(llama, tmp_path):
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    net = cutaway.open(write_gguf(tmp_path / "plain.gguf", llama))
    assert certified(net)
    assert net.name == "plain.gguf"
    assert net.tokenizer is None
    assert torch.allclose(net.run(IDS).logits, llama(input_ids=IDS).logits, atol=1e-6)
    again = cutaway.open(**net.opened)
    assert again.hash == net.hash


def test_a_quantised_gguf_file_opens_in_full_numbers(llama, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    kind = gguf.GGMLQuantizationType.Q8_0
    net = cutaway.open(write_gguf(tmp_path / "q8.gguf", llama, kind=kind))
    assert certified(net)
    assert net.dtype == torch.float32
    off = (net.run(IDS).logits - llama(input_ids=IDS).logits).abs().max()
    assert 0 < off < 0.05


def test_gguf_files_that_cannot_be_read(llama, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    whole = write_gguf(tmp_path / "whole.gguf", llama)
    raw = whole.read_bytes()
    for keep in (100, len(raw) // 2, len(raw) - 10):
        (tmp_path / "cut.gguf").write_bytes(raw[:keep])
        with pytest.raises(CorruptFile, match="cut off"):
            cutaway.open(tmp_path / "cut.gguf")
    (tmp_path / "text.gguf").write_text("hello " * 50)
    with pytest.raises(CorruptFile, match="no GGUF"):
        cutaway.open(tmp_path / "text.gguf")
    with pytest.raises(BadInput, match="'strange'"):
        cutaway.open(write_gguf(tmp_path / "strange.gguf", llama, architecture="strange"))
    kind = write_gguf(tmp_path / "kind.gguf", llama, kind=gguf.GGMLQuantizationType.Q8_0)
    changed = bytearray(kind.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = changed.index(name) + len(name) + 4 + 16  # behind the name: number of axes, two sizes, then the type
    assert struct.unpack("<I", changed[at : at + 4]) == (8,)
    changed[at : at + 4] = struct.pack("<I", 99)
    kind.write_bytes(changed)
    with pytest.raises(BadInput, match="quantisation that the package gguf does not know"):
        cutaway.open(kind)
    with pytest.raises(NotFound):
        cutaway.open(tmp_path / "absent.gguf")
    with pytest.raises(NoWeights, match="GGUF files") as caught:
        cutaway.open(tmp_path)
    assert "cut.gguf" in caught.value.remedy


def test_a_broken_tokenizer_in_a_gguf_file(llama, tmp_path):
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    words = tuple(f"w{i}" for i in range(128))
    file = write_gguf(
        tmp_path / "words.gguf", llama, words=words
    )  # it merges two words into one that it lacks
    with pytest.raises(CorruptFile, match="tokenizer"):
        cutaway.open(file)


# shards, memory, precision -------------------------------------------------------------------------------------------


def test_a_sharded_folder_opens_and_a_missing_shard_is_named(tmp_path):
    model = tiny("llama")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3
    assert torch.equal(cutaway.open(tmp_path).run(IDS).logits, model(input_ids=IDS).logits)
    shards[1].unlink()
    with pytest.raises(CorruptFile, match=shards[1].name):
        cutaway.open(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CorruptFile, match="no index"):
        cutaway.open(tmp_path)


def test_what_does_not_fit_is_said_before_it_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("transformers.LlamaForCausalLM.from_pretrained", None)
    size = sum(t.numel() for t in tiny("llama").state_dict().values())
    monkeypatch.setattr(files, "available_bytes", lambda device: 3 * size)
    with pytest.raises(OutOfMemory, match="weights of") as caught:
        cutaway.open(folder)
    assert "bfloat16" in caught.value.remedy
    monkeypatch.setattr(files, "available_bytes", lambda device: size)
    with pytest.raises(OutOfMemory) as caught:
        cutaway.open(folder, dtype="bfloat16")
    assert "bfloat16" not in caught.value.remedy
    monkeypatch.undo()
    monkeypatch.setattr(files, "available_bytes", lambda device: 3 * size)
    assert cutaway.open(folder, dtype="bfloat16").dtype == torch.bfloat16


def test_the_size_of_a_network_is_read_from_its_headers(folder):
    state = tiny("llama").state_dict()
    counted = files.numbers_in(folder)
    assert counted == {torch.float32: sum(t.numel() for n, t in state.items() if n != "lm_head.weight")} or (
        counted == {torch.float32: sum(t.numel() for t in state.values())}
    )


def test_half_precision_on_a_processor(folder):
    for dtype in ("float16", "bfloat16"):
        net = cutaway.open(folder, dtype=dtype)
        assert certified(net)
        assert net.run(IDS, keep="resid_post.1")["resid_post.1"].dtype == getattr(torch, dtype)


# adapters ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(folder, tmp_path):
    peft = pytest.importorskip("peft", reason="the package peft is not installed")
    torch.manual_seed(0)
    settings = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False)
    model = peft.get_peft_model(tiny("llama"), settings).eval()
    model.peft_config["default"].base_model_name_or_path = str(folder)
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_an_adapter_folder_opens_merged(adapted, folder):
    model, place = adapted
    net = cutaway.open(place)
    assert certified(net)
    assert torch.allclose(net.run(IDS).logits, model(input_ids=IDS).logits, atol=1e-5)
    assert not torch.allclose(net.run(IDS).logits, cutaway.open(folder).run(IDS).logits, atol=1e-3)
    assert type(net.model).__name__ == "LlamaForCausalLM"


def test_a_live_adapter_opens_as_it_is(adapted):
    model, _ = adapted
    net = cutaway.open(model)
    assert certified(net)
    assert torch.equal(net.run(IDS).logits, model(input_ids=IDS).logits)


def test_adapters_that_cannot_be_opened(adapted, folder, tmp_path, monkeypatch):
    _, place = adapted
    told = json.loads((place / "adapter_config.json").read_text())

    def say(**changed):
        (place / "adapter_config.json").write_text(json.dumps(told | changed))

    say(base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(NotFound, match="gone"):
        cutaway.open(place)
    say(base_model_name_or_path=None)
    with pytest.raises(BadInput, match="names no network"):
        cutaway.open(place)
    say(r=2)
    with pytest.raises(BadInput, match="does not fit"):
        cutaway.open(place)
    say()
    (place / "adapter_model.safetensors").rename(place / "kept")
    with pytest.raises(NoWeights, match="adapter_model"):
        cutaway.open(place)
    (place / "kept").rename(place / "adapter_model.safetensors")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BadInput, match="peft") as caught:
        cutaway.open(place)
    assert "cutaway[adapters]" in caught.value.remedy


# quantised -----------------------------------------------------------------------------------------------------------


def test_a_quantisation_that_is_not_known_is_not_passed_over(folder):
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(told | {"quantization_config": {"quant_method": "strange"}})
    )
    with pytest.raises(BadInput, match="'strange'"):
        cutaway.open(folder)


#: What a folder that was quantised says of itself, and the package, or the device, that transformers wants for it.
QUANTISED = {
    "gptq": ({"bits": 4, "group_size": 128, "desc_act": False}, "gptq|optimum"),
    "awq": ({"bits": 4, "group_size": 128, "zero_point": True}, "awq|gptqmodel"),
    "hqq": ({"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, "hqq"),
    "bitsandbytes": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
    "compressed-tensors": ({"format": "pack-quantized", "config_groups": {}}, "compressed-tensors"),
    "quanto": ({"weights": "int8"}, "quanto"),
    "aqlm": ({}, "aqlm"),
    "eetq": ({"weights": "int8"}, "eetq|kernels|GPU|CUDA"),
    "higgs": ({}, "GPU"),
    "spqr": ({}, "GPU"),
    "vptq": ({}, "vptq"),
    "torchao": ({"quant_type": "int8_weight_only"}, "torchao"),
}


@pytest.mark.parametrize("method", QUANTISED)
def test_every_kind_of_quantisation_opens_or_says_what_to_do(folder, method):
    asked, wanted = QUANTISED[method]
    told = json.loads((folder / "config.json").read_text())
    told |= {"quantization_config": {"quant_method": method, **asked}}
    (folder / "config.json").write_text(json.dumps(told))
    said = _said_on_opening(folder)
    if said is None:  # its package is installed
        return
    problem, remedy = said
    assert re.search(wanted, problem, re.IGNORECASE)
    assert f"quantised by {method}" in problem
    assert ("device='cuda'" in remedy) == any(word in problem for word in ("GPU", "CUDA"))
    assert remedy.endswith("or use the network as it was before it was quantised.")
    assert "different quantizer" not in problem


def _said_on_opening(folder: Path) -> tuple[str, str] | None:
    """What is said of a folder that does not open, and what to do; None where it opens."""
    try:
        cutaway.open(folder)
    except BadInput as error:
        return error.problem, error.remedy
    return None


def test_a_quantisation_whose_package_is_missing_says_which(folder):
    told = json.loads((folder / "config.json").read_text())
    method = {"quant_method": "quanto", "weights": "int8"}
    (folder / "config.json").write_text(json.dumps(told | {"quantization_config": method}))
    with pytest.raises(BadInput, match="quanto"):
        cutaway.open(folder)


class _Unread(torch.Tensor):
    """Weights that can be multiplied with and not read, as torchao's."""

    def reshape(self, *shape):
        raise NotImplementedError


def test_weights_that_cannot_be_read_are_refused():
    model = tiny("llama")
    weight = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.Tensor._make_subclass(_Unread, weight.data)
    )
    with pytest.raises(BadInput, match=r"up_proj.*_Unread"):
        cutaway.open(model)
