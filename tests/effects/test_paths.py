"""Path patching, pairs and ablations against the same thing done by hand on the bare model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from loops import forward, hook, id_behaviour, kept_value, metric_of, score
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.circuits import wiring
from cutaway.circuits.methods import score as score_edges
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.effects import ablate, pair_effects, path_patch, plan, plan_interventions, receivers
from cutaway.effects import transformerlens as tl
from cutaway.effects.paths import DirectPaths, receives, sends
from cutaway.errors import BadBehaviour, BadInput, NotFound, SiteUnavailable
from cutaway.network import Network
from cutaway.network.parts import Input, Part, parts_of
from cutaway.results import Budget, Work
from cutaway.results.meter import Meter, metered
from cutaway.sweeps import write_of
from cutaway.zoo.tiny import tiny

HEADS, WIDTH = 4, 8


@pytest.fixture
def model(tiny_gpt2: GPT2LMHeadModel) -> GPT2LMHeadModel:
    with (
        torch.no_grad()
    ):  # larger weights than at initialisation, so that paths through the norms are not all alike
        for p in tiny_gpt2.parameters():
            p.mul_(4 if p.ndim == 2 else 1)
    return tiny_gpt2


@pytest.fixture
def net(model: GPT2LMHeadModel) -> Network:
    return cutaway.open(model)


@pytest.fixture
def behaviour() -> Behaviour:
    return id_behaviour((6, 6, 8, 6))


def write_delta(model: nn.Module, pairs: Behaviour, row: int, sender: Part) -> Tensor:
    """What a sender writes more in the corrupted run than in the clean one, from z or from the MLP's output: [1 p d]."""
    block: Any = model.transformer.h[sender.layer]  # type: ignore[union-attr, index]
    site = "mlp_write" if sender.kind == "mlp" else "z"
    clean, other = (
        kept_value(model, ids[row], site, sender.layer) for ids in (pairs.clean_ids, pairs.corrupted_ids)
    )
    if sender.kind == "mlp":
        return other - clean
    columns = slice(int(sender.index or 0) * WIDTH, (int(sender.index or 0) + 1) * WIDTH)
    return (other - clean)[..., columns] @ block.attn.c_proj.weight[columns]


def path_by_hand(model: nn.Module, pairs: Behaviour, row: int, sender: Part, receiver: Input) -> float:
    """Both steps with bare hooks: the receiver's value under the sender's change, then that value patched."""
    blocks: Any = model.transformer.h  # type: ignore[union-attr]
    ids, delta = pairs.clean_ids[row], write_delta(model, pairs, row, sender)
    if receiver.part.kind == "logits":
        handle = hook(model.transformer.ln_f, True, lambda x: x + delta)  # type: ignore[union-attr, arg-type]
        logits = forward(model, ids)
        handle.remove()
        return score(pairs, row, logits)
    block = blocks[receiver.part.layer]
    norm, reader = (block.ln_2, block.mlp) if receiver.part.kind == "mlp" else (block.ln_1, block.attn.c_attn)
    stream: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _m, args: stream.append(args[0]))
    forward(model, ids)
    handle.remove()
    with torch.no_grad():
        new = reader(norm(stream[0] + delta))
    part = slice(None)
    if receiver.part.kind != "mlp":
        start = "qkv".index(receiver.port) * 32 + int(receiver.part.index or 0) * WIDTH
        part = slice(start, start + WIDTH)

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., part] = new[..., part]
        return value

    handle = hook(reader, False, change)
    logits = forward(model, ids)
    handle.remove()
    return score(pairs, row, logits)


def test_every_path_equals_the_two_steps_by_hand(
    model: GPT2LMHeadModel, net: Network, behaviour: Behaviour
) -> None:
    found = path_patch(net, behaviour)
    senders = [Part("head", i, h) for i in range(3) for h in range(HEADS)] + [
        Part("mlp", i) for i in range(3)
    ]
    assert found.mean.shape == (len(senders), len(receivers(net)))
    checked = 0
    rng = np.random.default_rng(0)
    for sender in senders:
        for receiver in receivers(net):
            cell = found.data.sel(sender=str(sender), receiver=str(receiver))
            same = (
                receiver.part.kind == "mlp" and sender.kind == "head" and sender.layer == receiver.part.layer
            )
            end = net.n_layers if receiver.part.layer is None else receiver.part.layer
            if not (sender.layer < end or same):
                assert (cell.state == 4).all()
                continue
            if rng.random() < 0.8:
                continue
            checked += 1
            for row in range(behaviour.n):
                by_hand = path_by_hand(model, behaviour, row, sender, receiver)
                assert float(cell.metric[row]) == pytest.approx(by_hand, abs=2e-5)
    assert checked > 30


