"""`brief`: how a result shows itself in a console: what it is, what came out, and what it holds, in a few lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

_WIDE, _LINES, _LONGEST, _NAMED = 88, 16, 1900, 6


def brief(self: Any) -> str:
    """A dataclass in a few lines, whatever it holds: its headline where it has one, then a line for each field.

    Arrays are told by type and shape, tables, lists and dicts by their size. At most about 1,900 characters. A class says
    `__repr__ = brief`.

    >>> @dataclasses.dataclass
    ... class Two:
    ...     values: object
    ...     names: tuple
    ...     __repr__ = brief
    >>> print(Two(np.zeros((3, 4)), ("a",) * 40))
    Two
      values  float64 [3, 4]
      names   40 × str
    """
    said = getattr(type(self), "headline", None)
    text = self.headline() if callable(said) else getattr(self, "headline", "")
    lines = [f"{type(self).__name__}{f': {_cut(str(text), 400)}' if text else ''}"]
    shown = [
        f for f in dataclasses.fields(self) if f.repr and not f.name.startswith("_") and f.name != "headline"
    ]
    width = min(20, max((len(f.name) for f in shown), default=0))
    lines += [f"  {f.name:{width}}  {told(getattr(self, f.name))}" for f in shown[:_LINES]]
    lines += [f"  and {len(shown) - _LINES} more fields"] if len(shown) > _LINES else []
    return _cut("\n".join(lines), _LONGEST)


def told(value: Any) -> str:
    """A value in one short line.

    >>> told({"a": 1, "b": 2}), told([1, 2]), told("x" * 100)[-5:]
    ('2 by name: a, b', '[1, 2]', "xxx…'")
    """
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, pd.DataFrame):
        return f"table of {len(value)} rows, {len(value.columns)} columns"
    if isinstance(value, str):
        return repr(_cut(value, _WIDE - 3))
    if isinstance(value, Mapping):
        names = ", ".join(map(str, list(value)[:_NAMED]))
        return _cut(f"{len(value)} by name: {names}" if value else "{}", _WIDE)
    if isinstance(value, tuple | list | set | frozenset):
        plain = len(value) <= 12 and all(isinstance(v, str | int | float | bool | None) for v in value)
        if plain and len(repr(value)) <= _WIDE:
            return repr(value)
        kinds = {type(v).__name__ for v in value}
        return f"{len(value)} × {kinds.pop() if len(kinds) == 1 else 'of several kinds'}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls, words = type(value), getattr(value, "words", None)
        if isinstance(words, str):  # a part of a network, whose name is for data
            return _cut(words, _WIDE)
        if cls.__str__ is object.__str__ and (cls.__repr__ is brief or len(dataclasses.fields(value)) > 4):
            return cls.__name__
        said = str(value)
        return said if len(said) <= _WIDE and "\n" not in said else cls.__name__
    return _cut(" ".join(repr(value).split()), _WIDE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
