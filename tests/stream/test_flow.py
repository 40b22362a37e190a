"""Paths that sum to the logit at every depth, a stream's growth, and the life of a direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stream_beds import opened, rows

import cutaway
from cutaway.errors import BadInput, SiteUnavailable
from cutaway.interventions import Project
from cutaway.network import Network
from cutaway.stream import logit_attribution
from cutaway.stream.attention_scores import repeated_tokens
from cutaway.stream.biography import biography
from cutaway.stream.copying import token_readout
from cutaway.stream.flow import effective_rank, flow, reads_of_writes
from cutaway.stream.paths import expand_paths


@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "gpt_neox", "gemma2", "granite", "openai-gpt", "bloom", "falcon", "olmo2"]
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_paths_sum_to_the_logit_difference(kind: str, depth: int) -> None:
    net = opened(kind)
    ids = rows(net, 1)[0].tolist()
    found = expand_paths(net, ids, target=3, foil=4, depth=depth)
    logits = net.run([ids]).logits
    assert logits is not None
    if kind != "gemma2":
        assert found.wanted == pytest.approx(float(logits[0, -1, 3] - logits[0, -1, 4]), rel=1e-3)
    assert found.error < 1e-4
    assert sum(found.by_length().values()) == pytest.approx(found.total)
    assert max(len(p.heads) for p in found.paths) == (depth + 1 if depth < 3 else 3)


def test_paths_of_one_head_against_brute_force() -> None:
    """A path by hand: what token s put in, through one head's values, pattern and output, to the end."""
    net = opened("gpt2")
    ids = rows(net, 1)[0].tolist()
    found = expand_paths(net, ids, target=3, foil=4, depth=1)
    run = net.run([ids], keep=["embed", "resid_pre.1", "resid_post.2", "pattern.1"])
    core = net.model.transformer
    block, x = core.h[1], run["resid_pre.1"][0]
    one = 1 / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + block.ln_1.eps)
    e = run["embed"][0]
    normed = (e - e.mean(-1, keepdim=True)) * one * block.ln_1.weight
    head = 2
    v = normed @ block.attn.c_attn.weight[:, 64 + 8 * head : 64 + 8 * head + 8]
    out = run["pattern.1"][0, head, -1] @ v @ block.attn.c_proj.weight[8 * head : 8 * head + 8]
    last = run["resid_post.2"][0, -1]
    scale = 1 / torch.sqrt(last.var(unbiased=False) + core.ln_f.eps)
    u = net.model.lm_head.weight[3] - net.model.lm_head.weight[4]
    wanted = (((out - out.mean()) * scale * core.ln_f.weight) @ u).item()
    got = next(p.value for p in found.paths if str(p) == "embed → a1.h2 → logits")
    assert got == pytest.approx(wanted, abs=1e-5)


def test_constructed_induction_is_one_path() -> None:
    net = cutaway.open("zoo:induction-gpt2")
    ids, start = repeated_tokens(net, n=2, length=10)
    row = ids[0].tolist()
    found = expand_paths(net, row[: start + 13], target=row[start + 3], foil=row[start + 6], depth=2)
    assert found.to_pandas()["path"].iloc[0] == "embed → a1.h1 → logits"
    assert found.paths[0].longer is False
    assert found.to_pandas()["value"].iloc[0] == pytest.approx(found.wanted, rel=1e-3)


def test_too_many_paths_and_bad_depth_are_refused(tales: Network) -> None:
    with pytest.raises(BadInput):
        expand_paths(tales, "Mary was sad because", target=" she", depth=-1)
    with pytest.raises(BadInput):
        expand_paths(tales, "Mary was sad because", target=" she", depth=True)
    with pytest.raises(SiteUnavailable):
        expand_paths(opened("mamba"), [5, 6, 7], target=3)


def test_flow_by_hand(tales: Network) -> None:
    ids = rows(tales, 4, 20)
    found = flow(tales, ids)
    run = tales.run(ids, keep=["resid_pre", "mlp_write"])
    table = found.growth.set_index(["what", "layer"])
    assert table.loc[("stream", 2), "norm"] == pytest.approx(
        float(run["resid_pre", 2].norm(dim=-1).mean()), rel=1e-5
    )
    assert table.loc[("mlp_write", 1), "norm"] == pytest.approx(
        float(run["mlp_write", 1].norm(dim=-1).mean()), rel=1e-5
    )
    shares = found.distance.drop(columns="layer").sum(axis=1)
    assert np.allclose(shares, 1, atol=1e-4)
    values = torch.randn(500, 12) @ torch.diag(torch.tensor([3.0, 1, *[0.0] * 10]))
    spectrum = torch.linalg.eigvalsh(torch.cov(values.T))
    assert effective_rank(values) == pytest.approx(
        float(spectrum.sum() ** 2 / spectrum.square().sum()), rel=1e-4
    )
    assert effective_rank(torch.ones(4, 3)) == 0.0


def test_random_writes_are_read_at_chance() -> None:
    found = reads_of_writes(opened("llama")).to_pandas()
    assert found["score"].mean() == pytest.approx(1.0, abs=0.1)
    assert {"q", "k", "v", "mlp"} == set(found["reads"])
    parallel = reads_of_writes(opened("gpt_neox")).to_pandas()
    assert not ((parallel["writer"] == "a0") & (parallel["reader"] == "m0")).any()


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "gemma2", "openai-gpt"])
def test_biography_adds_up(kind: str) -> None:
    net = opened(kind)
    ids = rows(net, 1)[0].tolist()
    unit = torch.randn(32, generator=torch.Generator().manual_seed(0))
    found = biography(net, ids, unit)
    assert np.allclose(found.writes.sum(0), found.present[-1], atol=1e-3 * np.abs(found.present).max() + 1e-4)
    assert found.reads.shape == found.chance.shape == (len(found.readers), 7)


def test_biography_reads_are_those_of_a_projection(tales: Network) -> None:
    text = "Mary was sad because"
    ids = torch.tensor([tales.to_single_token(" she"), tales.to_single_token(" he")])
    pair = token_readout(tales, ids)
    u = pair[0] - pair[1]
    found = biography(tales, text, u, name="she minus he")
    clean = tales.run(text, keep=["mlp_write.2"])["mlp_write.2"]
    cut = tales.run(text, keep=["mlp_write.2"], edits=[Project("resid_mid.2", u)])["mlp_write.2"]
    wanted = ((cut - clean).norm(dim=-1) / clean.norm(dim=-1))[0]
    at = [str(r) for r in found.readers].index("m2")
    assert np.allclose(found.reads[at], wanted.numpy(), atol=1e-5)
    events = found.events()
    assert set(events["event"]) <= {"written", "read", "erased"}
    assert ((events["event"] == "written") & (events["token"] == " because")).any()
    with pytest.raises(BadInput):
        biography(tales, text, torch.zeros(128))
    with pytest.raises(BadInput):
        biography(tales, text, torch.ones(5))


def test_whole_attribution_is_the_zero_depth_expansion(tales: Network) -> None:
    text = "Mary was sad because"
    whole = logit_attribution(tales, text, target=" she", foil=" he")
    paths = expand_paths(tales, text, target=" she", foil=" he", depth=0)
    direct = {str(p.origin): p.value for p in paths.paths if not p.longer}
    assert direct["m2"] == pytest.approx(float(whole["mlp 2"][0, 0]), abs=1e-4)
    ends = {str(p.heads[-1]): p.value for p in paths.paths if p.longer}
    assert ends["a2.h1"] == pytest.approx(float(whole["head 2.1"][0, 0]), abs=1e-4)
