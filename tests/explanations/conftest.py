"""A GPT-2 whose mechanism was written by hand: one head moves the name from position 1 to the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.network import Network
from cutaway.network.parts import Part

LAYER, HEAD = 1, 3
MOVER = Part("head", LAYER, HEAD)
_WIDTH, _HEADS, _NAMES, _FILLERS, _LENGTH = 64, 8, 8, 8, 5


def written_gpt2() -> GPT2LMHeadModel:
    """Names lie in dimensions 0-7, positions in 32-55, answers in 56-63; head 1.3 copies 0-7 of position 1 to 56-63."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=4, n_embd=_WIDTH, n_head=_HEADS, vocab_size=40, n_positions=32, tie_word_embeddings=False, bos_token_id=0,
        eos_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.25)
        body = model.transformer
        body.wte.weight[1 : 1 + _NAMES, :_NAMES] += 2 * torch.eye(_NAMES)
        body.wte.weight[20 : 20 + _FILLERS, 8 : 8 + _FILLERS] += 2 * torch.eye(_FILLERS)
        body.wpe.weight[:8, 32:40] += 2 * torch.eye(8)
        width = _WIDTH // _HEADS
        attention, first = body.h[LAYER].attn, HEAD * width
        attention.c_attn.weight[32 + _LENGTH - 1, first] += 8.0
        attention.c_attn.weight[32 + 1, _WIDTH + first] += 8.0
        attention.c_attn.weight[:_NAMES, 2 * _WIDTH + first : 2 * _WIDTH + first + width] += torch.eye(_NAMES)
        attention.c_proj.weight[first : first + width, 56:] += 2 * torch.eye(_NAMES)
        model.lm_head.weight[10 : 10 + _NAMES, 56:] += 2 * torch.eye(_NAMES)
    return model


def name_pairs(n: int = 48, seed: int = 0) -> Behaviour:
    """[BOS, name, filler, filler, filler] -> the name's answer token; corrupted: another name."""
    rng = np.random.default_rng(seed)
    clean, corrupted, right, wrong, template = [], [], [], [], []
    for row in range(n):
        name, other = (int(i) for i in rng.choice(_NAMES, 2, replace=False))
        rest = [20 + row % _FILLERS, *(int(20 + i) for i in rng.integers(0, _FILLERS, 2))]
        clean.append((0, 1 + name, *rest))
        corrupted.append((0, 1 + other, *rest))
        right.append((10 + name,))
        wrong.append((10 + other,))
        template.append(f"filler {row % _FILLERS}")
    return Behaviour(
        name="name recall", clean=tuple(map(str, clean)), corrupted=tuple(map(str, corrupted)), clean_ids=tuple(clean),
        corrupted_ids=tuple(corrupted), right=tuple(right), wrong=tuple(wrong), template=tuple(template),
    )  # fmt: skip


@pytest.fixture(scope="session")
def written() -> Network:
    return cutaway.open(written_gpt2())


@pytest.fixture(scope="session")
def names() -> Behaviour:
    return name_pairs()


@pytest.fixture(scope="session")
def mover() -> Part:
    return MOVER


@pytest.fixture(scope="session")
def explanation(written: Network, names: Behaviour) -> cutaway.Explanation:
    return cutaway.explain(written, names, seed=0, command="cutaway explain written --behaviour names")
