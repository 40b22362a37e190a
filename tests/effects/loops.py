"""The naive loop, written with bare PyTorch hooks on the bare model: one forward per cell and example."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.behaviours import Behaviour


def site_module(model: nn.Module, site: str, layer: int) -> tuple[nn.Module, bool]:
    """The module of a site in GPT-2, and whether the site is its input."""
    block = model.transformer.h[layer]  # type: ignore[union-attr, index]
    return {"resid_pre": (block, True), "z": (block.attn.c_proj, True), "mlp_write": (block.mlp, False)}[site]  # type: ignore


def hook(module: nn.Module, on_input: bool, change: Any) -> Any:
    """Register a bare hook that replaces a module's first input or its output by `change(value)`."""
    if on_input:
        return module.register_forward_pre_hook(lambda _m, args: (change(args[0]), *args[1:]))
    return module.register_forward_hook(lambda _m, _args, out: change(out))


def forward(model: nn.Module, ids: tuple[int, ...]) -> Tensor:
    """Logits at the last position."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1]


def score(pairs: Behaviour, row: int, logits: Tensor) -> float:
    return float(logits[pairs.right[row][0]] - logits[pairs.wrong[row][0]])


def metric_of(model: nn.Module, pairs: Behaviour, row: int, side: str) -> float:
    return score(pairs, row, forward(model, getattr(pairs, f"{side}_ids")[row]))


def kept_value(model: nn.Module, ids: tuple[int, ...], site: str, layer: int) -> Tensor:
    """A site's value in an undisturbed run: [1 p .]."""
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.clone())
        return value

    handle = hook(*site_module(model, site, layer), keep)
    forward(model, ids)
    handle.remove()
    return kept[0]


def patched_metric(
    model: nn.Module, pairs: Behaviour, row: int, site: str, direction: str, layer: int,
    position: int | None = None, head: int | None = None,
) -> float:  # fmt: skip
    """Metric of one example with one cell patched."""
    base, source = (
        (pairs.corrupted_ids, pairs.clean_ids)
        if direction == "restore"
        else (pairs.clean_ids, pairs.corrupted_ids)
    )
    new = kept_value(model, source[row], site, layer)
    width = model.config.n_embd // model.config.n_head  # type: ignore[union-attr, operator]
    where = slice(None) if position is None else position
    which = slice(None) if head is None else slice(head * width, (head + 1) * width)

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, where, which] = new[:, where, which]
        return value

    handle = hook(*site_module(model, site, layer), change)
    logits = forward(model, base[row])
    handle.remove()
    return score(pairs, row, logits)


def id_behaviour(
    lengths: tuple[int, ...] = (6, 6, 8, 8, 6, 8, 6, 8), shorter: int = 0, seed: int = 0
) -> Behaviour:
    """Pairs that differ at position 2 (and, where `shorter`, lack so many tokens at the end of the corrupted prompt)."""
    rng = np.random.default_rng(seed)
    clean = [tuple(int(t) for t in rng.integers(1, 97, size)) for size in lengths]
    corrupted = [(*ids[:2], (ids[2] + 7) % 97, *ids[3 : len(ids) - shorter]) for ids in clean]
    return Behaviour(
        name="ids",
        clean=tuple(map(str, clean)),
        corrupted=tuple(map(str, corrupted)),
        clean_ids=tuple(clean),
        corrupted_ids=tuple(corrupted),
        right=tuple((int(t),) for t in rng.integers(1, 40, len(lengths))),
        wrong=tuple((int(t),) for t in rng.integers(41, 97, len(lengths))),
        template=tuple(f"length {size}" for size in lengths),
    )