@pytest.mark.parametrize("kind", ["phi", "granite", "gemma2", "llama"])
def test_paths_into_everything_add_up_where_they_must(kind: str) -> None:
    """All of a last-layer component's paths go to the logits: its direct path is its whole effect."""
    net, pairs = cutaway.open(tiny(kind)), id_behaviour((6, 6, 6))
    last = net.n_layers - 1
    direct = path_patch(net, pairs, senders=[f"MLP {last}"], to=["logits"])
    whole = cutaway.patch(net, pairs, at="mlp_write", by=["layer"], direction="corrupt", layers=[last])
    np.testing.assert_allclose(
        direct.data.metric.values[0, 0], whole.data.metric.values[0], rtol=1e-4, atol=1e-5
    )
    if net.anatomy.stack().layers[last].form == "parallel":  # type: ignore[union-attr]
        heads = path_patch(net, pairs, senders=[f"head {last}.1"], to=["logits"])
        alone = cutaway.patch(net, pairs, at="z", by=["layer", "head"], direction="corrupt", layers=[last])
        np.testing.assert_allclose(
            heads.data.metric.values[0, 0], alone.data.metric.values[0, 1], rtol=1e-4, atol=1e-5
        )


def test_paths_refuse_what_has_none(net: Network, behaviour: Behaviour) -> None:
    with pytest.raises(SiteUnavailable, match="no direct paths"):
        path_patch(cutaway.open(tiny("bert", task="masked-lm")), behaviour)
    with pytest.raises(NotFound, match="head 3.0"):
        path_patch(net, behaviour, senders=["head 3.0"])
    with pytest.raises(BadInput, match="No receivers"):
        path_patch(net, behaviour, to=[])
    with pytest.raises(BadBehaviour):
        path_patch(net, id_behaviour((6, 8), shorter=1))


def test_pairs_equal_two_patches_at_once(net: Network, model: GPT2LMHeadModel, behaviour: Behaviour) -> None:
    found = pair_effects(net, behaviour, which="all")
    a, b = Part("head", 0, 1), Part("mlp", 2)
    joint = found.data.sel(first=str(a), second=str(b))
    clean = net.run([list(behaviour.clean_ids[1])])
    other = net.run([list(behaviour.corrupted_ids[1])], keep=["z.0", "mlp_write.2"])
    run = net.run(
        [list(behaviour.clean_ids[1])],
        edits=[cutaway.Patch("z.0", source=other, head=1), cutaway.Patch("mlp_write.2", source=other)],
    )
    assert run.logits is not None
    assert clean.logits is not None
    assert float(joint.metric[1]) == pytest.approx(score(behaviour, 1, run.logits[0, -1]), abs=1e-5)
    single = cutaway.patch(net, behaviour, at="z", by=["layer", "head"], direction="corrupt")
    assert found.data["mean"].sel(first=str(a), second=str(a)) == pytest.approx(
        float(single.mean[0, 1]), abs=1e-5
    )
    alone = [found.data["mean"].sel(first=str(c), second=str(c)) for c in (a, b)]
    assert float(joint["interaction"]) == pytest.approx(float(joint["mean"] - alone[0] - alone[1]), abs=1e-5)
    assert joint["interaction_low"] <= joint["interaction"] <= joint["interaction_high"]
    with pytest.raises(BadInput, match="Pairs need two"):
        pair_effects(net, behaviour, which=[a])


@pytest.mark.parametrize("how", ["zero", "mean", "mean by position", "resample"])
def test_ablations_equal_the_interventions(net: Network, behaviour: Behaviour, how: Any) -> None:
    if how == "resample":
        with pytest.raises(BadBehaviour, match="Only one prompt has 8 tokens"):
            ablate(net, behaviour, at="z", how=how)
        behaviour = id_behaviour((6, 6, 6, 6))
    found = ablate(net, behaviour, at="z", how=how, seed=3)
    tokens = behaviour.clean_tokens(net)
    base = net.run(tokens, keep=["z"])
    for layer, head in ((0, 1), (2, 3)):
        kind = how.removesuffix(" by position")
        edit = cutaway.Ablate("z", layer=layer, head=head, how=kind, by_position=kind != how, seed=3)
        run = net.run(tokens, edits=[edit], logits="last")
        assert run.logits is not None
        for row in range(behaviour.n):
            value = float(found.data.metric.sel(layer=layer, head=head)[row])
            assert value == pytest.approx(score(behaviour, row, run.logits[row, 0]), abs=1e-5)
    assert base.logits is not None
    assert found.direction == f"ablate ({how})"


