"""A candidate: something of a network that is said to carry a behaviour, and what a trial must be able to do with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from cutaway.network.listing import listing
from cutaway.network.parts import Part, in_order
from cutaway.trials.bench import Bench

_TRIES_PER_SET = 50


class Candidate(Protocol):
    """What is put to the test: a set of parts, of edges, a direction, a subspace, a feature.

    Each kind has its own bench, which knows how to keep and to remove it, and which has a `scale`. Several alike are run
    together, because that is many times cheaper than one by one.
    """

    @property
    def size(self) -> int:
        """How much of the network it is, counted in its own units."""
        ...

    @property
    def total(self) -> int:
        """How many such units there are in all."""
        ...

    @property
    def words(self) -> str:
        """What it is, for people."""
        ...

    def keep(self, bench: Any, alike: Sequence[Self] = ()) -> np.ndarray:
        """Metric [1 + k n] with only this candidate left as it is, then with only each of those that are like it."""
        ...

    def remove(self, bench: Any, alike: Sequence[Self] = ()) -> np.ndarray:
        """Metric [1 + k n] without this candidate, then without each of those that are like it."""
        ...

    def like_it(self, rng: np.random.Generator, count: int) -> list[Self]:
        """Random candidates of the same size and make, all different, none of them this one; fewer where there are fewer."""
        ...


@dataclass(frozen=True)
class PartSet:
    """A set of parts as a candidate.

    Attributes:
        members: the parts of the set.
        everything: all parts that could have been in it.
    """

    members: tuple[Part, ...]
    everything: tuple[Part, ...]

    @property
    def size(self) -> int:
        """How many parts are in it."""
        return len(self.members)

    @property
    def total(self) -> int:
        """How many parts there are."""
        return len(self.everything)

    @property
    def words(self) -> str:
        """Its parts by name: `heads 1.2, 1.3; MLP 0`."""
        return listing(self.members)

    def keep(self, bench: Bench, alike: Sequence[PartSet] = ()) -> np.ndarray:
        """Metric [1 + k n] with all other parts replaced."""
        label = "keeping only the set, and random sets" if alike else "keeping sets"
        return bench.keep_only([self.members, *(s.members for s in alike)], label)

    def remove(self, bench: Bench, alike: Sequence[PartSet] = ()) -> np.ndarray:
        """Metric [1 + k n] with its parts replaced."""
        label = "removing the set, and random sets" if alike else "removing sets"
        return bench.remove([self.members, *(s.members for s in alike)], label)

    @property
    def others(self) -> int:
        """How many other sets there are with as many parts of each kind, and as many channels of each map."""
        there = Counter(map(_make, self.everything))
        return (
            math.prod(
                math.comb(there[make], size) for make, size in Counter(map(_make, self.members)).items()
            )
            - 1
        )

    def like_it(self, rng: np.random.Generator, count: int) -> list[PartSet]:
        """Random sets with as many parts of each kind, and as many channels of each map; they are drawn from all parts, so
        they may share some with it.
        """
        sizes = Counter(map(_make, self.members))
        by_kind = {make: [part for part in self.everything if _make(part) == make] for make in sizes}
        seen, drawn = {frozenset(self.members)}, []
        for _ in range(count * _TRIES_PER_SET):
            if len(drawn) == count:
                break
            parts: list[Part] = []
            for kind, size in sorted(sizes.items()):
                parts += [by_kind[kind][i] for i in rng.choice(len(by_kind[kind]), size, replace=False)]
            if frozenset(parts) not in seen:
                seen.add(frozenset(parts))
                drawn.append(PartSet(in_order(parts), self.everything))
        return drawn


def _make(part: Part) -> tuple[str, str]:
    """What a part in another's place must have in common with it: the kind, and of channels the map."""
    return part.kind, part.place if part.kind == "channel" else ""
