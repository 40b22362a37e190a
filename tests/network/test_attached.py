"""Attached to the user's own forward passes: what is read is what `run` reads, and nothing else changes."""

import pytest
import torch

import cutaway
from cutaway.errors import BadInput
from cutaway.zoo.tiny import tiny

IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
STREAM = ["embed", "resid_pre", "attn_out", "resid_mid", "mlp_act", "head_out", "resid_post", "final_norm"]
INSIDE = ["q", "k", "v", "z"]
NEW = 4


@pytest.fixture(params=["gpt2", "llama"])
def net(request):
    return cutaway.open(tiny(request.param))


def _hooks(model):
    return [
        sum(len(hooks) for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks))
        for m in model.modules()
    ]


def _generate(net, ids=IDS, **options):
    settings = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    return net.model.generate(
        ids, return_dict_in_generate=True, output_logits=True, **{**settings, **options}
    )


def _close(a, b):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


def _at(run, whole, name):
    """The same columns of a run over the whole rows."""
    value = whole[name]
    if name.partition(".")[0] in ("pattern", "scores"):
        return value[:, :, run.columns[0]][..., : run.tokens.width]
    if name[:2] in ("k.", "v."):
        return value[:, : run.tokens.width]
    return value[:, run.columns[0]]


@pytest.mark.parametrize("sites", [STREAM, INSIDE, ["pattern", "scores"]])
def test_reading_ones_own_generate(net, sites):
    bare = _generate(net)
    before, implementation = _hooks(net.model), net.config._attn_implementation
    with net.attached(reads=sites) as attached:
        seen = _generate(net)
    assert _hooks(net.model) == before
    assert net.config._attn_implementation is implementation
    assert torch.equal(seen.sequences, bare.sequences)
    if sites != ["pattern", "scores"]:
        assert all(torch.equal(a, b) for a, b in zip(seen.logits, bare.logits, strict=True))
    prompt, *steps = attached.runs
    assert len(steps) == NEW - 1
    whole = net.run(bare.sequences[:, :-1], keep=sites)
    for i, run in enumerate(attached.runs):
        assert run.tokens.ids.tolist() == bare.sequences[:, : IDS.shape[1] + i].tolist()
        assert {str(s) for s in run.kept} == {str(s) for s in whole.kept}
        assert torch.equal(run.logits[:, -1].float(), seen.logits[i])
        for site in run.sites:
            _close(run[site], _at(run, whole, str(site)))
    exact = net.run(IDS, keep=sites)
    assert all(torch.equal(prompt[s], exact[s]) for s in exact.sites)


@pytest.mark.parametrize("pos", [-1, [0, 2, -1], 6, slice(1, None)])
def test_positions_are_those_of_the_whole_row(net, pos):
    with net.attached(reads=["resid_post.1", "z.1", "k.0", "pattern.1"], pos=pos) as attached:
        out = _generate(net)
    whole = net.run(out.sequences[:, :-1], keep=["resid_post.1", "z.1", "k.0", "pattern.1"])
    kept = 0
    for run in attached.runs:
        for site in run.sites:
            columns = run.columns if site.name != "k" else None
            if columns is not None:
                axis = 2 if site.name == "pattern" else 1
                wanted = whole[site].index_select(axis, columns[0])
                _close(run[site], wanted[..., : run.tokens.width] if axis == 2 else wanted)
            kept += 1
    assert kept
    newest = [run["resid_post.1"].shape[1] for run in attached.runs if "resid_post.1" in run]
    assert newest == {"-1": [1] * NEW, "[0, 2, -1]": [3, 1, 1, 1], "6": [1]}.get(str(pos), [4, 1, 1, 1])


def test_prompts_of_unequal_length(net):
    net_tokens = net.encode([[5, 6, 7, 8, 9], [10, 11, 12]]).padded_left()
    ids, mask = net_tokens.ids, net_tokens.mask.long()
    with net.attached(reads="resid_post.1", pos=-1) as attached:
        out = _generate(net, ids, attention_mask=mask)
    for row, prompt in ((0, [5, 6, 7, 8, 9]), (1, [10, 11, 12])):
        new = out.sequences[row, ids.shape[1] :].tolist()
        alone = net.run([[*prompt, *new[:-1]]], keep="resid_post.1")["resid_post.1"][0]
        seen = torch.stack([run["resid_post.1"][row, 0] for run in attached.runs])
        assert [run.tokens.row_ids(row) for run in attached.runs] == [[*prompt, *new[:i]] for i in range(NEW)]
        _close(seen, alone[len(prompt) - 1 :])


