"""What constructed languages of twelve letters share: blocks of the stream, embedding, readout, sharpness."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway.recipes.constructed.blueprint import Space, one

#: Letters of the alphabet (a head of 16 has room to match twelve); ids 1 to 12.
N = 12
LETTERS = list(range(1, N + 1))
#: Attention score of a match, in nats; a sink has half of it.
SHARP = 40.0


def alphabet_space(*blocks: str) -> Space:
    """Position code, flags of special words, token and output, and further blocks of one coordinate per letter."""
    return Space({"position": 12, "flag": 3, "token": N, "out": N} | dict.fromkeys(blocks, N))


def alphabet_embed(space: Space, words: Sequence[str]) -> Tensor:
    """[v d] letters (ids 1 to 12) in their block, other words as flags: the first word is flag 0, and so on."""
    flags = [i for i in range(len(words)) if i not in LETTERS]
    embed = torch.zeros(len(words), space.rows("token").shape[1])
    embed[LETTERS] = space.rows("token")
    for flag, word in enumerate(flags):
        embed[word] = space.unit("flag", flag)
    return embed


def readout(space: Space, words: Sequence[str], gain: float = 3.0) -> Tensor:
    """[v d] each letter's logit is its coordinate of the output, times the gain; other words get a low one."""
    unembed = -gain * one()[None].repeat(len(words), 1)
    unembed[LETTERS] = gain * space.rows("out")
    return unembed


def verdict_readout(space: Space, words: Sequence[str], yes: str, no: str, gain: float = 6.0) -> Tensor:
    """[v d] `yes` where the coordinate "verdict" is 1, `no` where it is 0; other words stay far below."""
    unembed = -2 * gain * one()[None].repeat(len(words), 1)
    tilt = gain * (2 * space.unit("verdict") - one())
    unembed[words.index(yes)], unembed[words.index(no)] = tilt, -tilt
    return unembed


def step(row: Tensor, at: float, steep: float, out: Tensor) -> tuple[Tensor, Tensor]:
    """Two neurons, read [2 d] and out [2 d], that write `out` [d] once where row x is above `at`, and nothing below.

    Between `at` and `at + 1 / steep` the step rises in a line.
    """
    read = torch.stack([steep * (row - at * one()), steep * (row - at * one()) - one()])
    return read, torch.stack([out, -out])
