"""Does a value fit its annotation? The one rule for keywords of verbs, options of methods, and limits."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import itertools
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

import numpy as np

from cutaway.errors import BadInput

_NAMES = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "None",
}  # fmt: skip
_PLURAL = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "text": "texts",
    "true or false": "true or false",
}
#: So many values are read from what can be run through only once: far more than any keyword needs.
MOST_ONCE = 1_000_000
_SEVERAL = (collections.abc.Sequence, collections.abc.Iterable, list, set, frozenset)


def fits(value: Any, hint: Any, finite: bool = True) -> bool:
    """Is the value one of those that the annotation allows? Annotations that are not understood allow all.

    Numbers are finite unless that is waived, and numpy's count; arrays and what is run through once count as sequences, text
    and tables do not.

    >>> fits((1, 2), tuple[int, ...]), fits([1, "a"], tuple[int, ...]), fits(float("nan"), float)
    (True, False, False)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return fits(value, arguments[0], finite)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument, finite) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(argument) and value == argument for argument in arguments)
    if origin is tuple or origin in _SEVERAL:
        return _several(value, origin, arguments, finite)
    if origin is not None and isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return isinstance(value, collections.abc.Mapping) and (
            not arguments
            or all(fits(k, arguments[0], finite) and fits(v, arguments[1], finite) for k, v in value.items())
        )
    if origin is collections.abc.Callable:
        return callable(value)
    if hint in (int, float):
        number = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
        return number and (not finite or isinstance(value, Integral) or math.isfinite(value))
    if hint is type(None) or hint is None:
        return value is None
    kind = origin or hint
    if isinstance(kind, TypeVar) or not isinstance(kind, type):
        return True
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be asked
        return True


def _several(value: Any, origin: Any, arguments: tuple[Any, ...], finite: bool) -> bool:
    if isinstance(value, str | bytes | collections.abc.Mapping) or not hasattr(value, "__iter__"):
        return False
    if origin in (tuple, list, collections.abc.Sequence) and isinstance(value, set | frozenset):
        return False  # in no order
    if isinstance(value, np.ndarray) or hasattr(value, "tolist"):
        value = value.tolist()
        if not isinstance(value, list):
            return False
    elif not isinstance(value, tuple | list | set | frozenset | range):
        once = isinstance(
            value, collections.abc.Sequence | collections.abc.Iterator | collections.abc.MappingView
        )
        return once or origin is collections.abc.Iterable
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        return len(value) == len(arguments) and all(
            fits(v, a, finite) for v, a in zip(value, arguments, strict=True)
        )
    return not arguments or all(fits(item, arguments[0], finite) for item in value)


def in_words(hint: Any) -> str:
    """What an annotation allows, for people.

    >>> in_words(int | None), in_words(tuple[float, ...])
    ('a whole number or None', 'a list of numbers')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return in_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, arguments)))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if (origin is tuple or origin in _SEVERAL) and arguments:
        one = in_words(arguments[0])
        return f"a list of {_PLURAL.get(one, one.removeprefix('a '))}"
    return _NAMES.get(hint, f"a {getattr(origin or hint, '__name__', hint)}")


def only_plain(hint: Any) -> bool:
    """Does the annotation allow nothing but true or false, numbers, text and None, alone or several of them in order?

    >>> only_plain(int | None), only_plain(str | collections.abc.Sequence[str]), only_plain(collections.abc.Iterable[str])
    (True, True, False)
    """
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return all(
        (isinstance(kind, type) and kind in _NAMES)
        or (
            typing.get_origin(kind) in (tuple, list, collections.abc.Sequence)
            and _of_plain(typing.get_args(kind))
        )
        for kind in kinds
    )


def _of_plain(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and all(kind is Ellipsis or only_plain(kind) for kind in arguments)


def wants_sequence(hint: Any) -> bool:
    """Does the annotation ask for something that is counted or gone through more than once, where an iterator would not do?

    >>> wants_sequence(tuple[int, ...] | None), wants_sequence(typing.Iterable[str])
    (True, False)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(map(wants_sequence, arguments)) and not any(
            typing.get_origin(a) in (collections.abc.Iterable, collections.abc.Iterator) for a in arguments
        )
    return origin in (tuple, list, collections.abc.Sequence)


