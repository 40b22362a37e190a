"""Issue by issue: an edit, a read or an address does what it says, or is refused. Held against bare PyTorch hooks."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

import cutaway
from cutaway.errors import BadAddress, BadInput, CutawayError, TooLong
from cutaway.interventions import Ablate, Add, Apply, Scale
from cutaway.network import Here, Network
from cutaway.network.execution import attention
from cutaway.network.execution.inside import SoftmaxTap
from cutaway.network.identity import weights_hash
from cutaway.network.indices import indices
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site
from cutaway.network.views import describe_layer
from cutaway.stream.head_weights import head_weights
from cutaway.stream.why_attend import why_attend
from cutaway.zoo.tiny import tiny

X = [[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]]
IDS = torch.tensor(X)


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open(tiny("llama"))


def layer_of(net: Network, index: int) -> nn.Module:
    return net.modules[f"model.layers.{index}"]


def hooked(net: Network, module: nn.Module, change: Callable[[Tensor], Tensor], pre: bool = False) -> Tensor:
    """Logits of the bare model with one tensor that a module gives (or takes) changed by a bare hook."""

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    def before(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        return (change(args[0]), *args[1:])

    handle = module.register_forward_pre_hook(before) if pre else module.register_forward_hook(after)
    try:
        with torch.no_grad():
            return net.model(input_ids=IDS).logits
    finally:
        handle.remove()


def zeroed_heads(net: Network, layer: int, heads: list[int]) -> Tensor:
    """Logits with some heads' outputs set to zero before the output projection, by a bare hook."""

    def change(value: Tensor) -> Tensor:
        split = value.clone().unflatten(-1, (net.heads(layer), -1))
        split[..., heads, :] = 0
        return split.flatten(-2)

    return hooked(net, net.modules[f"model.layers.{layer}.self_attn.o_proj"], change, pre=True)


# B1 ------------------------------------------------------------------------------------------------------------------


def test_b1_apply_in_place_changes_the_addressed_entries_only(net):
    def double(value: Tensor) -> Tensor:
        return value.mul_(2)

    def by_hand(value: Tensor) -> Tensor:
        new = value.clone()
        new[:, 1] *= 2
        return new

    got = net.run(IDS, edits=Apply("resid_post.1", double, pos=1)).logits
    torch.testing.assert_close(got, hooked(net, layer_of(net, 1), by_hand), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "site", ["resid_pre.1", "resid_mid.1", "z.1", "q.1", "pattern.1", "mlp_act.1", "head_out.1"]
)
def test_b1_apply_in_place_leaves_what_was_kept(kind, site):
    net = cutaway.open(tiny(kind))
    name = site.partition(".")[0]
    where = {"head": 1} if name in ("z", "q", "pattern", "head_out") else {"pos": 2}
    left_out = ("head_out", *(() if name == "pattern" else ("scores", "pattern")))
    keep = [s for s in net.sites() if s.rank < Site(name, 1).rank and s.name not in left_out]
    plain = net.run(IDS, keep=keep)
    changed = net.run(IDS, keep=keep, edits=Apply(site, lambda v: v.zero_(), **where))
    wanted = net.run(IDS, keep=keep, edits=Apply(site, torch.zeros_like, **where)).logits
    assert torch.equal(changed.logits, wanted)
    assert not torch.equal(changed.logits, plain.logits)
    for kept in keep:
        assert torch.equal(changed[kept], plain[kept]), kept


def test_b1_a_hook_in_place_acts_and_leaves_what_was_kept(net):
    def hook(value: Tensor, hook: Any) -> None:
        value[:, :, 0] = 0

    plain = net.run(IDS, keep=["v", "resid_pre"])
    with net.hooks([("blocks.1.attn.hook_z", hook)]):
        run = net.run(IDS, keep=["v", "resid_pre.0", "resid_pre.1"])
    assert torch.equal(run.logits, zeroed_heads(net, 1, [0]))
    assert torch.equal(run["v.1"], plain["v.1"])
    derived = net.run_with_hooks(
        IDS, [("blocks.1.attn.hook_result", hook)]
    )  # a sum that no module hands over
    torch.testing.assert_close(derived, zeroed_heads(net, 1, [0]), rtol=1e-4, atol=1e-5)


def test_b1_an_edit_of_ones_own_that_writes_into_the_network_is_refused(net):
    class Mine:
        def bind(self, network: Network) -> Any:
            return [(Site("resid_post", 0), lambda value, here: value.mul_(2))]

    with pytest.raises(BadInput, match="in place"):
        net.run(IDS, edits=Mine())


