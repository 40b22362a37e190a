"""A behaviour that a network does not do is not looked into, unless one insists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.behaviours.checks import AT_LEAST, Performance, fewest, performance
from cutaway.behaviours.data import Behaviour
from cutaway.errors import NotPerformed

if TYPE_CHECKING:
    from cutaway.network import Network


def refusal(net: Network, behaviour: Behaviour, measured: Performance) -> NotPerformed:
    """Why this behaviour of this network is not looked into: it does not do it, or the pairs are too few to tell."""
    if measured.needed is None:
        remedy = "Choose another behaviour or network, or pass force=True to go on all the same."
        return NotPerformed(measured.sentence, remedy)
    if behaviour.n == 1:
        return NotPerformed(
            f"One example of {behaviour.name!r} is too few to tell whether {net.name} does it.",
            f"Give more (it can be told from {fewest(behaviour)} on, if all are right), or pass force=True to go on.",
        )
    return NotPerformed(
        measured.sentence, f"Give about {measured.needed} pairs, or pass force=True to go on all the same."
    )


def require_performed(
    net: Network, behaviour: Behaviour, force: bool = False, at_least: float = AT_LEAST
) -> Performance:
    """The performance; NotPerformed, with the figures, where the network does not do the behaviour, or where the pairs are
    too few to tell, and `force` is off.
    """
    measured = performance(net, behaviour, at_least=at_least)
    if not measured.does_it and not force:
        raise refusal(net, behaviour, measured)
    return measured