def test_spans_and_neurons_are_dimensions(net: Network, behaviour: Behaviour) -> None:
    from dataclasses import replace

    spanned = replace(behaviour, spans={"changed": tuple((2, 3) for _ in range(behaviour.n))})
    by_span = cutaway.patch(net, spanned, by=["layer", "span"])
    by_position = cutaway.patch(net, spanned, by=["layer", "position"])
    np.testing.assert_allclose(
        by_span.mean[:, 0], by_position.values.sel(position=2).mean("example"), atol=1e-6
    )
    neurons = cutaway.patch(net, behaviour, at="mlp_act", by=["layer", "neuron"], layers=[1])
    assert neurons.mean.shape == (1, 128)
    by_span.plot()
    with pytest.raises(BadBehaviour, match="no spans"):
        cutaway.patch(net, behaviour, by=["layer", "span"])
    with pytest.raises(BadInput, match="no neurons"):
        cutaway.patch(net, behaviour, at="z", by=["layer", "neuron"])


def test_a_list_of_interventions_is_planned_and_run(net: Network, behaviour: Behaviour) -> None:
    torch.manual_seed(0)
    items = [
        cutaway.Ablate("z", layer=1, head=2),
        cutaway.Add("resid_post", torch.randn(32), layer=0, pos=2),
        [cutaway.Add("mlp_out", torch.randn(32), layer=0), cutaway.Ablate("z", layer=2, how="mean")],
        cutaway.Scale("pattern", 0.5, layer=1, head=0, src=0),
        cutaway.Add("embed", torch.randn(32), pos=-1),
    ]
    planned = plan_interventions(net, behaviour, items)
    assert "whole forwards" in repr(planned)
    found = planned.run()
    tokens = behaviour.clean_tokens(net)
    for number, item in enumerate(items):
        run = net.run(tokens, edits=item if isinstance(item, list) else [item], logits="last")
        assert run.logits is not None
        for row in range(behaviour.n):
            assert float(found.data.metric[number, row]) == pytest.approx(
                score(behaviour, row, run.logits[row, 0]), abs=2e-5
            )
    with pytest.raises(BadInput, match="no interventions"):
        plan_interventions(net, behaviour, [])
    named = plan(net, behaviour, at="resid_pre", by=["layer"])
    np.testing.assert_allclose(named.run().mean, cutaway.patch(net, behaviour, by=["layer"]).mean, atol=1e-6)


@pytest.mark.parametrize(
    "which",
    ["resid_pre", "mlp_out", "attn_head_out_by_pos", "attn_head_k_all_pos", "attn_head_pattern_dest_src_pos"],
)
def test_transformerlens_sweeps_equal_a_loop_over_hooks(
    net: Network, behaviour: Behaviour, which: str
) -> None:
    rows = [i for i in range(behaviour.n) if len(behaviour.clean_ids[i]) == 6]
    clean, corrupted = (
        [list(ids[i]) for i in rows] for ids in (behaviour.clean_ids, behaviour.corrupted_ids)
    )
    _, cache = net.run_with_cache(clean)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 5].mean() - logits[:, 1, 6].sum() + logits[0, 3, 7]

    found = tl.act_patch(which, net, corrupted, cache, metric)
    kind = tl._KINDS[which]
    run = net.run(clean, keep=[kind.site])
    for index in np.random.default_rng(0).permutation(found.numel())[:25]:
        layer, *place = np.unravel_index(index, found.shape)
        names = {"pos": "pos", "dest": "pos", "head": "head", "src": "src"}
        where = {names[a]: int(i) for a, i in zip(kind.axes, place, strict=True)}
        edit = cutaway.Patch(kind.site, source=run, layer=int(layer), **where)
        logits = net.run(corrupted, edits=[edit]).logits
        assert logits is not None
        assert float(found[(layer, *place)]) == pytest.approx(float(metric(logits)), abs=2e-5)
    assert metric_of is not None
    with pytest.raises(BadInput, match="no patching sweep"):
        tl.act_patch("nothing", net, corrupted, cache, metric)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_the_engine_gives_what_cutting_the_edges_of_the_circuit_graph_gives(kind: str) -> None:
    """Two ways to the same numbers: sites and sweeps here, masks over a graph there; keys that heads share included."""
    net, pairs = cutaway.open(tiny(kind)), id_behaviour((6, 6, 6))
    wired = wiring(net)
    graph = wired.graph
    paths = DirectPaths.of(net, pairs, graph.writers, "corrupt")
    edges = [(w, r) for r, target in enumerate(graph.readers) for w in paths.before(target)]
    assert sorted(edges) == [tuple(edge) for edge in np.argwhere(graph.allowed).tolist()]
    assert all(sends(net, part) for part in graph.writers)
    assert all(receives(net, target) for target in graph.readers)
    with metered(Meter()) as meter:
        patched = paths.run([(w, graph.readers[r]) for w, r in edges])
    assert meter.forwards > 1
    tokens, at = pairs.clean_tokens(net), torch.full((pairs.n,), -1)
    ablated, _ = record(wired, pairs.corrupted_tokens(net))
    wanted = []
    for edge in edges:
        mask = torch.ones(graph.shape, dtype=torch.bool)
        mask[edge] = False
        cut = run_edges(wired, tokens, at, ablated, Mask(mask))
        wanted.append(pairs.metric(cut, pairs.answers).double().numpy())
    np.testing.assert_allclose(patched.values, wanted, atol=1e-5)
    scores = score_edges(net, pairs, method="path-patching")
    assert not any("masks" in note for note in scores.notes)
    lost = np.stack([scores.examples[:, w, r] for w, r in edges])  # type: ignore[index]
    np.testing.assert_allclose(lost, paths.base.metric[None] - patched.values, atol=1e-6)


