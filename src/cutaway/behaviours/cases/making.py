"""Cases made from frames whose slots are variables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.behaviours.cases.case import (
    LAST,
    Case,
    Frames,
    Function,
    Value,
    is_value,
    make_cases,
    parameters,
    plain,
)
from cutaway.behaviours.cases.collection import Cases
from cutaway.behaviours.data import Ids
from cutaway.behaviours.generators.engine import fill
from cutaway.errors import BadBehaviour, BadInput, did_you_mean
from cutaway.results import listed, strict

if TYPE_CHECKING:
    from cutaway.network import Network

#: How often as many cases are drawn as are wanted, before it is given up.
_ROUNDS = 40
#: Values that are drawn in search of a prompt that tells two variables apart.
_LOOKED = 500
_SLOT = re.compile(r"\{(\w+)\}")
_EXAMPLE = 'Give e.g. "When {A} and {B} went out, {S} gave a ball to".'


@strict
def cases(
    net: Network,
    frames: str | Sequence[str],
    variables: Mapping[str, Any],
    answer: Any,
    *,
    differ: Sequence[str] = (),
    name: str = "cases",
    n: int = 128,
    seed: int = 0,
) -> Cases:
    """Prompts made from frames whose slots are variables, with the answer as a function of these.

    Args:
        net: the network, whose tokenizer cuts the prompts.
        frames: one text or several with slots in braces, e.g. "{A} and {B} went out. {S} gave a ball to".
        variables: by name a list of values, of a variable that is free, or a function of other variables.
        answer: a function of variables that gives the text that follows, or several that are all right.
        differ: free variables that never have the same value in a prompt.
        name: what they are called.
        n: different prompts.
        seed: of the drawing.

    Raises:
        BadInput: for a slot without a variable, a variable that reads one that is not there, values that are no list.
        BadBehaviour: where a function fails, an answer has no token of its own behind its prompt, or no prompt can be made.

    >>> import cutaway
    >>> net = cutaway.open("zoo:tales")
    >>> made = cases(
    ...     net, "Then {A} saw {B} and {C}", {"A": ["Tom", "Ben"], "B": ["Lily", "Mia"], "C": lambda A: A},
    ...     lambda A: f" {A}", n=4,
    ... )
    >>> len(made), made.variables, made.free
    (4, ('A', 'B', 'C'), ('A', 'B'))
    """
    if n < 1:
        raise BadInput(f"n={n!r} prompts are asked for.", "Ask for at least one.")
    plan = _plan(frames, variables, answer, differ)
    rng = np.random.default_rng([seed, 10])
    most = len(plan.frames) * math.prod(len(v) for v in plan.free.values())
    found: dict[tuple[str, Ids], Case] = {}
    drawn: set[Any] = set()
    for _ in range(_ROUNDS):
        asked = []
        for _ in range(max(16, 2 * (n - len(found)))):
            frame = plan.frames[int(rng.integers(len(plan.frames)))]
            chosen = {v: options[int(rng.integers(len(options)))] for v, options in plan.free.items()}
            key = (frame, tuple(chosen.values()))
            if key not in drawn and plan.allowed(chosen):
                drawn.add(key)
                asked.append((frame, chosen))
        for case in make_cases(net, plan, asked):
            if len(found) < n:
                found.setdefault((case.template, case.ids), case)
        if len(found) >= min(n, most):
            break
    if not found:
        raise BadBehaviour(f"No prompt of {name!r} can be made.", "Give values that may stand together.")
    notes = () if len(found) >= n else (f"There are {len(found)} different prompts; {n} were asked for.",)
    return noted(Cases(name, tuple(found.values()), plan, seed, notes))


def noted(made: Cases) -> Cases:
    """The same with notes on what they cannot tell: variables that never vary, or only together."""
    more = [f"{v!r} never varies: give it a second value." for v in made.steady]
    more += [
        f"{a!r} and {b!r} vary together: only prompts in which one varies without the other tell them apart. "
        f"{_apart(made, a, b)}"
        for a, b in made.together
        if not _by_definition(made, a, b)
    ]
    return replace(made, notes=(*made.notes, *more))


def _apart(made: Cases, one: str, other: str) -> str:
    """A prompt that would tell two variables apart that vary together: made from the frames, or told by its values."""
    with_it = dict(zip(made.values(one), made.values(other), strict=True))
    frames = made.frames
    if frames is None:
        first, second = list(with_it)[:2]
        return f"One with {one} = {first!r} and {other} = {with_it[second]!r} would."
    rng = np.random.default_rng([made.seed, 14])
    for _ in range(_LOOKED):
        chosen = {v: options[int(rng.integers(len(options)))] for v, options in frames.free.items()}
        if not frames.allowed(chosen):
            continue
        values = frames.filled(chosen)
        if with_it.get(values[one], values[other]) != values[other]:
            text, _ = fill(frames.frames[0], {name: str(value) for name, value in values.items()})
            return f"One like {text!r} would ({one} = {values[one]!r}, {other} = {values[other]!r})."
    return "No prompt of these frames would: give the variables other values, or functions."


def _by_definition(made: Cases, one: str, other: str) -> bool:
    """Is the other computed from the one alone, so that no prompt could tell them apart?"""
    derived = {} if made.frames is None else made.frames.derived
    return other in derived and parameters(derived[other], "") == (one,)


def require_names(names: Iterable[Any]) -> None:
    """Raises `BadInput` for what cannot be the name of a variable."""
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise BadInput(
                f"{name!r:.60} is no name of a variable.", "Name it as in Python, e.g. first_name."
            )
        if name == LAST:
            raise BadInput(f"The name {LAST!r} is that of the last token.", "Give the variable another name.")


def _plan(frames: Any, variables: Any, answer: Any, differ: Any) -> Frames:
    """Frames and variables, held against each other."""
    texts = (frames,) if isinstance(frames, str) else frames
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(f, str) for f in texts):
        raise BadInput(f"The frames are {frames!r:.60}.", _EXAMPLE)
    if not isinstance(variables, Mapping) or not variables:
        raise BadInput("There is no variable.", 'Give e.g. {"A": ["Mary", "John"]}.')
    require_names(variables)
    free = {name: _values(name, given) for name, given in variables.items() if not callable(given)}
    derived: dict[str, Function] = {name: given for name, given in variables.items() if callable(given)}
    if not free:
        raise BadInput(
            "Every variable is computed from others.", 'Give values of one: {"A": ["Mary", "John"]}.'
        )
    if not callable(answer):
        raise BadInput(
            f"The answer is {answer!r:.60}.", "Give a function of variables, e.g. lambda A: ' ' + A."
        )
    known = list(free)
    for name, function in derived.items():
        _require_reads(function, f"the variable {name!r}", known)
        known.append(name)
    _require_reads(answer, "the answer", known)
    for frame in texts:
        for slot in _SLOT.findall(frame):
            if slot not in known:
                raise BadInput(
                    f"The frame {frame!r:.80} has a slot {slot!r:.40}, which is no variable.",
                    did_you_mean(slot, known),
                )
    apart = (differ,) if isinstance(differ, str) else tuple(differ)
    for name in apart:
        if name not in free:
            raise BadInput(f"{name!r:.60} is no free variable.", did_you_mean(name, list(free)))
    return Frames(tuple(texts), free, derived, answer, apart)


def _require_reads(function: Function, what: str, known: Sequence[str]) -> None:
    for read in parameters(function, what):
        if read not in known:
            said = f"{what[:1].upper()}{what[1:]}"
            raise BadInput(
                f"{said} reads {read!r:.60}, which is no variable before it.", did_you_mean(read, known)
            )


def _values(name: str, given: Any) -> tuple[Value, ...]:
    """The values of a free variable. Raises `BadInput` for what is no list of them."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise BadInput(f"The values of {name!r} are {given!r:.60}.", "Give a list of values, or a function.")
    options = [plain(value) for value in listed(given, f"The values of {name!r}")]
    if not options or not all(is_value(v) for v in options):
        raise BadInput(
            f"The values of {name!r} are {given!r:.60}.", "Give a list of texts, numbers, True or False."
        )
    return tuple(dict.fromkeys(options))
