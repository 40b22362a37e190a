"""Heads that no projection can be sliced into, and experts: each against bare hooks on the bare model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from tests.circuits.conftest import id_pairs, opened
from tests.circuits.test_attribution import slope
from torch import Tensor, nn

import cutaway
from cutaway.circuits import score, trace, wiring
from cutaway.circuits.graph.reading import HeadReading
from cutaway.circuits.passes.certify import disagreement
from cutaway.circuits.passes.outputs import record
from cutaway.circuits.passes.running import Mask, run_edges
from cutaway.zoo.tiny import tiny

#: Of each kind: the blocks, the attention, what writes m0, and where the channels of queries, keys and values come out.
KINDS: dict[str, tuple[str, str, str, dict[str, tuple[str, slice]]]] = {
    "phi3": (
        "model.layers", "self_attn", "mlp",
        {"q": ("qkv_proj", slice(0, 32)), "k": ("qkv_proj", slice(32, 48)), "v": ("qkv_proj", slice(48, 64))},
    ),
    "falcon": (
        "transformer.h", "self_attention", "mlp",
        {"q": ("query_key_value", slice(0, 32)), "k": ("query_key_value", slice(32, 40)),
         "v": ("query_key_value", slice(40, 48))},
    ),
    "olmo2": (
        "model.layers", "self_attn", "post_feedforward_layernorm",
        {"q": ("q_norm", slice(0, 32)), "k": ("k_norm", slice(0, 16)), "v": ("v_proj", slice(0, 16))},
    ),
}  # fmt: skip
Hook = Callable[..., object]


def run_with(model: nn.Module, ids: Tensor, hooks: list[tuple[nn.Module, str, Hook]]) -> Tensor:
    """Logits of the last token of a bare model under bare hooks."""
    with ExitStack() as stack, torch.no_grad():
        for module, side, hook in hooks:
            add = module.register_forward_pre_hook if side == "in" else module.register_forward_hook
            stack.callback(add(hook, with_kwargs=True).remove)
        return model(ids).logits[:, -1]


def output_of(model: nn.Module, module: nn.Module, ids: Tensor, side: str = "out") -> Tensor:
    """What a module gives (or takes) on these tokens."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple, kwargs: dict, output: Tensor | None = None) -> None:
        value = output if output is not None else args[0] if args else kwargs["hidden_states"]
        kept.append((value[0] if isinstance(value, tuple) else value).clone())

    run_with(model, ids, [(module, side, keep)])
    return kept[0]


