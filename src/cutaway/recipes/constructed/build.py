"""From a blueprint to the weights of GPT-2, Llama and GPT-NeoX as transformers has them.

Norms are made harmless by a constant in the stream that is large beside everything else, so that what a norm divides by
is nearly the same everywhere (exact to about one part in a hundred, which every margin allows for). The coordinates of
signals are turned by a random rotation, so that nothing lies along an axis, and so that every signal's entries sum to
zero: a norm that subtracts the mean changes nothing. Heads and MLPs that the blueprint leaves free read everything, write
to scratch coordinates that nothing else than they read: they are active, and have no part in the behaviour.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.network.parts import Part
from cutaway.recipes.constructed.architectures import Architecture, BuiltWeights
from cutaway.recipes.constructed.blueprint import (
    CONTEXT,
    FIRST,
    MINUS,
    ONE,
    WIDTH,
    Blueprint,
    HeadPlan,
    LayerPlan,
    one,
)
from cutaway.recipes.constructed.classes import filled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Neurons of an MLP, unless one of the blueprint needs more.
HEADS, NEURONS = 4, 32
CONSTANT = 64.0
#: Frequencies of the position code of networks that learn positions, in turns per context.
TURNS = (1, 2, 3, 5, 8, 13)
#: Random part of queries and keys of heads that are to attend evenly: scores of some thousandths of a nat.
EVEN = 0.03
#: How much each rotary frequency counts towards an offset: the slow one tells far places apart.
FAST_WEIGHTS = (1.0, 10.0)


def places(blueprint: Blueprint, arch: Architecture) -> dict[str, Part]:
    """Where each named part of a blueprint lies in an architecture.

    >>> from cutaway.recipes.constructed.architectures import GPT2
    >>> from cutaway.recipes.constructed.mechanisms.induction import INDUCTION
    >>> str(places(INDUCTION.plan(), GPT2)["previous"])
    'a0.h1'
    """
    parts: dict[str, Part] = {}
    for index, layer in enumerate(blueprint.laid_out(arch.parallel).layers):
        for head, seat in zip(layer.heads, arch.seats, strict=False):
            parts[head.name] = Part("head", index, seat)
        if layer.mlp is not None:
            parts[layer.mlp.name] = Part("mlp", index)
    return parts


def rotation(seed: int) -> Tensor:
    """[d d] a random rotation of the signal coordinates. The last, which is empty, takes the direction of all ones, so
    that the entries of all others sum to zero.
    """
    size = WIDTH - FIRST
    start = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start[:, 0] = 1.0
    q = torch.linalg.qr(start)[0]
    turn = torch.eye(WIDTH, dtype=torch.float64)
    turn[FIRST:, FIRST:] = q.roll(-1, 1)
    return turn.float()


def position_code(offset: int = 0) -> Tensor:
    """[CONTEXT 2f] cosines and sines of the position minus an offset."""
    at = torch.arange(CONTEXT, dtype=torch.float64)[:, None] - offset
    angle = at * torch.tensor(TURNS, dtype=torch.float64) * (2 * math.pi / CONTEXT)
    return torch.cat([angle.cos(), angle.sin()], 1).float()


def weights(blueprint: Blueprint, arch: Architecture, seed: int = 0) -> BuiltWeights:
    """The dense weights of a blueprint in an architecture.

    `position` is None where the architecture rotates queries and keys instead. Free heads and neurons are drawn from
    the seed.
    """
    plan = blueprint.laid_out(arch.parallel)
    turn = rotation(seed)
    draw = torch.Generator().manual_seed(seed + 1)
    scratch = plan.space.rows("scratch")
    n, neurons = len(plan.layers), plan.neurons(NEURONS)
    q, o = torch.zeros(n, HEADS, arch.width, WIDTH), torch.zeros(n, HEADS, WIDTH, arch.width)
    k, v = (torch.zeros(n, arch.kv_heads, arch.width, WIDTH) for _ in range(2))
    read, write = torch.zeros(n, neurons, WIDTH), torch.zeros(n, WIDTH, neurons)
    signals = _signals()
    for index, layer in enumerate(plan.layers):
        taken = _heads(plan, layer, arch, (q[index], k[index], v[index], o[index]), draw)
        for head in (h for h in range(HEADS) if h not in taken):
            group = head * arch.kv_heads // HEADS
            q[index, head] = _noise(draw, arch.width, WIDTH) * signals
            o[index, head] = (_noise(draw, arch.width, len(scratch)) @ scratch).T
            if all(t * arch.kv_heads // HEADS != group for t in taken):
                k[index, group], v[index, group] = (
                    _noise(draw, arch.width, WIDTH) * signals for _ in range(2)
                )
        read[index] = _noise(draw, neurons, WIDTH) * signals
        write[index] = 0.5 * (_noise(draw, neurons, len(scratch)) @ scratch).T
        if layer.mlp is not None:
            size = len(layer.mlp.read)
            read[index, :size], write[index, :, :size] = layer.mlp.read, layer.mlp.out.T
    embed = plan.embed @ turn.T
    embed[:, ONE] += CONSTANT
    embed[:, MINUS] -= CONSTANT if arch.norm_mean else 0.0
    position = position_code() @ plan.space.rows("position") @ turn.T if arch.positions else None
    scale = CONSTANT * math.sqrt((2 if arch.norm_mean else 1) / WIDTH)
    norm = torch.full((WIDTH,), scale)
    norm[ONE], norm[MINUS] = scale / CONSTANT, 0.0
    return BuiltWeights(
        embed, position, q @ turn.T, k @ turn.T, v @ turn.T,
        turn @ o,
        read @ turn.T, turn @ write,
        plan.unembed @ turn.T, norm,
    )  # fmt: skip


def direction(blueprint: Blueprint, block: str, seed: int = 0) -> Tensor:
    """[size d] the rows that span a block in the turned stream of the built network."""
    return blueprint.space.rows(block) @ rotation(seed).T


def _heads(
    plan: Blueprint,
    layer: LayerPlan,
    arch: Architecture,
    out: tuple[Tensor, Tensor, Tensor, Tensor],
    draw: torch.Generator,
) -> list[int]:
    """Fill in the named heads of a layer; which seats they take."""
    q, k, v, o = out
    taken = []
    for head, seat in zip(layer.heads, arch.seats, strict=False):
        group = seat * arch.kv_heads // HEADS
        assert all(t * arch.kv_heads // HEADS != group for t in taken), "two named heads share keys"
        q[seat], k[group] = _scores(plan, head, arch, draw)
        v[group, : len(head.value)] = head.value
        o[seat, :, : len(head.out)] = head.out.T
        taken.append(seat)
    assert len(taken) == len(layer.heads), "more named heads than seats"
    return taken


def _scores(
    plan: Blueprint, head: HeadPlan, arch: Architecture, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Query and key projections [e d] of a head; transformers divides scores by the root of the head's width.

    Dimensions that are left match at random and weakly: scores of which nothing depends on the tokens could not be
    certified.
    """
    q, k = torch.zeros(arch.width, WIDTH), torch.zeros(arch.width, WIDTH)
    free = list(arch.content)
    if head.offset is not None:
        if arch.positions:
            code = plan.space.rows("position")
            half = len(TURNS)
            dims, free = free[: 2 * half], free[2 * half :]
            angle = torch.tensor(TURNS) * (2 * math.pi / CONTEXT) * head.offset
            cos, sin = code[:half], code[half:]  # cos(a - b) = cos a cos b + sin a sin b
            q[dims[:half]] = head.strength * (cos * angle.cos()[:, None] + sin * angle.sin()[:, None])
            q[dims[half:]] = head.strength * (sin * angle.cos()[:, None] - cos * angle.sin()[:, None])
            k[dims] = code
        for ((a, b), speed), weight in zip(arch.fast, FAST_WEIGHTS, strict=False):
            angle_ = -speed * head.offset
            q[a], q[b] = (head.strength * weight * f(angle_) * one() for f in (math.cos, math.sin))
            k[a] = one()
    if head.match_q is not None and head.match_k is not None:
        size = len(head.match_q)
        assert size <= len(free), f"{head.name} matches {size} rows on {len(free)} dimensions"
        q[free[:size]], k[free[:size]] = head.match_q, head.match_k
        free = free[size:]
    if head.offset is not None or head.match_q is None:
        blur = 1.0 if head.offset is not None else EVEN
        q[free], k[free] = (blur * _noise(draw, len(free), WIDTH) * _signals() for _ in range(2))
    return q * math.sqrt(arch.width), k


def _signals() -> Tensor:
    """[d] one for every coordinate that may be read."""
    signals = torch.ones(WIDTH)
    signals[MINUS] = 0.0
    return signals


def _noise(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw) / math.sqrt(shape[-1])


def model(blueprint: Blueprint, arch: Architecture, seed: int = 0) -> PreTrainedModel:
    """The network, an ordinary model of transformers, in float32."""
    return filled(arch, weights(blueprint, arch, seed), len(blueprint.words))
