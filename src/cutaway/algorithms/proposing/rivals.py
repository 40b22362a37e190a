"""Other algorithms that could be meant: by way of another variable, without one, at once, with another in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.algorithms.exchanges import AnswerChoices, Predictions, draw_exchanges, pool_of
from cutaway.algorithms.model import ANSWER, Algorithm, Step
from cutaway.algorithms.places import Places, places_of, said
from cutaway.algorithms.plan import contestant
from cutaway.algorithms.proposing.assembling import AssembledAlgorithm
from cutaway.algorithms.proposing.known import KnownTask
from cutaway.algorithms.proposing.result import TriedPlace
from cutaway.algorithms.proposing.rules import KnownRow, commonest, decides
from cutaway.behaviours.cases import Cases
from cutaway.errors import CutawayError, Stopped

if TYPE_CHECKING:
    from cutaway.network import Network

#: Variables that are put in the place of another.
_INSTEAD = 2
#: Exchanges of which one must be predicted, with and without a change of the answer.
_ENOUGH = 8


@dataclass(frozen=True, eq=False)
class ConsideredRival:
    """Another algorithm with its places.

    Attributes:
        algorithm: what it computes.
        where: places of its steps.
        kind: in what it is another: "by way of", "without", "at once", "instead", "turned", "ignores", "constant".
    """

    algorithm: Algorithm
    where: Mapping[str, Places]
    kind: str


def plausible(
    made: AssembledAlgorithm,
    others: Sequence[KnownTask],
    tried: Sequence[TriedPlace],
    rows: Sequence[KnownRow],
) -> list[ConsideredRival]:
    """Algorithms beside an assembled one, one of each kind after another, so that the first few are of different kinds."""
    kinds = [
        list(_by_way_of(made, others, tried)), list(_without(made)), list(_at_once(made)), list(_instead(made, rows)),
        list(_ignoring(made, rows)), list(_turned(made)), list(_constant(made, rows)),
    ]  # fmt: skip
    found: list[ConsideredRival] = []
    for turn in range(max(map(len, kinds))):
        found += [several[turn] for several in kinds if turn < len(several)]
    names: dict[str, ConsideredRival] = {}
    for one in found:
        names.setdefault(one.algorithm.name, one)
    return list(names.values())


def usable(
    net: Network,
    rivals: Sequence[ConsideredRival],
    cases: Cases,
    choices: AnswerChoices,
    n: int,
    seed: int,
    most: int,
) -> tuple[list[ConsideredRival], list[str]]:
    """At most so many of which something can be predicted on held-out prompts, and why others cannot be tested."""
    held = cases.halves()[1]
    pool = pool_of(held, n, seed)
    found: list[ConsideredRival] = []
    notes: list[str] = []
    for one in rivals:
        if len(found) >= most:
            break
        try:
            contestant(net, one.algorithm, one.where, cases, held, choices)
            predicts = Predictions(one.algorithm, choices)
            told = all(draw_exchanges(predicts, [name], pool, _ENOUGH, seed) for name in one.where)
        except Stopped:
            raise
        except CutawayError as error:
            notes.append(f"{one.algorithm.name!r} cannot be tested on these prompts: {error.problem}")
            continue
        if told:
            found.append(one)
        else:
            notes.append(f"{one.algorithm.name!r} predicts no answer of these prompts.")
    return found, notes


def _replaced(made: AssembledAlgorithm, name: str, change: Callable[[Step], Step]) -> Algorithm:
    """The same algorithm with its steps changed."""
    steps = [change(step) for step in made.algorithm.steps]
    return Algorithm(name, tuple(steps), change(made.algorithm.answer))


def _first_steps(made: AssembledAlgorithm) -> dict[str, str]:
    """The first step with a place of each variable but the outcome: variable to step."""
    found: dict[str, str] = {}
    outcome = made.task.outcome
    for step in made.where:
        variable = made.variable[step]
        if outcome is None or variable != outcome.name:
            found.setdefault(variable, step)
    return found


def _by_way_of(
    made: AssembledAlgorithm, others: Sequence[KnownTask], tried: Sequence[TriedPlace]
) -> Iterator[ConsideredRival]:
    """Through a derived variable that is not among the steps, where its exchanges came closest to what it predicts."""
    ways = {name: made.task for name in made.task.on_the_way if name not in made.where}
    ways |= {other.by: other for other in others if other.by not in made.where}
    for name, task in ways.items():
        here = [one for one in tried if one.variable == name]
        if here:
            best = max(here, key=lambda one: one.accuracy.value)
            algorithm = task.algorithm(f"the answer by way of {name}")
            yield ConsideredRival(algorithm, {name: places_of(best.place)}, "by way of")


def _without(made: AssembledAlgorithm) -> Iterator[ConsideredRival]:
    """A derived variable is computed, but the answer is computed straight from the others."""
    for variable, step in _first_steps(made).items():
        if variable not in made.task.derived:
            continue
        aside = Step(step, made.algorithm.by_name[step].reads, made.algorithm.by_name[step].function)
        straight = made.task.derived[variable]

        def change(one: Step, step: str = step, straight: Step = straight) -> Step:
            if step not in one.reads:
                return one
            rest = [read for read in one.reads if read != step]

            def function(*given: Any) -> Any:
                raw = straight.function(*given[len(rest) :])
                return one.function(*(given[rest.index(r)] if r != step else raw for r in one.reads))

            return Step(one.name, (*rest, *straight.reads), function, one.meaning)

        steps = [aside if one.name == step else change(one) for one in made.algorithm.steps]
        algorithm = Algorithm(f"straight, without {variable}", tuple(steps), change(made.algorithm.answer))
        yield ConsideredRival(algorithm, {step: made.where[step]}, "without")


def _at_once(made: AssembledAlgorithm) -> Iterator[ConsideredRival]:
    """The place of a variable already holds the answer."""
    task = made.task
    whole = Step("known", task.answer.reads, task.answer.function, "the answer itself")
    derived = [task.derived[name] for name in task.on_the_way]
    for variable, step in _first_steps(made).items():
        algorithm = Algorithm(
            f"the answer at once, where {variable} is said to be", (*derived, _named(whole, step, task)),
            Step(ANSWER, (_free_name(step, task),), lambda texts: texts),
        )  # fmt: skip
        yield ConsideredRival(algorithm, {_free_name(step, task): made.where[step]}, "at once")


def _free_name(step: str, task: KnownTask) -> str:
    """The name of a step, another where a derived variable of the same name is computed, too."""
    return f"{step}_and_all" if step in task.derived else step


def _named(step: Step, name: str, task: KnownTask) -> Step:
    return Step(_free_name(name, task), step.reads, step.function, step.meaning)


def _instead(made: AssembledAlgorithm, rows: Sequence[KnownRow]) -> Iterator[ConsideredRival]:
    """Another variable of like values is taken for the right one: the other name, the nearest noun."""
    values = {name: {row.values[name] for row in rows} for name in (rows[0].values if rows else ())}
    for variable, step in _first_steps(made).items():
        if variable not in values or made.algorithm.by_name[step].reads != (variable,):
            continue
        like = [
            n
            for n in values
            if n != variable and values[n] & values[variable] and n not in made.task.roots(variable)
        ]
        like = [n for n in like if variable not in made.task.roots(n)]
        for other in like[:_INSTEAD]:
            algorithm = _replaced(
                made, f"takes {other} for {variable}",
                lambda one, step=step, other=other: Step(step, (other,), one.function) if one.name == step else one,
            )  # fmt: skip
            yield ConsideredRival(algorithm, {step: made.where[step]}, "instead")


def _ignoring(made: AssembledAlgorithm, rows: Sequence[KnownRow]) -> Iterator[ConsideredRival]:
    """A variable is there, and the answer is what is right most often with the others."""
    task = made.task
    reads = tuple(dict.fromkeys(root for read in task.answer.reads for root in task.roots(read)))
    for variable, step in _first_steps(made).items():
        rest = [name for name in reads if name != variable and name not in task.roots(variable)]
        if not rest or decides(rows, rest):
            continue
        rule = commonest(rows, rest)
        steps = [one for one in made.algorithm.steps if one.name == step or one.name in _before(made, step)]
        algorithm = Algorithm(
            f"without regard to {variable}", tuple(steps), Step(ANSWER, rule.reads, rule.function)
        )
        yield ConsideredRival(algorithm, {step: made.where[step]}, "ignores")


def _before(made: AssembledAlgorithm, step: str) -> set[str]:
    """The steps that a step is computed from."""
    found: set[str] = set()
    todo = [step]
    while todo:
        for read in made.algorithm.by_name[todo.pop()].reads:
            if read in made.algorithm.by_name and read not in found:
                found.add(read)
                todo.append(read)
    return found


def _turned(made: AssembledAlgorithm) -> Iterator[ConsideredRival]:
    """Two variables at each other's places."""
    steps = list(_first_steps(made).items())
    for i, (one, first) in enumerate(steps):
        for other, second in steps[i + 1 :]:
            if said(made.where[first]) != said(made.where[second]):
                algorithm = Algorithm(
                    f"{one} and {other} at each other's places", made.algorithm.steps, made.algorithm.answer
                )
                where = {first: made.where[second], second: made.where[first]}
                yield ConsideredRival(algorithm, where, "turned")


def _constant(made: AssembledAlgorithm, rows: Sequence[KnownRow]) -> Iterator[ConsideredRival]:
    """Whatever is asked, the commonest answer."""
    (answer,) = [commonest(rows).function()]
    for step in list(_first_steps(made).values())[:1]:
        steps = [one for one in made.algorithm.steps if one.name == step or one.name in _before(made, step)]
        algorithm = Algorithm(
            "always the commonest answer", tuple(steps), Step(ANSWER, (step,), lambda _: answer)
        )
        yield ConsideredRival(algorithm, {step: made.where[step]}, "constant")
