"""How fast a network runs here: seconds for one forward-equivalent and for one pass, by length of prompt, measured anew
after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from cutaway.network.memory import rows_at_once
from cutaway.network.slopes import without_parameter_gradients
from cutaway.results.meter import BACKWARD
from cutaway.results.price import Price

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens
    from cutaway.results import Work

#: Tokens in the batch that is timed: enough for matrix products to be about as fast as they get.
_TOKENS = 272
#: A batch is timed until so many seconds have gone by, so many times at most; a single row, so many times.
_ENOUGH, _MOST, _SINGLE = 0.25, 2, 3
#: The batch that is timed is no larger than one row for so many that are going to be run.
_SHARE = 8
#: Seconds after which it is measured again: by then the machine may be more or less busy.
_STALE = 60


@dataclass(frozen=True)
class Pace:
    """What running a network takes on this machine, as it is busy now: so much for every pass, and so much for what it runs.

    Attributes:
        seconds: of one forward-equivalent, by the clock, beside what the pass itself takes.
        processor: the same of processor time, all threads together.
        call: seconds by the clock of one pass through all layers, however little it runs.
        gradient: how many times that a pass takes whose gradient is taken, for the same forward-equivalents.
    """

    seconds: float
    processor: float
    call: float = 0.0
    gradient: float = 1.0

    def price(
        self, forwards: float, passes: float = 0.0, *, gradients: float = 0.0, memory: int | None = None,
        parts: tuple[tuple[str, float], ...] = (),
    ) -> Price:  # fmt: skip
        """The price of so many forward-equivalents at this pace.

        passes: how many passes run them. gradients: the share of them in passes whose gradient is taken.

        >>> Pace(0.1, 0.2).price(100).sentence
        'about 100 forward-equivalents, 10 seconds (20 of processor time)'
        >>> Pace(0.1, 0.1, 1.0, 2.0).price(100, 20, gradients=0.5).seconds
        45.0
        """
        seconds = (self.seconds * forwards + self.call * passes) * (1 + gradients * (self.gradient - 1))
        busy = self.processor / self.seconds if self.seconds else 1.0
        return Price(forwards, seconds, seconds * busy, memory, parts)


def pace_of(
    net: Network,
    tokens: Tokens,
    work: Work | None = None,
    gradients: bool = False,
    worth: float | None = None,
) -> Pace:
    """The pace of a network at prompts of this width: one row is run to warm up, then many and one at a time, until it is
    steady; remembered for a minute.

    tokens: rows of which some are run, again where there are few, as many at once as a sweep would.
    gradients: also find out what a pass takes whose gradient is taken. worth: forward-equivalents of which finding out may
    take about a fifth.
    """
    width = 1 << max(0, tokens.width - 1).bit_length()
    size = min(max(1, _TOKENS // max(1, tokens.width)), rows_at_once(net, tokens.width, work))
    if worth is not None and worth < _SHARE * size:
        size = 1 << (max(1, int(worth / _SHARE)).bit_length() - 1)
    known = (width, size, torch.get_num_threads(), int(time.monotonic() // _STALE))
    rows = tokens[torch.arange(size) % tokens.n]
    plain = net.fact(("pace", *known), lambda: _plain(net, rows))
    if not gradients or not plain.processor:
        return plain
    slower = net.fact(("pace of gradients", *known), lambda: _of_gradients(net, rows, plain))
    return replace(plain, gradient=slower)


def _plain(net: Network, rows: Tokens) -> Pace:
    one = rows[:1]
    net.run(one)
    many, many_spent = _timed(net, lambda: net.run(rows), _MOST)
    if rows.n == 1:
        return Pace(many, many_spent)
    _, one_spent = _timed(net, lambda: net.run(one), _SINGLE)
    # what the processor spends is the least that was seen; the clock is that of a machine as busy as this one
    each = max((many_spent - one_spent) / (rows.n - 1), 0.1 * many_spent / rows.n)
    busy = many / many_spent if many_spent else 1.0
    return Pace(each * busy, each, max(0.0, many_spent - each * rows.n) * busy)


def _of_gradients(net: Network, rows: Tokens, plain: Pace) -> float:
    """How many times longer forward and backward take than by the pace of plain passes; 1 where there is no gradient."""
    sites = [site for i in range(net.n_layers) for site in (f"resid_pre.{i}",) if net.has(site)]
    if not sites or not net.has("logits"):
        return 1.0
    some = rows[: max(1, rows.n // 4)]

    def both(part: Tokens) -> None:
        with without_parameter_gradients(net.model):
            run = net.run(part, keep=sites, grad=True)
            assert run.logits is not None
            torch.autograd.grad(run.logits.sum(), [run[site] for site in sites], allow_unused=True)

    clock, spent = _timed(net, lambda: both(some), 1 + _MOST, warm=True)
    expected = plain.price((1 + BACKWARD) * some.n, 1 + BACKWARD)
    if net.device.type != "cpu":
        return clock / (expected.seconds or clock)
    return spent / (expected.processor or spent)


def _timed(net: Network, call: Callable[[], object], most: int, warm: bool = False) -> tuple[float, float]:
    """Mean seconds by the clock, and the least of processor time, of a few calls; warm: the first only warms up, if it is
    over soon.
    """
    clocks: list[float] = []
    spent: list[float] = []
    while len(clocks) < most and sum(clocks) < _ENOUGH:
        clock, processor = time.perf_counter(), time.process_time()
        call()
        if net.device.type == "cuda":
            torch.cuda.synchronize(net.device)
        clocks.append(time.perf_counter() - clock)
        spent.append(time.process_time() - processor)
        if warm and clocks[0] < _ENOUGH:
            clocks, spent, warm, most = [], [], False, most - 1
    return sum(clocks) / len(clocks), min(spent)
