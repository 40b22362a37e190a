"""The graph: counts, names, index arithmetic, and that rebuilding what readers read computes what the network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cutaway
from cutaway.circuits import wiring
from cutaway.circuits.graph.nodes import Graph, standard
from cutaway.circuits.passes.certify import disagreement
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.running import Mask, run_edges, run_nodes
from cutaway.errors import BadFormat, NotFound, SiteUnavailable
from cutaway.network.parts import Input, Part
from cutaway.zoo.tiny import tiny


def test_published_counts():
    assert standard(12, 12).n_edges == 32_491
    assert standard(32, 32).n_edges == 1_592_881
    assert standard(12, 12).shape == (157, 445)


@given(st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_index_arithmetic_is_the_definition(layers: int, heads: int, parallel: bool):
    graph = standard(layers, heads, parallel)
    for r, reader in enumerate(graph.readers):
        for w, writer in enumerate(graph.writers):
            earlier = (
                reader.part.kind == "logits" or writer.kind == "input" or writer.layer < reader.part.layer
            )
            same = writer.layer == reader.part.layer and reader.part.kind == "mlp" and writer.kind == "head"
            assert graph.allowed[w, r] == (earlier or (same and not parallel))
    assert graph.n_edges == graph.allowed.sum()


@given(st.data())
def test_names_go_back_and_forth(data: st.DataObject):
    graph = standard(3, 2)
    r = data.draw(st.integers(0, len(graph.readers) - 1))
    w = data.draw(st.integers(0, graph.before[r] - 1))
    assert graph.edge(graph.edge_name(w, r)) == (w, r)
    assert Part.parse(str(graph.writers[w])) == graph.writers[w]
    assert Input.parse(str(graph.readers[r])) == graph.readers[r]
    assert Graph.from_dict(graph.to_dict()) == graph


def test_edges_that_do_not_exist_are_named():
    graph = standard(2, 2)
    with pytest.raises(NotFound, match=r"a7\.h0"):
        graph.edge("a7.h0->logits")
    with pytest.raises(NotFound, match="does not write before"):
        graph.edge("m1->a0.h0<q>")
    with pytest.raises(BadFormat):
        graph.edge("m1 to logits")


FAMILIES = ["gpt2", "llama", "gptj", "gpt_neox", "qwen3", "gemma2", "gemma3_text", "mixtral", "bloom", "jamba", "mamba",
            "granite", "olmo2", "falcon"]  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_are_vouched_for(kind: str):
    """Grouped heads, parallel blocks, norms after sublayers, mixtures of experts, mixers, multipliers."""
    net = cutaway.open(tiny(kind))
    found = wiring(net)
    assert disagreement(found) < 1e-5
    assert found.graph.writers[0].kind == "input"
    if kind in ("gptj", "gpt_neox"):  # parallel: the MLP does not read its own layer's heads
        assert not found.graph.allowed[found.graph.writer("a1.h0"), found.graph.reader("m1")]
    if kind in ("llama", "gemma2", "mixtral"):
        assert len([r for r in found.graph.readers if r.port == "k" and r.part.layer == 0]) == net.heads(0)
    if kind == "mamba":
        assert {w.kind for w in found.graph.writers[1:]} == {"mixer"}


def test_a_stream_that_is_normed_is_refused_with_the_reason():
    net = cutaway.open(tiny("openai-gpt"))
    with pytest.raises(SiteUnavailable, match="normed between sublayers"):
        wiring(net)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_running(name: str, pairs, request: pytest.FixtureRequest):
    """All edges: the network. None: the other prompt. Nodes edge by edge: nodes. Rows and positions: the shared mask."""
    net = request.getfixturevalue(name)
    found = wiring(net)
    part = pairs.take([0, 2, 4])
    clean, other = part.clean_tokens(net), part.corrupted_tokens(net)
    at = torch.full((3,), -1)
    outputs, logits = record(found, clean, at)
    ablated, there = record(found, other, at)
    shape = found.graph.shape
    draw = torch.Generator().manual_seed(0)

    def run(mask: torch.Tensor, groups: torch.Tensor | None = None) -> torch.Tensor:
        return run_edges(found, clean, at, ablated, Mask(mask, groups))

    assert torch.allclose(run(torch.ones(shape)), logits, atol=1e-9)
    assert torch.allclose(run(torch.zeros(shape)), there, atol=1e-9)
    keep = torch.rand(shape[0], generator=draw) > 0.4
    nodes = run_nodes(found, clean, at, ablated, keep)
    assert torch.allclose(run(keep[:, None].expand(shape)), nodes, atol=1e-9)
    masks = torch.rand(3, *shape, generator=draw) > 0.5
    by_row = run(masks)
    for row in range(3):
        assert torch.allclose(by_row[row], run(masks[row])[row], atol=1e-9)
    groups = torch.arange(clean.width)[None].expand(3, -1)
    by_position = run(masks[0][None].expand(clean.width, -1, -1), groups)
    assert torch.allclose(by_position, run(masks[0]), atol=1e-9)
    assert not torch.allclose(by_position, logits, atol=1e-3)


def test_running_by_hand_on_a_bare_model(pairs):
    """One edge, head 0.1 -> the MLP of layer 1, cut by bare hooks on the bare model."""
    torch.manual_seed(0)
    model = tiny("gpt2").double()
    net = cutaway.open(model)
    found = wiring(net)
    clean, other = (torch.tensor([ids[0]]) for ids in (pairs.clean_ids, pairs.corrupted_ids))
    block, head = model.transformer.h[0], 1
    width = model.config.n_embd // model.config.n_head
    kept: list[torch.Tensor] = []

    def z_of(ids: torch.Tensor) -> torch.Tensor:
        handle = block.attn.c_proj.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone()))
        with torch.no_grad():
            model(ids)
        handle.remove()
        return kept.pop()

    delta = z_of(other) - z_of(clean)
    mine = (
        delta[..., head * width : (head + 1) * width]
        @ block.attn.c_proj.weight[head * width : (head + 1) * width]
    )
    handle = model.transformer.h[1].ln_2.register_forward_pre_hook(lambda _m, args: (args[0] + mine,))
    with torch.no_grad():
        by_hand = model(clean).logits[:, -1]
    handle.remove()
    mask = torch.from_numpy(found.graph.allowed.copy())
    mask[found.graph.edge("a0.h1->m1")] = False
    at = torch.tensor([-1])
    ours = run_edges(found, net.encode(clean), at, record(found, net.encode(other))[0], Mask(mask))
    assert torch.allclose(ours, by_hand, atol=1e-10)
    assert np.abs((ours - record(found, net.encode(clean), at)[1]).numpy()).max() > 1e-6
