"""How the entries of a sweep's dimensions are spelled: for people, and by those who select them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cutaway.errors import BadFormat
from cutaway.network.parts import Input, Part, in_words

#: Dimensions whose labels are names of parts or of their inputs.
PARTS = {"sender": Part, "receiver": Input, "first": Part, "second": Part}


def said(dim: str, label: str) -> str:
    """A label for people: parts in words; names that an earlier version saved are in words already.

    >>> said("sender", "a3.h1"), said("receiver", "a5.kv1<k>"), said("layer", "3")
    ('head 3.1', "key/value head 5.1's keys", '3')
    """
    return in_words(label) if dim in PARTS else label


def spelled(dim: str, wanted: Any, there: Sequence[Any]) -> Any:
    """What is asked of a dimension of parts, as its labels spell it."""
    if dim not in PARTS or isinstance(wanted, slice):
        return wanted
    if isinstance(wanted, list | tuple | np.ndarray):
        return [spelled(dim, item, there) for item in wanted]
    if str(wanted) in there:
        return str(wanted)
    try:
        asked = PARTS[dim].of(wanted)
        return next((label for label in there if PARTS[dim].parse(label) == asked), str(wanted))
    except BadFormat:
        return str(wanted)
