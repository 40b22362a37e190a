"""On how many examples and parts each stage of an explanation works, what that costs, and what fits into a budget."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cutaway.explanations.grain import grain_of
from cutaway.network.learnt import corrected
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
        sampled: parts drawn from those that group tests let go and patched, too, to say what was missed.
        test: held-out pairs of the test.
        random: held-out pairs that random sets are compared on.
        controls: pairs of each half that the search of a control goes on with, where its network does not do the behaviour.
        wiring: pairs that the circuit by edges is traced and tested on; 0 where it is left out.
        groups: groups of the other parts that may be patched together to see what can be dropped, single ones among them.
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
    groups: int = 40
    name: str = "whole"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def features(self) -> bool:
        """Are features that carry the behaviour looked for, where there are any? Not where little is affordable."""
        return self.stream > 0

    @property
    def thin(self) -> bool:
        """Is the search thinner than by default? Then that a set falls short does not refute that another would not."""
        return (self.search, self.tried) < (Sizes.search, Sizes.tried)


WHOLE = Sizes()
#: What is tried in turn where a budget is given, the best first: first what only a reader needs goes, then prompts.
CHOICES = (
    WHOLE,
    Sizes(stream=12, wiring=0, name="without the circuit by edges"),
    Sizes(8, 16, 20, 40, 16, 64, 14, 10, 0, 24, "with fewer prompts"),
    Sizes(0, 12, 16, 32, 12, 48, 12, 8, 0, 20, "with few prompts"),
    Sizes(0, 8, 12, 24, 8, 32, 10, 6, 0, 16, "with as few prompts as can decide anything"),
)


def priced(
    net: Network,
    behaviour: Behaviour,
    sizes: Sizes,
    limits: SearchLimits,
    controls: bool,
    features: float = 0.0,
    computed: float = 0.0,
) -> Price:
    """What an explanation of these sizes is expected to take, stage by stage, at the pace just measured.

    How many sets a search tries depends on what it finds; the figures are those of networks of known mechanism, of tales and
    of a network of 300 parts (docs/benchmarks/explaining.md). features: forward-equivalents that looking for the features
    that carry the behaviour takes, where it is looked for and `sizes` allows. computed: those that telling what is computed
    takes, where that is asked.
    """
    held = sum(behaviour.held)
    discovery, held_out, parts = max(1, behaviour.n - held), max(1, held), _parts(net, behaviour, limits)
    set_of_parts = _SET * share_anew(behaviour)

    def alone(pairs: int) -> float:
        if parts <= sizes.tried:
            return pairs * 2 * parts * _ALONE * set_of_parts
        tried = min(parts, sizes.tried + sizes.sampled)
        in_groups = _GROUPED * min(sizes.groups, 2 * (parts - sizes.tried))
        return pairs * 2 * (set_of_parts * (_ALONE * tried + in_groups) + _GRADIENT)

    def searched(pairs: int) -> float:
        return pairs * (_GRADIENT * (1 + parts / 33) + set_of_parts * max(6.0, 0.39 * parts))

    def tested(pairs: int, beside: int) -> float:
        return set_of_parts * (6 * pairs + 2 * limits.random * beside)

    stream = min(sizes.stream, discovery)
    few = min(sizes.controls, discovery)
    again = alone(few) + searched(few) + tested(few, few)
    wired = min(sizes.wiring, discovery) * _WIRED if behaviour.items is None else 0.0
    if parts > LARGE:
        wired *= _WIRED_LARGE
    stages = {
        "both ends of all prompts": 2.0 * behaviour.n,
        "where it is": stream * (2 + 2 * _CELL * max(1, net.n_layers) * max(behaviour.lengths, default=1)),
        "each part alone": alone(min(sizes.single, discovery)),
        "searching the set": searched(min(sizes.search, discovery)),
        "testing it": tested(min(sizes.test, held_out), min(sizes.random, held_out)),
        "controls": (2 * behaviour.n + _AGAIN * again + _DRAWN) if controls else 0.0,
        "wiring by edges": wired,
        "features that carry it": features if sizes.features else 0.0,
        "what is computed": computed,
    }
    shown = tuple((stage, forwards) for stage, forwards in stages.items() if forwards)
    # a set of parts is run on all of a stage's pairs at once; the stream's cells travel in large waves
    rows = {"both ends of all prompts": behaviour.n, "where it is": WAVE, "each part alone": min(sizes.single, discovery),
            "searching the set": min(sizes.search, discovery), "testing it": min(sizes.test, held_out),
            "controls": few, "wiring by edges": min(sizes.wiring, discovery),
            "features that carry it": held_out, "what is computed": held_out}  # fmt: skip
    pace = pace_of(net, behaviour.clean_tokens(net), gradients=True)
    total = sum(stages.values())
    slow = wired * parts / _EDGES_SLOW  # the more edges, the more a run by edges takes beside a forward
    passes = sum(forwards / max(1, rows[stage]) for stage, forwards in stages.items())
    slopes = _GRADIENT * (1 + parts / 33) * min(sizes.search, discovery) * (1 + _AGAIN * controls)
    price = pace.price(total + slow, passes, gradients=min(1.0, slopes / total), parts=shown)
    return corrected(net, EXPLAINING[controls], replace(price, forwards=total))


#: What earlier runs are remembered as, without controls and with them.
EXPLAINING = ("explaining without controls", "explaining")
#: Rows of a wave of the stream's cells.
WAVE = 64
#: Share of a forward that replacing a set of parts takes, of the columns from the first token on that differs.
_SET = 0.8
#: Share of that, of one part: it leaves the layers below it as they were.
_ALONE = 0.6
#: Share of the groups that may be tried that mostly are.
_GROUPED = 0.75
#: A forward and a backward pass.
_GRADIENT = 3.0
#: Share of a forward that a cell of the stream takes, over all cells: the layers above it, the columns from it on.
_CELL = 0.03
#: In a graph of more parts the circuit is not set beside random ones (`wiring`).
LARGE = 96
#: Forwards of one pair that tracing and testing a circuit take, and the share of that in a large graph; with so many parts,
#: a run by edges takes twice a forward.
_WIRED, _WIRED_LARGE, _EDGES_SLOW = 67.0, 0.3, 60.0
#: How many of the two controls that search go on to it, on average: mostly there is no gap.
_AGAIN = 0.5
#: Contrasts of ten draws of fresh weights, both ends of eight pairs.
_DRAWN = 160.0


def _parts(net: Network, behaviour: Behaviour, limits: SearchLimits) -> int:
    """How many parts are searched: of a network without a stream its maps, or their channels."""
    if net.anatomy.stack() is not None or not behaviour.n or all(behaviour.held):
        return len(parts_of(net))
    return len(grain_of(net, behaviour.discovery, limits).parts)


def share_anew(behaviour: Behaviour) -> float:
    """The share of a batch's columns from the first token on that differs between clean and corrupted: what is run anew."""
    if behaviour.items is not None or not behaviour.n:
        return 1.0
    width = max(behaviour.lengths)
    anew = 0
    for clean, corrupted in zip(behaviour.clean_ids, behaviour.corrupted_ids, strict=True):
        differs = (i for i, (a, b) in enumerate(zip(clean, corrupted, strict=False)) if a != b)
        anew += len(clean) - next(differs, len(clean) - 1)
    return anew / (width * behaviour.n)


def within(
    net: Network,
    behaviour: Behaviour,
    limits: SearchLimits,
    controls: bool,
    budget: Budget,
    features: float = 0.0,
    computed: float = 0.0,
) -> tuple[Sizes, Price]:
    """The largest choice of sizes whose price fits into a budget, with it; the smallest where none does.

    The price's `least` is that of the smallest choice, before it is told what is computed: announcing it (`Work.announce`)
    refuses a budget that is too small for anything, and says what would be enough.
    """
    prices = [
        (sizes, priced(net, behaviour, sizes, limits, controls, features, computed)) for sizes in CHOICES
    ]
    least = prices[-1][1].forwards - computed
    chosen = prices[-1]
    for choice in prices:
        price = choice[1]
        slow = budget.seconds is not None and (price.seconds or 0.0) > _SAFE * budget.seconds
        if not slow and (budget.forwards is None or price.forwards <= _SAFE * budget.forwards):
            chosen = choice
            break
    sizes, price = chosen
    return sizes, replace(price, least=min(least, price.forwards))


#: What is planned leaves some of the budget, as a search may take longer than most.
_SAFE = 0.8
