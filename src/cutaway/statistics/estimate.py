"""A figure with its interval, and many of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: its lower end.
        high: its upper end.
        level: how often such intervals hold the true value.
        method: how it was found.

    >>> 0.5 in Interval(0.2, 0.7)
    True
    """

    low: float
    high: float
    level: float = 0.95
    method: str = "bootstrap"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        """`high - low`."""
        return self.high - self.low

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Interval:
        """The inverse of `to_dict`."""
        return cls(float(data["low"]), float(data["high"]), float(data["level"]), str(data["method"]))


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty; every figure of a result that rests on examples is one.

    Attributes:
        value: the figure.
        interval: None where none can be given (one example, one cluster, a ratio to nothing).
        n: how many examples it rests on.

    >>> print(Estimate(0.9, Interval(0.85, 0.94), 100))
    0.900 [0.850, 0.940]
    """

    value: float
    interval: Interval | None
    n: int

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:z.3f} (n={self.n}, no interval)"
        return f"{self.value:z.3f} [{self.interval.low:z.3f}, {self.interval.high:z.3f}]"

    def above(self, threshold: float) -> bool | None:
        """Is the whole interval above the threshold (True), below it (False), or neither (None)?"""
        if self.interval is None:
            return None
        if self.interval.low > threshold:
            return True
        return False if self.interval.high < threshold else None

    def ends(self, otherwise: float = math.nan) -> tuple[float, float]:
        """The ends of the interval; where there is none, another number in place of both."""
        return (self.interval.low, self.interval.high) if self.interval else (otherwise, otherwise)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `to_dict`."""
        interval = Interval.from_dict(data["interval"]) if data["interval"] else None
        return cls(float(data["value"]), interval, int(data["n"]))


@dataclass(frozen=True)
class Estimates:
    """Many estimates of one shape; an index gives one of them.

    Attributes:
        value: [...].
        low: [...], NaN without interval.
        high: [...], NaN without interval.
        n: how many examples they rest on.
        level: of the intervals.
        method: of the intervals.
    """

    value: Floats
    low: Floats
    high: Floats
    n: int
    level: float = 0.95
    method: str = "bootstrap"

    def __getitem__(self, index: int | tuple[int, ...]) -> Estimate:
        low, high = float(self.low[index]), float(self.high[index])
        interval = None if math.isnan(low) else Interval(low, high, self.level, self.method)
        return Estimate(float(self.value[index]), interval, self.n)

    def __iter__(self) -> Iterator[Estimate]:
        return (self[index] for index in np.ndindex(self.value.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the estimated quantity."""
        return self.value.shape
