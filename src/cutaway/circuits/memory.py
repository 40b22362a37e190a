"""What the scores of a method take at their peak, told from the method at work on a few pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.circuits.methods import known_options, score
from cutaway.circuits.passes.certify import wiring as wiring_of
from cutaway.circuits.passes.pairs import PromptPairs
from cutaway.circuits.pricing import scores_price
from cutaway.network.allocations import peak_of_rows

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


def scores_memory(net: Network, pairs: Behaviour, method: str, options: Any, work: Work) -> int | None:
    """Bytes of tensors that the scores of a method take at the peak; None where it would take long to find out."""
    quick = replace(options, **known_options(method, _SHORT))
    cost, whole = (scores_price(net, n, method, o) for n, o in ((_PAIRS, quick), (pairs.n, options)))
    if method in _ONE_BY_ONE or (cost > _SHARE * whole and work.budget.memory is None):
        return None
    batches = PromptPairs.of(net, pairs, len(wiring_of(net).graph.writers), work, aligned=False).batches
    largest = max(batches, key=lambda batch: batch.n * batch.clean.width)
    return peak_of_rows(
        lambda rows: score(net, pairs.take(largest.rows[:rows]), method=method, options=quick), largest.n
    )
