"""The strongest, the weakest and a fair sample of many numbers that come one batch after the other, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.features.texts import TextWindow


@dataclass(frozen=True)
class TokenExample:
    """One token with what was read there and around it.

    Attributes:
        text: the number of the text.
        position: of the token in the text.
        activation: what was read.
        tokens: the token with its neighbours.
        activations: what was read at each of them.
        at: which of them it is.
    """

    text: int
    position: int
    activation: float
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    at: int


@dataclass(frozen=True)
class TokenPlace:
    """A token that may become an example: where it is, and what stands around it.

    Attributes:
        text, position: of the token.
        value: what was read.
        ids: token ids around it.
        values: what was read at each.
        at: which of them it is.
    """

    text: int
    position: int
    value: float
    ids: tuple[int, ...]
    values: tuple[float, ...]
    at: int

    def named(self, strings: Sequence[str]) -> TokenExample:
        """The example, its tokens as text."""
        return TokenExample(self.text, self.position, self.value, tuple(strings), self.values, self.at)


@dataclass(frozen=True, eq=False)
class Seen:
    """The tokens of one batch that count, and what was read at each.

    Attributes:
        windows: the windows of the batch.
        row, column: [n] where each token stands in the batch, texts and positions ascending.
        text, position: [n] where it stands among the texts.
        values: [n] what was read.
        whole: [b p] what was read at every token of the batch, those too that do not count.
    """

    windows: Sequence[TextWindow]
    row: np.ndarray
    column: np.ndarray
    text: np.ndarray
    position: np.ndarray
    values: np.ndarray
    whole: np.ndarray

    def place(self, i: int, context: int) -> TokenPlace:
        """The i-th token that counts with so many neighbours on either side, within its window."""
        row, column = int(self.row[i]), int(self.column[i])
        ids = self.windows[row].ids
        first, end = max(0, column - context), min(len(ids), column + context + 1)
        around = tuple(map(float, self.whole[row, first:end]))
        return TokenPlace(
            int(self.text[i]),
            int(self.position[i]),
            float(self.values[i]),
            ids[first:end],
            around,
            column - first,
        )


class Extremes:
    """The k largest (or smallest) of all that was seen; of equal ones the earlier, by text and position.

    With `one_per_text` each text gives its own largest alone.
    """

    def __init__(self, k: int, context: int, one_per_text: bool, sign: int) -> None:
        self.k, self.context, self.one_per_text, self.sign = k, context, one_per_text, sign
        self.places: list[TokenPlace] = []

    def add(self, seen: Seen) -> None:
        """Take in a batch; batches come in the order of the texts."""
        signed = self.sign * seen.values
        likely = np.arange(len(signed))
        if len(self.places) == self.k:
            likely = np.nonzero(signed > self.sign * self.places[-1].value)[
                0
            ]  # an equal one is later, and loses
        order = likely[np.argsort(-signed[likely], kind="stable")]
        if not self.one_per_text:
            for i in order[: self.k]:
                self._insert(seen, int(i))
            return
        taken: set[int] = set()
        for i in order:
            if (text := int(seen.text[i])) not in taken:
                taken.add(text)
                self._insert(seen, int(i))
            if len(taken) == self.k:
                return

    def _insert(self, seen: Seen, i: int) -> None:
        """Put one token where it belongs, if there is room for it."""
        text, value = int(seen.text[i]), float(seen.values[i])
        if self.one_per_text:
            before = next((p for p in self.places if p.text == text), None)
            if before is not None:
                if self.sign * before.value >= self.sign * value:
                    return
                self.places.remove(before)
        if len(self.places) == self.k and self.sign * self.places[-1].value >= self.sign * value:
            return
        rank = next(
            (r for r, p in enumerate(self.places) if self.sign * p.value < self.sign * value),
            len(self.places),
        )
        self.places.insert(rank, seen.place(i, self.context))
        del self.places[self.k :]


class Reservoir:
    """A sample of all tokens that were seen, each as likely as any other, of a fixed size.

    Every token draws a number, and those with the smallest are kept: the sample does not depend on how batches are cut.
    """

    def __init__(self, size: int, context: int, seed: int) -> None:
        self.size, self.context = size, context
        self.generator = np.random.default_rng(seed)
        self.keys = np.zeros(0)
        self.places: list[tuple[TokenPlace, ...]] = []

    def add(self, seen: Sequence[Seen]) -> None:
        """Take in a batch: the same tokens for every feature."""
        keys = self.generator.random(len(seen[0].values))
        limit = self.keys[-1] if len(self.keys) == self.size else np.inf
        for i in np.nonzero(keys < limit)[0]:
            if len(self.keys) == self.size and keys[i] >= self.keys[-1]:
                continue
            rank = int(np.searchsorted(self.keys, keys[i]))
            self.keys = np.insert(self.keys, rank, keys[i])[: self.size]
            self.places.insert(rank, tuple(one.place(int(i), self.context) for one in seen))
            del self.places[self.size :]

    def quantiles(self, feature: int, n: int, each: int) -> tuple[list[list[TokenPlace]], list[float]]:
        """For each of n equal shares of the tokens, weakest first, `each` of them; and the n + 1 ends of the shares."""
        places = sorted((p[feature] for p in self.places), key=lambda p: (p.value, p.text, p.position))
        values = np.array([p.value for p in places])
        ends = (
            np.quantile(values, np.linspace(0, 1, n + 1)).tolist()
            if len(values)
            else [float("nan")] * (n + 1)
        )
        parts = np.array_split(np.arange(len(places)), n)
        generator = np.random.default_rng(feature)
        drawn = [sorted(generator.permutation(part)[:each].tolist()) for part in parts]
        return [[places[i] for i in part] for part in drawn], ends
