"""Heads by score, by weights, by composition and by attribution: against brute force, and on networks with known heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_beds import opened, rows

import cutaway
from cutaway.errors import BadAddress, BadInput, SiteUnavailable
from cutaway.network import Network
from cutaway.network.factored import Factored, positive_share
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.stream import logit_attribution
from cutaway.stream.attention_scores import head_scores, moving_scores, repeated_tokens
from cutaway.stream.composition import composition
from cutaway.stream.copying import (
    copying,
    in_vocabulary,
    singular_directions,
    token_embeddings,
    token_readout,
)
from cutaway.stream.head_weights import head_weights
from cutaway.stream.patterns import read_patterns
from cutaway.stream.why_attend import why_attend
from cutaway.zoo.tiny import tiny

sizes = st.integers(1, 6)


@given(n=st.integers(4, 9), r=st.integers(1, 4), m=st.integers(4, 9), seed=st.integers(0, 10**6))
def test_factored_against_the_product(n: int, r: int, m: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a = Factored(torch.randn(2, n, r, generator=g).double(), torch.randn(2, r, m, generator=g).double())
    full = a.full()
    assert a.shape == tuple(full.shape)
    assert torch.allclose(a.norm(), full.flatten(1).norm(dim=1))
    u, s, v = a.svd()
    assert torch.allclose((u * s[:, None]) @ v.mT, full, atol=1e-9)
    wanted = torch.linalg.svdvals(full)[:, :r] if r <= min(n, m) else torch.linalg.svdvals(full)
    assert torch.allclose(s[:, : wanted.shape[1]], wanted, atol=1e-9)
    assert torch.allclose(a.T.full(), full.mT)
    assert torch.allclose((a @ a.T).full(), full @ full.mT)
    square = Factored(a.left, torch.randn(2, r, n, generator=g).double())
    mine = square.eigenvalues().abs()
    theirs = torch.linalg.eigvals(square.full()).abs().sort(descending=True).values[:, :r]
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_factored_bad_shapes() -> None:
    with pytest.raises(BadInput):
        Factored(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(BadInput):
        Factored(torch.ones(3, 2), torch.ones(2, 4)).eigenvalues()
    assert float(positive_share(torch.zeros(3) + 0j)) == 0.0


KINDS = ["gpt2", "llama", "gpt_neox", "gptj", "falcon", "mpt", "bloom", "gemma2", "granite", "cohere2", "mixtral", "phi",
         "codegen", "openai-gpt"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_weights_reproduce_queries_keys_values_and_writes(kind: str) -> None:
    """What the matrices say, on random streams at the first position, is what the network computes."""
    net = opened(kind)
    for w in head_weights(net):
        ids = rows(net, 4, 1)
        run = net.run(
            ids, keep=[Site(n, w.layer) for n in ("resid_pre", "attn_in", "q", "k", "v", "head_out")]
        )
        assert w.reader is not None
        x = run[Site("resid_pre", w.layer)][:, 0]
        fold = w.reader.at(x, run[Site("attn_in", w.layer)][:, 0])
        groups = w.q.shape[0] // run[Site("k", w.layer)].shape[2]
        shift = fold.bias.expand_as(x)  # what a norm's bias adds is no matrix of the stream
        for name, matrix, bias in (("q", w.q, w.q_bias), ("k", w.k, w.k_bias), ("v", w.v, w.v_bias)):
            seen = run[Site(name, w.layer)][:, 0]
            seen = seen if name == "q" else seen.repeat_interleave(groups, 1)
            read = torch.einsum("bd,hde->bhe", x * fold.scale, matrix)
            rest = seen - read - bias
            if float(shift.abs().max()) < 1e-6:
                assert float(rest.abs().max()) < 1e-3 * float(seen.abs().max())
            else:  # the same for every row
                assert float((rest - rest[:1]).abs().max()) < 1e-3 * float(seen.abs().max())
        z = torch.randn(2, w.o.shape[0], w.o.shape[1])
        module = net.model.get_submodule(_output(net, w.layer))
        with torch.no_grad():
            flat = z.flatten(1)
            wanted = module(flat[None])[0] - module(torch.zeros_like(flat)[None])[0]
        got = torch.einsum("bhe,hed->bd", z, w.o)
        ratio = float((got * wanted).sum() / wanted.square().sum())
        if kind != "gemma2":  # there a post-norm's weight stands behind
            assert torch.allclose(got, wanted * ratio, atol=1e-4)


def _output(net: Network, layer: int) -> str:
    attention = net.anatomy.stack().layers[layer].attention()  # type: ignore[union-attr]
    assert attention is not None
    assert attention.output is not None
    return attention.output


@pytest.mark.parametrize("kind", ["qwen3", "olmo2", "gemma3_text"])
def test_weights_before_query_norms_are_known_up_to_scale(kind: str) -> None:
    net = opened(kind)
    w = head_weights(net, layers=[1])[0]
    assert w.up_to_scale == {"q", "k"}
    run = net.run(rows(net, 4, 1), keep=[Site(n, 1) for n in ("resid_pre", "q")])
    read = torch.einsum("bd,hde->bhe", run["resid_pre", 1][:, 0], w.q)
    seen = run["q", 1][:, 0]
    cosine = (read * seen).sum(-1) / (read.norm(dim=-1) * seen.norm(dim=-1))
    assert float(cosine.min()) > 1 - 1e-4


def test_rotary_offset_changes_the_query_and_plain_networks_do_not() -> None:
    near, far = (head_weights(opened("llama"), layers=[0], offset=o)[0] for o in (0, 3))
    assert not torch.allclose(near.q, far.q, atol=1e-3)
    assert torch.allclose(near.k, far.k, atol=1e-6)
    assert torch.allclose(near.q.norm(dim=-1), far.q.norm(dim=-1), rtol=1e-3)
    near, far = (head_weights(opened("gpt2"), layers=[0], offset=o)[0] for o in (0, 3))
    assert torch.allclose(near.q, far.q, atol=1e-5)


def test_composition_against_full_products() -> None:
    net = opened("llama")
    weights = head_weights(net)
    found = composition(net, weights=weights, n_random=60)
    for a, first in enumerate(weights):
        for b, second in enumerate(weights):
            for h in range(4):
                for g in range(4):
                    writes = first.ov[h].full().double()
                    reads = {"q": second.qk[g].full(), "k": second.qk[g].full().T, "v": second.ov[g].full()}
                    for kind, matrix in reads.items():
                        score = found.scores[kind][4 * a + h, 4 * b + g]
                        if a >= b:
                            assert np.isnan(score)
                            continue
                        matrix = matrix.double()
                        wanted = float((writes @ matrix).norm() / (writes.norm() * matrix.norm()))
                        assert score == pytest.approx(wanted, rel=1e-4)
    for kind in "qkv":  # random weights compose as random matrices do
        assert found.chance == pytest.approx(np.nanmean(found.scores[kind]), rel=0.1)
    with pytest.raises(BadInput):
        composition(net, weights=weights[:1])


def test_copying_against_the_whole_circuit() -> None:
    net = opened("gpt2")
    weights = head_weights(net)
    found = copying(net, weights=weights, n_null=2)
    ids = torch.arange(net.d_vocab or 0)
    e, u = token_embeddings(net, ids).double(), token_readout(net, ids).double()
    run = net.run(ids[:40, None], keep=["embed"])
    assert torch.allclose(e[:40].float(), run["embed"][:, 0], atol=1e-6)
    for i, part in enumerate(found.heads):
        w, head = weights[part.layer], part.index
        full = e @ w.v[head].double() @ w.o[head].double() @ u.T
        values = torch.linalg.eigvals(full)
        values = values[values.abs() > 1e-6 * values.abs().max()]
        assert found.scores[i] == pytest.approx(float(positive_share(values)), abs=1e-3)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "neox"])
def test_constructed_induction_is_found_alike_by_score_composition_and_attribution(arch: str) -> None:
    """The network's truth names a previous-token head and an induction head; three ways find the same two."""
    from cutaway import zoo

    net = cutaway.open(f"zoo:induction-{arch}")
    truth = [n for n in zoo.card(f"induction-{arch}")["truth"]["nodes"] if ".h" in n]
    previous, induction = (Part.parse(n) for n in sorted(truth))
    scores = head_scores(net, length=10)
    assert scores.above_chance("previous") == [previous]
    assert scores.above_chance("induction") == [induction]
    composed = composition(net)
    keys = composed.scores["k"]
    best = np.unravel_index(np.nanargmax(keys), keys.shape)
    if arch == "llama":  # two query heads share the key head, and with it the score
        best = (best[0], composed.heads.index(induction))
        assert keys[best] == pytest.approx(np.nanmax(keys), rel=0.05)
    assert (composed.heads[best[0]], composed.heads[best[1]]) == (previous, induction)
    assert np.nanmax(keys) > composed.chance_high
    copies = copying(net).to_pandas()
    assert copies.loc[copies["above"], "head"].tolist() == [str(induction)]
    ids, start = repeated_tokens(net, n=4, length=10)
    row = ids[0].tolist()
    right, wrong = row[start + 3], row[start + 6]
    adds = logit_attribution(net, [row[: start + 13]], target=right, foil=wrong, by="head", pos=-1)
    heads = [w for w in adds.writers if w.kind == "head"]
    values = [v for w, v in zip(adds.writers, adds.mean(), strict=True) if w.kind == "head"]
    assert heads[int(np.argmax(values))] == induction
    why = why_attend(net, row[: start + 13], induction, dest=-1, source=start + 3)
    top = why.to_pandas().iloc[0]
    assert (top["query"], top["key"]) == ("embed", str(previous))
    assert why.error < 1e-4


