"""Positions, sources and steps: what is meant is what is changed, whatever was kept, padded or generated."""

import threading

import pytest
import torch
import transformers
from torch import nn

import cutaway
from cutaway.errors import BadAddress, BadInput
from cutaway.interventions import Ablate, Add, Apply, Patch, Scale
from cutaway.network import pack
from cutaway.zoo.tiny import tiny

X = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]])
Y = X + 30


@pytest.fixture(scope="module")
def net():
    return cutaway.open(tiny("llama"))


def test_a_source_that_kept_some_positions_gives_those(net):
    part = net.run(Y, keep="resid_post", pos=[1, 3])
    whole = net.run(Y, keep="resid_post")
    edits = [[Patch("resid_post.0", s, pos=[1, 3])] for s in (part, whole)]
    assert torch.equal(*[net.run(X, edits=e).logits for e in edits])
    with pytest.raises(BadAddress, match="no value for position"):
        net.run(X, edits=[Patch("resid_post.0", part)])
    with pytest.raises(BadAddress, match="no value for position 6"):
        net.run(X, edits=[Patch("resid_post.0", net.run(Y[:, :4], keep="resid_post"), pos=-1)])
    with pytest.raises(BadInput, match="4 positions"):
        net.run(X, edits=[Patch("resid_post.0", torch.zeros(1, 4, net.d_model))])


@pytest.mark.parametrize("kind", ["llama", "openai-gpt"])
def test_generation_without_a_cache_is_generation(kind):
    net = cutaway.open(tiny(kind))
    for edit, on in [
        (Ablate("resid_post", layer=0, pos=2), "all"),
        (Scale("mlp_write", 0.1, layer=1), "prompt"),
    ]:
        new = net.generate(X, 4, edits=[edit], on=on, use_cache=False).new
        ids = X
        for _ in range(4):
            change = edit if on == "all" else Scale("mlp_write", 0.1, layer=1, pos=slice(0, 7))
            ids = torch.cat(
                [ids, net.run(ids, edits=[change], logits="last").logits[:, 0].argmax(-1)[:, None]], 1
            )
        assert torch.equal(new, ids[:, 7:])


def test_sources_of_attention_and_means_hold_through_generation(net):
    edit = Ablate("pattern", layer=1, src=2)
    ids = X
    for _ in range(4):
        ids = torch.cat([ids, net.run(ids, edits=[edit], logits="last").logits[:, 0].argmax(-1)[:, None]], 1)
    assert torch.equal(net.generate(X, 4, edits=[edit]).new, ids[:, 7:])
    mean = Ablate("mlp_write", "mean", layer=1)
    assert torch.equal(
        net.generate(X, 4, edits=[mean]).new, net.generate(X, 4, edits=[mean], use_cache=False).new
    )
    seen = []
    watch = Apply("mlp_write.1", lambda v: seen.append(v) or v)
    net.generate(X, 3, edits=[Ablate("mlp_write", "resample", layer=1), watch])
    plain = []
    net.generate(X, 1, edits=[Apply("mlp_write.1", lambda v: plain.append(v) or v)])
    assert torch.allclose(seen[0], plain[0].flip(0), atol=1e-6)


def test_logits_are_edited_where_positions_say(net):
    plain = net.run(X).logits
    assert not net.run(X, edits=[Ablate("logits", pos=-1)], logits="last").logits.any()
    kept = net.run(X, edits=[Ablate("logits", pos=0)], logits="last").logits
    assert torch.allclose(kept[:, 0], plain[:, -1], atol=1e-5)


def test_means_by_position_do_not_see_padding(net):
    rows = [X[0].tolist(), X[1, :4].tolist()]
    for side in ("right", "left"):
        tokens = pack(rows, 0, side)
        plain = net.run(tokens, keep=["resid_post.0"])["resid_post.0"]
        got = net.run(tokens, keep=["resid_post.0"], edits=[Ablate("resid_post.0", "mean", by_position=True)])
        by_row = [plain[i][tokens.mask[i]] for i in range(2)]
        for i, n in enumerate((7, 4)):
            for p in range(n):
                wanted = torch.stack([r[p] for r in by_row if len(r) > p]).mean(0)
                assert torch.allclose(got["resid_post.0"][i][tokens.mask[i]][p], wanted, atol=1e-5)


def test_patterns_are_matched_on_both_axes(net):
    rows = [X[0].tolist(), X[1, :4].tolist()]
    right, left = pack(rows, 0, "right", columns=9), pack(rows, 0, "left", columns=9)
    source = net.run(right, keep=["pattern.1"])
    patched = net.run(left, keep=["pattern.1"], edits=[Patch("pattern.1", source)])["pattern.1"]
    for i in range(2):
        a = source["pattern.1"][i][:, right.mask[i]][:, :, right.mask[i]]
        b = patched[i][:, left.mask[i]][:, :, left.mask[i]]
        assert torch.allclose(a, b, atol=1e-6)


def test_activations_that_work_in_place_do_not_blur_what_is_kept():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    true = model[1](model[0](x)).clone()
    for net in (cutaway.open(model), cutaway.open(model, example={"input": x})):
        assert torch.equal(net.run(x, keep=["1"])["1"], true)
        run = net.run(x, keep=["1"], grad=True)
        assert torch.allclose(run["1"], true)
        assert torch.autograd.grad(run.logits.sum(), run["1"])[0].abs().sum() > 0


