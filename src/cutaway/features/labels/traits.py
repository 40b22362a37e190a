"""Traits of tokens by which an activation can be predicted: the token, its ends, the one before, its place, marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cutaway.features.labels.marks import MarksLike, marks_of_rows

if TYPE_CHECKING:
    from cutaway.features.index import FeatureIndex

#: The forms that a label may take, each with what it costs: of two that predict nearly alike, the cheaper is taken.
FORMS: dict[str, float] = {
    "mark": 0.0, "token": 0.005, "position": 0.005, "previous": 0.01, "prefix": 0.01, "suffix": 0.01, "n-gram": 0.015,
    "say": 0.015,
}  # fmt: skip
#: Letters of a prefix or suffix; positions beyond have no number of their own.
_LETTERS, _PLACES = (1, 2, 3), 64


@dataclass(frozen=True, eq=False)
class TokenTrait:
    """One trait of every row.

    Attributes:
        name: of the trait.
        form: of the labels that it makes.
        values: [N] its value at each row, from 0; -1 where it has none.
        size: how many values there are.
        word: a value in words.
    """

    name: str
    form: str
    values: NDArray[np.int64]
    size: int
    word: Callable[[int], str]

    def said(self, values: Sequence[int], most: int = 5) -> str:
        """A set of values as a label."""
        words = [self.word(int(v)) for v in values]
        shown = " or ".join(words[:most]) + (f" or {len(words) - most} more" if len(words) > most else "")
        return {
            "token": f"token {shown}", "prefix": f"begins with {shown}", "suffix": f"ends with {shown}",
            "previous": f"after {shown}", "n-gram": shown, "position": f"position {shown}", "mark": f"{self.name} = {shown}",
            "say": f"say {shown}",
        }[self.form]  # fmt: skip


def traits_of(index: FeatureIndex, marks: MarksLike | None, forms: Sequence[str]) -> list[TokenTrait]:
    """All traits of the forms that are wanted."""
    rows = index.rows
    found: list[TokenTrait] = []
    before, after = rows.beside(-1), rows.beside(1)

    def token(name: str, form: str, ids: NDArray[np.int64]) -> TokenTrait:
        values, kinds = _numbered(ids)
        return TokenTrait(name, form, values, len(kinds), lambda v: repr(index.words([kinds[v]])[0]))

    if "token" in forms:
        found.append(token("token", "token", rows.token_ids))
    if "previous" in forms:
        found.append(token("previous token", "previous", before))
    if "say" in forms:
        found.append(token("next token", "say", after))
    if "n-gram" in forms:
        found.append(_bigram(index, before, rows.token_ids))
    if "position" in forms:
        place = np.where(rows.column < _PLACES, rows.column, -1)
        found.append(TokenTrait("position", "position", place, _PLACES, str))
    for form in ("prefix", "suffix"):
        if form in forms:
            found += [_end(index, form, n) for n in _LETTERS]
    if marks and "mark" in forms:
        for name, (values, labels) in marks_of_rows(marks, rows).items():
            found.append(
                TokenTrait(name, "mark", values, max(1, len(labels)), lambda v, labels=labels: str(labels[v]))
            )
    return found


def _numbered(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Values as numbers from 0 (-1 stays), and the value of each number."""
    kinds, numbers = np.unique(values, return_inverse=True)
    if len(kinds) and kinds[0] == -1:
        return numbers.astype(np.int64) - 1, kinds[1:]
    return numbers.astype(np.int64), kinds


def _bigram(index: FeatureIndex, before: NDArray[np.int64], ids: NDArray[np.int64]) -> TokenTrait:
    size = int(ids.max(initial=0)) + 1
    values, kinds = _numbered(np.where(before < 0, -1, before * size + ids))

    def word(v: int) -> str:
        first, second = index.words([kinds[v] // size, kinds[v] % size])
        return repr(first + second)

    return TokenTrait("two tokens", "n-gram", values, max(1, len(kinds)), word)


def _end(index: FeatureIndex, form: str, letters: int) -> TokenTrait:
    """The first or last letters of each token, without the space before it."""
    ids, numbers = np.unique(index.rows.token_ids, return_inverse=True)
    ends: dict[str, int] = {}
    of_id = []
    for word in index.words(ids):
        bare = word.strip()
        end = bare[:letters] if form == "prefix" else bare[-letters:]
        of_id.append(ends.setdefault(end, len(ends)) if len(bare) >= letters else -1)
    kinds = list(ends)
    values = np.array(of_id, np.int64)[numbers] if len(ids) else np.zeros(0, np.int64)
    return TokenTrait(f"{form} of {letters}", form, values, max(1, len(kinds)), lambda v: repr(kinds[v]))
