"""Exact methods, greedy removal, relevance, flow, masks: each against its definition or where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.circuits.conftest import opened

import cutaway
from cutaway.circuits import METHODS, Circuit, Scores, TraceRecipe, method, option_names, score, wiring
from cutaway.circuits.choosing import choose
from cutaway.circuits.methods.acdc import AcdcOptions
from cutaway.circuits.methods.ensemble import combine
from cutaway.circuits.methods.relp import rules
from cutaway.circuits.passes.gradients import backward
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.pairs import PromptPairs
from cutaway.circuits.passes.resuming import ResumedPrefix
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.effects.paths import DirectPaths
from cutaway.errors import BadInput, NotFound, SiteUnavailable, Stopped
from cutaway.results import Progress, Work


def test_path_patching_is_the_edit_one_by_one(llama, pairs):
    """Every edge alone, without batches of masks and without a late start."""
    scores = score(llama, pairs, method="path-patching")
    found = wiring(llama)
    rng = np.random.default_rng(0)
    for w, r in rng.permutation(np.argwhere(found.graph.allowed))[:15]:
        for row in (0, 1):
            part = pairs.take([row])
            tokens, at = part.clean_tokens(llama), torch.tensor([-1])
            mask = torch.ones(found.graph.shape, dtype=torch.bool)
            mask[w, r] = False
            base = part.metric(record(found, tokens, at)[1], part.answers)
            ablated, _ = record(found, part.corrupted_tokens(llama))
            cut = part.metric(run_edges(found, tokens, at, ablated, Mask(mask)), part.answers)
            assert scores.examples[row, w, r] == pytest.approx(float(base - cut), abs=2e-5)


def test_node_patching_is_cutaway_patch(gpt2, pairs):
    scores = score(gpt2, pairs, method="node-patching")
    effects = cutaway.patch(gpt2, pairs, at="z", by=["layer", "head"], direction="corrupt")
    mean = effects.data["mean"].to_numpy()
    graph = scores.graph
    gap = effects.data.attrs.get("gap")
    ours = np.array([[scores.nodes[graph.writer(f"a{i}.h{h}")] for h in range(4)] for i in range(3)])
    assert np.corrcoef(ours.ravel(), mean.ravel())[0, 1] ** 2 == pytest.approx(1.0, abs=1e-6), gap


def test_late_starts_change_nothing(llama, pairs):
    found = wiring(llama)
    part = pairs.take([0, 2])
    tokens, at = part.clean_tokens(llama), torch.full((2,), -1)
    ablated, _ = record(found, part.corrupted_tokens(llama))
    prefix = ResumedPrefix.of(found, tokens)
    for layer in (1, 2):
        mask = torch.from_numpy(found.graph.allowed.copy())
        late = torch.tensor([r.part.kind == "logits" or r.part.layer >= layer for r in found.graph.readers])
        drop = torch.rand(mask.shape, generator=torch.Generator().manual_seed(layer)) > 0.5
        mask &= ~(drop & late[None])
        whole = run_edges(found, tokens, at, ablated, Mask(mask))
        resumed = run_edges(found, tokens, at, ablated, Mask(mask), resume=(prefix, layer))
        assert torch.allclose(whole, resumed, atol=1e-9)
    assert not any("forward" in m.__dict__ for m in llama.model.modules())


@pytest.mark.parametrize("name", ["eap", "eap-ig", "clean-corrupted", "eap-ig-activations", "relp"])
def test_on_a_linear_network_all_gradients_are_exact(name: str, pairs):
    """No nonlinearity, no norm, attention that reads nothing: gradients, integrals and relevance are path patching."""
    net = linear_network()
    exact = score(net, pairs, method="path-patching")
    steps = {"steps": 4} if "steps" in option_names(name) else {}
    scores = score(net, pairs, method=name, **steps)
    assert np.abs(exact.values).max() > 1e-3
    assert np.allclose(scores.values, exact.values, atol=1e-5 * np.abs(exact.values).max() + 1e-6)


def test_eap_ig_converges_to_patching_through_a_nonlinear_metric(pairs):
    """On that network the input's effect through one path is an integral: more steps, less error."""
    net = linear_network()
    curved = pairs.with_metric(lambda logits, answers: torch.tanh(0.3 * (logits[:, 5] - logits[:, 9])))
    graph = wiring(net).graph
    exact = score(net, curved, method="node-patching").node("input")
    errors = []
    for steps in (1, 8, 64):
        scores = score(net, curved, method="node-ig", steps=steps)
        errors.append(abs(scores.node("input") - exact))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.02 * abs(exact) + 1e-3
    assert graph.writer("input") == 0


