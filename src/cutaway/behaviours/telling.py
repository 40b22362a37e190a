"""Whether a network does a behaviour, does not, or whether so few pairs cannot tell; and how many would."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cutaway.statistics import Estimate, proportion, t_quantile

#: Where it would take more than so many times the pairs that there are, they say that it is not so.
_AT_MOST = 10
_LEVEL = 0.975


@dataclass(frozen=True)
class Miss:
    """Something that had to be so, and is not, or may not be.

    Attributes:
        why: in words.
        needed: how many pairs like these would about show that it is so; None where these say that it is not.
    """

    why: str
    needed: int | None = None


def not_above(
    estimate: Estimate,
    bound: float,
    words: tuple[str, str],
    pairs: int,
    by: Callable[[int], bool] | None = None,
) -> Miss | None:
    """The miss of a figure whose whole interval had to lie above a bound; None where it does.

    words: what is said where the figure itself is not above it, and where only its interval is not. pairs: how many there
    are. by: tells of a number of pairs whether they would do; default from the interval's width.
    """
    if estimate.above(bound) is True:
        return None
    said_no, said_maybe = words
    if not estimate.value > bound:
        return Miss(said_no)
    needed = _least(pairs, by or (lambda m: _narrow(estimate, bound, pairs, m)))
    return Miss(said_no) if needed is None else Miss(said_maybe, needed)


def _least(pairs: int, enough: Callable[[int], bool]) -> int | None:
    return next((m for m in range(pairs + 1, _AT_MOST * max(pairs, 2) + 1) if enough(m)), None)


def _narrow(estimate: Estimate, bound: float, pairs: int, m: int) -> bool:
    """Would the interval of m pairs that scatter like these end above the bound?"""
    low = estimate.ends()[0]
    if pairs < 2 or not math.isfinite(low):
        return True  # nothing is known of their scatter
    reach = _half(pairs) * (estimate.value - bound) / max(estimate.value - low, 1e-300)
    return _half(m) <= reach


def _half(n: int) -> float:
    """Half the width of Student's interval of n examples, in standard deviations."""
    return t_quantile(_LEVEL, n - 1) / math.sqrt(n)


def right_enough(share: float, bound: float) -> Callable[[int], bool]:
    """Of a number of pairs: is Wilson's interval above the bound where this share of them is right?"""
    return lambda m: proportion(round(share * m), m).above(bound) is True


def pairs_for(share: float, bound: float, pairs: int) -> int | None:
    """How many pairs it takes that Wilson's interval is above the bound where this share is right; None where none do."""
    return _least(pairs, right_enough(share, bound)) if share > bound else None


def needed(misses: Sequence[Miss], pairs: int, fewest: int) -> int | None:
    """How many pairs would about tell, where these are too few to; None where they tell, one way or the other.

    They are too few where every miss is one of an interval only, or where even pairs that are all right could not tell.
    """
    if not misses:
        return None
    asked = [miss.needed for miss in misses if miss.needed is not None]
    if pairs < fewest:
        return max([fewest, *asked])
    return max(asked) if len(asked) == len(misses) else None
