"""On how many examples and parts each stage of an explanation works, what that costs, and what fits into a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from cutaway.errors import BadInput
from cutaway.network.pace import pace_of
from cutaway.network.parts import parts_of
from cutaway.results import Price

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.explanations.limits import SearchLimits
    from cutaway.network import Network
    from cutaway.results import Budget


@dataclass(frozen=True)
class Sizes:
    """How much each stage takes. Where there are fewer examples or parts, all are taken.

    Attributes:
        stream: discovery pairs that the stream is patched on; 0 where that is left out.
        single: discovery pairs that every part's own effects are measured on.
        search: discovery pairs of the search.
        tried: parts that are patched one by one, the strongest by a gradient; of a network with no more parts, all.
        sampled: parts drawn from the others and patched, too, to say what was missed.
        test: held-out pairs of the test.
        random: held-out pairs that random sets are compared on.
        controls: pairs of each half that the search of a control goes on with, where its network does not do the behaviour.
        wiring: pairs that the circuit by edges is traced and tested on; 0 where it is left out.
        name: of this choice.
    """

    stream: int = 24
    single: int = 24
    search: int = 32
    tried: int = 96
    sampled: int = 32
    test: int = 64
    random: int = 16
    controls: int = 12
    wiring: int = 24
    name: str = "whole"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def thin(self) -> bool:
        """Is the search thinner than by default? Then that a set falls short does not refute that another would not."""
        return (self.search, self.tried) < (Sizes.search, Sizes.tried)


WHOLE = Sizes()
#: What is tried in turn where a budget is given, the best first: first what only a reader needs goes, then prompts.
CHOICES = (
    WHOLE,
    Sizes(stream=12, wiring=0, name="without the circuit by edges"),
    Sizes(8, 16, 20, 40, 16, 64, 14, 10, 0, "with fewer prompts"),
    Sizes(0, 12, 16, 32, 12, 48, 12, 8, 0, "with few prompts"),
    Sizes(0, 8, 12, 24, 8, 32, 10, 6, 0, "with as few prompts as can decide anything"),
)


def priced(net: Network, behaviour: Behaviour, sizes: Sizes, limits: SearchLimits, controls: bool) -> Price:
    """What an explanation of these sizes is expected to take, stage by stage, at the pace just measured.

    How many sets a search tries depends on what it finds; the figures are means over networks of known mechanism.
    """
    discovery, held_out = _halves(behaviour)
    parts, layers = len(parts_of(net)), max(1, net.n_layers)
    width = max(behaviour.lengths, default=1)
    stream = min(sizes.stream, discovery) * (2 + 2 * _STREAM * layers * width)
    half = 0.5  # a part in the middle of the network leaves half of the layers as they were
    tried = parts if parts <= sizes.tried else sizes.tried + sizes.sampled
    single = min(sizes.single, discovery) * (2 * tried * half + (0 if parts <= sizes.tried else 6))
    search = min(sizes.search, discovery) * _sets(parts)
    sets = 2 * limits.random
    test = 6 * min(sizes.test, held_out) + sets * min(sizes.random, held_out)
    few = min(sizes.controls, discovery)
    again = 2 * behaviour.n + few * (2 * tried * half + _sets(parts)) + few * (6 + sets)
    stages = {
        "both ends of all prompts": 2.0 * behaviour.n,
        "where it is": stream + single,
        "searching the set": search,
        "testing it": float(test),
        "controls": (2 * again + _DRAWN) if controls else 0.0,
        "wiring by edges": min(sizes.wiring, discovery) * _WIRED
        if sizes.wiring and behaviour.items is None
        else 0.0,
    }
    parts_of_it = tuple((stage, forwards) for stage, forwards in stages.items() if forwards)
    pace = pace_of(net, behaviour.clean_tokens(net))
    return pace.price(sum(stages.values()), parts=parts_of_it)


#: Share of a forward that a cell of the stream takes, over all cells: the layers above it, the columns from it on.
_STREAM = 0.03
#: Forwards of one pair that tracing and testing a circuit take.
_WIRED = 130.0
#: Contrasts of ten draws of fresh weights, both ends of eight pairs.
_DRAWN = 160.0


def _sets(parts: int) -> float:
    """How many sets a search tries, about: growing and dropping halve, weighing takes one for each member.

    >>> round(_sets(20)), round(_sets(300))
    (56, 118)
    """
    return 13 * math.log2(max(2, parts)) + 0.05 * parts


def _halves(behaviour: Behaviour) -> tuple[int, int]:
    held = sum(behaviour.held)
    return max(1, behaviour.n - held), max(1, held)


def within(
    net: Network, behaviour: Behaviour, limits: SearchLimits, controls: bool, budget: Budget
) -> tuple[Sizes, Price]:
    """The largest choice of sizes whose price fits into a budget, with it.

    Raises `BadInput` where not even the smallest fits: it says what would be enough.
    """
    room = 1.0 if budget.seconds is None else _SAFE
    price = None
    for sizes in CHOICES:
        price = priced(net, behaviour, sizes, limits, controls)
        seconds, forwards = budget.seconds, budget.forwards
        if seconds is not None and price.seconds is not None and price.seconds > room * seconds:
            continue
        if forwards is not None and price.forwards > _SAFE * forwards:
            continue
        return sizes, price
    assert price is not None
    what = f"The budget is too small to explain {behaviour.name!r} in {net.name}"
    needed = f"{math.ceil(1.25 * (price.seconds or 0)):,}s and {math.ceil(1.25 * price.forwards):,} forwards"
    raise BadInput(
        f"{what}: with as few prompts as can decide anything it takes {price.sentence}.",
        f"Give a budget of {needed}" + (", or leave out the controls (controls=False)." if controls else "."),
    )


#: What is planned leaves some of the budget, as a search may take longer than most.
_SAFE = 0.8