def linear_network():
    """A GPT-2 whose norms and nonlinearities are identities and whose heads attend evenly whatever they read."""
    from cutaway.zoo.tiny import tiny

    torch.manual_seed(0)
    model = tiny("gpt2").double()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = lambda x: x  # type: ignore[method-assign]
    with torch.no_grad():
        width = model.config.n_embd
        for block in model.transformer.h:
            block.attn.c_attn.weight[:, : 2 * width] = 0
            block.attn.c_attn.bias[: 2 * width] = 0
            block.mlp.act = torch.nn.Identity()
    return cutaway.open(model)


def test_relevance_leaves_the_forward_pass_alone(gpt2, llama, pairs):
    for net in (gpt2, llama):
        found = wiring(net)
        edits, _ = rules(found, "constant")
        batch = next(iter(PromptPairs.of(net, pairs, len(found.graph.writers))))
        plain = backward(found, batch.clean, batch.positions, batch.score)
        ruled = backward(found, batch.clean, batch.positions, batch.score, edits)
        assert torch.allclose(plain.metric, ruled.metric, atol=1e-6)


def test_relevance_is_conserved_through_gated_mlps(llama, pairs):
    """Sum over neurons of value times relevance coefficient = half rule: what the MLP's output got, once and not twice."""
    found = wiring(llama)
    edits, notes = rules(found, "constant")
    assert not notes
    batch = next(iter(PromptPairs.of(llama, pairs, len(found.graph.writers))))
    done = backward(found, batch.clean, batch.positions, batch.score, edits, writers=True)
    run = llama.run(batch.clean, keep=["mlp_in.2"], logits=False)
    below = (run["mlp_in.2"] * done.slopes["mlp_in.2"]).sum()
    above = (done.outputs.values["mlp_write.2"] * done.slopes["mlp_write.2"]).sum()
    assert float(below) == pytest.approx(float(above), rel=1e-4)


def test_flow_is_a_distribution_over_writers(gpt2, pairs):
    scores = score(gpt2, pairs, method="flow")
    sums = scores.values.sum(0)
    assert np.allclose(sums, 1.0, atol=1e-5)
    assert (scores.values >= 0).all()
    queries = [scores.graph.reader(f"a1.h{h}<q>") for h in range(4)]
    assert np.allclose(scores.values[:, queries], scores.values[:, queries[:1]])


def test_acdc_keeps_what_it_says(gpt2, pairs):
    pairs = pairs.take([0, 2, 4])
    scores = score(gpt2, pairs, method="acdc", threshold=0.05)
    assert scores.kept is not None
    assert ((scores.values >= 0.05) == scores.kept)[scores.graph.allowed].all()
    wider = score(gpt2, pairs, method="acdc", threshold=0.005)
    assert wider.kept.sum() >= scores.kept.sum()
    made = choose(gpt2, pairs, scores, TraceRecipe("acdc", AcdcOptions(threshold=0.05)))
    assert not (made.membership & ~scores.kept).any()


def test_masks_learn_to_drop(gpt2, pairs):
    heavy = score(gpt2, pairs, method="mask-edges", penalty=5.0, rounds=15, rate=0.4)
    light = score(gpt2, pairs, method="mask-edges", penalty=0.0, rounds=15, rate=0.4)
    assert heavy.kept.sum() < light.kept.sum()
    gates = score(gpt2, pairs, method="mask-nodes", sampler="l0", rounds=3)
    assert gates.nodes[0] == 1.0
    with pytest.raises(BadInput, match="sampler"):
        score(gpt2, pairs, method="mask-edges", sampler="dice")
    with pytest.raises(BadInput, match="penalty"):
        score(gpt2, pairs, method="mask-edges", penalty=-1)


def test_uniform_gradient_sampling_is_unbiased():
    """The share of ones and of uniform draws is what the formula says, so that the mean coefficient is the probability."""
    from cutaway.circuits.methods.masks import _sample

    logits = torch.full((200_000,), 0.7)
    sample, uniform = _sample(logits, "ugs", torch.Generator().manual_seed(0))
    share = float(torch.sigmoid(logits[0]))
    assert float(sample.detach().mean()) == pytest.approx(share, abs=5e-3)
    assert float(uniform.mean()) == pytest.approx(share * (1 - share), abs=5e-3)