@pytest.mark.parametrize("port", ["q", "k", "v"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_edge_into_a_head_by_hand(kind: str, port: str):
    """What MLP 0 writes, exchanged at one input of head 1.2: everything else as it was."""
    torch.manual_seed(0)
    model = tiny(kind).double()
    net = cutaway.open(model)
    assert any(isinstance(s.reading, HeadReading) for s in wiring(net).stages)
    blocks, attention, mlp, ports = KINDS[kind]
    first, second = model.get_submodule(blocks)[0], model.get_submodule(blocks)[1]
    ids, other = torch.tensor([[3, 9, 27, 41, 5, 8]]), torch.tensor([[3, 30, 2, 41, 5, 8]])
    writer = first.get_submodule(mlp)
    delta = output_of(model, writer, other) - output_of(model, writer, ids)
    before = second.input_layernorm if hasattr(second, "input_layernorm") else None
    inner, channels = ports[port]
    module = second.get_submodule(f"{attention}.{inner}")
    output = second.get_submodule(attention).dense if kind == "falcon" else second.self_attn.o_proj

    def shifted(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (args[0] + delta, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + delta}

    kept: list[Tensor] = []
    run_with(
        model, ids,
        [(before or second.get_submodule(attention), "in", shifted), (module, "out", lambda m, a, k, o: kept.append(o))],
    )  # fmt: skip

    def one_port(_module: nn.Module, _args: tuple, _kwargs: dict, out: Tensor) -> Tensor:
        new = out.clone()
        new[..., channels] = kept[0][..., channels]
        return new

    def keep_z(_module: nn.Module, args: tuple, _kwargs: dict) -> None:
        kept.append(args[0].clone())

    run_with(model, ids, [(module, "out", one_port), (output, "in", keep_z)])
    z, width = kept[1], kept[1].shape[-1] // 4

    def one_head(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        new = args[0].clone()
        new[..., 2 * width : 3 * width] = z[..., 2 * width : 3 * width]
        return (new,), kwargs

    by_hand = run_with(model, ids, [(output, "in", one_head)])
    plain = run_with(model, ids, [])
    ours = cut(net, ids, other, f"m0->a1.h2<{port}>")
    assert (by_hand - plain).abs().max() > 1e-5
    assert torch.allclose(ours, by_hand, atol=1e-6)


def cut(net: cutaway.Network, ids: Tensor, other: Tensor, *edges: str) -> Tensor:
    """Logits with some edges out."""
    wired = wiring(net)
    mask = torch.from_numpy(wired.graph.allowed.copy())
    for edge in edges:
        mask[wired.graph.edge(edge)] = False
    ablated, _ = record(wired, net.encode(other))
    return run_edges(wired, net.encode(ids), torch.tensor([-1]), ablated, Mask(mask))


def expert(block: nn.Module, x: Tensor, number: int) -> Tensor:
    """What one expert of a Mixtral adds for what its MLP takes in, from the weights alone."""
    flat = x.reshape(-1, x.shape[-1])
    _, weights, index = block.gate(flat)
    share = (weights * (index == number)).sum(-1, keepdim=True)
    gate, up = (flat @ block.experts.gate_up_proj[number].T).chunk(2, -1)
    hidden = torch.nn.functional.silu(gate) * up
    return (share * (hidden @ block.experts.down_proj[number].T)).reshape(x.shape)


def test_edges_from_and_into_experts_by_hand():
    """What expert 0.1 writes, exchanged at the input of expert 1.2 alone; and head 0.1's, too."""
    torch.manual_seed(0)
    model = tiny("mixtral").double()
    model.set_experts_implementation("eager")  # the other kernels do not know float64
    net = cutaway.open(model)
    ids, other = torch.tensor([[3, 9, 27, 41, 5, 8]]), torch.tensor([[3, 30, 2, 41, 5, 8]])
    first, second = model.model.layers[0], model.model.layers[1]
    for number in range(4):
        with torch.no_grad():
            taken = [output_of(model, first.mlp, i, "in") for i in (ids, other)]
            delta = expert(first.mlp, taken[1], number) - expert(first.mlp, taken[0], number)
            stream = output_of(model, second.post_attention_layernorm, ids, "in")
            norm = second.post_attention_layernorm
            change = expert(second.mlp, norm(stream + delta), 2) - expert(second.mlp, norm(stream), 2)
        by_hand = run_with(model, ids, [(second.mlp, "out", lambda m, a, k, out, c=change: out + c)])
        assert torch.allclose(cut(net, ids, other, f"e0.{number}->e1.2"), by_hand, atol=1e-6)
    assert (by_hand - run_with(model, ids, [])).abs().max() > 1e-9 or not change.any()


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"])
def test_experts_sum_to_their_mlp(kind: str):
    net = cutaway.open(tiny(kind))
    wired = wiring(net)
    experts = [s for s in wired.stages if s.kind == "expert"]
    assert experts, wired.notes
    tokens = net.encode(torch.tensor([[3, 9, 27, 41, 5, 8]]))
    run = net.run(tokens, keep=[s.write for s in experts])
    outputs, logits = record(wired, tokens, torch.tensor([-1]))
    for stage in experts:
        parts = outputs.values[stage.write].unflatten(-1, (stage.heads, -1))
        assert torch.allclose(parts.sum(-2), run[stage.write], atol=1e-5)
    ablated, there = record(wired, net.encode(torch.tensor([[3, 30, 2, 41, 5, 8]])), torch.tensor([-1]))
    for mask, wanted in ((wired.graph.allowed, logits), (wired.graph.allowed & False, there)):
        got = run_edges(wired, tokens, torch.tensor([-1]), ablated, Mask(torch.from_numpy(mask)))
        assert torch.allclose(got, wanted, atol=1e-5 * float(wanted.abs().max()))
    shared = any(p.kind == "mlp" for p in wired.graph.writers)
    assert shared == (kind == "qwen2_moe")  # the shared expert is the layer's own node


@pytest.mark.parametrize("kind", ["phi3", "falcon", "olmo2", "stablelm", "gpt_bigcode", "dbrx"])
def test_heads_of_fused_and_normed_projections(kind: str):
    net = cutaway.open(tiny(kind))
    wired = wiring(net)
    kinds = {p.kind for p in wired.graph.writers}
    assert kinds <= {"input", "head", "mlp", "expert"}, wired.notes
    assert sum(p.kind == "head" for p in wired.graph.writers) == sum(
        net.heads(i) for i in range(net.n_layers)
    )
    assert disagreement(wired) < 1e-5


def doubled(kind: str) -> cutaway.Network:
    torch.manual_seed(0)
    model = tiny(kind).double()
    if "mo" in kind or "mix" in kind:
        model.set_experts_implementation("eager")  # the other kernels do not know float64
    return cutaway.open(model)


@pytest.mark.parametrize("kind", ["phi3", "olmo2", "falcon", "mixtral", "qwen2_moe"])
def test_gradients_are_those_of_the_run(kind: str):
    """EAP's score of edges into heads and experts, against finite differences of the masked run."""
    net, pairs = doubled(kind), id_pairs()
    scores = score(net, pairs, method="eap")
    graph = wiring(net).graph
    scale = np.abs(scores.values).max()
    rng = np.random.default_rng(1)
    places = np.argwhere(graph.allowed)
    for edge in [tuple(int(i) for i in p) for p in places[rng.choice(len(places), 12, replace=False)]]:
        wanted = -slope(net, pairs, 3, edge, eps=1e-3)  # their norms compute in float32
        assert scores.examples[3][edge] == pytest.approx(wanted, abs=5e-3 * scale), graph.edge_name(*edge)


def test_a_traced_circuit_has_experts():
    net, pairs = opened("mixtral", False), id_pairs(lengths=(5,))
    circuit = trace(net, pairs, edges=60)
    assert any(part.startswith("e") for part in circuit.nodes)
    assert "expert" in circuit._repr_html_()
    nodes = score(net, pairs, method="node-patching")
    graph = nodes.graph
    part = pairs.take([1])
    clean, other = (torch.tensor([ids]) for ids in (pairs.clean_ids[1], pairs.corrupted_ids[1]))
    whole = part.metric(cut(net, clean, other), part.answers)
    for name in ("e0.1", "e1.3", "e2.0"):
        edges = [
            graph.edge_name(graph.writer(name), r) for r in np.flatnonzero(graph.allowed[graph.writer(name)])
        ]
        without = part.metric(cut(net, clean, other, *edges), part.answers)
        assert nodes.node_examples[1][graph.writer(name)] == pytest.approx(float(whole - without), abs=1e-5)


@pytest.mark.parametrize(
    "method", ["eap-ig-activations", "relp", "flow", "atp-star", "neurons", "path-patching"]
)
@pytest.mark.parametrize("kind", ["olmo2", "mixtral"])
def test_methods_run_on_them(kind: str, method: str):
    net, pairs = opened(kind, False), id_pairs(n=2, lengths=(5,))
    scores = score(net, pairs, method=method)
    assert np.abs(scores.node_values()).max() > 0
