"""Modular addition by Fourier features: sums of cosines, turned to cosines of the sum by rectified neurons.

With theta = w (a + b) / 2, cos(wa + f) + cos(wb + f) = 2 cos(w (a - b) / 2) cos(theta + f); the second harmonic of its
rectification, picked out over phases f, is |2 cos(w (a - b) / 2)| cos(w (a + b)) up to a factor. Nanda et al. 2023,
Progress Measures for Grokking; Zhong et al. 2023, The Clock and the Pizza.
"""

from __future__ import annotations

import math

import torch

from cutaway.recipes.constructed.architectures import Architecture
from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, one
from cutaway.recipes.constructed.build import direction
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import SHARP
from cutaway.recipes.sums import sums
from cutaway.zoo.truth import Feature

P = 13
#: Of the sets of four frequencies the one whose smallest margin between right and wrong sums is largest.
FREQUENCIES = (1, 2, 3, 5)
PHASES = 8
_WIDE = 2 * len(FREQUENCIES)
_SPACE = Space({"position": 12, "flag": 3, "number": _WIDE, "both": _WIDE, "sum": _WIDE})
_WORDS = ("BOS", *map(str, range(P)), "=")
EQUALS = P + 1


def waves() -> torch.Tensor:
    """[P 2f] cosines and sines of every number at every frequency."""
    angle = torch.arange(P)[:, None] * torch.tensor(FREQUENCIES) * (2 * math.pi / P)
    return torch.cat([angle.cos(), angle.sin()], 1)


def _plan() -> Blueprint:
    number, both, total = (_SPACE.rows(b) for b in ("number", "both", "sum"))
    start, equals, is_number = _SPACE.rows("flag")
    embed = torch.zeros(len(_WORDS), number.shape[1])
    embed[0], embed[EQUALS] = start, equals
    embed[1 : P + 1] = waves() @ number + is_number
    head = HeadPlan("gather", number, 2 * both, SHARP * one()[None], is_number[None])
    read, out = [], []
    half = len(FREQUENCIES)
    for f in range(half):
        for j in range(PHASES):
            phase = 2 * math.pi * j / PHASES
            read.append(math.cos(phase) * both[f] - math.sin(phase) * both[half + f])
            out.append(0.5 * (math.cos(2 * phase) * total[f] - math.sin(2 * phase) * total[half + f]))
    unembed = -8.0 * one()[None].repeat(len(_WORDS), 1)
    unembed[1 : P + 1] = 8.0 * waves() @ total
    mlp = MlpPlan("multiply", torch.stack(read), torch.stack(out))
    return Blueprint(_SPACE, _WORDS, embed, (LayerPlan((head,), mlp),), unembed)


def _features(_arch: Architecture, seed: int) -> tuple[Feature, ...]:
    rows = direction(_plan(), "number", seed).tolist()
    names = [f"{wave} {f}" for wave in ("cos", "sin") for f in FREQUENCIES]
    return tuple(
        Feature(name, f"{name[:3]}(2 pi {name[4:]} n / {P}) of a number n", "resid_pre.0", tuple(row))
        for name, row in zip(names, rows, strict=True)
    )


MODULAR = Design(
    "fourier-addition",
    f"Adds two numbers modulo {P}.",
    f"Numbers are embedded as cosines and sines at {len(FREQUENCIES)} frequencies; a head adds those of both numbers; "
    "rectified neurons at eight phases turn the sums of cosines into cosines of the sum; the readout compares these "
    "with every number.",
    _plan,
    sums(_WORDS, P, 1),
    (("input", "gather", "v"), ("gather", "multiply", ""), ("multiply", "logits", "")),
    (
        Held("a", "the first number", "number", "input", "a", P),
        Held("b", "the second number", "number", "input", "b", P),
        Held("sum", "a + b, as cosines and sines", "sum", "multiply", "last", P),
    ),
    tuple(range(1, P + 1)),
    {"without": ("No neurons: sums of cosines stay sums of cosines.", lambda b: b.without("multiply"))},
    features=_features,
    facts={"key_frequencies": list(FREQUENCIES), "modulus": P},
    sources=(
        "Nanda et al. 2023, Progress Measures for Grokking",
        "Zhong et al. 2023, The Clock and the Pizza",
    ),
)
