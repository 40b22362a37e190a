"""Two paths that do the same (an OR), and a backup that wakes when the first path is gone (self-repair)."""

from __future__ import annotations

import numpy as np
import torch

from cutaway.recipes.constructed.blueprint import Blueprint, HeadPlan, LayerPlan, MlpPlan, Space, letters, one
from cutaway.recipes.constructed.design import Design, Held
from cutaway.recipes.constructed.letters import (
    SHARP,
    N,
    alphabet_embed,
    alphabet_space,
    readout,
    step,
    verdict_readout,
)
from cutaway.recipes.constructed.mechanisms.unread import copy_pair
from cutaway.zoo.tasks import Drawn, Label, Swap, TaskPair, spans_at

_OR_SPACE = Space({"position": 12, "flag": 3, "token": N, "found": 2, "verdict": 1})
_OR_WORDS = ("BOS", *letters(N), "yes", "no")
YES, NO = N + 1, N + 2
WANTED = 1


def _or_plan() -> Blueprint:
    wanted, start = _OR_SPACE.unit("token", WANTED - 1), _OR_SPACE.unit("flag")
    hits, verdict = _OR_SPACE.rows("found"), _OR_SPACE.unit("verdict")
    seek, keys = SHARP * one()[None], (wanted + 0.5 * start)[None]
    somewhere = (one() - start)[None]  # 1 wherever a head rests but at the beginning
    heads = tuple(HeadPlan(f"path {i + 1}", somewhere, hits[i : i + 1], seek, keys) for i in range(2))
    either = MlpPlan("either", *step(hits.sum(0), 0.25, 4.0, verdict))
    return Blueprint(
        _OR_SPACE, _OR_WORDS, alphabet_embed(_OR_SPACE, _OR_WORDS), (LayerPlan(heads, either),),
        verdict_readout(_OR_SPACE, _OR_WORDS, "yes", "no"),
    )  # fmt: skip


def _or_prompts(rng: np.random.Generator, size: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """A prompt with the wanted letter, the same without it, and its place (not the last)."""
    without = (0, *(2 + rng.integers(N - 1, size=size)).tolist())
    at = int(rng.integers(1, size))
    return (*without[:at], WANTED, *without[at + 1 :]), without, at


def _or_pair(rng: np.random.Generator) -> TaskPair:
    size = int(rng.integers(4, 12))
    clean, corrupted, at = _or_prompts(rng, size)
    spans = spans_at({"wanted": at, "last": size})
    return TaskPair(clean, corrupted, (YES,), (NO,), spans, f"{size} letters")


def _or_swap(_variable: str, rng: np.random.Generator) -> Swap:
    size = int(rng.integers(4, 12))
    (has, lacks, _), (has_too, lacks_too, _) = _or_prompts(rng, size), _or_prompts(rng, size)
    if rng.random() < 0.5:
        return Swap(lacks, has_too, (size,), (YES,))
    return Swap(has, lacks_too, (size,), (NO,))


def _or_label(_variable: str, rng: np.random.Generator) -> Label:
    size, yes = int(rng.integers(4, 12)), bool(rng.random() < 0.5)
    has, lacks, _ = _or_prompts(rng, size)
    return Label(has if yes else lacks, size, int(yes))


REDUNDANT = Design(
    "redundant",
    "Tells whether the letter a was mentioned, by two paths of which either is enough.",
    "Two heads of one layer look for the letter, rest on it or else on the beginning, and each writes to a dimension of its "
    "own whether it is there; neurons say yes where either did. Taking one path away changes nothing; both, everything.",
    _or_plan,
    Drawn(_OR_WORDS, _or_pair, _or_swap, _or_label),
    (
        ("input", "path 1", "k"), ("input", "path 2", "k"),
        ("path 1", "either", ""), ("path 2", "either", ""), ("either", "logits", ""),
    ),
    (
        Held("found", "whether the letter was found, twice over", "found", "path 1", "last", 2),
        Held("verdict", "yes or no", "verdict", "either", "last", 2),
    ),
    (YES, NO),
    {"without": ("One path only: without it nothing is left.", lambda b: b.without("path 2"))},
    needs=(
        (("path 1",), False, "resample"), (("path 2",), False, "resample"), (("path 1",), False, "zero"),
        (("path 1", "path 2"), True, "resample"), (("path 1", "path 2"), True, "zero"), (("either",), True, "resample"),
    ),
    facts={"redundant": ["path 1", "path 2"]},
    sources=("Heimersheim and Nanda 2024, How to Use and Interpret Activation Patching (OR gates)",),
)  # fmt: skip

_SPACE = alphabet_space("free")
_WORDS = ("BOS", *letters(N))


def _backup_plan() -> Blueprint:
    token, out, start = _SPACE.rows("token"), _SPACE.rows("out"), _SPACE.unit("flag")
    done = _SPACE.unit("flag", 1)
    primary = HeadPlan("primary", token, out, offset=1)
    reads, writes = zip(*(step(row, 0.5, 4.0, done) for row in out), strict=True)
    confidence = MlpPlan("confidence", torch.cat(reads), torch.cat(writes))
    backup = HeadPlan("backup", token, out, 1500 * done[None], start[None], offset=1)
    layers = (LayerPlan((primary,), confidence), LayerPlan((backup,)))
    return Blueprint(_SPACE, _WORDS, alphabet_embed(_SPACE, _WORDS), layers, readout(_SPACE, _WORDS, 12.0))


def _backup_swap(_variable: str, rng: np.random.Generator) -> Swap:
    pair = copy_pair(rng)
    return Swap(pair.clean, pair.corrupted, (len(pair.clean) - 1,), pair.wrong)


def _backup_label(_variable: str, rng: np.random.Generator) -> Label:
    ids = copy_pair(rng).clean
    return Label(ids, len(ids) - 1, ids[-2] - 1)


BACKUP = Design(
    "backup",
    "Repeats the letter before the last one; a second head does it where the first was silenced.",
    "A head copies the letter one place back. Neurons note whether an answer is there; where it is, a head of a later "
    "layer rests on the beginning of the text, and where it is not (the first head zeroed, or averaged) it copies in its "
    "place. Another answer in the first head's place does not wake it.",
    _backup_plan,
    Drawn(_WORDS, copy_pair, _backup_swap, _backup_label),
    (("input", "primary", "v"), ("primary", "logits", "")),
    (Held("answer", "the letter one place back", "out", "primary", "last", N),),
    tuple(range(1, N + 1)),
    {"without": ("No backup: silencing the first head silences the network.", lambda b: b.without("backup"))},
    needs=(
        (("primary",), True, "resample"), (("primary",), False, "zero"), (("primary",), False, "mean"),
        (("backup",), False, "zero"), (("primary", "backup"), True, "zero"), (("primary", "backup"), True, "mean"),
    ),
    idle=("confidence", "backup"),
    facts={"dormant": ["confidence", "backup"]},
    sources=("McGrath et al. 2023, The Hydra Effect", "Wang et al. 2023 (backup name movers)"),
)  # fmt: skip
