"""Marks that a user gives to tokens: a label for every token of every text, or spans of characters."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import BadInput

if TYPE_CHECKING:
    from cutaway.features.index.token_rows import TokenRows
    from cutaway.network import Network

#: By name: for each text, by its number, a label for each of its tokens; None where a token has none.
MarksLike = Mapping[str, Sequence[Sequence[Hashable]]]


def marks_of_rows(marks: MarksLike, rows: TokenRows) -> dict[str, tuple[NDArray[np.int64], list[Any]]]:
    """For each mark the number of its label at each row (-1 for none), and the labels by number.

    Raises `BadInput` where a text or a token has no place in them.
    """
    found = {}
    for name, texts in marks.items():
        numbers: dict[Any, int] = {}
        values = np.full(len(rows), -1, np.int64)
        for row, (text, position) in enumerate(
            zip(rows.texts.tolist(), rows.positions.tolist(), strict=True)
        ):
            if text >= len(texts) or position >= len(texts[text]):
                raise BadInput(
                    f"The mark {name!r} says nothing of token {position} of text {text}.",
                    "Give a label (or None) for every token of every text, special tokens too; see marks_of_spans.",
                )
            label = texts[text][position]
            if label is not None:
                values[row] = numbers.setdefault(label, len(numbers))
        found[str(name)] = (values, list(numbers))
    return found


def marks_of_spans(
    net: Network, texts: Sequence[str], spans: Sequence[Iterable[tuple[int, int, Hashable]]]
) -> list[list[Hashable]]:
    """Labels of tokens from spans of characters (begin, end, label) of each text: a token has the label of the span in which
    its first letter lies (the first that is no space); the later span wins.

    Raises `BadInput` for as many texts as there are not.

    >>> import cutaway
    >>> net = cutaway.open("zoo:tales")
    >>> marks_of_spans(net, ["Mary saw a dog"], [[(0, 4, "name")]])
    [[None, 'name', None, None, None]]
    """
    if len(texts) != len(spans):
        raise BadInput(
            f"There are {len(texts)} texts and spans for {len(spans)}.", "Give spans for each text."
        )
    special = set(getattr(net.tokenizer, "all_special_ids", None) or ())
    found: list[list[Hashable]] = []
    for text, given in zip(texts, spans, strict=True):
        labels: list[Hashable] = [None] * len(text)
        for begin, end, label in given:
            labels[begin:end] = [label] * len(labels[begin:end])
        at, mine = 0, []
        ids = net.tokens_of([text])[0]
        for token, word in zip(ids, net.token_strings(ids), strict=True):
            letters = word.strip()
            begin = text.find(letters, at) if letters and token not in special else -1
            mine.append(labels[begin] if begin >= 0 else None)
            at = begin + len(letters) if begin >= 0 else at
        found.append(mine)
    return found
