"""One prompt with what is known of it, and the frames that such prompts are made from.

Variables are *free*, drawn from a list of values, or *derived*, computed from others by a plain function. The answer is
derived, too. A change of a free variable changes what is derived from it and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.data import Ids, Span
from cutaway.behaviours.examples import Answer
from cutaway.behaviours.generators.engine import fill
from cutaway.behaviours.tokenizing import continuation, encode, token_spans
from cutaway.errors import BadBehaviour, BadInput

if TYPE_CHECKING:
    from cutaway.network import Network

Value = str | int | float | bool
Values = Mapping[str, Value]
#: Gives the value of a derived variable, or the answers, from variables that its parameters name.
Function = Callable[..., Any]
#: The span of the token whose logits are read.
LAST = "last"


@dataclass(frozen=True)
class Case:
    """One prompt with what is known of it.

    Attributes:
        text: the prompt.
        ids: its tokens, without padding.
        values: of every variable.
        answers: (text, tokens) of each right answer.
        spans: half-open ranges of tokens by name, `last` among them.
        template: of the frame that it was made from.
        answer_pos: whose logits are read, row-relative.
    """

    text: str
    ids: Ids
    values: Values
    answers: tuple[Answer, ...]
    spans: Mapping[str, Span] = field(default_factory=dict)
    template: str = ""
    answer_pos: int = -1

    def aligned(self, other: Case) -> bool:
        """Is the other another prompt of as many tokens, whose named words stand at the same ones?"""
        same = len(self.ids) == len(other.ids) and dict(self.spans) == dict(other.spans)
        return same and self.ids != other.ids and self.answer_pos == other.answer_pos


@dataclass(frozen=True)
class Frames:
    """What cases are made from: frames with slots, and what fills them.

    Attributes:
        frames: texts with slots, `{name}`; a slot takes a variable of its name.
        free: values of each free variable.
        derived: by name a function whose parameters are variables; free ones or derived before it.
        answer: a function of variables that gives a text that follows the prompt, or several that are all right.
        differ: free variables that have different values in a prompt.
    """

    frames: tuple[str, ...]
    free: Mapping[str, tuple[Value, ...]]
    derived: Mapping[str, Function]
    answer: Function
    differ: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names, free ones first."""
        return (*self.free, *self.derived)

    def filled(self, chosen: Values) -> dict[str, Value]:
        """Values of all variables, of those of the free ones."""
        return with_derived(chosen, self.derived)

    def answers(self, values: Values) -> tuple[str, ...]:
        """The right answers."""
        found = called(self.answer, values, "the answer")
        many = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, Sequence) else ()
        if not many or not all(isinstance(a, str) and a for a in many):
            raise BadBehaviour(
                f"The answer to {dict(values)} is {found!r:.60}.",
                "Return a text, or several, that follow the prompt.",
            )
        return many

    def allowed(self, chosen: Values) -> bool:
        """Do those that are to differ differ?"""
        values = [chosen[name] for name in self.differ]
        return len(set(values)) == len(values)


def with_derived(chosen: Values, derived: Mapping[str, Function]) -> dict[str, Value]:
    """Values with those of the derived variables. Raises `BadBehaviour` where a function gives what is no value."""
    values = dict(chosen)
    for name, function in derived.items():
        found = plain(called(function, values, f"the variable {name!r}"))
        if not is_value(found):
            raise BadBehaviour(
                f"The variable {name!r} of {dict(chosen)} is {found!r:.60}.",
                "Return a text, a number, True or False.",
            )
        values[name] = found
    return values


def plain(value: Any) -> Any:
    """A value without NumPy's type."""
    return value.item() if isinstance(value, np.generic) else value


def is_value(value: Any) -> bool:
    """May a variable have it?"""
    return isinstance(value, str | int | float)


def parameters(function: Function, what: str) -> tuple[str, ...]:
    """The variables that a function reads. Raises `BadInput` where its parameters are no names."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"The parameters of {what} are not known.", "Give a function written in Python."
        ) from error
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in found):
        raise BadInput(
            f"{what[:1].upper()}{what[1:]} is a function whose arguments have no names.",
            "Name the variables that it reads: lambda A, B: ...",
        )
    return tuple(p.name for p in found if p.default is p.empty)


def called(function: Function, values: Values, what: str) -> Any:
    """A function of the variables that its parameters name. Raises `BadBehaviour` with the values where it fails."""
    reads = {name: values[name] for name in parameters(function, what)}
    try:
        return function(**reads)
    except Exception as error:
        raise BadBehaviour(
            f"Computing {what} of {reads} failed: {type(error).__name__}: {error}.", "Look at that function."
        ) from error


def make_cases(net: Network, frames: Frames, asked: Sequence[tuple[str, Values]]) -> list[Case]:
    """A case of each frame and values of the free variables.

    Raises `BadBehaviour` where a function fails, or an answer has no token of its own behind its prompt.
    """
    if not asked:
        return []
    full = [frames.filled(chosen) for _, chosen in asked]
    texts = [
        fill(frame, {k: str(v) for k, v in values.items()})
        for (frame, _), values in zip(asked, full, strict=True)
    ]
    made: list[Case] = []
    known: dict[tuple[str, str], Ids] = {}
    for (frame, _), values, (text, slots), ids in zip(
        asked, full, texts, encode(net, [text for text, _ in texts]), strict=True
    ):
        answers = []
        for answer in frames.answers(values):
            key = (text.split(" ")[-1], answer)
            if key not in known:
                known[key] = continuation(net, text, answer)
            answers.append((answer, known[key]))
        spans = token_spans(net, text, ids, {k: v for k, v in slots.items() if v[0] < v[1]})
        made.append(Case(text, ids, values, tuple(answers), spans | {LAST: (len(ids) - 1, len(ids))}, frame))
    return made
