"""What running networks takes, in forward-equivalents, counted where they are run.

One forward-equivalent is one row (a prompt, an image) taken once through all layers of a network. Less counts by its share:
the layers that are run, and of a row the columns that are run. A backward pass counts two for the layers that a gradient
comes to: it makes two products where the forward made one. What is remembered is not run and counts nothing; embedding,
unembedding and the opening of a network are not counted.

The network's own execution says `spend`. Whoever wants to know, a verb for its result or a piece of work for its budget,
has a meter run; all that run in this thread count.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Forward-equivalents of a backward pass through what a forward pass of one went through.
BACKWARD = 2.0


@dataclass(eq=False)
class Meter:
    """What was spent while it ran.

    Attributes:
        forwards: in forward-equivalents.
    """

    forwards: float = 0.0


class _Here(threading.local):
    """The meters that run in a thread, the innermost last."""

    meters: tuple[Meter, ...] = ()


_here = _Here()


def running() -> tuple[Meter, ...]:
    """The meters that run in this thread, the innermost last."""
    return _here.meters


def spend(forwards: float, meters: tuple[Meter, ...] | None = None) -> None:
    """Count forward-equivalents on meters; default all that run in this thread."""
    for meter in running() if meters is None else meters:
        meter.forwards += forwards


def spent() -> float:
    """What the innermost running meter shows, which within a verb is the verb's own; 0 where none runs.

    >>> with metered(Meter()):
    ...     spend(3)
    ...     with metered(Meter()):
    ...         spend(0.5)
    ...         inner = spent()
    ...     inner, spent()
    (0.5, 3.5)
    """
    return _here.meters[-1].forwards if _here.meters else 0.0


@contextmanager
def metered(meter: Meter, outermost: bool = False) -> Iterator[Meter]:
    """While active, this meter counts in this thread, once however often it is asked to.

    outermost: it is not the one that `spent` reads where others run.
    """
    before = _here.meters
    if meter not in before:
        _here.meters = (meter, *before) if outermost else (*before, meter)
    try:
        yield meter
    finally:
        _here.meters = before
