"""Small transformers with written weights: one variable that is computed and used, one that is computed and never read,
one that the tokens determine and nothing computes.

A prompt is a token of kind A, a token of kind B and a question mark. Token A carries three bits, token B three bits. In the
first layer attention averages the tokens and the MLP writes `used = a xor b` and `unread = c xor d`; the second layer's
MLP reads `used` and decides between the answers yes and no. `e xor f` is nowhere. A xor of two tokens is in no linear
function of the tokens, so only a network that computes it has it. Every seed has its own directions, embeddings and noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

VARIANTS = 6
ANSWERS = {"yes": 1, "no": 2}
QUESTION = 0
_FIRST = 3


@dataclass(frozen=True, eq=False)
class Specimen:
    """The model, prompts [n 3] and the truth: labels [n] of each variable, and the right answer's token."""

    model: GPT2LMHeadModel
    prompts: list[list[int]]
    labels: dict[str, np.ndarray]


def specimen(seed: int, n: int = 240, width: int = 48) -> Specimen:
    """One network and n prompts."""
    draw = torch.Generator().manual_seed(seed)
    model = _model(draw, width, seed)
    rng = np.random.default_rng(seed)
    pairs = rng.choice(8 * VARIANTS * 8 * VARIANTS, size=n, replace=False)
    first, second = pairs // (8 * VARIANTS), pairs % (8 * VARIANTS)
    prompts = [
        [_FIRST + int(a), _FIRST + 8 * VARIANTS + int(b), QUESTION]
        for a, b in zip(first, second, strict=True)
    ]
    bits = [(code // VARIANTS >> i) & 1 for i in range(3) for code in (first, second)]
    labels = {
        "used": bits[0] ^ bits[1], "unread": bits[2] ^ bits[3], "absent": bits[4] ^ bits[5],
        "noise": rng.integers(0, 2, n),
    }  # fmt: skip
    return Specimen(model, prompts, labels)


def _model(draw: torch.Generator, width: int, seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=2, n_embd=width, n_head=2, n_inner=4 * width, vocab_size=_FIRST + 16 * VARIANTS, n_positions=8,
        activation_function="relu", bos_token_id=QUESTION, eos_token_id=QUESTION, tie_word_embeddings=False,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")) else 0.0)
        _write(model, _directions(draw, width), draw)
    return model


def _directions(draw: torch.Generator, width: int) -> Tensor:
    """Orthonormal directions [width-1 width], all orthogonal to the mean that a layer norm takes away."""
    start = torch.cat([torch.ones(width, 1), torch.randn(width, width - 1, generator=draw)], 1)
    q, _ = torch.linalg.qr(start)
    return q.T[1:]


def _write(model: GPT2LMHeadModel, q: Tensor, draw: torch.Generator) -> None:
    bit = q[:6]  # a b c d e f
    used, unread, answer, mark = q[6], q[7], q[8], q[9]
    rest = q[10:]
    width = q.shape[1]
    tokens = 8 * VARIANTS
    embed = torch.zeros_like(model.transformer.wte.weight)
    for kind in range(2):
        for code in range(tokens):
            signs = [2.0 * (code // VARIANTS >> i & 1) - 1 for i in range(3)]
            vector = sum(s * bit[2 * i + kind] for i, s in enumerate(signs))
            noise = torch.randn(len(rest), generator=draw) @ rest
            embed[_FIRST + kind * tokens + code] = 3 * (vector + noise / noise.norm())
    embed[QUESTION] = 2 * mark
    model.transformer.wte.weight.copy_(embed)
    first, second = model.transformer.h
    # uniform attention copies the average of the tokens' normed embeddings
    first.attn.c_attn.weight[:, 2 * width :] = torch.eye(width)
    first.attn.c_proj.weight.copy_(torch.eye(width))
    # each xor needs two neurons: both bits on, both off; what the norm leaves of a bit is measured, not assumed
    size = _bit_size(model, bit)
    for i, (target, pair) in enumerate(((used, (0, 1)), (unread, (2, 3)))):
        for j, sign in enumerate((1.0, -1.0)):
            neuron = 2 * i + j
            first.mlp.c_fc.weight[:, neuron] = sign * (bit[pair[0]] + bit[pair[1]]) / size
            first.mlp.c_fc.bias[neuron] = -1.0
            first.mlp.c_proj.weight[neuron] = -4.0 * target
        first.mlp.c_proj.bias += 2.0 * target
    for j, sign in enumerate((1.0, -1.0)):
        second.mlp.c_fc.weight[:, j] = sign * used
        second.mlp.c_proj.weight[j] = sign * answer
    model.lm_head.weight[ANSWERS["yes"]] = answer
    model.lm_head.weight[ANSWERS["no"]] = -answer
    model.lm_head.weight[_FIRST:] = 0.3 * torch.randn(16 * VARIANTS, len(rest), generator=draw) @ rest


def _bit_size(model: GPT2LMHeadModel, bit: Tensor) -> float:
    """Mean size of a bit in what the first MLP reads."""
    rows = torch.tensor(
        [
            [_FIRST + i, _FIRST + 8 * VARIANTS + (7 * i) % (8 * VARIANTS), QUESTION]
            for i in range(8 * VARIANTS)
        ]
    )
    seen: list[Tensor] = []
    handle = model.transformer.h[0].mlp.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0][:, -1])
    )
    model(rows)
    handle.remove()
    return float((seen[0] @ bit.T).abs().mean())
