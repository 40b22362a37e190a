"""Opening: what is found, what is refused, and what must not run."""

import json
import pickle
import shutil

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import cutaway
from cutaway.errors import BadInput, CorruptFile, NotFound, NoWeights, SiteUnavailable, UnsafeFile
from cutaway.zoo.tiny import tiny


@pytest.fixture
def folder(tmp_path):
    model = tiny("llama")
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_folder_opens_with_the_same_logits(folder):
    net = cutaway.open(folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(net.run(ids).logits, net.model(input_ids=ids).logits)
    assert net.tokenizer is None
    assert net.n_layers == 3


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(NoWeights, match="no weights"):
        cutaway.open(folder)


def test_a_folder_without_configuration(tmp_path):
    with pytest.raises(NoWeights, match=r"config\.json"):
        cutaway.open(tmp_path)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(NotFound):
        cutaway.open(str(tmp_path / "nothing"))


@pytest.mark.parametrize("keep", [4, 200, 5000])
def test_truncated_safetensors(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match="safetensors"):
        cutaway.open(folder)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_with_code_does_not_run(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    mark = tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(str(mark))))
    with pytest.raises((UnsafeFile, CorruptFile)):
        cutaway.open(folder)
    torch.save({"w": _Bomb(str(mark))}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeFile, match="not loaded"):
        cutaway.open(folder)
    assert not mark.exists()


def test_plain_bin_weights_load(folder):
    model = tiny("llama")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(cutaway.open(folder).run(ids).logits, model(input_ids=ids).logits)


