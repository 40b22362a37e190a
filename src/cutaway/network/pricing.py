"""Prices in forward-equivalents, said at the pace that a network was just measured to have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.network.execution.spending import share_until
from cutaway.network.inputs import Tokens
from cutaway.network.pace import pace_of
from cutaway.results.price import Price

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.sites import Site
    from cutaway.results import Work

#: Forward-equivalents from which on it is worth some to find out how long each takes.
_WORTH = 100.0


def announce(
    net: Network,
    tokens: Tokens | Sequence[str | Sequence[int]],
    work: Work,
    label: str,
    forwards: float | Iterable[tuple[str, float]],
    *,
    memory: int | None = None,
    seconds: float | None = None,
    least: float | None = None,
) -> None:
    """Say what a verb is about to take (`Work.announce`), where anybody wants to know.

    Args:
        net: the network.
        tokens: rows like those that are run; the pace is measured on a few of them, where the price is worth it.
        work: hears of it.
        label: what begins.
        forwards: forward-equivalents; or stages in words with theirs.
        memory: bytes at the peak.
        seconds: what the work will take by the clock, where that is known better than by the pace.
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
    price = Price(total, seconds, None, memory, parts, first)
    if seconds is None and total >= _WORTH:
        given: Any = tokens
        if not isinstance(given, Tokens):
            some: Any = [row if isinstance(row, str) else list(row) for row in given]
            given = net.encode(some)
        pace = pace_of(net, given, work)
        price = Price(total, pace.seconds * total, pace.processor * total, memory, parts, first)
    work.announce(label, price)


def until(net: Network, sites: Iterable[Site | None]) -> float:
    """The share of the layers of a pass that keeps these sites and ends behind the last of them.

    >>> import cutaway
    >>> net = cutaway.open("zoo:induction")
    >>> until(net, net.resolve("resid_post.0"))
    0.5
    """
    return max((share_until(net.anatomy, site) for site in sites), default=0.0)
