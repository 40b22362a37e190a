"""Answers as functions of some variables, read off rows of values: a copy of one of them, one that another picks, a table.

The rows are what the cases say, not what a network does: values of the variables and the answers that are right with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from cutaway.behaviours.cases import Cases
from cutaway.behaviours.cases.case import Values, with_derived

#: The answer where the rows do not say one: right in no prompt, so that nothing is predicted.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
#: Values that are drawn from frames.
_ROWS = 3000
#: Rows that share what is read with another row, before it is believed that nothing else decides the answer.
_REPEATED = 20
#: A variable with more values than this picks nothing.
_PICKS = 16


@dataclass(frozen=True, eq=False)
class KnownRow:
    """Values with the answers that are right with them.

    Attributes:
        values: of every variable.
        answers: texts.
    """

    values: Values
    answers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class AnswerRule:
    """The answer as a function of some variables.

    Attributes:
        reads: their names.
        says: the rule in words.
        function: takes a value of each; gives `UNKNOWN` where the rows do not say.
        listed: is it only a table of the rows?
    """

    reads: tuple[str, ...]
    says: str
    function: Any
    listed: bool = False


def rows_of(cases: Cases, seed: int = 0) -> list[KnownRow]:
    """What is known of the answer: values drawn from the frames, or where there are none those of the cases."""
    frames = cases.frames
    if frames is None:
        return [KnownRow(case.values, tuple(text for text, _ in case.answers)) for case in cases]
    rng = np.random.default_rng([seed, 51])
    drawn: dict[tuple[Any, ...], Values] = {}
    for _ in range(_ROWS):
        chosen = {name: options[int(rng.integers(len(options)))] for name, options in frames.free.items()}
        if frames.allowed(chosen):
            drawn[tuple(chosen.values())] = chosen
    rows = []
    for chosen in drawn.values():
        values = with_derived(chosen, frames.derived)
        rows.append(KnownRow(values, frames.answers(values)))
    return rows


def decides(rows: Sequence[KnownRow], names: Sequence[str], repeated: int = _REPEATED) -> bool:
    """Do these variables decide the answer? Only where enough rows share their values with another.

    >>> rows = [KnownRow({"a": i % 3, "b": i % 2}, (str(i % 3),)) for i in range(60)]
    >>> decides(rows, ["a"]), decides(rows, ["b"])
    (True, False)
    """
    seen: dict[tuple[Any, ...], tuple[str, ...]] = {}
    again = 0
    for row in rows:
        key = tuple(row.values[name] for name in names)
        again += key in seen
        if seen.setdefault(key, row.answers) != row.answers:
            return False
    return again >= repeated


def needed(rows: Sequence[KnownRow], names: Sequence[str], first: Sequence[str] = ()) -> tuple[str, ...]:
    """Of variables that decide the answer together as few as still do; those named in `first` are left out first."""
    kept = list(names)
    for name in [*first, *(n for n in names if n not in first)]:
        rest = [n for n in kept if n != name]
        if rest and name in kept and decides(rows, rest):
            kept = rest
    return tuple(kept)


def rule_of(rows: Sequence[KnownRow], names: Sequence[str]) -> AnswerRule:
    """The answer as a function of these variables: the simplest that is right in every row, else a table of the rows.

    >>> rows = [KnownRow({"A": a, "B": b, "S": s}, (f" {b if s == a else a}",)) for a in "xy" for b in "zw" for s in (a, b)]
    >>> rule_of(rows, ["A", "B", "S"]).says
    'the one of A and B that is not S'
    """
    for rule in (*_copies(names), *_others(names), *_picks(rows, names)):
        if all(_follows(rule, row) for row in rows):
            return rule
    return _table(rows, names)


def commonest(rows: Sequence[KnownRow], names: Sequence[str] = ()) -> AnswerRule:
    """What is right most often with the values of some variables; of none, one answer for all.

    >>> rows = [KnownRow({"a": i % 2}, ("x" if i % 2 else "y",)) for i in range(5)]
    >>> commonest(rows).function(), commonest(rows, ["a"]).function(1)
    (('y',), ('x',))
    """
    counts: dict[tuple[Any, ...], dict[tuple[str, ...], int]] = {}
    for row in rows:
        count = counts.setdefault(tuple(row.values[n] for n in names), {})
        count[row.answers] = count.get(row.answers, 0) + 1
    table = {key: max(count, key=lambda answers: count[answers]) for key, count in counts.items()}
    says = f"what is right most often with {' and '.join(names)}" if names else "always the same"
    return AnswerRule(tuple(names), says, lambda *given: table.get(given, (UNKNOWN,)))


def _follows(rule: AnswerRule, row: KnownRow) -> bool:
    found = rule.function(*(row.values[name] for name in rule.reads))
    return any(found.strip() == answer.strip() for answer in row.answers) if isinstance(found, str) else False


def _spaced(value: Any) -> str:
    return f" {value}"


def _copies(names: Sequence[str]) -> list[AnswerRule]:
    return [AnswerRule((n,), f"the value of {n}", _spaced) for n in names] if len(names) == 1 else []


def _others(names: Sequence[str]) -> list[AnswerRule]:
    """One of two, namely the one that is not a third."""
    found = []
    for a, b, c in permutations(names, 3) if len(names) == 3 else ():
        if (a, b) == tuple(n for n in names if n in (a, b)):
            found.append(AnswerRule((a, b, c), f"the one of {a} and {b} that is not {c}",
                                    lambda a, b, c: _spaced(b if c == a else a)))  # fmt: skip
            found.append(AnswerRule((a, b, c), f"the one of {a} and {b} that is {c}",
                                    lambda a, b, c: _spaced(a if c == a else b)))  # fmt: skip
    return found


def _picks(rows: Sequence[KnownRow], names: Sequence[str]) -> list[AnswerRule]:
    """One variable says which of the others is the answer."""
    found = []
    for pick in names:
        values = dict.fromkeys(row.values[pick] for row in rows)
        rest = [n for n in names if n != pick]
        if not rest or len(values) > _PICKS:
            continue
        table: dict[Any, str] = {}
        for value in values:
            here = [row for row in rows if row.values[pick] == value]
            fit = [n for n in rest if all(_follows(AnswerRule((n,), "", _spaced), row) for row in here)]
            if fit:
                table[value] = fit[0]
        if len(table) == len(values):
            found.append(_picking(pick, tuple(rest), table))
    return found


def _picking(pick: str, rest: tuple[str, ...], table: Mapping[Any, str]) -> AnswerRule:
    def function(by: Any, *given: Any) -> str:
        return _spaced(given[rest.index(table[by])]) if by in table else UNKNOWN

    return AnswerRule((pick, *rest), f"the one of {', '.join(rest)} that {pick} picks", function)


def _table(rows: Sequence[KnownRow], names: Sequence[str]) -> AnswerRule:
    table = {tuple(row.values[n] for n in names): row.answers for row in rows}
    says = f"by {' and '.join(names)}"
    return AnswerRule(tuple(names), says, lambda *given: table.get(given, (UNKNOWN,)), listed=True)
