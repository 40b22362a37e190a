"""The arrays of the result: over variables, parts and spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cutaway.algorithms.carried.exchanging import At, Moved
from cutaway.algorithms.carried.telling import TestedPlace

_FIGURES = ("share", "low", "high", "q", "held", "held_low", "held_high", "held_q")


@dataclass(frozen=True, eq=False)
class CarriedTables:
    """Arrays that are filled place by place.

    Attributes:
        places: the parts and spans, all spans of a part after one another.
        variables: how many.
        arrays: [variables parts spans] by the name of the result's field.
    """

    places: tuple[At, ...]
    variables: int
    arrays: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.variables, len(self.parts), len(self.spans))
        arrays = {name: np.full(shape, np.nan) for name in _FIGURES}
        arrays |= {"known_zero": np.zeros(shape, bool), "verdict": np.full(shape, "", dtype=object)}
        object.__setattr__(self, "arrays", arrays)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(dict.fromkeys(str(part) for part, _ in self.places))

    @property
    def spans(self) -> tuple[str, ...]:
        """Names of the spans."""
        return tuple(dict.fromkeys(span for _, span in self.places))

    def searched(self, variable: int, moved: Moved, q: np.ndarray) -> None:
        """Enter what every place brings on discovery pairs."""
        for place in range(len(self.places)):
            at = (variable, *divmod(place, len(self.spans)))
            self.arrays["known_zero"][at] = moved.known_zero[place]
            self.arrays["q"][at] = q[place]
            if moved.there[place]:
                self._enter(at, "share", "low", "high", moved, place)

    def tested(self, variable: int, moved: Moved, places: Sequence[int]) -> None:
        """Enter what the places that were tested bring on held-out pairs."""
        for row, place in enumerate(places):
            if moved.there[row]:
                at = (variable, *divmod(place, len(self.spans)))
                self._enter(at, "held", "held_low", "held_high", moved, row)

    def decided(self, variable: int, place: int, tested: TestedPlace) -> None:
        """Enter what a place is found to be."""
        at = (variable, *divmod(place, len(self.spans)))
        self.arrays["held_q"][at] = tested.q
        self.arrays["verdict"][at] = tested.verdict

    def _enter(self, at: tuple[int, ...], value: str, low: str, high: str, moved: Moved, place: int) -> None:
        estimate = moved.estimate(place)
        self.arrays[value][at] = estimate.value
        self.arrays[low][at], self.arrays[high][at] = estimate.ends()
