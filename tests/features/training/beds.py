"""What tests of training share: a small network, texts as token ids, rows that a few directions made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import cutaway
from cutaway.features.training import DictionaryRecipe
from cutaway.network import Network
from cutaway.zoo.tiny import tiny


def network(kind: str = "gpt2") -> Network:
    return cutaway.open(tiny(kind))


def texts(n: int = 60, length: int = 12, seed: int = 0) -> list[list[int]]:
    """Token ids, no two texts alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 10, (n, length), generator=generator).tolist()


def planted(n: int = 4000, d: int = 16, f: int = 24, k: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows [n d] that are sums of k of f directions, and the directions [f d]."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(f, d, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    at = torch.rand(n, f, generator=generator).topk(k, dim=1).indices
    latents = torch.zeros(n, f).scatter(1, at, 1 + torch.rand(n, k, generator=generator))
    return latents @ directions, directions


def recipe(**given: Any) -> DictionaryRecipe:
    """A small one, quick to train."""
    settings: dict[str, Any] = {
        "reads": ("rows",), "writes": ("rows",), "latents": 32, "k": 3, "batch": 64, "lr": 3e-3, "dead_after": 2000,
    }  # fmt: skip
    return DictionaryRecipe(**(settings | given))
