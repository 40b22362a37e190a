"""A wave: cells on examples that go through the network together, each joining at the layer of its lowest edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cutaway.sweeps.stages import Stage


@dataclass(frozen=True, eq=False)
class Wave:
    """Rows that travel together: (cell, example) pairs [k 2], sorted by layer and stage, over the columns [start, stop).

    Attributes:
        pairs: [k 2].
        layers: [k], the layer at which each joins.
        stages: [k], what of that layer is taken from the base run.
        start, stop: the columns that are run.
    """

    pairs: np.ndarray
    layers: np.ndarray
    stages: tuple[Stage, ...]
    start: int
    stop: int

    @property
    def columns(self) -> int:
        """Columns that are run."""
        return self.stop - self.start

    def upto(self, layer: int) -> int:
        """How many rows have joined by the end of a layer."""
        return int(np.searchsorted(self.layers, layer, side="right"))

    def only(self, keep: np.ndarray | slice) -> Wave:
        """Some of the rows: by number, as a slice, or those for which `keep` bool [k] is true."""
        stages = tuple(self.stages[i] for i in np.arange(len(self.pairs))[keep])
        return Wave(self.pairs[keep], self.layers[keep], stages, self.start, self.stop)

    def joining(self, layer: int) -> Iterator[tuple[Stage, int, int]]:
        """The stages of the rows that join at a layer: each with its first row and the row after its last."""
        first, last = int(np.searchsorted(self.layers, layer)), self.upto(layer)
        while first < last:
            stage, stop = self.stages[first], first
            while stop < last and self.stages[stop] == stage:
                stop += 1
            yield stage, first, stop
            first = stop
