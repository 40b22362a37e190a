"""Whoever else gives labels: any model, near or far, that reads examples and predicts from its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import BadInput
from cutaway.features.labels.exam import rows_around

if TYPE_CHECKING:
    from cutaway.features.examples import TokenExample
    from cutaway.features.index import FeatureIndex

#: From which score on a labeler says that a feature is active.
_ACTIVE = 0.5


@runtime_checkable
class Labeler(Protocol):
    """Gives labels in words, and predicts from them. Nothing of the kind is bundled or called unasked."""

    def label(self, examples: Sequence[TokenExample]) -> str:
        """A label, from examples of where a feature is active, the strongest first."""
        ...

    def predict(self, label: str, tokens: Sequence[str]) -> Sequence[float]:
        """How strongly a feature with this label is active at each of these tokens, from 0 to 1."""
        ...


class LabelerPredictor:
    """A labeler's predictions of one label, as those of any other: each row is predicted within the tokens around it."""

    def __init__(self, labeler: Labeler, label: str, index: FeatureIndex) -> None:
        self.labeler, self.text, self.index = labeler, label, index
        self.known: dict[int, float] = {}

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """[...] the score at each row, and 0 below one half.

        Raises `BadInput` where the labeler gives as many scores as there are not tokens, or no numbers.
        """
        flat = rows.reshape(-1)
        for row in dict.fromkeys(flat.tolist()):
            if row not in self.known:
                self._ask(row)
        scores = np.array([self.known[row] for row in flat.tolist()], np.float64).reshape(rows.shape)
        return np.where(scores >= _ACTIVE, scores, 0.0)

    def _ask(self, row: int) -> None:
        table = self.index.rows
        near = rows_around(np.array([row]), table)[0]
        near = near[near >= 0]
        words = self.index.words(table.token_ids[near])
        given = list(self.labeler.predict(self.text, words))
        if len(given) != len(words) or not np.isfinite(np.asarray(given, np.float64)).all():
            raise BadInput(
                f"The labeler gave {len(given)} scores for {len(words)} tokens, or some that are no numbers.",
                "Give a number from 0 to 1 for each token.",
            )
        for other, score in zip(near.tolist(), given, strict=True):
            self.known.setdefault(other, float(score))
