"""Where marks stand along an axis, and one value for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.figures.still.sheet import Sheet
from cutaway.figures.still.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A trace of a description, as plain data.
Trace = dict[str, Any]


def per_mark(value: Any, n: int, default: Any) -> list[Any]:
    """One value for each of n marks: a list as it is, anything else n times.

    >>> per_mark([1, 2], 2, 0), per_mark("red", 2, ""), per_mark(None, 1, 7)
    ([1, 2], ['red', 'red'], [7])
    """
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        given = list(value)
        return (given + [default] * n)[:n]
    return [default if value is None else value] * n


def places(sheet: Sheet, axes: Axes, kind: str, values: Any) -> np.ndarray:
    """Coordinates along an axis ("x" or "y") as numbers, NaN for none; names are numbered as they first appear."""
    given = list(values) if values is not None else []
    if not any(isinstance(v, str) for v in given):
        numbers = np.array([np.nan if v is None else float(v) for v in given])
        return np.where(np.isfinite(numbers), numbers, np.nan)
    known = sheet.names.setdefault((id(axes), kind), {})
    for name in map(str, given):
        known.setdefault(name, len(known))
    label = axes.set_xticks if kind == "x" else axes.set_yticks
    label(list(known.values()), list(map(plain, known)), parse_math=False)
    return np.array([float(known[str(v)]) for v in given])


def point_words(trace: Trace, n: int) -> list[str] | None:
    """What stands over each of n marks: their text or custom data, where the description shows it there."""
    template = str(trace.get("hovertemplate") or "")
    for field in ("customdata", "text"):
        if template.startswith(f"%{{{field}}}") and trace.get(field) is not None:
            return [plain(w) for w in per_mark(trace[field], n, "")]
    return None
