"""From places of variables to one algorithm: its steps in the order in which the network comes by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cutaway.algorithms.model import ANSWER, Algorithm, Step
from cutaway.algorithms.places import Places, places_of
from cutaway.algorithms.proposing.known import KnownTask
from cutaway.algorithms.proposing.result import TriedPlace
from cutaway.algorithms.proposing.searching import DiscoveryBench, order_of
from cutaway.results import Work


@dataclass(frozen=True, eq=False)
class AssembledAlgorithm:
    """An algorithm with a place for each step of which one was found.

    Attributes:
        algorithm: its steps.
        where: the places of some of them.
        task: how the answer is computed.
        variable: what variable a step holds.
    """

    algorithm: Algorithm
    where: Mapping[str, Places]
    task: KnownTask
    variable: Mapping[str, str]


@dataclass(eq=False)
class _Building:
    """Steps as they are put behind one another.

    Attributes:
        task: what is computed.
        steps: so far.
        where: their places.
        variable: what each holds.
        now: by which step a variable is known at this point.
    """

    task: KnownTask
    steps: list[Step] = field(default_factory=list)
    where: dict[str, Places] = field(default_factory=dict)
    variable: dict[str, str] = field(default_factory=dict)
    now: dict[str, str] = field(default_factory=dict)

    def known(self, name: str) -> str:
        """The step by which a variable is known, which is made where it is computed from others and not yet known."""
        if name not in self.now and name in self.task.derived:
            self.computed(self.task.derived[name])
        return self.now.get(name, name)

    def computed(self, step: Step) -> None:
        """A step that is computed from what is known."""
        reads = tuple(self.known(read) for read in step.reads)
        self.steps.append(Step(step.name, reads, step.function, step.meaning))
        self.variable[step.name] = self.now[step.name] = step.name

    def carried(self, name: str, places: Places) -> None:
        """A step that only carries a variable to a place."""
        spans = " and ".join(dict.fromkeys(place.span for place in places))
        called, number = f"{name}_at_{spans.replace(' ', '_')}", 2
        while called in {step.name for step in self.steps}:
            called, number = f"{name}_at_{spans.replace(' ', '_')}_{number}", number + 1
        before = self.known(name)
        self.steps.append(Step(called, (before,), lambda value: value, f"{name}, {_carried_to(places)}"))
        self.variable[called], self.now[name] = name, called
        self.where[called] = places


def _carried_to(places: Places) -> str:
    spans = dict.fromkeys(place.span for place in places)
    return "carried to " + " and ".join({"last": "the end", "all": "every token"}.get(s, s) for s in spans)


def assembled(task: KnownTask, places: Mapping[str, Sequence[Places]]) -> AssembledAlgorithm:
    """The algorithm of a task with each variable at its places, in the order of the network.

    A free variable has a step wherever it is carried to; a derived one is computed at its first place and carried to later
    ones; each step reads what is known before it.
    """
    made, outcome = _Building(task), task.outcome
    events = sorted(
        ((order_of(p), name, p) for name, several in places.items() for p in several), key=lambda e: e[0]
    )
    for _, name, at in events:
        own = outcome if outcome is not None and name == outcome.name else task.derived.get(name)
        if own is not None and name not in made.now:
            made.computed(own)
            made.where[name] = at
        elif own is not None and name not in made.where:
            made.where[name] = at  # computed on the way to another, and found only here
        else:
            made.carried(name, at)
    if outcome is not None and outcome.name in made.now:
        last = Step(ANSWER, (made.now[outcome.name],), lambda texts: texts)
    else:
        last = Step(ANSWER, tuple(made.known(read) for read in task.answer.reads), task.answer.function)
    return AssembledAlgorithm(
        Algorithm(_called(task, places), tuple(made.steps), last), made.where, task, made.variable
    )


def _called(task: KnownTask, places: Mapping[str, Any]) -> str:
    way = [name for name in (*task.on_the_way,) if name in places]
    sources = dict.fromkeys(root for read in task.answer.reads for root in task.roots(read))
    by = f" by way of {' and '.join(way)}" if way else ""
    return f"the answer from {', '.join(sources)}{by}"


def chosen_places(
    task: KnownTask, tried: Sequence[TriedPlace], alone: Sequence[str]
) -> dict[str, list[Places]]:
    """The places of each variable: the first at which it is found, and the last, where that is another.

    alone: variables that decide the answer by themselves. Behind the first place of a derived variable these cannot be told
    from the answer, and are called that.
    """
    taken: dict[str, list[tuple[tuple[int, int], float, Places]]] = {}
    for one in tried:
        if one.taken:
            places = places_of(one.place)
            taken.setdefault(one.variable, []).append((order_of(places), one.accuracy.value, places))
    derived = [order for name in task.on_the_way for order, *_ in taken.get(name, [])]
    outcome = task.outcome
    found: dict[str, list[Places]] = {}
    for name, several in taken.items():
        if name in alone and name in task.free and derived:
            several = [one for one in several if one[0] < min(derived)]
        if outcome is not None and name == outcome.name and any(v in alone for v in taken if v in task.free):
            if not derived:
                continue
            several = [one for one in several if one[0] > max(derived)]
        if not several:
            continue
        first = max((s for s in several if s[0] == min(o for o, *_ in several)), key=lambda s: s[1])
        last = max((s for s in several if s[0] == max(o for o, *_ in several)), key=lambda s: s[1])
        found[name] = [first[2]] if first[0] == last[0] else [first[2], last[2]]
    if outcome is not None and outcome.name in found:
        found[outcome.name] = found[outcome.name][-1:]
    return found


def holding(
    bench: DiscoveryBench, task: KnownTask, places: dict[str, list[Places]], work: Work
) -> tuple[AssembledAlgorithm | None, dict[str, TriedPlace]]:
    """The algorithm of which every step holds on discovery prompts, those that do not left out; and how well each does.

    None where no step is left. Raises `Stopped`.
    """
    left = {name: list(several) for name, several in places.items()}
    while left:
        made = assembled(task, left)
        figures: dict[str, TriedPlace] = {}
        failed: list[tuple[str, Places]] = []
        for step, at in made.where.items():
            drawn = bench.drawn(made.algorithm, step)
            if drawn:
                figures[step] = bench.tried(drawn, step, step, at, work)
            if not drawn or not figures[step].taken:
                failed.append((made.variable[step], at))
        if not failed:
            return made, figures
        for name, at in failed:
            left[name] = [p for p in left.get(name, []) if p != at]
        left = {name: several for name, several in left.items() if several}
    return None, {}
