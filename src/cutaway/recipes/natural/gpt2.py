"""Small networks of the GPT-2 class, drawn from a seed, and the effect of resampling their heads and MLPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from cutaway.zoo.tasks import Pair
from cutaway.zoo.truth import Node


def build(
    vocabulary: int,
    context: int,
    layers: int,
    width: int,
    heads: int,
    neurons: int,
    seed: int,
    spread: float = 0.02,
) -> GPT2LMHeadModel:
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


def logits_at(model: Any, ids: Tensor, at: Tensor) -> Tensor:
    """[n v] logits of rows [n p] at one position of each [n]."""
    states = model.transformer(input_ids=ids).last_hidden_state
    return model.lm_head(states[torch.arange(len(ids)), at])


@contextmanager
def _values(model: GPT2LMHeadModel, node: Node, source: Tensor | None) -> Iterator[list[Tensor]]:
    """Note what a head or an MLP gives ([n p e] or [n p d]); with a source, give that instead."""
    block: Any = model.transformer.h[node.layer]
    seen: list[Tensor] = []

    def head(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        width = args[0].shape[-1] // model.config.n_head
        part = slice(node.head * width, (node.head + 1) * width)
        seen.append(args[0][..., part].clone())
        if source is None:
            return args
        changed = args[0].clone()
        changed[..., part] = source
        return (changed, *args[1:])

    def mlp(module: Any, args: Any, output: Tensor) -> Tensor:
        seen.append(output.clone())
        return output if source is None else source

    handle = (
        block.attn.c_proj.register_forward_pre_hook(head)
        if node.kind == "head"
        else block.mlp.register_forward_hook(mlp)
    )
    try:
        yield seen
    finally:
        handle.remove()


def resampling_effects(model: GPT2LMHeadModel, pairs: Sequence[Pair]) -> dict[Node, float]:
    """For every head and MLP the share of the logit difference that goes when it takes its corrupted values."""
    nodes = [
        node
        for layer in range(model.config.n_layer)
        for node in (*(Node("head", layer, h) for h in range(model.config.n_head)), Node("mlp", layer))
    ]
    groups: dict[int, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(len(pair.clean), []).append(pair)
    change = dict.fromkeys(nodes, 0.0)
    gap = 0.0
    with torch.no_grad():
        for some in groups.values():
            clean, corrupted = (
                torch.tensor([getattr(p, side) for p in some]) for side in ("clean", "corrupted")
            )
            at = torch.tensor([p.answer_pos % len(p.clean) for p in some])
            base = _difference(model, clean, at, some)
            gap += float((base - _difference(model, corrupted, at, some)).sum())
            for node in nodes:
                with _values(model, node, None) as seen:
                    logits_at(model, corrupted, at)
                with _values(model, node, seen[0]):
                    change[node] += float((base - _difference(model, clean, at, some)).sum())
    return {node: value / gap for node, value in change.items()}


def _difference(model: Any, ids: Tensor, at: Tensor, pairs: Sequence[Pair]) -> Tensor:
    logits = logits_at(model, ids, at)
    right = torch.tensor([p.right[0] for p in pairs])[:, None]
    wrong = torch.tensor([p.wrong[0] for p in pairs])[:, None]
    return (logits.gather(1, right) - logits.gather(1, wrong))[:, 0]