# B2 ------------------------------------------------------------------------------------------------------------------


def in_threads(*works: Callable[[], None]) -> None:
    """Run functions side by side; what one of them raises is raised here."""
    failed: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_b2_two_models_of_one_configuration_in_two_threads(kind):
    first = tiny(kind)
    config = first.config
    torch.manual_seed(3)
    second = type(first)(config).eval()
    before = config._attn_implementation
    nets = [cutaway.open(m) for m in (first, second)]
    asked = {"keep": ["pattern", "z", "q"], "edits": [Ablate("z.1", head=0), Scale("pattern.0", 0.5)]}
    wanted = [n.run(IDS, **asked) for n in nets]
    plain = [n.model(input_ids=IDS).logits for n in nets]

    def work(i: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(25):
                got = nets[i].run(IDS, **asked)
                assert torch.equal(got.logits, wanted[i].logits)
                assert got.kept.keys() == wanted[i].kept.keys()
                assert all(torch.equal(got[s], wanted[i][s]) for s in got.kept)

        return run

    in_threads(work(0), work(1))
    assert type(config._attn_implementation_internal) is str
    assert config._attn_implementation == before
    for n, logits in zip(nets, plain, strict=True):
        assert torch.equal(n.model(input_ids=IDS).logits, logits)
    assert not attention._claims
    assert not attention._observers


def test_b2_models_of_one_configuration_attached_and_left_out_of_order():
    model = tiny("llama")
    other = type(model)(model.config).eval()
    before = model.config._attn_implementation_internal
    nets = [cutaway.open(model), cutaway.open(other)]
    blocks = [ExitStack(), ExitStack()]
    seen = [b.enter_context(n.attached(["pattern.1"])) for b, n in zip(blocks, nets, strict=True)]
    blocks[0].close()
    for n in nets:
        n.model(input_ids=IDS)
    blocks[1].close()
    assert [len(s.runs) for s in seen] == [0, 1]
    assert torch.equal(seen[1].runs[0]["pattern.1"], nets[1].run(IDS, keep="pattern.1")["pattern.1"])
    assert model.config._attn_implementation_internal is before


@pytest.mark.parametrize("kind", ["llama", "gptj"])
def test_b3_attachments_that_are_left_out_of_order_leave_nothing(kind):
    """llama uses a registered attention function, gptj writes its attention out."""
    net = cutaway.open(tiny(kind))
    plain = net.model(input_ids=IDS).logits
    blocks = [ExitStack() for _ in range(3)]
    for block, head in zip(blocks, (0, 1, 2), strict=True):
        block.enter_context(net.attached(writes=Ablate("z.1", head=head)))
    wanted = net.model(input_ids=IDS).logits
    assert torch.equal(wanted, net.run(IDS, edits=[Ablate("z.1", head=h) for h in (0, 1, 2)]).logits)
    blocks[0].close()
    fresh = cutaway.open(tiny(kind))
    wanted = fresh.run(IDS, edits=[Ablate("z.1", head=h) for h in (1, 2)]).logits
    assert torch.equal(net.model(input_ids=IDS).logits, wanted)
    for block in blocks:
        block.close()
    assert torch.equal(net.model(input_ids=IDS).logits, plain)
    assert not any("forward" in vars(m) for m in net.model.modules())


# B3 ------------------------------------------------------------------------------------------------------------------


def test_b3_overlapping_edits_left_out_of_order(net):
    plain = net.run(IDS).logits
    first, second = net.edit(Ablate("z.1", head=0)), net.edit(Ablate("z.1", head=1))
    first.__enter__()
    assert torch.equal(net.run(IDS).logits, zeroed_heads(net, 1, [0]))
    second.__enter__()
    assert torch.equal(net.run(IDS).logits, zeroed_heads(net, 1, [0, 1]))
    first.__exit__(None, None, None)
    assert torch.equal(net.run(IDS).logits, zeroed_heads(net, 1, [1]))
    second.__exit__(None, None, None)
    assert torch.equal(net.run(IDS).logits, plain)
    assert net.standing == ()


def test_b3_the_same_edit_in_two_blocks_stands_until_both_are_left(net):
    edit = Add("resid_post.0", torch.ones(()))
    first, second = net.edit(edit), net.edit(edit)
    first.__enter__()
    second.__enter__()
    second.__exit__(None, None, None)
    assert torch.equal(net.run(IDS).logits, hooked(net, layer_of(net, 0), lambda v: v + 1))
    first.__exit__(None, None, None)
    assert torch.equal(net.run(IDS).logits, hooked(net, layer_of(net, 0), lambda v: v))


def test_b3_editing_contexts_in_threads_leave_nothing_standing(net):
    plain = net.run(IDS).logits
    missing: list[int] = []

    def work(head: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(40):
                edit = Ablate("z.1", head=head)
                with net.edit(edit):
                    if edit not in net.standing:
                        missing.append(head)

        return run

    in_threads(*(work(h) for h in range(4)))
    assert not missing
    assert net.standing == ()
    assert torch.equal(net.run(IDS).logits, plain)


# B5 ------------------------------------------------------------------------------------------------------------------

HEADS = [
    (1, [1]), (np.int64(1), [1]), (torch.tensor(1), [1]), (-1, [-1]), ([0, 2], [0, 2]), (np.array([0, 2]), [0, 2]),
    (torch.tensor([0, -1]), [0, -1]), (range(1, 3), [1, 2]), (slice(None, None, 2), [0, 2]), ((0, 0), [0]),
    ([True, False, False, True], [0, 3]), (np.array([False, True, True, False]), [1, 2]),
    (torch.tensor([True, False, False, False]), [0]),
]  # fmt: skip


@pytest.mark.parametrize(("given_heads", "meant"), HEADS)
def test_b5_heads_are_what_numpy_means(net, given_heads, meant):
    assert net.heads(1) == 4
    got = net.run(IDS, edits=Ablate("z.1", head=given_heads)).logits
    assert torch.equal(got, zeroed_heads(net, 1, meant))


@pytest.mark.parametrize(("positions", "meant"), [
    (1, [1]), (np.int32(-1), [-1]), ([True, False, False, True, False], [0, 3]), (np.array([0, 4]), [0, 4]),
    (slice(1, 3), [1, 2]), (range(0, 5, 2), [0, 2, 4]), (torch.tensor([False, True, False, False, False]), [1]),
    ([[0], [0]], [0]), (torch.tensor([[True, False, False, False, True]] * 2), [0, 4]),
])  # fmt: skip
def test_b5_positions_are_what_numpy_means(net, positions, meant):
    def by_hand(value: Tensor) -> Tensor:
        new = value.clone()
        new[:, meant] = 0
        return new

    got = net.run(IDS, edits=Ablate("resid_post.0", pos=positions)).logits
    assert torch.equal(got, hooked(net, layer_of(net, 0), by_hand))
    kept = net.run(IDS, keep="resid_post.0", pos=positions)["resid_post.0"]
    assert torch.equal(kept, net.run(IDS, keep="resid_post.0")["resid_post.0"][:, meant])


@pytest.mark.parametrize("name", ["head", "neuron", "pos", "row", "layer"])
@pytest.mark.parametrize("bad", [
    1.0, 0.5, "03", "1", True, [], (), range(0), slice(2, 2), [[0, 1]] * 7, [0, [1]], [0.0, 1.0], ["0"], [True, 1],
    [99], 99, -99, [True] * 7, [False] * 4, [False] * 5, np.array([0.5]), torch.tensor([1.0]), np.array([[0, 1]] * 3),
    {"a": 1}, {1}, object(),
])  # fmt: skip
def test_b5_what_is_no_address_is_refused(net, name, bad):
    if name == "row" and isinstance(bad, list) and bad == [False] * 4:
        bad = [False, False]
    site = {"neuron": "mlp_act", "layer": "resid_post"}.get(name, "z")
    with pytest.raises((BadAddress, BadInput)):
        net.run(IDS, edits=Ablate(site if name == "layer" else f"{site}.1", **{name: bad}))


@pytest.mark.parametrize("bad", [0.5, "1", [0.5], [[0], [0, 1]], [], ["0"], [True] * 4, object()])
def test_b5_what_is_no_position_is_not_kept(net, bad):
    for asked in ({"pos": bad}, {"logits": bad if bad not in ("1",) else "first"}):
        with pytest.raises((BadAddress, BadInput)):
            net.run(IDS, keep="resid_post.0", **asked)


def test_b5_a_layer_twice_would_be_edited_twice(net):
    for twice in ([1, 1], [1, 1 - net.n_layers]):
        with pytest.raises(BadAddress, match="twice"):
            net.run(IDS, edits=Add("resid_post", torch.ones(()), layer=twice))


def test_b5_an_address_that_a_tensor_has_no_axis_for(net):
    for edit in (
        Ablate("model.layers.1.mlp", head=0),
        Ablate("resid_post.1", src=0),
        Ablate("mlp_out.1", head=0),
    ):
        with pytest.raises(BadAddress, match="has no"):
            net.run(IDS, edits=edit)


def test_b5_negative_layers_count_from_the_end_everywhere(net):
    last = net.n_layers - 1
    assert (
        net.resolve(("z", -1)) == net.resolve(("z", np.int64(-1))) == net.resolve("z.-1") == [Site("z", last)]
    )
    assert net.resolve("z", layers=[-1]) == net.resolve("z", layers=np.array([last])) == [Site("z", last)]
    assert net.heads(-1) == net.heads(last)
    wanted = net.run(IDS, edits=Ablate(f"resid_post.{last}")).logits
    assert torch.equal(net.run(IDS, edits=Ablate("resid_post", layer=-1)).logits, wanted)
    assert [w.layer for w in head_weights(net, layers=[-1])] == [last]
    stream = cutaway.read_stream(net, X[0])
    assert torch.equal(stream.decompose(-1).values, stream.decompose(last).values)
    for bad in (True, 1.0, "1"):
        with pytest.raises(CutawayError):
            net.resolve(("z", bad))


@settings(max_examples=200)
@given(st.integers(1, 9), st.data())
def test_b5_indices_are_numpys(size, data):
    axis = np.arange(size)
    number = st.integers(-size, size - 1)
    some = data.draw(
        st.one_of(
            number,
            st.lists(number, min_size=1),
            st.lists(st.booleans(), min_size=size, max_size=size),
            st.slices(size),
        )
    )
    meant = np.atleast_1d(axis[np.array(some) if isinstance(some, list) else some]).tolist()
    if meant:
        assert indices(some, size, "head") == meant
        if isinstance(some, list):
            assert indices(np.array(some), size, "head") == indices(torch.tensor(some), size, "head") == meant
    else:
        with pytest.raises(BadInput, match="empty"):
            indices(some, size, "head")


# E -------------------------------------------------------------------------------------------------------------------


def test_e_a_closed_network_frees_its_model():
    model = tiny("llama")
    gone = weakref.ref(model)
    with cutaway.open(model) as net:
        net.run(IDS, keep=["pattern", "resid_post"], edits=Ablate("z.1", head=0))
        cutaway.read_stream(net, X[0], by="head")
        net.hash  # noqa: B018
        with net.attached(["z.1"]):
            model(input_ids=IDS)
    del model
    gc.collect()
    assert gone() is None
    with pytest.raises(BadInput, match="closed"):
        net.run(IDS)
    assert "closed" in repr(net)


def test_e_a_module_in_hand_goes_on_when_its_network_is_closed():
    model = tiny("llama")
    plain = model(input_ids=IDS).logits
    cutaway.open(model).close()
    assert torch.equal(model(input_ids=IDS).logits, plain)
    assert torch.equal(cutaway.open(model).run(IDS).logits, plain)


def test_e_the_bare_model_in_another_thread_does_not_carry_edits_and_may_wait_for_the_lock(net):
    plain = net.model(input_ids=IDS).logits
    found: list[bool] = []

    def bare() -> None:
        for _ in range(20):
            with net.lock, torch.no_grad():
                found.append(torch.equal(net.model(input_ids=IDS).logits, plain))

    def edited() -> None:
        with net.edit(Ablate("z.1", head=0)):
            for _ in range(20):
                net.run(IDS, keep="pattern")

    in_threads(bare, edited)
    assert found == [True] * 20


def test_e_a_here_without_tokens_takes_the_columns_that_there_are():
    here = Here(Site("resid_post", 0), ("batch", "pos", "width"), None, batch=2)
    rows, columns = here.index(-1, 4, torch.device("cpu"))  # type: ignore[misc]
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [3, 3])


# B6 ------------------------------------------------------------------------------------------------------------------

SINKS = ("granite_swa", "granitemoe_swa", "gpt_oss")


def with_sinks(kind: str) -> nn.Module:
    """A tiny network whose attention sinks take a good part of the attention."""
    model = tiny(kind)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                weight.copy_(torch.randn(weight.shape, generator=draw) + 1)
    return model


@pytest.mark.parametrize("kind", SINKS)
def test_b6_the_pattern_is_the_weight_that_is_used(kind):
    """By hand: bare hooks on the projections; z is the average of the values with these weights, and no other factor."""
    net = cutaway.open(with_sinks(kind))
    attn = net.modules["model.layers.0.self_attn"]
    seen: dict[str, Tensor] = {}
    hooks = [
        attn.v_proj.register_forward_hook(lambda _m, _a, out: seen.update(v=out)),  # type: ignore[union-attr]
        attn.o_proj.register_forward_pre_hook(lambda _m, args: seen.update(z=args[0])),  # type: ignore[union-attr]
    ]
    pattern = net.run(IDS, keep="pattern.0")["pattern.0"]
    for hook in hooks:
        hook.remove()
    heads = pattern.shape[1]
    values = seen["v"].unflatten(-1, (-1, seen["z"].shape[-1] // heads))
    values = values.repeat_interleave(heads // values.shape[2], 2)
    by_hand = torch.einsum("bhds,bshe->bdhe", pattern, values).flatten(2)
    torch.testing.assert_close(by_hand, seen["z"], rtol=1e-5, atol=1e-6)
    assert float(pattern.sum(-1).min()) < 0.9


@pytest.mark.parametrize("kind", SINKS)
def test_b6_a_pattern_that_is_written_is_the_weight_that_is_used(kind):
    net = cutaway.open(with_sinks(kind))
    weights = torch.rand(2, net.heads(0) or 0, 5, 5).tril()
    run = net.run(IDS, keep=["v.0", "z.0", "resid_post"], edits=Apply("pattern.0", lambda _: weights))
    values = run["v.0"].repeat_interleave(weights.shape[1] // run["v.0"].shape[2], 2)
    torch.testing.assert_close(
        torch.einsum("bhds,bshe->bdhe", weights, values), run["z.0"], rtol=1e-4, atol=1e-5
    )


def test_b6_the_check_fits_no_factor(monkeypatch):
    """A pattern without the sink's share, as the model itself reports it, is refused."""
    model = with_sinks("granite_swa")
    monkeypatch.setattr(SoftmaxTap, "share", property(lambda _: None, lambda *_: None), raising=False)
    refused = cutaway.open(model)
    assert not refused.has("pattern.0")
    assert "pattern @ v = z" in (refused.refusal("pattern.0") or "")


# B7 ------------------------------------------------------------------------------------------------------------------


def test_b7_the_factor_by_which_the_stream_is_carried_is_said():
    net = cutaway.open(tiny("beam"))
    run = net.run(IDS, keep=["resid_pre", "attn_write", "mlp_write", "resid_post"])
    written = run["attn_write.1"] + run["mlp_write.1"]
    factor = float(((run["resid_post.1"] - written) / run["resid_pre.1"]).median())
    assert factor == pytest.approx(0.6**0.5, abs=1e-4)
    for name in ("resid_post", "resid_mid"):
        check = net.certificate.check(name)
        assert check is not None
        assert check.holds
        assert "input times 0.5774 to 0.8819 plus" in check.sentence
    assert "its input times 0.7746" in describe_layer(net.anatomy.stacks[0].layers[1])
    plain = cutaway.open(tiny("llama"))
    assert "input plus what its sublayers write" in plain.certificate.check("resid_post").sentence  # type: ignore[union-attr]
    assert "times" not in describe_layer(plain.anatomy.stacks[0].layers[1])


# B11 -----------------------------------------------------------------------------------------------------------------


class Bare(nn.Module):
    """A network that gives a bare tensor which is no logits: the stream itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny("llama").model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.inner(input_ids=input_ids).last_hidden_state


def test_b11_nothing_is_bitwise_where_nothing_was_compared():
    net = cutaway.open(Bare(), example={"input_ids": IDS})
    compared = net.certificate.check("reading") is not None
    assert (net.certificate.bitwise is None) is not compared
    shown = StringIO()
    Console(file=shown, width=200).print(net)
    assert ("bitwise" in shown.getvalue()) is compared
    assert cutaway.open(tiny("llama"), certify=False).certificate.bitwise is None
    assert cutaway.open(tiny("llama")).certificate.bitwise is True


# B4 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [
    lambda net: net.run({"input_ids": IDS, "attentoin_mask": torch.ones_like(IDS)}),
    lambda net: net.run({"input_ids": IDS, "nonsense": 1}),
    lambda net: cutaway.open(net.model, certfy=False),
    lambda net: cutaway.trace(net, "induction", stpes=50),
    lambda net: cutaway.trace(net, "induction", ablation="nothing"),
    lambda net: cutaway.ablate(net, "induction", how="nothing"),
    lambda net: net.generate(IDS, 2, do_smaple=True),
])  # fmt: skip
def test_b4_unknown_options_are_refused(net, call):
    with pytest.raises(CutawayError) as caught:
        call(net)
    assert not isinstance(caught.value, cutaway.errors.BadBehaviour)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_b4_what_forward_knows_is_taken(kind):
    net = cutaway.open(tiny(kind))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    given = {"input_ids": IDS, "attention_mask": mask, "output_hidden_states": True, "use_cache": False}
    assert torch.equal(net.run(given).logits, net.model(**given).logits)
    assert net.generate(IDS, 2, temperature=1.0, repetition_penalty=1.1).new.shape == (2, 2)


def test_b4_a_forward_of_ones_own_that_takes_any_keyword_gets_them():
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny("llama")

        def forward(self, input_ids: Tensor, **more: Any) -> Any:
            out = self.inner(input_ids=input_ids)
            return out.logits * more.get("times", 1)

    net = cutaway.open(Mine(), example={"input_ids": IDS})
    assert torch.equal(net.model(IDS, times=2), net.model(IDS) * 2)
    assert net.run({"input_ids": IDS, "times": 2}) is not None


# B8 ------------------------------------------------------------------------------------------------------------------


def test_b8_the_hash_sees_changes_that_torch_does_not_count():
    net = cutaway.open(tiny("llama"))
    first = net.hash
    net.fact("a fact", lambda: "old")
    weight = net.modules["model.layers.1.mlp.down_proj"].weight
    weight.data.mul_(2)  # type: ignore[operator,union-attr]
    second = net.hash
    assert second == weights_hash(net.model) != first
    assert net.fact("a fact", lambda: "new") == "new"
    weight.data.div_(2)  # type: ignore[operator,union-attr]
    assert net.hash == first


class Adapter(nn.Linear):
    """As adapters keep it: the weights are there all the time, and a switch says whether they count."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, bias=False)
        self._disable_adapters = False
        self.scaling = {"default": 2.0}

    def forward(self, x: Tensor) -> Tensor:
        return x if self._disable_adapters else x + self.scaling["default"] * super().forward(x)


def test_b8_the_hash_sees_an_adapter_that_is_switched_off_or_scaled():
    model = tiny("llama")
    plain = weights_hash(model)
    adapter = Adapter(32)
    model.model.norm = nn.Sequential(model.model.norm, adapter)
    net = cutaway.open(model)
    hashes = [net.hash]
    net.fact("a fact", lambda: "old")
    adapter._disable_adapters = True
    hashes.append(net.hash)
    assert net.fact("a fact", lambda: "new") == "new"
    adapter._disable_adapters = False
    assert net.hash == hashes[0]
    adapter.scaling["default"] = 1.0
    hashes.append(net.hash)
    assert len({plain, *hashes}) == 4


def test_b8_the_hash_follows_a_training_step():
    net = cutaway.open(tiny("llama"))
    before = net.hash
    optimiser = torch.optim.SGD(net.model.parameters(), lr=1.0)
    net.model(input_ids=IDS).logits.square().mean().backward()
    optimiser.step()
    assert net.hash != before


# B10 -----------------------------------------------------------------------------------------------------------------


def test_b10_the_context_binds_whatever_the_form_of_the_inputs():
    net = cutaway.open(tiny("gpt2"))
    longer = torch.ones(1, (net.n_ctx or 0) + 1, dtype=torch.long)
    for inputs in (
        longer,
        {"input_ids": longer},
        Tokens.of_ids(longer),
        {"input_ids": longer, "attention_mask": longer},
    ):
        with pytest.raises(TooLong):
            net.run(inputs)
        with pytest.raises(TooLong):
            net.run(inputs, keep="resid_pre.0", logits=False)
    assert net.run({"input_ids": longer[:, 1:]}).logits is not None


def test_b10_an_empty_text_is_refused_though_the_tokenizer_begins_with_a_token():
    net = cutaway.open("zoo:tales")
    for empty in ("", [""], ["Mary", ""]):
        with pytest.raises(BadInput, match="empty"):
            net.run(empty)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_b10_a_masked_score_is_not_explained(kind):
    net = cutaway.open(tiny(kind))
    with pytest.raises(BadInput, match="masked"):
        why_attend(net, X[0], "a1.h0", dest=1, source=3)
    assert why_attend(net, X[0], "a1.h0", dest=3, source=1).score is not None