def test_random_weights_have_no_such_heads() -> None:
    scores = head_scores(opened("gpt2"), n=8, length=8)
    assert scores.above_chance("induction") == []
    assert scores.above_chance("previous") == []


ATTEND = ["gpt2", "llama", "gpt_neox", "gptj", "falcon", "mpt", "bloom", "gemma2", "granite", "cohere2", "mixtral", "qwen3",
          "olmo2", "gemma3_text", "openai-gpt"]  # fmt: skip


@pytest.mark.parametrize("kind", ATTEND)
@pytest.mark.parametrize("places", [(-1, 2), (4, 4), (3, 0)])
def test_scores_are_sums_over_pairs_of_writers(kind: str, places: tuple[int, int]) -> None:
    net = opened(kind)
    ids = rows(net, 1)[0].tolist()
    found = why_attend(net, ids, "a1.h2", dest=places[0], source=places[1])
    assert found.error < 2e-3
    run = net.run([ids], keep=["q.1", "k.1", "scores.1"])
    dest, source = (p % len(ids) for p in places)
    if found.scaled:
        assert found.score == pytest.approx(float(run["scores.1"][0, 2, dest, source]), abs=1e-4)
    else:
        k = run["k.1"][0, source, 2 // (4 // run["k.1"].shape[2])]
        assert found.score == pytest.approx(float(run["q.1"][0, dest, 2] @ k), rel=1e-3)


def test_value_weighted_patterns(tales: Network) -> None:
    found = read_patterns(tales, "Mary was sad because", layer=2)
    pattern, weighted = found.pattern, found.weighted
    assert found.to_pandas(1).shape == (5, 5)
    assert found.plot(1, weighted=True) is not None
    with pytest.raises(BadAddress):
        found.plot(7)
    run = tales.run("Mary was sad because", keep=["pattern.2", "v.2"])
    weight = tales.model.model.layers[2].self_attn.o_proj.weight.T.unflatten(0, (4, -1))
    written = torch.einsum("she,hed->shd", run["v.2"][0], weight.detach()).norm(dim=-1)
    wanted = run["pattern.2"][0] * written.T[:, None]
    wanted = wanted / wanted.sum(-1, keepdim=True)
    assert np.allclose(weighted, wanted.numpy(), atol=1e-5)
    assert np.allclose(pattern, run["pattern.2"][0].numpy(), atol=1e-6)


def test_moving_scores_on_a_network_that_does_the_task(tales: Network) -> None:
    ioi = cutaway.behaviour("ioi", tales, n=12, force=True)
    found = moving_scores(tales, ioi)
    assert found.to_pandas()["above"].any()
    assert found.unit == "logits"
    with pytest.raises(BadInput, match="stands in the prompt"):
        moving_scores(tales, cutaway.behaviour("pronoun", tales, n=8))


def test_words_of_directions(tales: Network) -> None:
    she = tales.to_single_token(" she")
    vector = token_readout(tales, torch.tensor([she]))
    assert in_vocabulary(tales, vector, k=1)[0][0][0] == " she"
    table = singular_directions(tales, "head 3.0", n=2, k=4).to_pandas()
    assert len(table) == 4
    assert table["singular_value"].iloc[0] >= table["singular_value"].iloc[2]
    with pytest.raises(BadAddress):
        singular_directions(tales, "a3.h9")


def test_bad_input_and_refusals(tales: Network) -> None:
    with pytest.raises(BadInput):
        head_scores(tales, scores=["nothing"])
    with pytest.raises(BadInput):
        head_scores(tales, length=100)
    with pytest.raises(BadInput):
        head_scores(tales, n=1)
    with pytest.raises(BadAddress):
        why_attend(tales, "Mary was sad", "a1.h9")
    with pytest.raises(BadAddress):
        why_attend(tales, "Mary was sad", "a1.h1", dest=40)
    with pytest.raises(SiteUnavailable, match="read from|made from"):
        head_weights(opened("deepseek_v3"))
    with pytest.raises(SiteUnavailable):
        head_weights(opened("mamba"))


def test_no_position_embedding_where_there_is_none() -> None:
    """A dropout behind the embedding hands on what was looked up by token."""
    net = opened("gpt_neox")
    assert not net.has("pos_embed")
    assert cutaway.open(tiny("gpt2").eval()).has("pos_embed")
