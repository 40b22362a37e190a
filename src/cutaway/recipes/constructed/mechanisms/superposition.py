"""Five features in two dimensions, at the corners of a pentagon (Elhage et al. 2022, Toy Models of Superposition)."""

from __future__ import annotations

import math

import numpy as np
import torch

from cutaway.recipes.constructed.architectures import Architecture
from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, one
from cutaway.recipes.constructed.build import direction
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import SHARP
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at
from cutaway.zoo.truth import Feature, GroundTruth

F = 5
_NAMES = ("red", "green", "blue", "gold", "grey")
_FILLERS = ("the", "of", "and")
_WORDS = ("BOS", *_NAMES, *_FILLERS, "?", *(f"is-{name}" for name in _NAMES))
_SPACE = Space({"position": 12, "flag": 6, "plane": 2, "seen": 2, "out": F})
QUERY, FIRST_FILLER, FIRST_ANSWER = 1 + F + len(_FILLERS), 1 + F, 2 + F + len(_FILLERS)


def corners() -> torch.Tensor:
    """[5 2] the corners of a pentagon."""
    angle = torch.arange(F) * (2 * math.pi / F)
    return torch.stack([angle.cos(), angle.sin()], 1)


def _plan() -> Blueprint:
    plane, seen, out, flags = (_SPACE.rows(b) for b in ("plane", "seen", "out", "flag"))
    start, has, query, *fillers = flags
    embed = torch.zeros(len(_WORDS), plane.shape[1])
    embed[0], embed[QUERY], embed[FIRST_FILLER:QUERY] = start, query, torch.stack(fillers)
    embed[1 : 1 + F] = corners() @ plane + has
    embed[FIRST_ANSWER:] = start
    mover = HeadPlan("mover", plane, seen, SHARP * one()[None], (has + 0.5 * start)[None])
    decoder = MlpPlan("decoder", corners() @ seen - 0.5 * one(), 8 * out)
    unembed = -3.0 * one()[None].repeat(len(_WORDS), 1)
    unembed[FIRST_ANSWER:] = 3.0 * out
    return Blueprint(_SPACE, _WORDS, embed, (LayerPlan((mover,), decoder),), unembed)


def _prompt(rng: np.random.Generator, size: int, feature: int) -> tuple[tuple[int, ...], int]:
    """BOS, fillers with one feature among them, the question mark; and where the feature stands."""
    body = rng.integers(FIRST_FILLER, QUERY, size).tolist()
    at = int(rng.integers(size))
    body[at] = 1 + feature
    return (0, *body, QUERY), 1 + at


def _draw(rng: np.random.Generator) -> tuple[int, int, int]:
    f, other = rng.permutation(F)[:2].tolist()
    return f, other, int(rng.integers(2, 9))


def _pair(rng: np.random.Generator) -> TaskPair:
    f, other, size = _draw(rng)
    clean, at = _prompt(rng, size, f)
    corrupted = (*clean[:at], 1 + other, *clean[at + 1 :])
    spans = spans_at({"feature": at, "last": size + 1})
    return TaskPair(clean, corrupted, (FIRST_ANSWER + f,), (FIRST_ANSWER + other,), spans, f"{size} words")


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    f, other, size = _draw(rng)
    (base, at), (source, _) = _prompt(rng, size, f), _prompt(rng, size, other)
    pos = size + 1
    if variable == "feature":
        source, pos = (*base[:at], 1 + other, *base[at + 1 :]), at
    return Swap(base, source, (pos,), (FIRST_ANSWER + other,))


def _label(variable: str, rng: np.random.Generator) -> Label:
    f, _, size = _draw(rng)
    ids, at = _prompt(rng, size, f)
    return Label(ids, at if variable == "feature" else size + 1, f)


def _features(_arch: Architecture, seed: int) -> tuple[Feature, ...]:
    rows = (corners() @ direction(_plan(), "plane", seed)).tolist()
    return tuple(
        Feature(name, f"the word is {name}", "resid_pre.0", tuple(row), (1 + i,))
        for i, (name, row) in enumerate(zip(_NAMES, rows, strict=True))
    )


SUPERPOSITION = Design(
    "superposition",
    "Says which of five colours was mentioned: they share two dimensions.",
    "Five colours are embedded at the corners of a pentagon in two dimensions; a head brings the one that was mentioned "
    "to the question mark; five neurons with a threshold tell them apart, since each corner lies nearest to itself.",
    _plan,
    Drawn(_WORDS, _pair, _swap, _label),
    (("input", "mover", "k"), ("input", "mover", "v"), ("mover", "decoder", ""), ("decoder", "logits", "")),
    (
        Held("feature", "the colour, in two dimensions, where it stands", "plane", "input", "feature", F),
        Held("seen", "the colour, in two dimensions, at the question", "seen", "mover", "last", F),
        Held("answer", "the colour, in five dimensions", "out", "decoder", "last", F),
    ),
    tuple(range(FIRST_ANSWER, FIRST_ANSWER + F)),
    {"without": ("No decoder: the two dimensions are not read.", lambda b: b.without("decoder"))},
    features=_features,
    facts={"features": F, "dimensions": 2},
    checks=(*GroundTruth.checks, "features"),
    sources=("Elhage et al. 2022, Toy Models of Superposition",),
)