def test_remote_code_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsafeFile, match="own code") as caught:
        cutaway.open(folder)
    assert "trust_remote_code=True" in caught.value.remedy


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{not json")
    with pytest.raises(CorruptFile, match="tokenizer"):
        cutaway.open(folder)


def test_broken_configuration(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(CorruptFile):
        cutaway.open(folder)


def test_loading_options_do_not_go_with_a_module_in_hand(tiny_gpt2):
    with pytest.raises(BadInput, match="in hand"):
        cutaway.open(tiny_gpt2, dtype="float64")


def test_dtype_and_its_tolerances(folder):
    for dtype in ("float64", "bfloat16"):
        net = cutaway.open(folder, dtype=dtype)
        assert str(net.dtype) == f"torch.{dtype}"
        assert all(c.holds for c in net.certificate.checks), [
            c for c in net.certificate.checks if not c.holds
        ]
    with pytest.raises(BadInput, match="not a type"):
        cutaway.open(folder, dtype="floaty")


def test_hash_is_of_weights_and_configuration(folder, tmp_path):
    first, again = cutaway.open(folder).hash, cutaway.open(shutil.copytree(folder, tmp_path / "copy")).hash
    assert first == again
    changed = cutaway.open(folder)
    with torch.no_grad():
        next(iter(changed.model.parameters())).view(-1)[7] += 1e-3
    assert changed.hash != first


def test_random_weights_keep_the_shape_and_lose_the_rest(tiny_gpt2):
    net = cutaway.open(tiny_gpt2)
    other = net.randomized(seed=1)
    assert other.hash != net.hash
    assert other.hash == net.randomized(seed=1).hash != net.randomized(seed=2).hash
    ids = torch.tensor([[1, 2, 3]])
    assert other.run(ids, keep="z.0")["z.0"].shape == net.run(ids, keep="z.0")["z.0"].shape
    assert cutaway.open(tiny_gpt2).hash == net.hash


class _Gated(nn.Module):
    """An attention whose output is gated by the input: what it says it gives is not what is written."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states, **kwargs):
        out = self.inner(hidden_states, **kwargs)
        return (out[0] * hidden_states.sigmoid(), *out[1:])


def test_a_gated_attention_is_read_as_what_it_is(tiny_gpt2):
    """The gate lies in the wrapper: the heads' outputs no longer add up to what is written, and this is said."""
    tiny_gpt2.transformer.h[1].attn = _Gated(tiny_gpt2.transformer.h[1].attn)
    net = cutaway.open(tiny_gpt2)
    assert net.has("attn_write.1")
    assert not net.has("head_out.1")
    assert net.has("head_out.0")
    with pytest.raises(SiteUnavailable, match="head_out.1 is refused"):
        net.run(torch.tensor([[1, 2, 3]]), keep=["head_out.1"])


class _Inline(nn.Module):
    """A layer that writes an expression of its own beside its modules' outputs."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden_states, *args, **kwargs):
        return self.block(hidden_states, *args, **kwargs) + hidden_states.tanh().cumsum(1)


def test_a_stream_that_cannot_be_read_is_refused_with_a_reason(tiny_gpt2):
    tiny_gpt2.transformer.h[0] = _Inline(tiny_gpt2.transformer.h[0])
    net = cutaway.open(tiny_gpt2)
    ids = torch.tensor([[1, 2, 3, 4]])
    run = net.run(ids, keep=["resid_pre", "resid_post"])
    assert torch.equal(run["resid_post.0"], run["resid_pre.1"])
    writes = [s for s in net.sites() if s.layer == 0 and s.name.endswith("_write")]
    total = run["resid_pre.0"] + sum(net.run(ids, keep=[s])[s] for s in writes)
    if not torch.allclose(total, run["resid_post.0"], atol=1e-4):
        assert not net.has("mlp_write.0") or not net.has("attn_write.0")
        assert "0" in str(net.refusal("mlp_write.0") or net.refusal("attn_write.0"))


def test_any_module_opens_by_dotted_path():
    net = cutaway.open(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 5)
        )
    )
    x = torch.randn(2, 3, 8, 8)
    run = net.run(x, keep=["0", "2:in"])
    assert run["0"].shape == (2, 8, 8, 8)
    assert torch.equal(run["2:in"], run["0"].relu())
    assert run.logits is not None
    assert run.logits.shape == (2, 5)
    edited = net.run(x, keep=["0"], edits=[cutaway.Ablate("0", neuron=[3], pos=[(1, 2), (7, 7)])])["0"]
    wanted = run["0"].clone()
    wanted[:, 3, 1, 2] = wanted[:, 3, 7, 7] = 0
    assert torch.equal(edited, wanted)
    with pytest.raises(cutaway.errors.BadAddress, match="outside"):
        net.run(x, edits=[cutaway.Ablate("0", pos=[(8, 0)])])


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2", "t5", "bert", "whisper"])
def test_other_families_certify(kind):
    net = cutaway.open(tiny(kind))
    assert net.n_layers >= 2
    assert net.certificate.check("resid_post").holds
    assert net.certificate.check("pattern @ v = z").holds
    for other in (s.name for s in net.anatomy.stacks if s.name):
        assert net.has(f"{other}.resid_post.0")


def test_a_network_shows_itself(tiny_gpt2):
    from rich.console import Console

    net = cutaway.open(tiny_gpt2)
    console = Console(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(net)
    text = console.export_text()
    assert "sequential" in text
    assert "bitwise" in text
    assert "<table>" in net._repr_html_()
    assert "GPT2LMHeadModel" in repr(net)


def test_opening_leaves_the_model_as_it_was():
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=64, bos_token_id=0, eos_token_id=0)
    )
    model.train()
    model.transformer.h[0].eval()
    model.transformer.wte.weight.requires_grad_(False)
    modes = {n: m.training for n, m in model.named_modules()}
    hooks = {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    implementation = model.config._attn_implementation
    net = cutaway.open(model)
    net.run(torch.tensor([[1, 2, 3]]), keep=["pattern", "z"])
    assert modes == {n: m.training for n, m in model.named_modules()}
    assert hooks == {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    assert type(model.config._attn_implementation) is str
    assert model.config._attn_implementation == implementation
    assert not model.transformer.wte.weight.requires_grad


IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])


def _same_edits(net, base, tolerance=1e-5):
    for edit in (
        cutaway.Ablate("z", layer=1, head=2),
        cutaway.Scale("head_out", 2.0, layer=0),
        cutaway.Ablate("mlp_act", layer=1),
    ):
        assert torch.allclose(
            net.run(IDS, edits=[edit]).logits, base.run(IDS, edits=[edit]).logits, atol=tolerance
        )


def test_offloaded_and_placed_networks(folder, tiny_gpt2):
    accelerate = pytest.importorskip("accelerate")
    base = cutaway.open(folder)
    placed = cutaway.open(folder, device_map="auto")
    _same_edits(placed, base)
    offloaded = cutaway.open(
        accelerate.cpu_offload(cutaway.open(folder).model, execution_device=torch.device("cpu"))
    )
    assert offloaded.certificate.bitwise
    _same_edits(offloaded, base)
    with pytest.raises(BadInput, match="offloaded"):
        offloaded.randomized()


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_network():
    model = tiny("llama")
    net = cutaway.open(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8))
    assert "z @ W_O" in str(
        net.refusal("head_out.1")
    )  # activations are rounded together: heads do not add up
    assert net.has("mlp_write.1")
    run = net.run(IDS, keep=["attn_out.1", "resid_pre.1", "resid_mid.1", "attn_write.1"])
    assert torch.allclose(run["resid_pre.1"] + run["attn_write.1"], run["resid_mid.1"], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["gemma2", "qwen3", "gpt_neox"])
def test_half_precision_certifies(kind, dtype):
    net = cutaway.open(tiny(kind).to(dtype))
    assert net.certificate.bitwise
    assert [c.name for c in net.certificate.checks if not c.holds] == []


def test_a_compiled_model_is_opened_as_what_it_wraps(tiny_gpt2):
    net = cutaway.open(torch.compile(tiny_gpt2, backend="eager"))
    assert net.model is tiny_gpt2


def test_a_module_that_attends_twice_is_refused():
    net = cutaway.open(tiny("diffllama"))
    with pytest.raises(SiteUnavailable, match="2 attentions in one call"):
        net.run(IDS, keep=["q.0"])
    assert net.has("attn_write.0")


@pytest.mark.parametrize("kind", ["xlm", "reformer"])
def test_what_is_not_known_to_be_the_stream_is_refused(kind):
    net = cutaway.open(tiny(kind))
    assert not net.has("resid_pre")
