"""The tokens that an index is of: all tokens of all windows, and which of them count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cutaway.features.texts import TextWindow

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Windows of tokens, and the rows: tokens that count, in order.

    Attributes:
        ids: [T] token ids of all windows, one after the other.
        starts: [W + 1] where each window begins among them.
        text: [W] which text each is of.
        first: [W] the position in the text of its first token.
        counted: [N] which of the T tokens are rows, ascending.
    """

    ids: NDArray[np.int32]
    starts: Ints
    text: NDArray[np.int32]
    first: NDArray[np.int32]
    counted: Ints

    @classmethod
    def of(cls, windows: Sequence[TextWindow], counted: Sequence[NDArray[np.bool_]]) -> TokenRows:
        """Of windows and, for each of their tokens, whether it counts."""
        lengths = [len(window.ids) for window in windows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.concatenate([np.asarray(w.ids, np.int32) for w in windows]) if windows else np.zeros(0)
        flags = np.concatenate(list(counted)) if windows else np.zeros(0, bool)
        return cls(
            ids.astype(np.int32), starts, np.array([w.text for w in windows], np.int32),
            np.array([w.start for w in windows], np.int32), np.nonzero(flags)[0],
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """Several, one after the other."""
        before = np.cumsum([0, *(len(p.ids) for p in parts)])
        starts = [p.starts[:-1] + at for p, at in zip(parts, before[:-1], strict=True)]
        return cls(
            np.concatenate([p.ids for p in parts]), np.concatenate([*starts, before[-1:]]),
            np.concatenate([p.text for p in parts]), np.concatenate([p.first for p in parts]),
            np.concatenate([p.counted + at for p, at in zip(parts, before[:-1], strict=True)]),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.counted)

    @cached_property
    def window(self) -> Ints:
        """[N] the window of each row."""
        return np.searchsorted(self.starts, self.counted, side="right") - 1

    @cached_property
    def column(self) -> Ints:
        """[N] where each row stands in its window."""
        return self.counted - self.starts[self.window]

    @cached_property
    def token_ids(self) -> Ints:
        """[N] the token at each row."""
        return self.ids[self.counted].astype(np.int64)

    @cached_property
    def texts(self) -> Ints:
        """[N] the text of each row."""
        return self.text[self.window].astype(np.int64)

    @cached_property
    def positions(self) -> Ints:
        """[N] the position of each row in its text."""
        return self.first[self.window] + self.column

    def beside(self, by: int) -> Ints:
        """[N] the token so many before (negative) or after each row in its window; -1 where there is none."""
        at = self.counted + by
        inside = (at >= self.starts[self.window]) & (at < self.starts[self.window + 1])
        return np.where(inside, self.ids[np.clip(at, 0, max(0, len(self.ids) - 1))], -1).astype(np.int64)

    def around(self, row: int, context: int) -> tuple[int, int]:
        """From where to where (of all T tokens) a row with so many neighbours on either side reaches within its window."""
        at, window = int(self.counted[row]), int(self.window[row])
        return max(int(self.starts[window]), at - context), min(
            int(self.starts[window + 1]), at + context + 1
        )

    def rows_between(self, first: int, end: int) -> tuple[int, int]:
        """The rows among the tokens first to end."""
        found = np.searchsorted(self.counted, [first, end])
        return int(found[0]), int(found[1])
