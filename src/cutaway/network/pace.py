"""How fast a network runs here: seconds for one forward-equivalent, by length of prompt, measured anew after a while."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cutaway.network.memory import rows_at_once
from cutaway.results.price import Price

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens
    from cutaway.results import Work

#: Tokens in the batch that is timed: enough for matrix products to be about as fast as they get.
_TOKENS = 272
#: A batch is timed until so many seconds have gone by, so many times at most.
_ENOUGH, _MOST = 0.25, 2
#: Seconds after which it is measured again: by then the machine may be more or less busy.
_STALE = 60


@dataclass(frozen=True)
class Pace:
    """What one forward-equivalent takes on this machine, as it is busy now.

    Attributes:
        seconds: by the clock.
        processor: of processor time, all threads together.
    """

    seconds: float
    processor: float

    def price(
        self, forwards: float, memory: int | None = None, parts: tuple[tuple[str, float], ...] = ()
    ) -> Price:
        """The price of so many forward-equivalents at this pace.

        >>> Pace(0.1, 0.2).price(100).sentence
        'about 100 forward-equivalents, 10 seconds (20 of processor time)'
        """
        return Price(forwards, self.seconds * forwards, self.processor * forwards, memory, parts)


def pace_of(net: Network, tokens: Tokens, work: Work | None = None) -> Pace:
    """The pace of a network at prompts of this width: one row is run to warm up, then as many as make it steady; remembered
    for a minute.

    tokens: rows of which some are run, again where there are few, as many at once as a sweep would.
    """

    def measured() -> Pace:
        size = min(max(1, _TOKENS // max(1, tokens.width)), rows_at_once(net, tokens.width, work))
        rows = tokens[torch.arange(size) % tokens.n]
        net.run(rows[:1])
        clocks: list[float] = []
        spent: list[float] = []
        while len(clocks) < _MOST and sum(clocks) < _ENOUGH:
            clock, processor = time.perf_counter(), time.process_time()
            net.run(rows)
            if net.device.type == "cuda":
                torch.cuda.synchronize(net.device)
            clocks.append(time.perf_counter() - clock)
            spent.append(time.process_time() - processor)
        # what the processor spends is the least that was seen; the clock is that of a machine as busy as this one
        return Pace(sum(clocks) / len(clocks) / rows.n, min(spent) / rows.n)

    width = 1 << max(0, tokens.width - 1).bit_length()
    now = int(time.monotonic() // _STALE)
    return net.fact(("pace", width, torch.get_num_threads(), now), measured)
