"""A causal model over the variables of cases: steps that are plain functions of what their parameters name, and an answer.

Intervening is giving values: `algorithm.answers(values, given={"other": "Mary"})` are the right answers of a world in which
`other` was set, whatever the prompt says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.cases.case import parameters
from cutaway.errors import BadInput, did_you_mean
from cutaway.results import strict

if TYPE_CHECKING:
    from cutaway.behaviours.cases import Cases

#: The name under which the last step, which gives the answer, stands.
ANSWER = "answer"


@dataclass(frozen=True)
class Step:
    """A variable that the algorithm computes.

    Attributes:
        name: of the variable.
        reads: variables, of the cases or of other steps.
        function: takes one value for each name in `reads`, in that order.
        meaning: in words; may be empty.
    """

    name: str
    reads: tuple[str, ...]
    function: Callable[..., Any]
    meaning: str = ""

    def value(self, known: Mapping[str, Any], of: str) -> Any:
        """Its value, from the values of what it reads. Raises `BadInput`, with these, where its function fails."""
        given = {name: known[name] for name in self.reads}
        try:
            return self.function(*given.values())
        except Exception as error:
            what = f"The step {self.name!r}" if self.name != ANSWER else "The answer"
            raise BadInput(
                f"{what} of {of!r} failed on {given!r:.200}: {type(error).__name__}: {error}.",
                "Look at that function; it gets one value for each variable that it names.",
            ) from error


@dataclass(frozen=True)
class Algorithm:
    """What a network may compute: variables, each from others, and the answer from them. Made by `cutaway.algorithm`.

    Attributes:
        name: what it does, in a few words.
        steps: each after those that it reads.
        answer: the step that gives a text that follows the prompt, or several that are all right.
    """

    name: str
    steps: tuple[Step, ...]
    answer: Step

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        twice = next((name for name in names if names.count(name) > 1 or name == ANSWER), None)
        if twice is not None:
            raise BadInput(
                f"Two steps of {self.name!r} are called {twice!r}.", "Give each a name of its own."
            )
        object.__setattr__(self, "steps", _in_order(self.name, self.steps))

    def to_dict(self) -> dict[str, Any]:
        """What reads what, as plain data; of the functions themselves nothing."""
        told = {s.name: {"reads": list(s.reads), "meaning": s.meaning} for s in (*self.steps, self.answer)}
        return {"name": self.name, "steps": told}

    def __repr__(self) -> str:
        return f"Algorithm({self.name!r}, {_listed(list(self.by_name))}, from {_listed(self.inputs)})"

    def __str__(self) -> str:
        lines = [
            f"  {s.name} from {_listed(s.reads)}{f': {s.meaning}' if s.meaning else ''}" for s in self.steps
        ]
        return "\n".join([f"{self.name}", *lines, f"  answer from {_listed(self.answer.reads)}"])

    @cached_property
    def by_name(self) -> dict[str, Step]:
        """The steps, by name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Variables of the cases that it reads, in the order in which they are read."""
        read = [name for step in (*self.steps, self.answer) for name in step.reads]
        return tuple(name for name in dict.fromkeys(read) if name not in self.by_name)

    @property
    def variables(self) -> tuple[str, ...]:
        """All that can be set: inputs, then steps."""
        return (*self.inputs, *self.by_name)

    def children(self, name: str) -> tuple[str, ...]:
        """What reads a variable; "answer" is one of them where the answer reads it.

        >>> copies = algorithm("copies", other=lambda A, B, S: B if S == A else A, answer=lambda other: f" {other}")
        >>> copies.children("A"), copies.children("other"), copies.inputs
        (('other',), ('answer',), ('A', 'B', 'S'))
        """
        self._require(name)
        return tuple(step.name for step in (*self.steps, self.answer) if name in step.reads)

    def edges(self) -> tuple[tuple[str, str], ...]:
        """Who is read by whom: (variable, reader)."""
        return tuple((name, reader) for name in self.variables for reader in self.children(name))

    def run(self, values: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The value of every variable.

        values: of the inputs at least. given: variables that are set by intervention, inputs or steps.

        Raises `BadInput` for an input without a value, a variable that is not there, a step that fails.
        """
        given = given or {}
        for name in given:
            self._require(name)
        known: dict[str, Any] = {}
        for name in self.inputs:
            if name not in given and name not in values:
                raise BadInput(
                    f"{self.name!r} reads {name!r}, which has no value here.", did_you_mean(name, values)
                )
            known[name] = given[name] if name in given else values[name]
        for step in self.steps:
            known[step.name] = given[step.name] if step.name in given else step.value(known, self.name)
        return known

    def answers(self, values: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """The right answers. Raises what `run` raises, and `BadInput` for an answer that is no text.

        >>> copies = algorithm("copies", other=lambda A, B, S: B if S == A else A, answer=lambda other: f" {other}")
        >>> copies.answers({"A": "Tom", "B": "Mia", "S": "Mia"}), copies.answers({"A": 1, "B": 2, "S": 1}, {"other": 3})
        ((' Tom',), (' 3',))
        """
        known = self.run(values, given)
        found = self.answer.value(known, self.name)
        many = (found,) if isinstance(found, str) else found
        if (
            not isinstance(many, tuple | list | set | frozenset)
            or not many
            or not all(isinstance(a, str) and a for a in many)
        ):
            raise BadInput(
                f"The answer of {self.name!r} to { {n: known[n] for n in self.answer.reads} } is {found!r:.60}.",
                'Return a text that follows the prompt, e.g. f" {name}", or several.',
            )
        return tuple(many)

    def require(self, cases: Cases) -> None:
        """Raises `BadInput` for what it reads and is neither a step nor a variable of the cases, and for a step that is
        called as one of their free variables."""
        for step in (*self.steps, self.answer):
            for name in step.reads:
                if name not in self.by_name and name not in cases.variables:
                    what = "The answer" if step is self.answer else f"The step {step.name!r}"
                    raise BadInput(
                        f"{what} of {self.name!r} reads {name!r}, which is no step and no variable of {cases.name!r}.",
                        did_you_mean(name, [*cases.variables, *self.by_name]),
                    )
        taken = next((name for name in self.by_name if name in cases.free), None)
        if taken is not None:
            raise BadInput(
                f"The step {taken!r} of {self.name!r} is called as a variable of {cases.name!r}.",
                "Give the step another name.",
            )

    def _require(self, name: str) -> None:
        if name not in self.by_name and name not in self.inputs:
            raise BadInput(f"{self.name!r} has no variable {name!r:.60}.", did_you_mean(name, self.variables))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _in_order(name: str, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, each after those that it reads. Raises `BadInput` where they read each other in a circle."""
    left, placed = list(steps), list[Step]()
    while left:
        waiting = {step.name for step in left}
        ready = next((step for step in left if not waiting & set(step.reads)), None)
        if ready is None:
            raise BadInput(
                f"The steps {', '.join(s.name for s in left)} of {name!r} read each other in a circle.",
                "A step may read only what can be computed before it.",
            )
        left.remove(ready)
        placed.append(ready)
    return tuple(placed)


@strict
def algorithm(name: str, *, answer: Any, **steps: Any) -> Algorithm:
    """An algorithm over the variables of `cases`, of plain functions whose parameters name what they read.

    Args:
        name: what it does, in a few words.
        answer: a function of variables that gives the text that follows the prompt, or several that are all right.
        steps: each variable that it computes: a function of variables of the cases or of other steps, or a pair of such a
            function and what it means, in words.

    Raises `BadInput` for what is no function, for steps that read each other in a circle.

    >>> print(algorithm("copies", other=(lambda A, B: B, "the other name"), answer=lambda other: f" {other}"))
    copies
      other from A, B: the other name
      answer from other
    """
    made = [_step(step, given) for step, given in steps.items()]
    return Algorithm(name, tuple(made), _step(ANSWER, answer))


def _step(name: str, given: Any) -> Step:
    if isinstance(given, Step):
        return Step(name, given.reads, given.function, given.meaning)
    function, meaning = given if isinstance(given, tuple | list) and len(given) == 2 else (given, "")
    if not callable(function) or not isinstance(meaning, str):
        what = "The answer" if name == ANSWER else f"The step {name!r}"
        raise BadInput(
            f"{what} is {given!r:.60}.",
            "Give a function of variables, e.g. lambda A, B: B, or (function, meaning).",
        )
    what = "the answer" if name == ANSWER else f"the step {name!r}"
    return Step(name, parameters(function, what), function, meaning)
