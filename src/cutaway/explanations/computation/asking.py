"""What is asked: of which prompts, and what the network ought to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.behaviours import Behaviour
from cutaway.behaviours.cases import READY, Cases, cases_of, cases_of_pairs

if TYPE_CHECKING:
    from cutaway.algorithms import Algorithm
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class StatedComputation:
    """What a network ought to compute, as whoever asks states it.

    Attributes:
        intended: the algorithm that it ought to compute; None where that was not said.
        feared: those that it ought not to compute.
        shifted: prompts of another distribution, on which it is asked again.
    """

    intended: Algorithm | None = None
    feared: Sequence[Algorithm] = ()
    shifted: Cases | None = None

    def __bool__(self) -> bool:
        return self.intended is not None


NOTHING_STATED = StatedComputation()

#: Cases that have another name than their behaviour.
_NAMED = {"facts": "capitals"}


def cases_for(net: Network, behaviour: Behaviour) -> Cases:
    """Cases of a behaviour: those of the built-in one of its name, else its pairs, of which what differs is known.

    Raises `BadBehaviour` where its prompts are no tokens, or its pairs are not aligned.
    """
    name = _NAMED.get(behaviour.name, behaviour.name)
    if name in READY and behaviour.items is None:
        return cases_of(name, net, behaviour.n, behaviour.seed)
    return cases_of_pairs(net, behaviour)