def test_atp_star_sees_saturated_attention(pairs):
    """Queries whose softmax is saturated: their gradient vanishes, the softmax computed anew does not."""
    from cutaway.zoo.tiny import tiny

    torch.manual_seed(0)
    model = tiny("gpt2")
    with torch.no_grad():
        width = model.config.n_embd
        model.transformer.h[0].attn.c_attn.weight[:, : 2 * width] *= 60
    net = cutaway.open(model)
    starred = score(net, pairs, method="atp-star")
    plain = score(net, pairs, method="eap")
    graph = starred.graph
    readers = [graph.reader(f"a0.h{h}<q>") for h in range(4)]
    assert starred.inputs is not None
    assert starred.inputs[readers].sum() > 20 * np.abs(plain.values[0, readers]).sum()


def test_ensembles(gpt2, pairs):
    a, b = (score(gpt2, pairs, method=m) for m in ("eap", "eap-ig"))
    one = combine([a], "mean")
    assert np.allclose(
        np.argsort(-np.abs(one.values).ravel())[:20], np.argsort(-np.abs(a.values).ravel())[:20]
    )
    both = combine([a, b], "max")
    assert np.isfinite(both.values).all()
    with pytest.raises(BadInput):
        combine([])


def test_names(gpt2, pairs):
    with pytest.raises(NotFound, match="eap-ig"):
        method("eap-igg")
    assert method("ACDC") is method("acdc")
    assert set(METHODS) >= {"eap", "eap-ig", "eap-ig-activations", "atp-star", "relp", "flow", "acdc"}


def test_scores_refuse_nan(gpt2):
    graph = wiring(gpt2).graph
    bad = np.zeros(graph.shape)
    bad[0, 0] = np.nan
    with pytest.raises(cutaway.errors.NotFinite, match="input->a0"):
        Scores(graph, bad, "mine")
    with pytest.raises(BadInput, match="does not fit"):
        Scores(graph, np.zeros((2, 2)), "mine")
    with pytest.raises(BadInput, match="no such edge"):
        Circuit(graph, np.ones(graph.shape, dtype=bool))


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gptj", "jamba", "olmo2", "gemma3_text"])
def test_edges_at_nodes_with_and_without_a_site_are_what_masks_give(kind: str, pairs):
    """Experts, parallel blocks, mixers, norms after sublayers: a sample of edges, each run on its own with a mask."""
    net = opened(kind, double=False)
    found = wiring(net)
    scores = score(net, pairs, method="path-patching")
    split = any(stage.kind == "expert" for stage in found.stages)
    assert split == any("edges at nodes without a site are cut by masks" in note for note in scores.notes)
    rng = np.random.default_rng(2)
    part = pairs.take([1])
    tokens, at = part.clean_tokens(net), torch.tensor([-1])
    base = part.metric(record(found, tokens, at)[1], part.answers)
    ablated, _ = record(found, part.corrupted_tokens(net))
    for w, r in rng.permutation(np.argwhere(found.graph.allowed))[:40]:
        mask = torch.ones(found.graph.shape, dtype=torch.bool)
        mask[w, r] = False
        cut = part.metric(run_edges(found, tokens, at, ablated, Mask(mask)), part.answers)
        wanted = pytest.approx(float(base - cut), abs=2e-5)
        assert scores.examples[1, w, r] == wanted, found.graph.edge_name(w, r)


def test_a_network_without_direct_paths_is_cut_by_masks_and_says_so(llama, pairs, monkeypatch):
    scores = score(llama, pairs, method="path-patching")

    def refuse(*_args: object) -> None:
        raise SiteUnavailable("There are no direct paths past layer 0: its stretches are not known.", "No.")

    monkeypatch.setattr(DirectPaths, "of", refuse)
    masked = score(llama, pairs, method="path-patching")
    assert masked.notes[-1].startswith("Edges are cut by masks over the graph: There are no direct paths")
    assert np.abs(scores.examples - masked.examples).max() < 2e-5


def test_path_patching_tells_how_far_it_is_and_can_be_stopped(llama, pairs):
    heard: list[Progress] = []
    score(llama, pairs, method="path-patching", work=Work(heard.append))
    steps = [p for p in heard if "patching paths" in p.label]
    assert [p.done for p in steps] == sorted(p.done for p in steps)
    assert steps[-1].done == steps[-1].total
    work = Work(lambda p: work.stop() if p.done > 20 else None)
    with pytest.raises(Stopped):
        score(llama, pairs, method="path-patching", work=work)
