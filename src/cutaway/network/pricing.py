"""Prices in forward-equivalents, said at the pace that a network was just measured to have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.network.execution.spending import share_until
from cutaway.network.inputs import Tokens
from cutaway.network.learnt import Lesson, corrected
from cutaway.network.memory import rows_at_once
from cutaway.network.pace import pace_of
from cutaway.results.price import Price

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.sites import Site
    from cutaway.results import Work

#: Forward-equivalents from which on it is worth some to find out how long each takes.
_WORTH = 24.0


def announce(
    net: Network,
    tokens: Tokens | Sequence[str | Sequence[int]],
    work: Work,
    label: str,
    forwards: float | Iterable[tuple[str, float]],
    *,
    rows: int | None = None,
    passes: float | None = None,
    gradients: float = 0.0,
    memory: int | Callable[[], int | None] | None = None,
    timed: tuple[float, float] | Callable[[], tuple[float, float]] | None = None,
    least: float | None = None,
) -> None:
    """Say what a verb is about to take (`Work.announce`), where anybody wants to know.

    Args:
        net: the network.
        tokens: rows like those that are run; the pace is measured on a few of them, where the price is worth it.
        work: hears of it.
        label: what begins.
        forwards: forward-equivalents; or stages in words with theirs.
        rows: how many rows travel together where there is room, so that it is told how many passes there are; default all
            of `tokens`.
        passes: passes through all layers, where the verb knows better.
        gradients: the share of the forward-equivalents in passes whose gradient is taken.
        memory: bytes at the peak; or what finds them out, asked where the price is worth it.
        timed: seconds by the clock and of processor time, where pieces of this very work were timed; or what times them.
        least: forward-equivalents after which there is something to keep; default all of them.

    Raises `Stopped` where the budget is too small for anything.
    """
    if not work.priced:
        return
    parts = () if isinstance(forwards, int | float) else tuple((what, f) for what, f in forwards if f > 0)
    total = float(forwards) if isinstance(forwards, int | float) else sum(f for _, f in parts)
    if total <= 0:  # all is remembered
        return
    first = total if least is None else min(least, total)
    worth = total >= _WORTH and work.times
    asked = worth or work.budget.memory is not None
    held = (memory() if asked else None) if callable(memory) else memory
    seconds = (timed() if worth else None) if callable(timed) else timed
    price = Price(total, *(seconds or ()), memory=held, parts=parts, least=first)
    if seconds is None and worth:
        given: Any = tokens
        if not isinstance(given, Tokens):
            some: Any = [row if isinstance(row, str) else list(row) for row in given]
            given = net.encode(some)
        together = min(rows or given.n, rows_at_once(net, given.width, work))
        calls = total / max(1, together) if passes is None else passes
        pace = pace_of(net, given, work, gradients > 0, total)
        price = replace(pace.price(total, calls, gradients=gradients, memory=held, parts=parts), least=first)
    # what pieces of the work say is corrected by what pieces said before
    verb = label if seconds is None else f"{label}, by pieces"
    announce_price(net, work, label, corrected(net, verb, price), verb)


def announce_price(net: Network, work: Work, label: str, price: Price, verb: str | None = None) -> None:
    """Announce a price that is corrected by earlier runs already (`learnt.corrected`), and learn from this one.

    verb: the name under which it was corrected; default the label. Raises `Stopped` as `Work.announce`.
    """
    timed = price.seconds is not None
    work.announce(label, price, Lesson(net, verb or label, price, work).begin() if timed else None)


def until(net: Network, sites: Iterable[Site | None]) -> float:
    """The share of the layers of a pass that keeps these sites and ends behind the last of them.

    >>> import cutaway
    >>> net = cutaway.open("zoo:induction")
    >>> until(net, net.resolve("resid_post.0"))
    0.5
    """
    return max((share_until(net.anatomy, site) for site in sites), default=0.0)
