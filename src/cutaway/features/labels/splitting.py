"""Which texts labels are made on, and which they are scored on: no text is in both, nor one that reads the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import BadInput

if TYPE_CHECKING:
    from cutaway.features.index.token_rows import TokenRows

#: Share of the texts that labels are scored on.
TEST = 0.4


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Rows by what they are for.

    Attributes:
        train: [N] may labels be made on this row?
        test: the other rows, ascending.
        texts: how many texts each has.
        overlap: how many texts are in both.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.int64]
    texts: tuple[int, int]
    overlap: int


def split_texts(rows: TokenRows, seed: int) -> TextSplit:
    """Divide texts at random; those that read the same stay together.

    Raises `BadInput` with fewer than two different texts.
    """
    kinds: dict[str, list[int]] = {}
    order = np.argsort(rows.text, kind="stable")
    texts, first = np.unique(rows.text[order], return_index=True)
    for text, windows in zip(texts.tolist(), np.split(order, first[1:]), strict=True):
        digest = hashlib.sha256()
        for window in windows.tolist():
            digest.update(rows.ids[int(rows.starts[window]) : int(rows.starts[window + 1])].tobytes())
        kinds.setdefault(digest.hexdigest(), []).append(text)
    if len(kinds) < 2:
        raise BadInput(
            "Labels are scored on other texts than they are made on, and there is one.",
            "Index several texts.",
        )
    drawn = np.random.default_rng(seed).permutation(len(kinds))
    few = min(len(kinds) - 1, max(1, round(TEST * len(kinds))))
    groups = list(kinds.values())
    test_texts = {text for i in drawn[:few].tolist() for text in groups[i]}
    chosen = np.isin(rows.texts, np.array(sorted(test_texts)))
    train, test = ~chosen, np.nonzero(chosen)[0]
    both = np.intersect1d(rows.texts[train], rows.texts[test])
    counts = len(np.unique(rows.texts[train])), len(np.unique(rows.texts[test]))
    return TextSplit(train, test, counts, len(both))
