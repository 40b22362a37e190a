"""A dictionary within a run: its latents are encoded where it reads, and what changes of them is added where it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from cutaway.network.anatomy import ErrorTap, LatentTap
from cutaway.network.edits import Here

#: What is done with a value: (its new value, the value that the difference is taken from).
Derive = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(eq=False)
class LatentWork:
    """The latents of one source in one run.

    Attributes:
        tap: where they are read and written.
        derive: what is to be done with them; None where they only serve an error.
        rows: what was read in this pass, by number of the site.
        latents: as the network has them.
        change: what an edit adds to them; None for nothing.
    """

    tap: LatentTap
    derive: Derive | None = None
    rows: dict[int, Tensor] = field(default_factory=dict)
    latents: Tensor | None = None
    change: Tensor | None = None

    @property
    def values(self) -> list[Tensor]:
        """What was read, in the order of the sites."""
        return [self.rows[i] for i in range(len(self.tap.reads))]

    def see(self, number: int, value: Tensor, _here: Here) -> Tensor:
        """A site that is read has its value; with the last one the latents are there."""
        if number == 0:
            self.rows = {}
        self.rows[number] = _flat(value)
        if len(self.rows) < len(self.tap.reads):
            return value
        self.latents, self.change = self.tap.codec.encode(self.values, self.tap.source), None
        if self.derive is not None:
            new, old = self.derive(self.latents)
            self.change = None if new is old else new - old
        return value

    def add(self, target: int, value: Tensor, _here: Here) -> Tensor:
        """A site that is written to has its value."""
        if self.change is None:
            return value
        added = self.tap.codec.written(self.change, self.values, self.tap.source, target)
        return value + added.reshape(value.shape).to(value)


@dataclass(eq=False)
class ErrorWork:
    """What a dictionary does not reconstruct of one target, in one run.

    Attributes:
        tap: where it lies.
        derive: what is to be done with it.
        sources: the latents that write there.
    """

    tap: ErrorTap
    derive: Derive
    sources: Sequence[LatentWork]

    def see(self, value: Tensor, _here: Here) -> Tensor:
        """The target has its value, changes of the latents included, which leave the error as it is."""
        several: list[Tensor | None] = [None] * (1 + max(work.tap.source for work in self.sources))
        for work in self.sources:
            assert work.latents is not None
            several[work.tap.source] = work.latents if work.change is None else work.latents + work.change
        own = next((work.values for work in self.sources if work.tap.source == self.tap.own), None)
        rebuilt = self.tap.codec.decode(several, own, self.tap.target)
        flat = _flat(value)
        new, error = self.derive(flat.to(rebuilt) - rebuilt)
        return value if new is error else value + (new - error).reshape(value.shape).to(value)


def _flat(value: Tensor) -> Tensor:
    """[b p d] of a value, heads side by side."""
    return value.flatten(2) if value.ndim > 3 else value
