"""What the scores of a method take, in memory and seconds, told from the method at work on a few pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cutaway.circuits.methods import known_options, score
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.passes.pairs import PromptPairs
from cutaway.circuits.pricing import scores_price
from cutaway.network.allocations import peak_of_rows
from cutaway.sweeps.cost import clocked

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.results import Work

#: Methods that take a pass for every part or edge: a few pairs take too long to find out about many.
_ONE_BY_ONE = ("node-patching", "path-patching", "acdc", "ensemble", "random")
#: What a method repeats, as often as its peak needs.
_SHORT = {"steps": 2, "rounds": 1}
#: Pairs that finding out takes, and the least share of all that it may take.
_PAIRS, _SHARE = 4, 0.25


@dataclass(frozen=True, eq=False)
class Pieces:
    """A method at work on a few pairs, by which the whole is foreseen.

    Attributes:
        net, pairs, method, work: as asked.
        quick: the method's options, what it repeats shortened.
        sizes: how many pairs each batch has.
        rows: the pairs of the largest batch.
        times: how many times as much the whole takes for a pair.
    """

    net: Network
    pairs: Behaviour
    method: str
    work: Work
    quick: Any
    sizes: tuple[int, ...]
    rows: tuple[int, ...]
    times: float

    @classmethod
    def of(cls, net: Network, pairs: Behaviour, method: str, options: Any, work: Work) -> Pieces | None:
        """The pieces of a method; None where they would take long beside the whole."""
        quick = replace(options, **known_options(method, _SHORT))
        each, whole = (scores_price(net, 1, method, o) for o in (quick, options))
        if method in _ONE_BY_ONE or (_PAIRS * each > _SHARE * pairs.n * whole and work.budget.memory is None):
            return None
        batches = PromptPairs.of(net, pairs, len(wiring_of(net).graph.writers), work, aligned=False).batches
        largest = max(batches, key=lambda batch: batch.n * batch.clean.width)
        sizes = tuple(batch.n for batch in batches)
        return cls(net, pairs, method, work, quick, sizes, largest.rows, whole / each)

    def score(self, rows: int) -> None:
        """Score so many pairs."""
        score(self.net, self.pairs.take(self.rows[:rows]), method=self.method, options=self.quick)

    def memory(self) -> int:
        """Bytes of tensors that the scores take at the peak."""
        return peak_of_rows(self.score, max(self.sizes))

    def seconds(self) -> tuple[float, float]:
        """Seconds by the clock and of processor time that the scores take: of every batch, and of every pair in it."""
        few = min(_PAIRS - 1, len(self.rows))
        timed = [clocked(lambda rows=rows: self.score(rows), self.net.device) for rows in (1, few)]

        def whole(one: float, some: float) -> float:
            pair = max(0.0, some - one) / max(1, few - 1)
            return self.times * sum(max(0.0, some - pair * few) + pair * size for size in self.sizes)

        clock, processor = (whole(one, some) for one, some in zip(*timed, strict=True))
        return clock, processor