WRITES = [
    cutaway.Ablate("mlp_write.1", "zero"),
    cutaway.Ablate("z.0", "zero", head=1),
    cutaway.Add("resid_post.1", torch.linspace(-1, 1, 32), pos=-1),
    cutaway.Add("resid_mid.1", torch.linspace(-1, 1, 32), pos=[0, 2]),
]


@pytest.mark.parametrize("on", ["all", "prompt", "new"])
@pytest.mark.parametrize("write", WRITES, ids=repr)
def test_writing_is_that_of_generate(net, write, on):
    assert net.d_model == 32
    plain = _generate(net).sequences
    wanted = net.generate(IDS, NEW, edits=[write], on=on, eos_token_id=None).ids
    with net.attached(reads=["resid_post"], writes=[write], on=on) as attached:
        out = _generate(net)
        again = _generate(net)
    assert torch.equal(out.sequences, wanted)
    assert torch.equal(again.sequences, wanted)
    assert torch.equal(_generate(net).sequences, plain)
    if on != "new":
        edited = net.run(IDS, keep=["resid_post"], edits=write)
        assert all(torch.equal(attached.runs[0][s], edited[s]) for s in edited.sites)


def test_a_loop_with_the_cache(net):
    with torch.no_grad():
        whole = net.run(IDS, keep=["resid_post.1", "k.1"])
        with net.attached(reads=["resid_post.1", "k.1"]) as attached:
            past = None
            for column in range(IDS.shape[1]):
                out = net.model(IDS[:, column : column + 1], past_key_values=past, use_cache=True)
                past = out.past_key_values
    for column, run in enumerate(attached.runs):
        assert run.columns.tolist() == [[column]] * 2
        _close(run["resid_post.1"], whole["resid_post.1"][:, column : column + 1])
        _close(run["k.1"], whole["k.1"][:, : column + 1])


def test_a_cache_that_was_filled_before(net):
    with torch.no_grad():
        past = net.model(IDS[:, :3], use_cache=True).past_key_values
        with net.attached(
            "resid_post.1", writes=cutaway.Ablate("mlp_write.0", "zero"), on="prompt"
        ) as attached:
            net.model(IDS[:, 3:], past_key_values=past)
    (run,) = attached.runs
    assert run.columns.tolist() == [[3, 4]] * 2
    _close(run["resid_post.1"], net.run(IDS, keep="resid_post.1")["resid_post.1"][:, 3:])


def test_several_calls_of_other_sizes(net):
    with net.attached(reads="resid_post.0") as attached, torch.no_grad():
        net.model(input_ids=IDS)
        net.model(IDS[:1, :2])
        net.run(IDS[:, :3])
    assert [tuple(r["resid_post.0"].shape[:2]) for r in attached.runs] == [(2, 5), (1, 2), (2, 3)]


@pytest.mark.parametrize("sites", [STREAM, INSIDE])
def test_a_training_step_has_the_same_gradients(net, sites):
    def step():
        net.model.zero_grad()
        net.model(input_ids=IDS, labels=IDS).loss.backward()
        return [p.grad.clone() for p in net.model.parameters()]

    bare = step()
    with net.attached(reads=sites) as attached:
        seen = step()
    assert all(torch.equal(a, b) for a, b in zip(seen, bare, strict=True))
    (run,) = attached.runs
    assert all(run[s].requires_grad for s in run.sites)


def test_a_loss_on_what_is_read_trains_the_model(net):
    net.model.train()
    with net.attached(reads=["resid_mid.1", "z.1"]) as attached:
        net.model(input_ids=IDS)
    assert net.model.training
    loss = sum(attached.runs[0][s].square().sum() for s in attached.runs[0].sites)
    loss.backward()
    embed = net.model.get_input_embeddings().weight.grad
    assert embed is not None
    assert float(embed.abs().max()) > 0


