"""Greater-than, and less-than: the war that began in 1700 33 turned in 1700 -> any later year.

The year within the century is moved to the end by one head and the direction of time by another; an MLP turns both
into the set of years that are possible (Hanna et al. 2023 found the first and the last step in GPT-2).
"""

from __future__ import annotations

import numpy as np

from cutaway.network.parts import Part

from .causal import INPUT, Array, CausalVariable, TaskAlgorithm, WordIds

YEARS = tuple(f"{year:02d}" for year in range(0, 60, 3))
CENTURIES = ("1400", "1500", "1600", "1700", "1800")
EVENTS = ("war", "fair", "reign", "voyage", "siege", "feast")
FORWARD, BACK = ("began", "opened"), ("ended", "closed")
VOCABULARY = ("<bos>", "the", *EVENTS, "that", *FORWARD, *BACK, "in", "turned", *CENTURIES, *YEARS)
_ID = WordIds(VOCABULARY)
_EARLIEST = _ID[YEARS[0]]
END = 10


def draw(rng: np.random.Generator, n: int) -> Array:
    """Prompts `<bos> the war that began in 1700 33 turned in 1700`, `[n 11]`; `ended` asks for an earlier year."""
    century = _ID.some(rng, CENTURIES, n)
    verb = _ID.some(rng, (*FORWARD, *BACK), n)
    year = rng.integers(_EARLIEST + 1, _EARLIEST + len(YEARS) - 1, n)
    event = _ID.some(rng, EVENTS, n)
    return _ID.rows(n, "<bos>", "the", event, "that", verb, "in", century, year, "turned", "in", century)


def year(ids: Array) -> Array:
    """Which year is given, 0 to 19."""
    return ids[:, 7] - _EARLIEST


def direction(ids: Array) -> Array:
    """1 where a later year is asked for, 0 where an earlier one."""
    return (ids[:, 4] <= _ID[FORWARD[-1]]).astype(int)


def possible(given: Array, later: Array) -> Array:
    """The years after (or before) the given one, as 0 or 1 for each of the twenty, `[n 20]`."""
    every = np.arange(len(YEARS))[None]
    return np.where(later[:, None] == 1, every > given[:, None], every < given[:, None]).astype(int)


def answer(years: Array) -> Array:
    """The tokens of the possible years."""
    out = np.zeros((len(years), len(VOCABULARY)), bool)
    out[:, _EARLIEST:] = years == 1
    return out


ALGORITHM = TaskAlgorithm(
    name="greater-than",
    summary="What began in a year turned in a later one, what ended in it in an earlier one.",
    vocabulary=VOCABULARY,
    layers=2,
    draw=draw,
    variables=(
        CausalVariable("year", (INPUT,), year, Part("head", 0, 0), "the year in the century, moved to the end", (END,)),
        CausalVariable("direction", (INPUT,), direction, Part("head", 1, 0), "is a later year asked for", (END,)),
        CausalVariable(
            "possible", ("year", "direction"), possible, Part("mlp", 1), "which of the years are possible", (END,)
        ),
    ),
    answer_reads=("possible",),
    answer=answer,
)  # fmt: skip
