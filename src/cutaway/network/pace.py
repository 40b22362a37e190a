"""How fast a network runs here: seconds for one forward-equivalent, measured once for each length of prompt."""

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

#: Rows that are timed: enough for matrix products to be about as fast as they get.
_ROWS = 16


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
    """The pace of a network at prompts of this width: one batch is run to warm up and one is timed; remembered.

    tokens: rows of which a few are run, as many at once as a sweep would.
    """

    def measured() -> Pace:
        rows = tokens[torch.arange(min(_ROWS, tokens.n, rows_at_once(net, tokens.width, work)))]
        net.run(rows[:1])
        clock, processor = time.perf_counter(), time.process_time()
        net.run(rows)
        if net.device.type == "cuda":
            torch.cuda.synchronize(net.device)
        return Pace((time.perf_counter() - clock) / rows.n, (time.process_time() - processor) / rows.n)

    width = 1 << max(0, tokens.width - 1).bit_length()
    key = ("pace", width, min(_ROWS, tokens.n), torch.get_num_threads())
    return net.fact(key, measured)