def test_an_error_releases_everything(net):
    before, implementation = _hooks(net.model), net.config._attn_implementation

    class Broken(Exception):
        pass

    def fail(value, here):
        raise Broken

    class Edit:
        def bind(self, network):
            return [(network.resolve("z.1")[0], fail)]

    with pytest.raises(Broken), net.attached(reads="pattern", writes=Edit()):
        net.model(input_ids=IDS)
    assert _hooks(net.model) == before
    assert net.config._attn_implementation is implementation
    with net.attached(reads="resid_post.0") as attached:
        with pytest.raises(Exception):  # noqa: B017, PT011
            net.model(input_ids=torch.tensor([[10**9]]))
        net.model(input_ids=IDS)
    assert len(attached.runs) == 1


@torch.no_grad()
def test_one_within_another(net):
    with net.attached(reads=["z.1", "resid_post.1"]) as outer:
        with net.attached(reads=["z.1", "pattern.0"], writes=WRITES[0]) as inner:
            net.model(input_ids=IDS)
        net.model(input_ids=IDS)
    edited = net.run(IDS, keep=["z.1", "resid_post.1", "pattern.0"], edits=WRITES[0])
    plain = net.run(IDS, keep=["z.1", "resid_post.1"])
    for run, wanted in ((outer.runs[0], edited), (inner.runs[0], edited), (outer.runs[1], plain)):
        assert all(torch.equal(run[s], wanted[s]) for s in run.sites)
    assert {str(s) for s in outer.runs[0].kept} == {"z.1", "resid_post.1"}
    assert {str(s) for s in inner.runs[0].kept} == {"z.1", "pattern.0"}


def test_runs_may_be_handed_over(net):
    kept = []

    def on_step(run):
        kept.append(run["resid_post.1"])
        assert "resid_post.0" in net.run(IDS, keep="resid_post.0")  # a run of one's own is not a step

    with net.attached(reads="resid_post.1", pos=-1, on_step=on_step) as attached:
        _generate(net)
    assert attached.runs == []
    assert len(kept) == NEW


@torch.no_grad()
def test_hooks_of_ones_own_stay_and_see_what_is_written(net):
    seen = []
    handle = net.model.lm_head.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    write = cutaway.Ablate("final_norm", "zero")
    with net.attached(writes=write):
        net.model(input_ids=IDS)
    net.model(input_ids=IDS)
    assert float(seen[0].abs().max()) == 0 < float(seen[1].abs().max())
    handle.remove()


def test_facts_are_not_kept_while_attached_writes(net):
    with net.attached(reads="resid_post.0"):
        net.fact("a", lambda: 0)
    with net.attached(writes=WRITES[0]):
        assert net.fact("a", lambda: 1) == 1
        assert net.fact("b", lambda: 1) == 1
    assert (net.fact("a", lambda: 2), net.fact("b", lambda: 2)) == (0, 2)


def test_what_is_refused(net):
    with pytest.raises(BadInput, match="on='later'"), net.attached(on="later"):
        pass
    with pytest.raises(BadInput, match="not an edit"), net.attached(writes=["no"]):
        pass
    net.model.gradient_checkpointing_enable()
    with pytest.raises(BadInput, match="checkpointing"), net.attached(writes=WRITES[0]):
        pass


@torch.no_grad()
def test_an_encoder_decoder():
    net = cutaway.open(tiny("t5"))
    whole = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
    wanted = net.run(whole, keep=["resid_post.1", "encoder.resid_post.1"])
    with net.attached(reads=["resid_post.1", "encoder.resid_post.1"]) as attached:
        net.model(**whole)
    assert all(torch.equal(attached.runs[0][s], wanted[s]) for s in wanted.sites)
    with net.attached(reads="resid_post.1") as attached:
        net.model.generate(IDS, max_new_tokens=3, decoder_start_token_id=0)
    assert [r["resid_post.1"].shape[1] for r in attached.runs] == [1] * len(attached.runs)
    with pytest.raises(BadInput, match="encoder ran by itself"), net.attached(reads="encoder.resid_post.1"):
        net.model.generate(IDS, max_new_tokens=3, decoder_start_token_id=0)


@torch.no_grad()
def test_a_network_of_images():
    net = cutaway.open(tiny("vit", task="image"))
    pixels = torch.randn(2, 3, net.config.image_size, net.config.image_size)
    with net.attached(reads="resid_post.1") as attached:
        net.model(pixels)
    (run,) = attached.runs
    assert run.tokens is None
    assert torch.equal(run["resid_post.1"], net.run(pixels, keep="resid_post.1")["resid_post.1"])
