"""What is asked: of which prompts, and what the network ought to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.algorithms import Algorithm
from cutaway.algorithms.model import ANSWER, Step
from cutaway.behaviours import Behaviour
from cutaway.behaviours.cases import READY, Cases, cases_of, cases_of_pairs
from cutaway.behaviours.cases.case import parameters
from cutaway.errors import BadInput

if TYPE_CHECKING:
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


def stated(
    cases: Cases, intended: Algorithm | None, feared: Sequence[Algorithm | str], shifted: Cases | None = None
) -> StatedComputation:
    """What the network ought to compute, and what it ought not to.

    intended: default the answer that the cases themselves call right, where something is feared. feared: algorithms, or
    `number=other_number` for one that takes the second variable for the first.

    Raises `BadInput` for what is no algorithm and names no two variables, or where cases without frames say nothing of how
    their answers come about.
    """
    if isinstance(feared, str):
        feared = (feared,)
    proxies = tuple(_proxy(cases, one) if isinstance(one, str) else one for one in feared)
    for one in (*proxies, *([] if intended is None else [intended])):
        if not isinstance(one, Algorithm):
            raise BadInput(
                f"{one!r:.60} is no algorithm.",
                'Make one by cutaway.algorithm(...), or write "number=other_number".',
            )
    if intended is None and proxies:
        intended = Algorithm("the right answer", (), _answer(cases))
    return StatedComputation(intended, proxies, shifted)


def _answer(cases: Cases) -> Step:
    """The step by which the cases themselves come to their answers."""
    if cases.frames is None:
        raise BadInput(
            f"{cases.name!r} came as prompts with answers, not with a rule for these.",
            "Say what is intended as an algorithm: intended=cutaway.algorithm(...).",
        )
    return Step(ANSWER, parameters(cases.frames.answer, "the answer"), cases.frames.answer)


def _proxy(cases: Cases, text: str) -> Algorithm:
    """The cases' own answer, of one variable taken for another: `number=other_number`."""
    told, equals, taken = (piece.strip() for piece in text.partition("="))
    if not (told and equals and taken):
        raise BadInput(f"{text!r:.60} names no two variables.", "Write, for example, number=other_number.")
    own = _answer(cases)
    cases.require(told)
    cases.require(taken)
    if told not in own.reads:
        raise BadInput(
            f"The answer of {cases.name!r} does not depend on {told!r}.",
            f"It reads {', '.join(own.reads)}; name one of these before the sign.",
        )
    reads = tuple(dict.fromkeys(taken if name == told else name for name in own.reads))

    def answer(*values: Any) -> Any:
        known = dict(zip(reads, values, strict=True))
        return own.function(*(known[taken if name == told else name] for name in own.reads))

    return Algorithm(f"takes {taken} for {told}", (), Step(ANSWER, reads, answer, f"{taken} for {told}"))
