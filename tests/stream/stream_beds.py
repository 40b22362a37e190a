"""Networks that the tests of the stream share."""

from __future__ import annotations

from functools import cache

import torch

import cutaway
from cutaway.network import Network
from cutaway.zoo.tiny import tiny


@cache
def opened(kind: str) -> Network:
    """A tiny random network of one architecture, opened once."""
    torch.manual_seed(0)
    return cutaway.open(tiny(kind).eval())


def rows(net: Network, n: int = 3, p: int = 7, seed: int = 0) -> torch.Tensor:
    """Random token rows."""
    size = min(net.d_vocab_in or 90, 100)
    return torch.randint(5, size, (n, p), generator=torch.Generator().manual_seed(seed))
