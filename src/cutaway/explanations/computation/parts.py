"""Which parts are asked what they carry: all of a small network; of a large one those that stand out by a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cutaway.behaviours.cases import Cases
from cutaway.errors import BadBehaviour
from cutaway.explanations.singles import estimated
from cutaway.network.parts import Part, in_order, parts_of
from cutaway.results import Work
from cutaway.trials import Bench

if TYPE_CHECKING:
    from cutaway.network import Network

#: A network with no more parts is asked whole.
WHOLE = 40
#: Pairs of each variable on which the gradients are taken.
_PAIRS = 12


def strongest(
    net: Network,
    cases: Cases,
    variables: Sequence[str],
    most: int,
    first: Sequence[Part],
    seed: int,
    work: Work,
) -> tuple[tuple[Part, ...], str]:
    """The parts that are asked, and how they were chosen, in words.

    Of a network with more than `WHOLE` parts those with the largest estimated effect on any variable, on discovery pairs;
    `first` are among them, whatever is estimated of them. most: how many.
    """
    every = parts_of(net)
    if len(every) <= WHOLE:
        return tuple(every), ""
    discovery = cases.halves()[0]
    best: dict[Part, float] = {part: float("inf") for part in first if part in set(every)}
    for number, variable in enumerate(variables):
        work.step("which parts are asked", number, len(variables))
        try:
            bench = Bench.of(net, discovery.behaviour(net, variable, n=_PAIRS, seed=seed), seed, work)
            found = estimated(bench)
        except BadBehaviour:
            continue
        for part, size in (found or {}).items():
            best[part] = max(best.get(part, 0.0), size)
    chosen = sorted(best, key=lambda part: -best[part])[: max(most, len(first))]
    told = (
        f"Of {len(every)} parts {len(chosen)} were asked: those whose exchange changes the answer most by the gradient on "
        f"{_PAIRS} discovery pairs of each variable. Of the others nothing is said."
    )
    return tuple(in_order(chosen)), told
