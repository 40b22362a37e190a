"""Small networks in float64 and pairs of token ids, on which every number can be computed by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour, answer_logits
from cutaway.network import Network
from cutaway.zoo.tiny import tiny


def id_pairs(n: int = 6, lengths: tuple[int, ...] = (5, 7), vocab: int = 60, seed: int = 0) -> Behaviour:
    """PromptPairs of random ids that differ at two positions; half are discovery, half held out."""
    rng = np.random.default_rng(seed)
    clean = [tuple(int(t) for t in rng.integers(1, vocab, lengths[i % len(lengths)])) for i in range(n)]
    corrupted = [(ids[0], (ids[1] + 7) % vocab, (ids[2] + 5) % vocab, *ids[3:]) for ids in clean]
    return Behaviour(
        name="ids",
        clean=tuple(map(str, clean)),
        corrupted=tuple(map(str, corrupted)),
        clean_ids=tuple(clean),
        corrupted_ids=tuple(corrupted),
        right=tuple((int(t),) for t in rng.integers(1, vocab // 2, n)),
        wrong=tuple((int(t),) for t in rng.integers(vocab // 2, vocab, n)),
        spans={"changed": ((1, 3),) * n},
    )


def opened(kind: str, double: bool = True, **overrides: object) -> Network:
    torch.manual_seed(0)
    model = tiny(kind, **overrides)
    return cutaway.open(model.double() if double else model)


@pytest.fixture(scope="session")
def gpt2() -> Network:
    return opened("gpt2")


@pytest.fixture(scope="session")
def llama() -> Network:
    """Grouped keys and values, root-mean-square norms, gated MLPs."""
    return opened("llama")


@pytest.fixture(scope="session")
def pairs(gpt2: Network) -> Behaviour:
    """PromptPairs whose answers are the tokens that the GPT-2 tells apart most, so that there is a gap."""
    drawn = id_pairs()
    change = answer_logits(gpt2, drawn, "clean") - answer_logits(gpt2, drawn, "corrupted")
    right, wrong = change.argmax(-1).tolist(), change.argmin(-1).tolist()
    answers = {"right": tuple((t,) for t in right), "wrong": tuple((t,) for t in wrong)}
    blank = dict.fromkeys(("right_full", "wrong_full", "right_text", "wrong_text"), ())
    return replace(drawn, **answers, **blank)
