"""Copy and copy suppression: the last letter but one is copied, unless a mark forbids it (McDougall et al. 2023)."""

from __future__ import annotations

import numpy as np

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, letters
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import N, alphabet_embed, alphabet_space, readout
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

_SPACE = alphabet_space("second")
HALF = N // 2
_WORDS = ("BOS", *letters(HALF), *letters(HALF, "not-"))


def _plan() -> Blueprint:
    token, out, second = (_SPACE.rows(b)[:HALF] for b in ("token", "out", "second"))
    marks, start = _SPACE.rows("token")[HALF:], _SPACE.unit("flag")
    copy = HeadPlan("copy", token, 2 * out, offset=1)
    fallback = HeadPlan("fallback", token, second, offset=2)
    # the copied letter stands at 2 in the query, so a mark of it scores 60, and the sink 30
    suppress = HeadPlan("suppression", marks, -3 * out, 30 * out, marks + 0.5 * start)
    unembed = readout(_SPACE, _WORDS, 6.0)
    unembed[1 : 1 + HALF] += 6.0 * second
    layers = (LayerPlan((copy, fallback)), LayerPlan((suppress,)))
    return Blueprint(_SPACE, _WORDS, alphabet_embed(_SPACE, _WORDS), layers, unembed)


def _prompt(
    rng: np.random.Generator, size: int, marked: int, free: tuple[int, ...], copied: int, other: int
) -> list[int]:
    """BOS, `size` letters and marks with a mark of `marked` among them and none of `free`, then other, copied, any."""
    allowed = [i for i in range(1, N + 1) if i - HALF not in free]
    body = rng.choice(allowed, size).tolist()
    body[int(rng.integers(size))] = marked + HALF
    return [0, *body, other, copied, int(rng.integers(1, HALF + 1))]


def _letters(rng: np.random.Generator, n: int) -> list[int]:
    return (1 + rng.permutation(HALF)[:n]).tolist()


def _pair(rng: np.random.Generator) -> TaskPair:
    size = int(rng.integers(3, 8))
    a, b, c, d = _letters(rng, 4)  # copied, fallback, and two others
    stopped = _prompt(rng, size, a, (b, c, d), a, b)
    end = len(stopped)
    at = next(i for i in range(1, size + 1) if stopped[i] == a + HALF)
    spans = spans_at({"mark": at, "fallback": end - 3, "copied": end - 2, "last": end - 1})
    kind = rng.random()
    if kind < 0.5:  # other letters to copy, which no mark forbids
        others = (*stopped[:-3], d, c, stopped[-1])
        return TaskPair(tuple(stopped), others, (b,), (c,), spans, "other letters")
    free = tuple(c + HALF if token == a + HALF else token for token in stopped)
    if kind < 0.75:
        return TaskPair(tuple(stopped), free, (b,), (a,), spans, "mark taken away")
    return TaskPair(free, tuple(stopped), (a,), (b,), spans, "mark set")


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    size = int(rng.integers(3, 8))
    a, b, c, d, e = _letters(rng, 5)
    last = (size + 3,)
    stopped = tuple(_prompt(rng, size, a, (b, c, d, e), a, b))
    if variable == "copied":  # a forbidden letter gives way to a free one
        return Swap(stopped, tuple(_prompt(rng, size, e, (a, b, c, d), c, d)), last, (c,))
    if variable == "fallback":
        return Swap(stopped, tuple(_prompt(rng, size, e, (a, b, c, d), d, c)), last, (c,))
    free = tuple(_prompt(rng, size, e, (a, b, c, d), a, b))  # would copy a
    return Swap(free, tuple(_prompt(rng, size, a, (b, c, d, e), a, d)), last, (b,))


def _label(variable: str, rng: np.random.Generator) -> Label:
    size = int(rng.integers(3, 8))
    a, b, c = _letters(rng, 3)
    if variable == "suppressed":
        stopped = bool(rng.random() < 0.5)
        ids = _prompt(rng, size, a if stopped else c, (b,) if stopped else (a, b), a, b)
        return Label(tuple(ids), size + 3, a if stopped else 0)
    ids = _prompt(rng, size, c, (), a, b)
    return Label(tuple(ids), size + 3, (a if variable == "copied" else b) - 1)


SUPPRESSION = Design(
    "copy-suppression",
    "Repeats the letter before the last one, or, where a mark not-X forbids that letter X, the one before it.",
    "Two heads copy the letters one and two places back, the nearer one more strongly; a head of a later layer asks "
    "whether the letter that is about to be said is forbidden by a mark, and takes it out of the output if so.",
    _plan,
    Drawn(_WORDS, _pair, _swap, _label),
    (
        ("input", "copy", "v"), ("input", "fallback", "v"), ("copy", "suppression", "q"), ("input", "suppression", "k"),
        ("input", "suppression", "v"), ("copy", "logits", ""), ("fallback", "logits", ""), ("suppression", "logits", ""),
    ),
    (
        Held("copied", "the letter one place back", "out", "copy", "last", HALF),
        Held("fallback", "the letter two places back", "second", "fallback", "last", HALF),
        Held("suppressed", "which letter is taken out, if one is", "out", "suppression", "last", HALF + 1),
    ),
    tuple(range(1, HALF + 1)),
    {"without": ("No suppression head: marks are not heeded.", lambda b: b.without("suppression"))},
    facts={"needed": 0.1},
    sources=("McDougall et al. 2023, Copy Suppression",),
)  # fmt: skip
