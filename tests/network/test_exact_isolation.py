"""Runs leave nothing behind: other networks, the bare model, hooks, configuration and modes are as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cutaway
from cutaway.interventions import Ablate, Add, Apply, Patch, Scale
from cutaway.network.network import Network
from cutaway.zoo.tiny import example_input, tiny

KINDS = ["gpt2", "llama", "gemma2", "bloom", "jamba", "bert"]


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that a run must leave alone: hooks, modes, gradients, configurations."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        state[name] = (
            [list(h) for h in hooks],
            module.training,
            sorted(k for k in module.__dict__ if not k.startswith("_")),
            {n: (id(p), p.requires_grad, p.grad is None) for n, p in module.named_parameters(recurse=False)},
            id(getattr(module, "config", None)),
        )
    state["configuration"] = {
        id(m.config): (m.config.to_dict(), m.config._attn_implementation)
        for m in model.modules()
        if hasattr(m, "config")
    }
    state["forward"] = model.forward
    return state


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """A bare model of each kind."""
    return tiny(request.param)


@pytest.fixture
def inputs(model: nn.Module) -> dict[str, Any]:
    """Its input."""
    return {"input_ids": example_input(model)["input_ids"]}


def _logits(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def _busy_run(net: Network, inputs: dict[str, Any], fn: Callable[..., Any] | None = None) -> Tensor:
    """A run that reads and writes in every way: stream, heads, pattern, neurons."""
    layer = net.layers_with("z")[0]
    edits: list[Any] = [
        Scale("resid_pre", 1.1, layer=layer),
        Ablate("z", "zero", layer=layer, head=0),
        Scale("pattern", 0.9, layer=layer),
    ]
    if fn is not None:
        edits.append(Apply("attn_out", fn, layer=layer))
    return net.run(inputs, keep=["resid_post", "z", "pattern", "q"], edits=edits).logits


def test_opening_running_and_closing_leave_the_model_as_it_was(
    model: nn.Module, inputs: dict[str, Any]
) -> None:
    plain, state = _logits(model, inputs), _state(model)
    net = cutaway.open(model)
    assert _state(model) == state
    _busy_run(net, inputs)
    assert _state(model) == state
    assert torch.equal(_logits(model, inputs), plain)
    net.close()
    assert _state(model) == state
    assert torch.equal(_logits(model, inputs), plain)


def test_an_error_inside_an_edit_leaves_the_model_as_it_was(model: nn.Module, inputs: dict[str, Any]) -> None:
    plain, state = _logits(model, inputs), _state(model)
    net = cutaway.open(model)

    def fail(*_: Any) -> Tensor:
        raise RuntimeError("thrown on purpose")

    with pytest.raises(RuntimeError, match="thrown on purpose"):
        _busy_run(net, inputs, fail)
    assert _state(model) == state
    assert torch.equal(_logits(model, inputs), plain)
    assert torch.equal(net.run(inputs).logits, plain)


def test_an_error_inside_an_editing_context_leaves_nothing(model: nn.Module, inputs: dict[str, Any]) -> None:
    plain, state = _logits(model, inputs), _state(model)
    net = cutaway.open(model)

    def interrupted() -> None:
        with net.edit(Scale("resid_pre", 0.0, layer=1)):
            assert not torch.allclose(net.run(inputs).logits, plain)
            raise KeyError("thrown on purpose")

    with pytest.raises(KeyError):
        interrupted()
    assert torch.equal(net.run(inputs).logits, plain)
    assert _state(model) == state


def test_another_network_of_the_same_class_is_untouched_while_one_runs(
    model: nn.Module, inputs: dict[str, Any]
) -> None:
    other = tiny(model.config.model_type, seed=1)
    theirs, state = _logits(other, inputs), _state(other)
    seen: list[bool] = []
    net = cutaway.open(model)

    def meanwhile(value: Tensor, *_: Any) -> Tensor:
        seen.extend([torch.equal(_logits(other, inputs), theirs), _state(other) == state])
        return value

    _busy_run(net, inputs, meanwhile)
    assert seen == [True, True]
    assert torch.equal(_logits(other, inputs), theirs)


def test_two_opened_networks_run_inside_each_other(model: nn.Module, inputs: dict[str, Any]) -> None:
    first, second = cutaway.open(model), cutaway.open(tiny(model.config.model_type, seed=1))
    alone = _busy_run(second, inputs)
    expected = _busy_run(first, inputs)
    inner: list[Tensor] = []

    def meanwhile(value: Tensor, *_: Any) -> Tensor:
        inner.append(_busy_run(second, inputs))
        return value

    assert torch.equal(_busy_run(first, inputs, meanwhile), expected)
    assert torch.equal(inner[0], alone)


def test_a_network_runs_inside_itself(model: nn.Module, inputs: dict[str, Any]) -> None:
    net = cutaway.open(model)
    plain, expected = net.run(inputs).logits, _busy_run(net, inputs)
    inner: list[Tensor] = []

    def meanwhile(value: Tensor, *_: Any) -> Tensor:
        inner.append(net.run(inputs).logits)
        return value

    outer = _busy_run(net, inputs, meanwhile)
    assert torch.equal(outer, expected)
    torch.testing.assert_close(inner[0], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_a_model_that_shares_the_configuration_is_not_edited(kind: str) -> None:
    model = tiny(kind)
    other = type(model)(model.config).eval()
    inputs = {"input_ids": example_input(model)["input_ids"]}
    theirs = _logits(other, inputs)
    seen: list[Tensor] = []
    net = cutaway.open(model)

    def meanwhile(value: Tensor, *_: Any) -> Tensor:
        seen.append(_logits(other, inputs))
        return value

    _busy_run(net, inputs, meanwhile)
    torch.testing.assert_close(seen[0], theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(_logits(other, inputs), theirs)
    net.close()
    assert torch.equal(_logits(other, inputs), theirs)


def test_the_users_own_hooks_survive_and_fire_once(model: nn.Module, inputs: dict[str, Any]) -> None:
    calls: list[str] = []
    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
    layers[0].register_forward_hook(lambda *_: calls.append("after"))
    layers[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    state = _state(model)
    net = cutaway.open(model)
    calls.clear()
    net.run(inputs, keep=["resid_pre", "resid_post"], edits=[Scale("resid_pre", 1.0, layer=0)])
    assert calls == ["before", "after"]
    net.close()
    assert _state(model) == state
    calls.clear()
    _logits(model, inputs)
    assert calls == ["before", "after"]


def test_a_users_hook_that_changes_the_model_is_part_of_the_model() -> None:
    model = tiny("gpt2")
    inputs = {"input_ids": example_input(model)["input_ids"]}
    model.transformer.h[1].mlp.register_forward_hook(lambda _m, _a, out: out * 0.5)
    net = cutaway.open(model)
    assert torch.equal(net.run(inputs).logits, _logits(model, inputs))
    run = net.run(inputs, keep=["mlp_out.1", "resid_mid.1", "resid_post.1"])
    torch.testing.assert_close(
        run["resid_mid", 1] + run["mlp_out", 1], run["resid_post", 1], rtol=1e-5, atol=1e-5
    )


def test_training_mode_and_frozen_parameters_are_kept() -> None:
    model = tiny("gpt2")
    model.train()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    state = _state(model)
    net = cutaway.open(model)
    net.run({"input_ids": example_input(model)["input_ids"]}, keep=["z"])
    assert _state(model) == state


def test_runs_without_grad_build_no_graph(model: nn.Module, inputs: dict[str, Any]) -> None:
    net = cutaway.open(model)
    run = net.run(inputs, keep=["resid_post"])
    assert not run.logits.requires_grad
    assert not any(value.requires_grad for value in run.kept.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "bert", "mixtral"])
def test_gradients_through_an_edit_equal_those_by_hand(kind: str) -> None:
    model, bare = tiny(kind), tiny(kind)
    ids = example_input(model)["input_ids"]
    layers = {"gpt2": "transformer.h", "bert": "bert.encoder.layer"}.get(kind, "model.layers")
    width = ids.new_zeros(2, 7, 32).float()
    vector = torch.randn(width.shape, generator=torch.Generator().manual_seed(0))

    ours = vector.clone().requires_grad_()
    run = cutaway.open(model).run({"input_ids": ids}, edits=[Patch("resid_pre.1", ours, pos=2)], grad=True)
    run.logits.square().sum().backward()

    hand = vector.clone().requires_grad_()

    def put(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        old = args[0] if args else kwargs["hidden_states"]
        new = torch.cat([old[:, :2], hand[:, 2:3], old[:, 3:]], 1)
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    handle = bare.get_submodule(layers)[1].register_forward_pre_hook(put, with_kwargs=True)  # type: ignore[index]
    bare(input_ids=ids).logits.square().sum().backward()
    handle.remove()
    assert ours.grad is not None
    assert hand.grad is not None
    torch.testing.assert_close(ours.grad, hand.grad, rtol=1e-5, atol=1e-5 * float(hand.grad.abs().max()))
    assert float(hand.grad[:, 2].abs().max()) > 0
    assert float(ours.grad[:, 3:].abs().max()) == 0


def test_gradients_reach_what_was_kept() -> None:
    model, bare = tiny("llama"), tiny("llama")
    ids = example_input(model)["input_ids"]
    run = cutaway.open(model).run({"input_ids": ids}, keep=["z.1", "resid_pre.1"], grad=True)
    grads = torch.autograd.grad(run.logits[:, -1].logsumexp(-1).sum(), [run["z", 1], run["resid_pre", 1]])
    seen: list[Tensor] = []
    layer = bare.model.layers[1]
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0])),
        layer.register_forward_pre_hook(lambda _m, args: seen.insert(0, args[0])),
    ]
    logits = bare(input_ids=ids).logits
    for handle in handles:
        handle.remove()
    hands = torch.autograd.grad(logits[:, -1].logsumexp(-1).sum(), [seen[1], seen[0]])
    torch.testing.assert_close(grads[0].flatten(2), hands[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grads[1], hands[1], rtol=1e-5, atol=1e-7)


ROWS = [[5, 9, 17, 23, 31, 40, 44], [6, 11, 19, 37], [8, 21]]


@pytest.fixture(params=["gpt2", "llama", "gemma2", "bloom", "falcon", "opt", "qwen3_next"])
def ragged(request: pytest.FixtureRequest) -> tuple[nn.Module, Network]:
    """A bare model and a network with the same weights, to be run on rows of unequal length."""
    kind = request.param
    return tiny(kind), cutaway.open(tiny(kind))


def _alone(bare: nn.Module, row: list[int], layer_edit: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Logits [p v] of the bare model on one row without padding, its layer 1 given an edited stream."""
    layers = next(m for m in bare.modules() if isinstance(m, nn.ModuleList))

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if layer_edit is None:
            return None
        if args:
            return (layer_edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": layer_edit(kwargs["hidden_states"])}

    handle = layers[1].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.no_grad():
            return bare(input_ids=torch.tensor([row])).logits[0]
    finally:
        handle.remove()


@pytest.mark.parametrize("pos", [0, 1, -1, -2])
def test_positions_in_padded_rows_are_those_of_the_row_alone(
    ragged: tuple[nn.Module, Network], pos: int
) -> None:
    bare, net = ragged
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3
    tokens = net.encode(ROWS)
    logits = net.run(tokens, edits=[Add("resid_pre", vector, layer=1, pos=pos)]).logits
    for i, row in enumerate(ROWS):

        def push(stream: Tensor) -> Tensor:
            out = stream.clone()
            out[:, pos] += vector
            return out

        hands = _alone(bare, row, push)
        columns = slice(int(tokens.first[i]), int(tokens.first[i]) + len(row))
        scale = float(hands.abs().max())
        torch.testing.assert_close(logits[i, columns], hands, rtol=1e-4, atol=2e-5 * scale)


def test_a_position_for_each_row(ragged: tuple[nn.Module, Network]) -> None:
    bare, net = ragged
    where = torch.tensor([[5], [2], [1]])
    tokens = net.encode(ROWS)
    logits = net.run(tokens, edits=[Scale("resid_pre", 0.0, layer=1, pos=where)]).logits
    for i, row in enumerate(ROWS):

        def erase(stream: Tensor, at: int = int(where[i, 0])) -> Tensor:
            out = stream.clone()
            out[:, at] = 0
            return out

        hands = _alone(bare, row, erase)
        columns = slice(int(tokens.first[i]), int(tokens.first[i]) + len(row))
        torch.testing.assert_close(logits[i, columns], hands, rtol=1e-4, atol=2e-5 * float(hands.abs().max()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_gives_the_numbers_of_no_padding(
    ragged: tuple[nn.Module, Network], side: str
) -> None:
    bare, net = ragged
    tokens = net.encode(ROWS)
    tokens = tokens.padded_left() if side == "left" else tokens
    run = net.run(tokens, keep=["resid_post"])
    for i, row in enumerate(ROWS):
        hands = _alone(bare, row)
        columns = slice(int(tokens.first[i]), int(tokens.first[i]) + len(row))
        torch.testing.assert_close(
            run.logits[i, columns], hands, rtol=1e-4, atol=2e-5 * float(hands.abs().max())
        )
