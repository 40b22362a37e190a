"""What the cases say of a task: which variables decide the answer, what is computed from what, and how else it could be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutaway.algorithms.model import ANSWER, Algorithm, Step
from cutaway.algorithms.proposing.rules import UNKNOWN, KnownRow, decides, needed, rule_of
from cutaway.behaviours.cases import Cases
from cutaway.behaviours.cases.case import parameters

#: The step that holds the answer before it is written.
OUTCOME = "outcome"


@dataclass(frozen=True, eq=False)
class KnownTask:
    """A way to compute the answer from the variables of cases.

    Attributes:
        free: variables that change the answer by themselves.
        derived: variables that are computed from others, each after those that it reads.
        answer: from variables to texts.
        by: the derived variable by whose way the answer is computed here though the cases do not say so; "" for none.
        says: how the answer follows, in words; "" where the cases' own function says it.
    """

    free: tuple[str, ...]
    derived: Mapping[str, Step]
    answer: Step
    by: str = ""
    says: str = ""

    @property
    def on_the_way(self) -> tuple[str, ...]:
        """Derived variables that the answer is computed from, directly or by others."""
        read, found = list(self.answer.reads), dict[str, None]()
        while read:
            name = read.pop()
            if name in self.derived and name not in found:
                found[name] = None
                read += self.derived[name].reads
        return tuple(name for name in self.derived if name in found)

    @property
    def outcome(self) -> Step | None:
        """A step that holds the answer; None where one derived variable alone decides it, which is that already."""
        if len(self.answer.reads) == 1 and self.answer.reads[0] in self.derived:
            return None
        name = OUTCOME
        while name in self.free or name in self.derived:
            name += "_"
        return Step(name, self.answer.reads, self.answer.function, "the answer itself")

    def roots(self, name: str) -> tuple[str, ...]:
        """The free variables that a variable is computed from; itself, where it is one."""
        if name not in self.derived:
            reads = self.answer.reads if name == self._outcome_name else (name,)
        else:
            reads = self.derived[name].reads
        if reads == (name,):
            return (name,)
        return tuple(dict.fromkeys(root for read in reads for root in self.roots(read)))

    @property
    def _outcome_name(self) -> str:
        return self.outcome.name if self.outcome is not None else ""

    @property
    def variables(self) -> tuple[str, ...]:
        """All whose places are looked for."""
        outcome = () if self.outcome is None else (self.outcome.name,)
        return (*self.free, *self.on_the_way, *outcome)

    def algorithm(self, name: str = "") -> Algorithm:
        """All of it, without saying where anything is carried: what single exchanges are predicted by."""
        steps = [self.derived[d] for d in self.on_the_way]
        if self.outcome is None:
            return Algorithm(name or "the task", tuple(steps), self.answer)
        last = Step(ANSWER, (self.outcome.name,), lambda texts: texts)
        return Algorithm(name or "the task", (*steps, self.outcome), last)


def known_task(cases: Cases, free: Sequence[str], rows: Sequence[KnownRow]) -> KnownTask:
    """The task as the cases say it; where they only list answers, as a rule or table of these."""
    frames = cases.frames
    if frames is None:
        derived = {n: s for n in cases.derived if (s := _tabulated(n, free, rows)) is not None}
        enough = (
            tuple(free) if decides(rows, free, 0) else tuple(v for v in cases.free if v not in cases.steady)
        )
        reads = needed(rows, enough) if decides(rows, enough, 0) else enough
        rule = rule_of(rows, reads)
        return KnownTask(tuple(free), derived, Step(ANSWER, rule.reads, rule.function), says=rule.says)
    derived = {n: Step(n, parameters(f, n), f) for n, f in frames.derived.items()}
    return KnownTask(
        tuple(free), derived, Step(ANSWER, parameters(frames.answer, "the answer"), frames.answer)
    )


def _tabulated(name: str, free: Sequence[str], rows: Sequence[KnownRow]) -> Step | None:
    """A derived variable whose function is not known, by the values of the free ones; None where these do not decide it."""
    table: dict[tuple[Any, ...], Any] = {}
    for row in rows:
        key = tuple(row.values[f] for f in free)
        if table.setdefault(key, row.values[name]) != row.values[name]:
            return None
    return Step(name, tuple(free), lambda *given: table.get(given, UNKNOWN))


def by_way_of(task: KnownTask, name: str, rows: Sequence[KnownRow]) -> KnownTask | None:
    """The same task with the answer computed from a derived variable that the cases do not compute it from.

    None where the variable with the others does not decide the answer, or is not needed for it.
    """
    names = [name, *task.free]
    roots = [root for root in task.roots(name) if root in task.free]
    for root in roots:  # a rule that is more than a list of rows holds beyond them
        rule = rule_of(rows, [n for n in names if n != root])
        if not rule.listed:
            return KnownTask(
                task.free, task.derived, Step(ANSWER, rule.reads, rule.function), name, rule.says
            )
    if not decides(rows, names, 0):
        return None
    reads = needed(rows, names, roots)
    if name not in reads:
        return None
    rule = rule_of(rows, reads)
    return KnownTask(task.free, task.derived, Step(ANSWER, rule.reads, rule.function), name, rule.says)


def others(cases: Cases, task: KnownTask, rows: Sequence[KnownRow]) -> list[KnownTask]:
    """The ways by which the answer could be computed through derived variables that the cases leave aside."""
    aside = [n for n in task.derived if n not in task.on_the_way and n not in cases.steady]
    touched = [n for n in aside if set(task.roots(n)) & set(task.free)]
    found = [by_way_of(task, name, rows) for name in touched]
    return [one for one in found if one is not None]
