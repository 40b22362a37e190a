"""How verbs are called: by name, with keywords that exist and values of the right type, or not at all."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from cutaway.errors import BadInput, require_known
from cutaway.results.meter import Meter, metered
from cutaway.results.values import fits, hints_of, in_words, listed, only_plain, short, wants_sequence, within
from cutaway.results.work import Work

#: What Python raises where a function is given what it was not made for.
MISTAKES = (
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
#: What stands for a behaviour in the verbs that can do with two prompts.
_TWO_PROMPTS = ("clean", "corrupted", "answers")
#: Keywords that say how a verb works, and change nothing of what it finds.
_HOW = ("work", "folder", "command", "batch")
F = TypeVar("F", bound=Callable[..., Any])
#: What numbers that verbs share may be, by the name of their keyword.
_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1), "batch": (1, math.inf), "top": (1, math.inf), "depth": (0, math.inf),
    "at_least": (0, 1),
}  # fmt: skip


def strict_as(verb: str) -> Callable[[F], F]:
    """`strict` for a verb that people call by another name than its function's, which errors then say.

    >>> @strict_as("test")
    ... def examine(net: object) -> None: ...
    >>> examine(None, sede=1)
    Traceback (most recent call last):
    cutaway.errors.UnknownOption: test has no option 'sede'. There are: net.
    """
    return lambda function: _strict(function, verb)


def strict(function: F) -> F:
    """A verb that refuses what it does not know, in a sentence, before anything runs.

    An unknown keyword is refused with the nearest one that exists; so are too many values without a name, a missing
    question, a value whose type the annotation excludes (where that says only bool, int, float, str and None), and a number
    out of range. Where it then fails on a value that its annotation excludes, that is said. While it runs, what networks
    take is counted: for its result, and for the budget of the work that it was handed.

    >>> @strict
    ... def read(net: object, *, top: int = 5) -> int:
    ...     return top
    >>> read(None, tpo=3)
    Traceback (most recent call last):
    cutaway.errors.UnknownOption: read has no option 'tpo'. Did you mean top?
    >>> read(None, top="many")
    Traceback (most recent call last):
    cutaway.errors.BadInput: read takes a whole number as top, not 'many'. Give top=5 or another value of that kind.
    """
    return _strict(function, function.__name__)


def _strict(function: F, name: str) -> F:
    signature = inspect.signature(function)
    parameters = signature.parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.kind not in several]
    places = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    @functools.wraps(function)
    def call(*values: Any, **options: Any) -> Any:
        if len(values) > len(places):
            extra = ", ".join(repr(v)[:40] for v in values[len(places) :])
            keywords = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
            raise BadInput(
                f"{name} takes {' and '.join(places)}, then keywords; {extra} came without a name.",
                f"Keywords are {', '.join(keywords) or 'none'}.",
            )
        _require_pairs(name, options, parameters)
        if not open_ended:
            require_known(options, parameters, name)
        given = dict(zip(places, values, strict=False)) | options
        missing = [key for key in needed if key not in given]
        if missing:
            raise BadInput(
                f"{name} needs {' and '.join(missing)}.", f"Call {name}({', '.join(places)}, ...)."
            )
        hints = hints_of(function)
        for key in given.keys() & hints.keys():
            if isinstance(given[key], Iterator) and wants_sequence(hints[key]):
                given[key] = listed(given[key], f"The values of {key}")
            if only_plain(hints[key]):
                _check(name, parameters[key], given[key], hints[key])
        values, options = tuple(given[n] for n in places[: len(values)]), {k: given[k] for k in options}
        handed = given.get("work")
        work = handed if isinstance(handed, Work) else Work()
        if work.stages is not None:
            options["work"] = work.bound(
                name, lambda: {k: _told(v) for k, v in given.items() if k not in _HOW}
            )
        with work.account.verb(), metered(work.meter, outermost=True), metered(Meter()):
            try:
                return function(*values, **options)
            except OSError as error:
                if error.filename is None:
                    raise
                remedy = "Look at the path, and at who may read it."
                raise BadInput(f"{short(error.filename)}: {error.strerror}.", remedy) from error
            except MISTAKES as error:
                for key, value in given.items():  # what it failed on may be what it was given
                    if key in hints and not fits(value, hints[key]):
                        raise _refused(name, parameters[key], value, hints[key]) from error
                raise

    return cast(F, call)


def _told(value: Any) -> Any:
    """What is asked of, as far as numbers depend on it: by its hash where it has one, else as plain data."""
    if isinstance(told := getattr(value, "hash", None), str):
        standing = getattr(value, "standing", None)  # edits that every run of a network carries
        return [told, _told(list(standing))] if standing else told
    if isinstance(value, Iterator) or callable(value):
        return type(value).__name__
    if callable(plain := getattr(value, "to_dict", None)):
        said = plain()
        return {k: v for k, v in said.items() if k != "provenance"} if isinstance(said, dict) else said
    if dataclasses.is_dataclass(value):
        return {f.name: _told(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_told(item) for item in value] if isinstance(value, list | tuple) else value


def _require_pairs(verb: str, options: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raise BadInput where a verb that works on many pairs is given two prompts instead."""
    two = [option for option in _TWO_PROMPTS if option in options and option not in parameters]
    if two and "behaviour" in parameters:
        raise BadInput(
            f"{verb} takes a behaviour of many pairs; two prompts ({', '.join(two)}) show one case and no mechanism.",
            "Give pairs: cutaway.behaviour('pairs.jsonl', net), or a built-in behaviour; for two prompts there are "
            "cutaway.patch, attribution_patch, ablate and path_patch.",
        )


def named(function: F) -> F:
    """A method whose unknown keywords are refused with the nearest one, at no cost where all are known.

    >>> @named
    ... def run(text: str, *, keep: tuple = ()) -> str:
    ...     return text
    >>> run("a", kepp=("z",))
    Traceback (most recent call last):
    cutaway.errors.UnknownOption: run has no option 'kepp'. Did you mean keep?
    """
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*values: Any, **options: Any) -> Any:
        if not options.keys() <= parameters.keys():
            require_known(options, [name for name in parameters if name != "self"], function.__name__)
        return function(*values, **options)

    return cast(F, call)


def _check(verb: str, parameter: inspect.Parameter, value: Any, hint: Any) -> None:
    """Raise BadInput where a parameter is given a value that its annotation excludes, or a number out of range."""
    if value is parameter.default:
        return
    if not fits(value, hint):
        raise _refused(verb, parameter, value, hint)
    if parameter.name in _BOUNDS:
        within(parameter.name, value, _BOUNDS[parameter.name])


def _refused(verb: str, parameter: inspect.Parameter, value: Any, hint: Any) -> BadInput:
    name, default = parameter.name, parameter.default
    example = f"{name}=..." if default in (parameter.empty, None) else f"{name}={default!r}"
    return BadInput(
        f"{verb} takes {in_words(hint).removesuffix(' or None')} as {name}, not {short(value)}.",
        f"Give {example} or another value of that kind.",
    )
