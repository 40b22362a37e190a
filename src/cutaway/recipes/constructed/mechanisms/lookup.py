"""Facts as key-value memories of an MLP (Geva et al. 2021): one neuron for each pair of subject and relation."""

from __future__ import annotations

import numpy as np
import torch

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, letters, one
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import N, readout
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

SUBJECTS, RELATIONS = 8, 3
_SPACE = Space({"position": 12, "flag": 3, "token": N, "subject": N, "out": N})
_WORDS = ("BOS", *(f"object-{x}" for x in letters(N)), *(f"subject-{x}" for x in letters(SUBJECTS)),
          *(f"relation-{x}" for x in letters(RELATIONS)), "the")  # fmt: skip
FIRST_SUBJECT = 1 + N
FIRST_RELATION = FIRST_SUBJECT + SUBJECTS
FILLER = FIRST_RELATION + RELATIONS


def facts() -> np.ndarray:
    """[SUBJECTS RELATIONS] the object (from 0) of every subject and relation; each object is one of two facts.

    >>> facts().shape
    (8, 3)
    """
    every = np.arange(SUBJECTS * RELATIONS) % N
    return np.random.default_rng(4).permutation(every).reshape(SUBJECTS, RELATIONS)


def _plan() -> Blueprint:
    token, subject, out = (_SPACE.rows(b) for b in ("token", "subject", "out"))
    embed = torch.zeros(len(_WORDS), token.shape[1])
    embed[0] = _SPACE.unit("flag")
    embed[FIRST_SUBJECT:] = token
    embed[1 : 1 + N] = _SPACE.unit("flag", 1)
    mover = HeadPlan("mover", token[:SUBJECTS], subject[:SUBJECTS], offset=1)
    table = facts()
    read = [subject[s] + token[SUBJECTS + r] - one() for s in range(SUBJECTS) for r in range(RELATIONS)]
    write = [4 * out[table[s, r]] for s in range(SUBJECTS) for r in range(RELATIONS)]
    memory = MlpPlan("memory", torch.stack(read), torch.stack(write))
    return Blueprint(_SPACE, _WORDS, embed, (LayerPlan((mover,), memory),), readout(_SPACE, _WORDS))


def _prompt(rng: np.random.Generator, size: int, subject: int, relation: int) -> tuple[int, ...]:
    """BOS, `size` words that do not matter, a subject, a relation."""
    body = rng.choice([FILLER, *range(FIRST_SUBJECT, FIRST_RELATION)], size).tolist()
    return (0, *body, FIRST_SUBJECT + subject, FIRST_RELATION + relation)


def _object(subject: int, relation: int) -> tuple[int, ...]:
    return (1 + int(facts()[subject, relation]),)


def _draw(rng: np.random.Generator) -> tuple[int, int, int]:
    return int(rng.integers(SUBJECTS)), int(rng.integers(SUBJECTS)), int(rng.integers(RELATIONS))


def _pair(rng: np.random.Generator) -> TaskPair:
    while True:
        s, other, r = _draw(rng)
        if _object(s, r) != _object(other, r):
            clean = _prompt(rng, int(rng.integers(6)), s, r)
            end = len(clean)
            spans = spans_at({"subject": end - 2, "relation": end - 1, "last": end - 1})
            corrupted = (*clean[:-2], FIRST_SUBJECT + other, clean[-1])
            return TaskPair(clean, corrupted, _object(s, r), _object(other, r), spans, f"relation {r}")


def _swap(variable: str, rng: np.random.Generator) -> Swap:
    while True:
        s, other, r = _draw(rng)
        size, other_r = int(rng.integers(6)), int(rng.integers(RELATIONS))
        new = {"subject": (other, r), "relation": (s, other_r)}.get(variable, (other, other_r))
        if _object(*new) != _object(s, r):
            base, source = _prompt(rng, size, s, r), _prompt(rng, size, other, other_r)
            return Swap(base, source, (size + 2,), _object(*new))


def _label(variable: str, rng: np.random.Generator) -> Label:
    s, _, r = _draw(rng)
    ids = _prompt(rng, int(rng.integers(6)), s, r)
    value = {"subject": s, "relation": r}.get(variable, _object(s, r)[0] - 1)
    return Label(ids, len(ids) - 1, value)


LOOKUP = Design(
    "lookup",
    f"Recalls {SUBJECTS * RELATIONS} facts: subject relation -> object.",
    "A head brings the subject to the relation that follows it; one neuron for each fact fires where both its subject "
    "and its relation are there, and writes the object.",
    _plan,
    Drawn(_WORDS, _pair, _swap, _label),
    (("input", "mover", "v"), ("mover", "memory", ""), ("input", "memory", ""), ("memory", "logits", "")),
    (
        Held("subject", "of which something is asked", "subject", "mover", "last", SUBJECTS),
        Held("relation", "what is asked of it", "token", "input", "last", RELATIONS),
        Held("object", "the answer", "out", "memory", "last", N),
    ),
    tuple(range(1, N + 1)),
    {"without": ("No memory: the neurons of the facts are not there.", lambda b: b.without("memory"))},
    facts={"neuron_of_fact": "subject * 3 + relation", "objects": facts().tolist()},
    sources=("Geva et al. 2021, Transformer Feed-Forward Layers Are Key-Value Memories", "Meng et al. 2022"),
)
