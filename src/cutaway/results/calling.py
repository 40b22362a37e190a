"""How verbs are called: by name, with keywords that exist and values of the right type, or not at all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from cutaway.errors import BadInput, require_known

F = TypeVar("F", bound=Callable[..., Any])
#: Annotation -> what it is called, and whether a value is one.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "int": ("a whole number", lambda v: isinstance(v, Integral) and not isinstance(v, bool)),
    "float": ("a number", lambda v: isinstance(v, Real) and not isinstance(v, bool)),
    "str": ("text", lambda v: isinstance(v, str)),
    "None": ("None", lambda v: v is None),
}


def strict(function: F) -> F:
    """A verb that refuses what it does not know, in a sentence, before anything runs.

    An unknown keyword is refused with the nearest one that exists; so are too many values without a name, a missing
    question, and a value whose type the annotation excludes (where that says only bool, int, float, str and None).

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
    signature = inspect.signature(function)
    parameters = signature.parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.kind not in several]
    places = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    name = function.__name__

    @functools.wraps(function)
    def call(*values: Any, **options: Any) -> Any:
        if len(values) > len(places):
            extra = ", ".join(repr(v)[:40] for v in values[len(places) :])
            keywords = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
            raise BadInput(
                f"{name} takes {' and '.join(places)}, then keywords; {extra} came without a name.",
                f"Keywords are {', '.join(keywords) or 'none'}.",
            )
        if not open_ended:
            require_known(options, parameters, name)
        given = dict(zip(places, values, strict=False)) | options
        missing = [key for key in needed if key not in given]
        if missing:
            raise BadInput(
                f"{name} needs {' and '.join(missing)}.", f"Call {name}({', '.join(places)}, ...)."
            )
        for key, value in given.items():
            if key in parameters:
                _check(name, parameters[key], value)
        return function(*values, **options)

    return cast(F, call)


def _check(verb: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise BadInput where a plainly annotated parameter is given a value of another type."""
    annotation = parameter.annotation
    kinds = [part.strip() for part in annotation.split("|")] if isinstance(annotation, str) else []
    if (
        not kinds
        or any(kind not in _TYPES for kind in kinds)
        or any(_TYPES[kind][1](value) for kind in kinds)
    ):
        return
    wanted = " or ".join(_TYPES[kind][0] for kind in kinds if kind != "None")
    name, default = parameter.name, parameter.default
    example = f"{name}=..." if default in (parameter.empty, None) else f"{name}={default!r}"
    raise BadInput(
        f"{verb} takes {wanted} as {name}, not {repr(value)[:60]}.",
        f"Give {example} or another value of that kind.",
    )
