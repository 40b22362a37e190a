"""Options given as a dataclass or as keywords, and refused where nobody knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from cutaway.errors import BadInput, require_known

Options = TypeVar("Options")


def chosen(
    kind: type[Options],
    options: Options | None,
    choices: Mapping[str, Any],
    verb: str,
    keywords: Sequence[str],
) -> Options:
    """The options of a verb: those given, or made of its keywords. keywords: those that the verb has besides them.

    Raises `UnknownOption` for a keyword that is no field of theirs, `BadInput` where both are given or the options are of
    another kind.
    """
    names = [f.name for f in fields(kind)]  # pyright: ignore[reportArgumentType]
    require_known(choices, [*names, *keywords], verb)
    if options is None:
        return kind(**choices)
    if not isinstance(options, kind):
        raise BadInput(f"options is a {type(options).__name__}.", f"Give {kind.__name__}.")
    if choices:
        name = next(iter(choices))
        raise BadInput(f"{name} is given beside options.", "Put it into the options, or give keywords only.")
    return options
