"""One rule for what may be given where a position, a head, a neuron, a row or a layer is meant.

Integers (numpy's and torch's too; negative ones count from the end), slices, ranges, sequences of integers, and boolean
masks as long as the axis, which mean what they mean in numpy. Everything else is refused: nothing is rounded, read from
text or left out.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput
from cutaway.results import listed

#: What may be given where heads, neurons, layers or rows are meant. None means all of them.
Index = int | Sequence[int] | Sequence[bool] | range | slice | Tensor | None

_TAKES = "Give an integer, a list of integers, a range, a slice, or a boolean mask."


def indices(given: object, size: int, name: str, where: str = "this network") -> list[int]:
    """What is given as entries of an axis of so many, as numbers from 0 to size - 1, in the order given.

    Args:
        given: an integer, slice, range, sequence of integers (list, array, tensor), or a boolean mask of the axis.
        size: of the axis.
        name, where: of the axis, and of what has it, for the error.

    Raises `BadAddress` for what is none of these and where an entry is out of range, `BadInput` for what selects nothing.

    >>> indices(-1, 4, "head"), indices([True, False, True], 3, "head"), indices(slice(-2, None), 4, "head")
    ([3], [0, 2], [2, 3])
    >>> indices("03", 4, "head")
    Traceback (most recent call last):
    cutaway.errors.BadAddress: '03' is not a head. Give an integer, a list of integers, a range, a slice, or a boolean mask.
    """
    if isinstance(given, slice):
        numbers = list(range(*_slice(given, name).indices(size)))
    else:
        flat = flat_list(given, name)
        if flat and all(is_bool(item) for item in flat):
            if len(flat) != size:
                raise BadAddress(
                    f"A mask of {len(flat)} {name}s was given, and {where} has {size}.",
                    f"Give a boolean mask of {size}, or integers.",
                )
            numbers = [i for i, chosen in enumerate(flat) if chosen]
        else:
            numbers = [integer(item, name) for item in flat]
    if not numbers:
        raise BadInput(
            f"{shown(given)} is empty: it selects no {name}, so nothing would be done.",
            "Leave it out for all of them.",
        )
    for number in numbers:
        if not -size <= number < size:
            raise BadAddress(f"{name} {number} is out of range: {where} has {size}.", f"Use 0 to {size - 1}.")
    return [n % size for n in numbers]


def layer_numbers(given: object, depth: int) -> list[int]:
    """What is given as several layers, as numbers from 0, by the rule of `indices`.

    Raises what `indices` raises, and `BadInput` for a lone integer, which is no list of layers.
    """
    if not isinstance(given, slice) and not _is_several(given):
        raise BadInput(
            f"layers={shown(given)} is not a list of layers.", "Write layers=[0, 1] or layers=range(2)."
        )
    return indices(given, depth, "layer")


def without_repeats(numbers: list[int], name: str) -> list[int]:
    """The same numbers, where each is acted on by itself, so that one given twice would be acted on twice.

    Raises `BadAddress` where one is given twice (once as a negative number, perhaps).
    """
    repeated = next((n for n in numbers if numbers.count(n) > 1), None)
    if repeated is not None:
        raise BadAddress(f"{name} {repeated} is given twice.", "Give each once.")
    return numbers


def position_table(given: object) -> slice | Tensor:
    """What is given as row-relative positions: a slice, integers [k] or [rows k], or a boolean mask [p] or [rows p].

    Raises `BadAddress` for anything else, `BadInput` for a list that holds nothing.
    """
    if isinstance(given, slice):
        return _slice(given, "position")
    if isinstance(given, Tensor | np.ndarray) and given.ndim:
        return _table_of(torch.as_tensor(given))
    items = listed(given, "The positions") if _is_several(given) else [given]  # type: ignore[arg-type]
    if not items:
        raise BadInput("The list of positions is empty, so nothing would be done.", "Leave pos out for all.")
    if not any(_is_several(item) for item in items):
        flat = flat_list(given, "position")
        masked = all(is_bool(item) for item in flat)
        return torch.tensor(flat if masked else [integer(item, "position") for item in flat])
    rows = [row for item in items if _is_several(item) and isinstance(row := position_table(item), Tensor)]
    alike = {(tuple(row.shape), row.dtype) for row in rows}
    if len(rows) < len(items) or len(alike) > 1 or rows[0].ndim > 1:
        raise BadAddress(
            "The positions of the rows differ in number, or are not one list per row.",
            "Give an integer, a list of integers, or one list per row, all of one length.",
        )
    return torch.stack(rows)


def _table_of(given: Tensor) -> Tensor:
    """An array of positions as it is, once it holds what it may."""
    if not given.numel():
        raise BadInput("The list of positions is empty, so nothing would be done.", "Leave pos out for all.")
    if given.is_floating_point() or given.is_complex() or given.ndim > 2:
        raise BadAddress(
            f"An array of {str(given.dtype).removeprefix('torch.')} of shape {tuple(given.shape)} holds no positions.",
            _TAKES,
        )
    return given if given.dtype == torch.bool else given.long()


def flat_list(given: object, name: str) -> list[Any]:
    """One item or several, as a flat list whose items have not been looked at.

    Raises `BadAddress` for text and other things that are no items, and for lists of lists.
    """
    if is_bool(given):
        raise BadAddress(f"{given!r} is not a {name}.", _TAKES)
    if not _is_several(given):
        return [integer(given, name)]
    several: Any = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
    items = listed(several, f"The {name}s")
    if any(_is_several(item) for item in items):
        raise BadAddress(f"{shown(given)} is a list of lists, not of {name}s.", _TAKES)
    return items


def integer(item: object, name: str) -> int:
    """One item as an integer.

    Raises `BadAddress` for what is not one: a float, text, a truth value among integers.
    """
    if not is_bool(item) and not (torch.is_tensor(item) and item.is_floating_point()):
        try:
            return operator.index(item)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            pass
    raise BadAddress(f"{shown(item)} is not a {name}.", _TAKES)


def is_bool(item: object) -> bool:
    """Whether something is one truth value."""
    if torch.is_tensor(item):
        return item.dtype == torch.bool and item.ndim == 0
    return isinstance(item, bool | np.bool_)


def shown(given: object) -> str:
    """Something that was given, short enough for a sentence."""
    return f"{given!r:.60}"


def _is_several(given: object) -> bool:
    if isinstance(given, str | bytes | Mapping) or not (
        hasattr(given, "__len__") and hasattr(given, "__getitem__")
    ):
        return False  # nor are sets, which have no order, nor what can be gone through only once
    return getattr(given, "ndim", 1) > 0


def _slice(given: slice, name: str) -> slice:
    """A slice of integers."""
    ends = (given.start, given.stop, given.step)
    start, stop, step = (None if end is None else integer(end, name) for end in ends)
    if step == 0:
        raise BadAddress(f"A slice of {name}s goes in steps of 0.", "Leave the step out.")
    return slice(start, stop, step)
