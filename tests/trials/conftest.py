"""Counting forwards from outside, with hooks of torch alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.nn.modules import module as hooks

from cutaway.network import Network


class Counter:
    """What was run: rows x positions handed to layers; multiply-adds of the linear maps inside them."""

    def __init__(self, net: Network) -> None:
        stacks = [m for m in net.model.modules() if isinstance(m, torch.nn.ModuleList)]
        self.kind, self.whole = type(stacks[0][0]), type(net.model)
        maps = [
            m for layer in stacks[0] for m in layer.modules() if hasattr(m, "weight") and m.weight.ndim == 2
        ]
        self.per_token = sum(m.weight.numel() for m in maps)
        self.shapes = {type(m) for m in maps}
        self.inside: dict[
            int, torch.nn.Module
        ] = {}  # kept, so that no other module gets the id of one that is gone
        self.layers = self.linear = 0


@contextmanager
def counting(net: Network, ends: dict[tuple[tuple[int, ...], ...], int] | None = None) -> Iterator[Counter]:
    """While active, everything that runs is counted, on any network of the same class.

    ends: token ids of all prompts -> how often they were run whole, without edits, on this network. An edit is told by the
    hooks that change what a module gives: the logits are then not the model's own.
    """
    counter = Counter(net)

    def before(module: torch.nn.Module, args: tuple[object, ...]) -> None:
        value = args[0] if args else None
        if isinstance(module, counter.kind):
            counter.inside |= {id(m): m for m in module.modules() if type(m) in counter.shapes}
            if torch.is_tensor(value):
                counter.layers += value.shape[0] * value.shape[1]
        elif id(module) in counter.inside and torch.is_tensor(value):
            counter.linear += value.numel() // value.shape[-1] * module.weight.numel()

    call = torch.nn.Module.__call__

    def called(self, *args, **kwargs):
        out = call(self, *args, **kwargs)
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ends is not None and self is net.model and torch.is_tensor(ids) and not torch.is_grad_enabled():
            mask = kwargs.get("attention_mask")
            real = torch.ones_like(ids) if mask is None or mask.shape != ids.shape else mask
            rows = tuple(tuple(r[m.bool()].tolist()) for r, m in zip(ids, real, strict=True))
            if rows in ends and _unedited(self, call, kwargs, out):
                ends[rows] += 1
        return out

    def _unedited(model, call, kwargs, out) -> bool:
        past = kwargs.get("past_key_values")
        fresh = {k: v for k, v in kwargs.items() if k not in ("past_key_values", "use_cache")}
        if past is not None and kwargs["input_ids"].shape[1] != past.get_seq_length():
            return False
        saved = [(m, m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
        counts = counter.layers, counter.linear
        for m, _, _ in saved:
            m._forward_hooks, m._forward_pre_hooks = type(m._forward_hooks)(), type(m._forward_pre_hooks)()
        try:
            bare = call(model, **fresh, use_cache=False).logits
        finally:
            for m, after, pre in saved:
                m._forward_hooks, m._forward_pre_hooks = after, pre
            counter.layers, counter.linear = counts
        return bool(torch.allclose(bare, out.logits, atol=1e-4, rtol=1e-4))

    handle = hooks.register_module_forward_pre_hook(before)
    torch.nn.Module.__call__ = called
    try:
        yield counter
    finally:
        torch.nn.Module.__call__ = call
        handle.remove()


@pytest.fixture
def count_rows():
    return counting
