"""Values of a run: the entries that are kept, and the edits that must leave them as they are."""

from __future__ import annotations

from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.edits import EditFunction, Here


def _version(value: Tensor) -> int:
    return 0 if value.is_inference() else value._version


def unchanged(edit: EditFunction, value: Tensor, here: Here) -> Tensor:
    """What an edit makes of a value, which must itself stay as it is: others hold it.

    Raises `BadInput` where the edit wrote into it.
    """
    before = _version(value)
    new = edit(value, here)
    if _version(value) != before:
        raise BadInput(
            f"An edit at {here.site} changed the network's own tensor in place.",
            "Change a copy (value.clone()) and return it, or use cutaway.Apply, which hands out a copy.",
        )
    return new


def taken(value: Tensor, index: Tensor, axis: int) -> Tensor:
    """The entries of a value at an index [b k] along an axis."""
    shape = [index.shape[0], *[1] * (value.ndim - 1)]
    shape[axis] = index.shape[1]
    return value.take_along_dim(index.to(value.device).reshape(shape), axis)
