"""Small networks of the GPT-2 class, drawn from a seed, and the effect of resampling their heads and MLPs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from cutaway.interventions import Patch
from cutaway.network import Run
from cutaway.network.opening import open_network
from cutaway.network.parts import Part, parts_of
from cutaway.zoo.tasks import TaskPair


def build(
    vocabulary: int, context: int, layers: int, width: int, heads: int, neurons: int, seed: int, spread: float = 0.02
) -> GPT2LMHeadModel:  # fmt: skip
    """An untrained network with rectified neurons and no dropout; token 0 begins and ends a text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=vocabulary, n_positions=context, n_embd=width, n_layer=layers, n_head=heads, n_inner=neurons,
            activation_function="relu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
            bos_token_id=0, eos_token_id=0, initializer_range=spread,
        )  # fmt: skip
        return GPT2LMHeadModel(config)


def empty_mlps(model: GPT2LMHeadModel, size: float = 1e-3) -> None:
    """Make the MLPs as good as absent, for good: frozen, with outputs a thousandth of what they would be.

    Nothing at all would be cleaner, but a place where writing changes nothing cannot be certified.
    """
    for block in model.transformer.h:
        mlp: Any = block.mlp
        with torch.no_grad():
            mlp.c_proj.weight.mul_(size)
        mlp.requires_grad_(False)


def resampling_effects(model: GPT2LMHeadModel, pairs: Sequence[TaskPair]) -> dict[Part, float]:
    """For every head and MLP the share of the logit difference that goes when it takes its corrupted values."""
    net = open_network(model)
    parts = parts_of(net)
    groups: dict[int, list[TaskPair]] = {}
    for pair in pairs:
        groups.setdefault(len(pair.clean), []).append(pair)
    change = dict.fromkeys(parts, 0.0)
    gap = 0.0
    for some in groups.values():
        clean, corrupted = (torch.tensor([getattr(p, side) for p in some]) for side in ("clean", "corrupted"))
        source = net.run(corrupted, keep=sorted({str(part.site) for part in parts}))
        base = _differences(net.run(clean), some)
        gap += float((base - _differences(source, some)).sum())
        for part in parts:
            head = part.index if part.kind == "head" else None
            assert part.site is not None
            changed = net.run(clean, edits=Patch(part.site, source, head=head))
            change[part] += float((base - _differences(changed, some)).sum())
    return {part: value / gap for part, value in change.items()}


def _differences(run: Run, pairs: Sequence[TaskPair]) -> Tensor:
    """[n] logit of the first right answer minus that of the first wrong one, where each pair is answered."""
    assert run.logits is not None
    rows = torch.arange(len(pairs))
    at, right, wrong = (
        torch.tensor(column)
        for column in zip(
            *((p.answer_pos % len(p.clean), p.right[0], p.wrong[0]) for p in pairs), strict=True
        )
    )
    return run.logits[rows, at, right] - run.logits[rows, at, wrong]
