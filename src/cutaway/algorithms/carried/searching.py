"""Searching and testing: which variables can be exchanged, which places stand out, and what they bring on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.carried.answering import answers_by
from cutaway.algorithms.carried.exchanging import At, Moved, VariableExchange
from cutaway.algorithms.carried.limits import CarriedLimits
from cutaway.algorithms.carried.pairs import VariablePairs
from cutaway.algorithms.carried.standing import corrected, shuffled, standing_out
from cutaway.algorithms.carried.telling import TestedPlace, random_control, shuffled_control, verdict_on
from cutaway.behaviours import Performance, performance, refusal
from cutaway.claims import Control
from cutaway.errors import BadBehaviour, CutawayError, NotPerformed, Stopped
from cutaway.results import Work
from cutaway.statistics import benjamini_hochberg, sign_flip_p

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class CarriedQuestion:
    """What is asked of a network.

    Attributes:
        net: the network.
        places: the parts and spans that are tried.
        limits: what must be reached.
        controls: are they run?
        force: go on with variables by which the network does not answer?
        seed: of shuffling and sign flips.
    """

    net: Network
    places: tuple[At, ...]
    limits: CarriedLimits
    controls: bool
    force: bool
    seed: int


@dataclass(frozen=True, eq=False)
class ReadyVariable:
    """One variable, ready to be exchanged on discovery pairs.

    Attributes:
        pairs: that differ in it alone.
        exchange: the sweep over all places, planned.
    """

    pairs: VariablePairs
    exchange: VariableExchange


def ready(
    asked: CarriedQuestion, pairs: Sequence[VariablePairs], work: Work
) -> tuple[list[ReadyVariable], list[str]]:
    """The variables by which the network answers, their sweeps planned; and what is to be said of the others."""
    variables: list[ReadyVariable] = []
    notes: list[str] = []
    refused: NotPerformed | None = None
    for one in pairs:
        done = performance(asked.net, one.discovery, work=work)
        if not answers_by(done, one.one_sided) and not asked.force:
            refused = refused or refusal(asked.net, one.discovery, done)
            told = "whether it answers by" if done.needed is not None else "that it answers by"
            notes.append(
                f"On discovery pairs it is not shown {told} {one.variable!r}, which is left out: {'; '.join(done.missed)}."
            )
            continue
        try:
            variables.append(
                ReadyVariable(one, VariableExchange.of(asked.net, one.discovery, asked.places, work))
            )
        except BadBehaviour as error:
            if len(pairs) == 1:
                raise
            notes.append(f"{error.problem} {one.variable!r} is left out.")
    if not variables:
        if refused is not None:
            raise refused
        raise BadBehaviour(
            f"No variable changes the answer of {asked.net.name}. {' '.join(notes)}", "Look at the prompts."
        )
    return variables, notes


@dataclass(frozen=True, eq=False)
class CarriedFindings:
    """What was measured, by variable.

    Attributes:
        pairs: of each variable.
        moved: on discovery pairs.
        q: significance of every place there.
        picked: the numbers of the places that stood out.
        left: how many more stood out than are tested.
        held: on held-out pairs, at all places that were picked for any variable; none where it was stopped.
        every: the numbers of those places.
        performed: on held-out pairs.
        controls: of each variable.
        complete: was all of it run?
    """

    pairs: Mapping[str, VariablePairs]
    moved: Mapping[str, Moved]
    q: Mapping[str, np.ndarray]
    picked: Mapping[str, list[int]]
    left: Mapping[str, int]
    held: Mapping[str, Moved]
    every: tuple[int, ...]
    performed: Mapping[str, Performance]
    controls: Mapping[str, list[Control]]
    complete: bool

    @classmethod
    def of(cls, asked: CarriedQuestion, search: Sequence[ReadyVariable], work: Work) -> CarriedFindings:
        """Search on discovery pairs, test on held-out pairs, run the controls; as far as the work is not stopped."""
        limits, pairs = asked.limits, {one.pairs.variable: one.pairs for one in search}
        moved = {
            one.pairs.variable: one.exchange.run(work, f"exchanging {one.pairs.variable}") for one in search
        }
        q = corrected(moved, asked.seed)
        standing = {
            name: standing_out(one.shares.mean(1), q[name], limits) if one.scale.told else []
            for name, one in moved.items()
        }
        picked = {name: places[: limits.most] for name, places in standing.items()}
        left = {name: len(standing[name]) - len(picked[name]) for name in standing}
        every = tuple(sorted({place for places in picked.values() for place in places}))
        complete = not any(one.result.interrupted for one in moved.values())
        held: dict[str, Moved] = {}
        performed: dict[str, Performance] = {}
        controls: dict[str, list[Control]] = {name: [] for name in pairs}
        try:
            if complete:
                for name, one in pairs.items():
                    performed[name] = performance(asked.net, one.held, work=work)
                held = _held(asked, pairs, every, work)
                complete = not any(one.result.interrupted for one in held.values())
            if complete and asked.controls:
                controls = _controls(asked, pairs, moved, work)
        except Stopped:
            complete = False
        return cls(pairs, moved, q, picked, left, held, every, performed, controls, complete)


def _held(
    asked: CarriedQuestion, pairs: Mapping[str, VariablePairs], every: Sequence[int], work: Work
) -> dict[str, Moved]:
    """What the picked places bring of each variable on held-out pairs."""
    if not every:
        return {}
    places = [asked.places[i] for i in every]
    moved = {}
    for name, one in pairs.items():
        try:
            exchange = VariableExchange.of(asked.net, one.held, places, work)
        except BadBehaviour:
            continue  # there is no gap on held-out pairs
        moved[name] = exchange.run(work, f"testing {name} on held-out pairs")
    return moved


def _controls(
    asked: CarriedQuestion, pairs: Mapping[str, VariablePairs], moved: Mapping[str, Moved], work: Work
) -> dict[str, list[Control]]:
    work.step("shuffled values", 0, 1)
    found = shuffled(moved, asked.limits, asked.seed)
    controls = {name: [shuffled_control(name, found[name], asked.limits)] for name in pairs}
    try:
        fresh = asked.net.randomized(asked.seed, examine=False)
    except Stopped:
        raise
    except CutawayError as error:
        sentence = f"Fresh weights could not be made. {error.problem}"
        for made in controls.values():
            made.append(Control("Random weights", None, "not performed", None, sentence))
        return controls
    for name, one in pairs.items():
        controls[name].append(random_control(name, performance(fresh, one.held, work=work), one.one_sided))
    return controls


def tested_of(asked: CarriedQuestion, found: CarriedFindings) -> dict[str, list[TestedPlace]]:
    """The picked places of every variable with their shares on held-out pairs, and what they are found to be.

    None where a variable has no effect on held-out pairs, or the tests were not finished.
    """
    names = [name for name in found.pairs if name in found.held]
    if not found.complete and any(one.result.interrupted for one in found.held.values()):
        names = []
    row = {place: i for i, place in enumerate(found.every)}
    p = [
        float(sign_flip_p(found.held[name].shares[row[place]], found.held[name].signs, seed=asked.seed))
        for name in names
        for place in found.picked[name]
    ]
    q = iter(benjamini_hochberg(p).tolist())
    tested: dict[str, list[TestedPlace]] = {name: [] for name in found.pairs}
    for name in names:
        for place in found.picked[name]:
            held = {other: found.held[other].estimate(row[place]) for other in names}
            own = next(q)
            tested[name].append(
                TestedPlace(asked.places[place], held, own, verdict_on(name, held, own, asked.limits))
            )
    return tested
