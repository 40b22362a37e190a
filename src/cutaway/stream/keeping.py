"""What the results of the stream share: where they come from, and how they are written and read."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
from torch import Tensor

from cutaway.errors import BadInput, UnknownOption, nearest
from cutaway.network.inputs import Tokens
from cutaway.network.parts import Part
from cutaway.results import Provenance, Result, head, pack, read, save_folder, unpack

if TYPE_CHECKING:
    from cutaway.network import Network

R = TypeVar("R")


def require_one(what: str, given: object, known: Iterable[str]) -> None:
    """Raise `UnknownOption` for a value of an option that nothing reads, with the nearest one that is known.

    >>> require_one("by", "haed", ("head", "neuron"))
    Traceback (most recent call last):
    cutaway.errors.UnknownOption: by='haed' is not known. Did you mean 'head'?
    """
    names = list(known)
    if given not in names:
        near = nearest(str(given), names, 1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Use one of {', '.join(names)}."
        raise UnknownOption(f"{what}={given!r} is not known.", remedy)


def origin(
    net: Network, data: Tokens | Tensor | Sequence[Any] | None, began: float, seed: int = 0
) -> Provenance:
    """Where a result comes from: the network, the token rows that were read (their hash), since when (`time.monotonic`)."""
    if data is None:
        text_hash = ""
    else:
        rows = [data.row_ids(i) for i in range(data.n)] if isinstance(data, Tokens) else data
        rows = rows.tolist() if isinstance(rows, Tensor) else rows
        text_hash = hashlib.sha256(repr(rows).encode()).hexdigest()
    return Provenance.of(net, text_hash, seed, time.monotonic() - began)


def require_count(what: str, given: object, least: int = 1) -> None:
    """Raise `BadInput` where an option is not a whole number of at least so many.

    >>> require_count("top", 2.5)
    Traceback (most recent call last):
    cutaway.errors.BadInput: top=2.5 is no whole number of at least 1. Give top=1 or more.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise BadInput(
            f"{what}={given!r} is no whole number of at least {least}.", f"Give {what}={least} or more."
        )


def in_words(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A table for people: names of parts in these columns as words.

    >>> in_words(pd.DataFrame({"head": ["a3.h1"], "score": [0.5]}), "head")["head"].tolist()
    ['head 3.1']
    """
    return table.assign(**{column: [Part.parse(name).words for name in table[column]] for column in columns})


def save(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result whose fields are arrays, text and numbers as a folder, whole or not at all."""
    content, tensors = pack(result)
    del content["provenance"]  # it stands in the manifest's head
    return save_folder(path, head(result.kind, result.provenance, content=content), tensors)


def load(cls: type[R], path: str | os.PathLike[str]) -> R:
    """Read back what `save` wrote; raises `BadFormat` for another kind of result, `CorruptFile` where a file was changed."""
    saved, _ = read(path, cls.kind)  # type: ignore[attr-defined]
    content = {**saved.manifest["content"], "provenance": saved.manifest["provenance"]}
    return unpack(cls, content, saved.tensors)