def test_some_pairs_by_themselves_give_their_own_numbers() -> None:
    """Pairs may be taken a few at a time, in any order; the gap stays that of all."""
    net, pairs = cutaway.open(tiny("llama")), id_behaviour((6, 8, 6))
    every = DirectPaths.of(net, pairs, [Part("input"), Part("head", 0, 1)], "restore")
    routes = [(1, Input(Part("head", 1, 0), "k")), (0, Input(Part("logits")))]
    some = every.take([2, 0])
    assert some.ends.gap == every.ends.gap
    assert every.pieces() == [[0, 1, 2]]
    assert every.pieces(Work(budget=Budget(memory=8 * 2 * 8 * (net.d_model or 0) * 4 * 2))) == [[0, 1], [2]]
    assert some.base is some.ends.corrupted
    np.testing.assert_allclose(some.run(routes).values, every.run(routes).values[:, [2, 0]], atol=1e-6)


def test_keys_that_heads_share_are_read_by_the_group_or_by_one_head() -> None:
    net, pairs = cutaway.open(tiny("llama")), id_behaviour((6, 6, 6))
    names = [str(target) for target in receivers(net)]
    assert "a1.kv0<k>" in names
    assert "a1.h0<q>" in names
    assert "a1.h0<k>" not in names
    found = path_patch(net, pairs, senders=["input", "head 0.1"], to=["a1.kv0<v>", "a1.h0<v>", "a1.h1<v>"])
    assert list(found.data["receiver"].values) == ["a1.kv0<v>", "a1.h0<v>", "a1.h1<v>"]
    assert np.isfinite(found.mean.values).all()
    assert np.abs(found.mean.values[:, 0] - found.mean.values[:, 1]).max() > 1e-6


def test_experts_are_named_and_no_sweep_takes_another_thing_for_them() -> None:
    """They are shares of their MLP without a site; the routing weight is not what an expert writes."""
    net, pairs = cutaway.open(tiny("mixtral")), id_behaviour((6, 6, 6))
    experts = [part for part in parts_of(net, experts=True) if part.kind == "expert"]
    assert {str(part) for part in experts} == {
        str(w) for w in wiring(net).graph.writers if w.kind == "expert"
    }
    assert not any(part.kind == "expert" for part in parts_of(net))
    for sweep in (
        lambda: path_patch(net, pairs, senders=["e0.1"]),
        lambda: path_patch(net, pairs, to=["e1.0"]),
        lambda: pair_effects(net, pairs, which=["e0.1", "m1"]),
        lambda: write_of(experts[0]),
    ):
        with pytest.raises(SiteUnavailable, match="no site to sweep.*node-patching"):
            sweep()


def test_paths_that_do_not_exist_are_refused(net: Network, pairs: Behaviour) -> None:
    with pytest.raises(BadInput, match="none of the senders comes before"):
        cutaway.path_patch(net, pairs, senders=["m2"], to=["m0", "a1.h0<q>"])
