"""What the verbs and results of the stream share: options checked, text read, where a result comes from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from cutaway.errors import BadInput, UnknownOption, did_you_mean
from cutaway.figures import Grid, heatmap
from cutaway.network.inputs import Tokens
from cutaway.network.parts import Part, in_words
from cutaway.results import Provenance

if TYPE_CHECKING:
    from cutaway.network import Network


def require_one(what: str, given: object, known: Iterable[str]) -> None:
    """Raise `UnknownOption` for a value of an option that nothing reads, with the nearest one that is known.

    >>> require_one("by", "haed", ("head", "neuron"))
    Traceback (most recent call last):
    cutaway.errors.UnknownOption: by='haed' is not known. Did you mean 'head'?
    """
    names = list(known)
    if given not in names:
        raise UnknownOption(f"{what}={given!r} is not known.", did_you_mean(given, names, show=repr))


def origin(
    net: Network, data: Tokens | Tensor | Sequence[Any] | None, began: float, seed: int = 0
) -> Provenance:
    """Where a result comes from: the network, the token rows that were read (their hash), since when (`time.monotonic`)."""
    rows = [data.row_ids(i) for i in range(data.n)] if isinstance(data, Tokens) else data
    rows = rows.tolist() if isinstance(rows, Tensor) else rows
    text_hash = "" if data is None else hashlib.sha256(repr(rows).encode()).hexdigest()
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


def table_in_words(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A table for people: names of parts in these columns as words.

    >>> table_in_words(pd.DataFrame({"head": ["a3.h1"], "score": [0.5]}), "head")["head"].tolist()
    ['head 3.1']
    """
    return table.assign(**{column: table[column].map(in_words) for column in columns})


def first_few(heads: Sequence[Part], none: str, most: int = 6) -> str:
    """The first of some parts in words, how many there are beyond, and a word for none.

    >>> first_few([Part("head", 0, i) for i in range(4)], "no head", 2), first_few([], "no head")
    ('head 0.0, head 0.1 and 2 more', 'no head')
    """
    more = f" and {len(heads) - most} more" if len(heads) > most else ""
    return (", ".join(head.words for head in heads[:most]) or none) + more


def one_text(net: Network, text: str | Sequence[int] | Tokens) -> Tokens:
    """One text, its token ids, or what `net.chat` or `net.encode` made of it, as token rows.

    Raises `BadInput` for several texts.
    """
    if isinstance(text, Tokens):
        if text.n != 1:
            raise BadInput(f"One text is read at a time, and these are {text.n}.", "Give one of them.")
        return net.encode(text)
    return net.encode([text] if isinstance(text, str) else [list(text)])


def head_map(values: Mapping[Part, float], unit: str, span: tuple[float, float] | None = None) -> Any:
    """One number for each head as a heat map, layer by head; heads of which nothing is known are left empty.

    span: the ends of a scale in one colour, for numbers that have no sign.
    """
    layers = sorted({head.layer or 0 for head in values})
    table = np.full((len(layers), 1 + max(head.index or 0 for head in values)), np.nan)
    for head, value in values.items():
        table[layers.index(head.layer or 0), head.index or 0] = value
    names = list(map(str, layers)), list(map(str, range(table.shape[1])))
    return heatmap(Grid(table, *names, "layer", "head", unit=unit), span=span)
