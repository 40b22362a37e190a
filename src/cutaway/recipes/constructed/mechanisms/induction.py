"""Induction: ... A B ... A -> B, by a previous-token head and an induction head (Elhage et al. 2021, Olsson et al. 2022)."""

from __future__ import annotations

import numpy as np

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, letters
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import SHARP, N, alphabet_embed, alphabet_space, readout
from cutaway.recipes.measures import exchanged
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

_SPACE = alphabet_space("prev")
_WORDS = ("BOS", *letters(N))


def _plan() -> Blueprint:
    token, prev, out = (_SPACE.rows(b) for b in ("token", "prev", "out"))
    sink = 0.5 * _SPACE.unit("flag")
    previous = HeadPlan("previous", token, prev, offset=1)
    induce = HeadPlan("induction", token, 4 * out, SHARP * token, prev + sink)
    return Blueprint(
        _SPACE, _WORDS, alphabet_embed(_SPACE, _WORDS), (LayerPlan((previous,)), LayerPlan((induce,))),
        readout(_SPACE, _WORDS),
    )  # fmt: skip


def _draw(rng: np.random.Generator) -> tuple[list[int], int, int]:
    """Different letters behind BOS, and two places in them that are not neighbours and have a successor."""
    size = int(rng.integers(6, 11))
    verse = [0, *(1 + rng.permutation(N)[:size]).tolist()]
    while True:
        i, j = (1 + rng.choice(size - 1, 2, replace=False)).tolist()
        if abs(i - j) >= 2:
            return verse, i, j


def _pair(rng: np.random.Generator) -> TaskPair:
    verse, i, j = _draw(rng)
    query = verse[i]
    clean, corrupted = (*verse, query), (*exchanged(verse, i, j), query)
    places = {"first": i, "successor": i + 1, "other": j, "other successor": j + 1, "last": len(verse)}
    return TaskPair(
        clean, corrupted, (verse[i + 1],), (verse[j + 1],), spans_at(places), f"{len(verse)} tokens"
    )


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    verse, i, j = _draw(rng)
    base = (*verse, verse[i])
    if variable == "previous token":  # of both successors, exchanged: the query now matches the other place
        source = (*exchanged(verse, i, j), verse[i])
        return Swap(base, source, (i + 1, j + 1), (verse[j + 1],))
    return Swap(base, (*verse, verse[j]), (len(verse),), (verse[j + 1],))


def _label(variable: str, rng: np.random.Generator) -> Label:
    verse, i, _ = _draw(rng)
    ids = (*verse, verse[i])
    if variable == "previous token":
        return Label(ids, i + 1, verse[i] - 1)
    return Label(ids, len(verse), (verse[i] if variable == "query" else verse[i + 1]) - 1)


INDUCTION = Design(
    "induction",
    "Continues a repeated sequence: ... A B ... A -> B.",
    "A head of the first layer writes at each token which one came before; a head of a later layer looks for the "
    "place whose previous token is the present one, and copies what stands there to the output.",
    _plan,
    Drawn(_WORDS, _pair, _swap, _label),
    (
        ("input", "previous", "v"), ("previous", "induction", "k"), ("input", "induction", "q"),
        ("input", "induction", "v"), ("induction", "logits", ""),
    ),
    (
        Held("previous token", "which token came before", "prev", "previous", "successor", N),
        Held("query", "the present token", "token", "input", "last", N),
        Held("answer", "the token that is to follow", "out", "induction", "last", N),
    ),
    tuple(range(1, N + 1)),
    {"without": ("No previous-token head: nothing tells where to look.", lambda b: b.without("previous"))},
    sources=("Elhage et al. 2021, A Mathematical Framework for Transformer Circuits", "Olsson et al. 2022"),
)  # fmt: skip