@pytest.mark.parametrize("kind", ["phi", "bert", "falcon", "gptj", "olmo2"])
@pytest.mark.parametrize("name", ["attn_in", "mlp_in"])
def test_gradients_at_what_a_sublayer_reads_are_its_own(kind, name):
    net = cutaway.open(tiny(kind).double())
    site = f"{name}.0"
    run = net.run(X, keep=[site], grad=True)
    (gradient,) = torch.autograd.grad(run.logits[:, -1, 7].sum(), run[site])
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def along(step):
        return net.run(X, edits=[Add(site, direction, scale=step)]).logits[:, -1, 7].sum()

    slope = (along(3e-3) - along(-3e-3)) / 6e-3
    assert torch.allclose((gradient * direction).sum(), slope, rtol=1e-2, atol=1e-3)


def test_encoder_decoders_know_whose_positions_are_meant():
    net = cutaway.open(tiny("t5"))
    inputs = {"input_ids": torch.randint(5, 90, (2, 8)), "decoder_input_ids": torch.randint(5, 90, (2, 4))}
    pattern = net.run(inputs, keep=["cross_pattern.0"], edits=[Ablate("cross_pattern.0", src=-1)])[
        "cross_pattern.0"
    ]
    assert not pattern[..., 7].any()
    assert pattern[..., 3].all()
    assert net.run(inputs, logits="last").logits.shape[:2] == (2, 1)
    with pytest.raises(BadInput, match="encoder-decoder"):
        net.generate(inputs["input_ids"], 2, edits=[Ablate("mlp_out.0")])
    net.model.generation_config.decoder_start_token_id = 0
    assert 1 <= net.generate(inputs["input_ids"], 3).new.shape[1] <= 3


def test_random_weights_are_certified_anew():
    model = tiny("dinov2")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lambda" in name:
                p.copy_(torch.rand_like(p) + 0.5)
    net = cutaway.open(model).randomized(1)
    x = torch.randn(1, 3, *[model.config.image_size] * 2)
    run = net.run(x, keep=["resid_pre.0", "attn_write.0", "mlp_write.0", "resid_post.0"])
    total = run["resid_pre.0"] + run["attn_write.0"] + run["mlp_write.0"]
    assert torch.allclose(total, run["resid_post.0"], atol=1e-5)


def test_runs_from_several_threads_take_turns(net):
    edits = [Ablate("resid_post.0"), Ablate("pattern.1")]
    wanted = [net.run(X, edits=[e]).logits for e in edits]
    wrong = []

    def work(i):
        wrong.extend(1 for _ in range(15) if not torch.equal(net.run(X, edits=[edits[i]]).logits, wanted[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_layers_are_checked_alike_for_names_and_globs(net):
    for keep in ("resid_pre", "resid_p*"):
        assert {s.layer for s in net.run(X, keep=keep, layers=[-1]).kept} == {2}
        with pytest.raises(BadAddress, match="out of range"):
            net.run(X, keep=keep, layers=[7])
        with pytest.raises(BadInput, match="empty"):
            net.run(X, keep=keep, layers=[])
    with pytest.raises(BadInput, match="not a list"):
        net.run(X, keep="z", layers=0)


def test_a_run_stops_when_all_that_comes_before_was_seen():
    for kind in ("gptj", "bloom", "llama"):
        net = cutaway.open(tiny(kind))
        run = net.run(X, keep=["v", "q"], layers=[0], stop_at="scores.0")
        assert run.logits is None
        assert {str(s) for s in run.kept} == {"v.0", "q.0"}
        stopped = net.run(
            X, keep=["resid_post.0"], edits=[Scale("resid_post.0", 2.0)], stop_at="resid_post.0"
        )
        assert stopped.logits is None


def test_a_position_need_only_exist_in_the_rows_that_are_meant(net):
    rows = [X[0].tolist(), X[1, :4].tolist()]
    run = net.run(rows, keep=["resid_post.0"], edits=[Ablate("resid_post.0", pos=6, row=0)])
    assert not run["resid_post.0"][0, 6].any()


def test_positions_of_an_encoder_are_counted_in_its_own_rows() -> None:
    """With its sites alone kept, the decoder's single start token sets no bound."""
    config = transformers.T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    torch.manual_seed(0)
    net = cutaway.open(transformers.T5ForConditionalGeneration(config).eval())
    rows = torch.randint(2, 60, (2, 5)).tolist()
    site = "encoder.resid_post.1"
    whole = net.run(rows, keep=[site])[site]
    for pos in (0, 3, -1, -2):
        run = net.run(rows, keep=[site], pos=pos)
        assert torch.equal(run[site][:, 0], whole[:, pos])
        assert run.columns is not None
        assert run.columns.tolist() == [[pos % 5]] * 2
    with pytest.raises(BadAddress, match="outside row 0, which has 5 tokens"):
        net.run(rows, keep=[site], pos=5)
    with pytest.raises(BadAddress, match="which has 1 tokens"):
        net.run(rows, keep=[site, "resid_post.1"], pos=3)