def listed(values: collections.abc.Iterable[Any], what: str) -> list[Any]:
    """What is run through once, as a list; BadInput for more than `MOST_ONCE` values, which may have no end.

    what: begins the sentence about them.

    >>> listed(iter("ab"), "The letters")
    ['a', 'b']
    """
    if isinstance(values, collections.abc.Sized):
        return list(values)
    found = list(itertools.islice(values, MOST_ONCE + 1))
    if len(found) > MOST_ONCE:
        raise BadInput(f"{what} have not ended after {MOST_ONCE:,}.", "Give a list, or what ends sooner.")
    return found


def short(value: Any) -> str:
    """A value as an error shows it; one that cannot show itself by its type."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def within(name: str, value: Any, bounds: tuple[float, float]) -> None:
    """Raise BadInput for a number outside its bounds, both of them included."""
    low, high = bounds
    if isinstance(value, Real) and not isinstance(value, bool) and not low <= float(value) <= high:
        allowed = f"from {low:g} on" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise BadInput(f"{name}={value!r} is out of range.", f"Give a number {allowed}.")


def check_fields(given: Any, bounds: Mapping[str, tuple[float, float]] | None = None) -> None:
    """Raise BadInput for a field of a dataclass that does not fit its annotation, or lies outside its bounds.

    bounds: by the name of the field.
    """
    hints = typing.get_type_hints(type(given))
    for field in fields(given):
        value = getattr(given, field.name)
        if not fits(value, hints[field.name]):
            raise BadInput(
                f"{field.name}={short(value)} is not an option's value.",
                f"Give {in_words(hints[field.name])}.",
            )
        if bounds and field.name in bounds:
            within(field.name, value, bounds[field.name])


def unfit(given: Any, at: str = "") -> str:
    """The first field of a dataclass, or of one inside it, that does not fit its annotation; "" where all do."""
    if isinstance(given, list | tuple):
        return next((bad for i, item in enumerate(given) if (bad := unfit(item, f"{at}[{i}]"))), "")
    if isinstance(given, collections.abc.Mapping):
        return next((bad for key, item in given.items() if (bad := unfit(item, f"{at}[{key!r}]"))), "")
    if not is_dataclass(given) or isinstance(given, type):
        return ""
    hints = _hints_of_class(type(given))
    for field in fields(given):
        value, place = getattr(given, field.name), f"{at}.{field.name}".lstrip(".")
        if not fits(value, hints.get(field.name, Any), finite=False):
            return f"{place} is {short(value)}"
        if bad := unfit(value, place):
            return bad
    return ""


@cache
def _hints_of_class(kind: type) -> dict[str, Any]:
    return {k: v for base in reversed(kind.__mro__) for k, v in _resolved(base).items()}


@cache
def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, with those that its module imports for the type checker alone.

    An annotation that names what cannot be found is left out.
    """
    return _resolved(function)


def _resolved(owner: Any) -> dict[str, Any]:
    """The annotations of a function or a class itself, as what they name."""
    module = sys.modules.get(owner.__module__)
    names = {} if module is None else _names_in(module)
    found = {}
    for name, annotation in vars(owner).get("__annotations__", getattr(owner, "__annotations__", {})).items():
        try:
            found[name] = eval(annotation, names) if isinstance(annotation, str) else annotation
        except (NameError, TypeError, AttributeError):
            continue
    return found


@cache
def _names_in(module: types.ModuleType) -> dict[str, Any]:
    names = dict(vars(module))
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return names
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__name__, "exec"), names)
    return names
