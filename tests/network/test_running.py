"""Running: what is kept, at which positions, with which padding, and how errors are told."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from transformers import AutoModelForCausalLM  # noqa: F401

import cutaway
from cutaway.errors import BadAddress, BadInput, NotFinite, NotFound, OutOfMemory, SiteUnavailable, TooLong
from cutaway.network import Tokens, pack, parse
from cutaway.zoo.tiny import tiny


@pytest.fixture(scope="module")
def net():
    return cutaway.open(tiny("llama"))


IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])


def test_names_mean_the_same_tensor(net):
    run = net.run(IDS, keep=["resid_post", "z.1"])
    for key in ("resid_post.2", ("resid_post", 2), "blocks.2.hook_resid_post", parse("resid_post.2")):
        assert run[key] is run.kept[parse("resid_post.2")]
    assert run["blocks.1.attn.hook_z"] is run["z", 1]
    assert run.stack("resid_post").shape == (3, 2, 5, net.d_model)
    assert "z.1" in run
    assert "z.0" not in run
    with pytest.raises(NotFound, match="was not kept"):
        run["z.0"]


def test_globs_and_layer_ranges(net):
    run = net.run(IDS, keep=["*_write"], layers=range(1, 3))
    assert {str(s) for s in run.kept} == {"attn_write.1", "attn_write.2", "mlp_write.1", "mlp_write.2"}
    assert {str(s) for s in net.run(IDS, keep=["z", "blocks.0.*"], layers=[0]).kept} >= {"z.0", "resid_pre.0"}
    with pytest.raises(NotFound, match="matches"):
        net.run(IDS, keep=["nothing_*"])


def test_module_paths(net):
    run = net.run(
        IDS, keep=["model.layers.1.mlp", "model.layers.1.mlp.down_proj:in", "mlp_out.1", "mlp_act.1"]
    )
    assert torch.equal(run["model.layers.1.mlp"], run["mlp_out.1"])
    assert torch.equal(run["model.layers.1.mlp.down_proj:in"], run["mlp_act.1"])


@pytest.mark.parametrize("pos", [-1, [0, 2], slice(1, 4), [[0, 1], [3, 4]]])
def test_positions_keep_slices(net, pos):
    whole = net.run(IDS, keep=["resid_post.1", "pattern.0"])
    some = net.run(IDS, keep=["resid_post.1", "pattern.0"], pos=pos)
    rows = torch.arange(2)[:, None]
    columns = some.tokens.columns(pos)
    assert torch.equal(some["resid_post.1"], whole["resid_post.1"][rows, columns])
    assert torch.allclose(
        some["pattern.0"].transpose(1, 2), whole["pattern.0"].transpose(1, 2)[rows, columns]
    )


def test_logits_only_where_they_are_read(net):
    whole = net.run(IDS).logits
    assert torch.allclose(net.run(IDS, logits="last").logits[:, 0], whole[:, -1], atol=1e-5)
    assert torch.allclose(net.run(IDS, logits=[1, -1]).logits, whole[:, [1, 4]], atol=1e-5)
    mixed = net.run(IDS, logits=torch.tensor([[0], [3]])).logits
    assert torch.allclose(mixed[:, 0], torch.stack([whole[0, 0], whole[1, 3]]), atol=1e-5)
    assert net.run(IDS, logits=False).logits is None


def test_a_run_ends_where_nothing_more_is_asked(net):
    calls = []
    handle = net.model.model.layers[2].register_forward_hook(lambda *a: calls.append(1))
    try:
        run = net.run(IDS, keep=["resid_post.0"], logits=False)
        assert not calls
        assert torch.equal(run["resid_post.0"], net.run(IDS, keep=["resid_post.0"])["resid_post.0"])
        calls.clear()
        assert net.run(IDS, keep=["z.1"], stop_at="attn_out.1").logits is None
        assert not calls
    finally:
        handle.remove()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["llama", "gpt2"]),
)
def test_padding_changes_nothing(lengths, seed, kind):
    net = _opened(kind)
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 100, (n,), generator=generator).tolist() for n in lengths]
    alone = [net.run([r], keep=["resid_post.1", "z.0", "pattern.1"]) for r in rows]
    for side in ("right", "left"):
        together = net.run(pack(rows, 1, side, columns=9), keep=["resid_post.1", "z.0", "pattern.1"])
        for i, row in enumerate(rows):
            mask = together.tokens.mask[i]
            for site in ("resid_post.1", "z.0"):
                assert torch.allclose(together[site][i][mask], alone[i][site][0], atol=2e-5)
            square = together["pattern.1"][i][:, mask][:, :, mask]
            assert torch.allclose(square, alone[i]["pattern.1"][0], atol=2e-5)
            assert torch.allclose(together.logits[i][mask], alone[i].logits[0], atol=1e-4)
            assert torch.allclose(
                net.run(pack(rows, 1, side), logits="last").logits[i, 0], alone[i].logits[0, -1], atol=1e-4
            )
            assert len(row) == int(mask.sum())


_NETS = {}


def _opened(kind):
    if kind not in _NETS:
        _NETS[kind] = cutaway.open(tiny(kind))
    return _NETS[kind]


def test_edits_by_position_are_padding_blind():
    net = _opened("gpt2")
    short, long = [5, 6, 7], [8, 9, 10, 11, 12]
    edits = [cutaway.Ablate("resid_pre.1", pos=-1), cutaway.Scale("z.0", 3.0, pos=[0, 1])]
    alone = [net.run([r], edits=edits).logits[0, -1] for r in (short, long)]
    for side in ("right", "left"):
        both = net.run(pack([short, long], 0, side), edits=edits, logits="last").logits[:, 0]
        assert torch.allclose(both, torch.stack(alone), atol=1e-4)


def test_padding_that_is_not_neutral_is_refused():
    net = cutaway.open(tiny("bart"))
    assert net.certificate.pads_left is False
    with pytest.raises(BadInput, match="left padding changes"):
        net.run(pack([[5, 6, 7], [8, 9]], 1, "left"))


def test_train_mode_is_put_aside_and_put_back(net):
    model = net.model
    model.train()
    try:
        assert torch.equal(net.run(IDS).logits, net.run(IDS).logits)
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize(
    "site",
    [
        "resid_pre.1",
        "resid_mid.1",
        "attn_write.1",
        "mlp_write.0",
        "z.1",
        "q.1",
        "k.1",
        "v.1",
        "scores.1",
        "pattern.1",
        "head_out.1",
        "mlp_act.1",
        "mlp_pre.0",
        "final_norm",
    ],
)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "granite", "bloom"])
def test_gradients_equal_finite_differences(kind, site):
    net = cutaway.open(tiny(kind).double())
    run = net.run(IDS, keep=[site], grad=True)
    (gradient,) = torch.autograd.grad(run.logits[:, -1, 3].sum(), run[site])
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def along(step):
        return net.run(IDS, edits=[cutaway.Add(site, direction, scale=step)]).logits[:, -1, 3].sum()

    # the others compute norms or softmaxes in float32, whose rounding a small step would show
    step, tolerance = (1e-5, 1e-4) if kind == "gpt2" else (3e-3, 1e-2)
    slope = (along(step) - along(-step)) / (2 * step)
    assert torch.allclose((gradient * direction).sum(), slope, rtol=tolerance, atol=tolerance / 10)


def test_what_is_not_there_is_named(net):
    for spec, error, words in [
        ("resid_pots.2", NotFound, "resid_post"),
        ("z.77", BadAddress, "3 layers"),
        ("blocks.1.attn.hook_q", SiteUnavailable, "before the rotary"),
        ("router.1", SiteUnavailable, "mixture of experts"),
        ("model.layers.0.mlp.upproj", NotFound, "model.layers.0.mlp.up_proj"),
        ("final_norm.2", BadAddress, "no layers"),
    ]:
        with pytest.raises(error, match=words):
            net.run(IDS, keep=[spec])
    assert "parallel" in str(_opened("gpt_neox").refusal("resid_mid.0"))
    assert net.refusal("z.0") is None


def test_prompts_that_do_not_fit(net):
    with pytest.raises(TooLong, match="context"):
        net.run([[5] * (net.n_ctx + 1)])
    with pytest.raises(BadInput, match="empty"):
        net.run([[]])
    with pytest.raises(BadInput, match="without a tokenizer"):
        net.run("words")
    with pytest.raises(BadInput, match="outside the vocabulary"):
        net.run([[10**6]])
    with pytest.raises(BadAddress, match="outside row 1"):
        Tokens(IDS, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()).columns(3)


def test_out_of_memory_says_how_much_and_what_to_lower(net):
    def explode(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    handle = net.model.register_forward_hook(explode)
    try:
        with pytest.raises(OutOfMemory, match=r"20\.00 GiB") as caught:
            net.run(IDS)
        assert "fewer rows" in caught.value.remedy
    finally:
        handle.remove()


def test_nan_is_found_and_placed(net):
    broken = cutaway.Apply("mlp_out.1", lambda v: v * float("nan"))
    run = net.run(IDS, keep=["resid_post", "mlp_out"], edits=[broken])
    assert str(run.nonfinite()) == "mlp_out.1"
    with pytest.raises(NotFinite, match=r"mlp_out\.1"):
        run.check_finite()
    assert net.run(IDS, keep=["resid_post", "scores"]).check_finite()


def test_standing_edits_end_with_their_block(net):
    edit = cutaway.Ablate("mlp_out", layer=1)
    with net.edit(edit):
        inside = net.run(IDS).logits
    assert torch.equal(inside, net.run(IDS, edits=[edit]).logits)
    assert not torch.equal(inside, net.run(IDS).logits)
    with pytest.raises(BadAddress), net.edit(cutaway.Ablate("z", layer=99)):
        pass
    assert net.standing == ()


def test_transformer_lens_verbs(net):
    logits, cache = net.run_with_cache(IDS)
    assert torch.allclose(logits, net.run(IDS).logits, atol=1e-5)
    assert cache["pattern", 0].shape == cache["blocks.0.attn.hook_pattern"].shape == (2, 4, 5, 5)
    assert torch.equal(cache["resid_post", -1], cache["blocks.2.hook_resid_post"])
    assert cache.stack_activation("resid_pre").shape == (3, 2, 5, net.d_model)
    _, some = net.run_with_cache(IDS, names_filter=lambda n: n.endswith("hook_z"))
    assert set(some) == {f"blocks.{i}.attn.hook_z" for i in range(3)}
    none, first = net.run_with_cache(IDS, stop_at_layer=1)
    assert none is None
    assert torch.equal(first["resid_pre", 1], cache["resid_post", 0])

    def zero(value, hook):
        assert hook.layer() == 1
        assert hook.name == "blocks.1.hook_mlp_out"
        return value * 0

    by_hook = net.run_with_hooks(IDS, fwd_hooks=[("blocks.1.hook_mlp_out", zero)])
    assert torch.equal(by_hook, net.run(IDS, edits=[cutaway.Ablate("mlp_write.1")]).logits)
    with net.hooks([(lambda n: n == "blocks.1.hook_mlp_out", zero)]):
        assert torch.equal(net.run(IDS).logits, by_hook)
    with pytest.raises(KeyError):
        some["resid_pre", 0]


def test_a_run_shows_itself(net):
    run = net.run(IDS, keep=["z.1"])
    assert "z.1" in repr(run)
    assert "z.1" in run._repr_html_()
