"""Small networks in float64 and pairs of token ids, on which every number can be computed by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.network import Network
from cutaway.zoo.tiny import tiny


def id_pairs(n: int = 6, lengths: tuple[int, ...] = (5, 7), vocab: int = 60, seed: int = 0) -> Behaviour:
    """Pairs of random ids that differ at two positions; half are discovery, half held out."""
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
def pairs() -> Behaviour:
    return id_pairs()
