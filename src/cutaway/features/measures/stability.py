"""Do latents come again with another seed, more often than directions drawn at random do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.features.dictionaries import Dictionary
from cutaway.features.measures.matching import drawn_like, shared
from cutaway.statistics import Estimate, proportion

#: How often chance is drawn.
_DRAWS = 3


@dataclass(frozen=True)
class SeedStability:
    """How many latents a dictionary shares with one that was trained with another seed.

    Attributes:
        sibling: which.
        shared: share of the latents that fire which have a partner of cosine 0.7 or more in the one-to-one match of decoder
            directions whose sum of cosines is largest (Hungarian); its interval is Wilson's, over latents.
        chance: the same of as many directions drawn with the same second moments, mean of three draws.
    """

    sibling: str
    shared: Estimate
    chance: float

    @property
    def excess(self) -> float:
        """What is shared beyond chance, as a share of what chance leaves."""
        return (self.shared.value - self.chance) / max(1e-9, 1 - self.chance)


def stability_of(
    dictionary: Dictionary, alive: Tensor, siblings: Sequence[tuple[str, Dictionary]], seed: int
) -> tuple[SeedStability, ...]:
    """Against each sibling by name, of the latents that fire [F] bool; empty where none does."""
    directions = dictionary.directions()[alive]
    if not len(directions):
        return ()
    return tuple(_stability(name, directions, other.directions(), seed) for name, other in siblings)


def _stability(name: str, mine: Tensor, theirs: Tensor, seed: int) -> SeedStability:
    there = theirs[theirs.norm(dim=1) > 0]
    if not len(there):
        return SeedStability(name, proportion(0, len(mine)), 0.0)
    hits, of = shared(mine, there, seed)
    chance = []
    for draw in range(_DRAWS):
        by_chance, among = shared(
            drawn_like(mine, 2 * (seed + draw) + 1), drawn_like(there, 2 * (seed + draw)), seed
        )
        chance.append(by_chance / among)
    return SeedStability(name, proportion(hits, of), float(torch.tensor(chance).mean()))
