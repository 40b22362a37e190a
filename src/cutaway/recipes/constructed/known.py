"""Cases and algorithms of constructed networks that solve one task in two ways: duplicate letters, and sums.

Each network has both ways: its own at its places, and the other at the places that it has in the other network (or, for a
subspace, the one that would hold it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from cutaway.recipes.constructed.architectures import ARCHITECTURES, Architecture
from cutaway.recipes.constructed.blueprint import letters
from cutaway.recipes.constructed.build import direction, places
from cutaway.recipes.constructed.design import Design
from cutaway.recipes.constructed.mechanisms.counted import COUNTED
from cutaway.recipes.constructed.mechanisms.duplicate import DUPLICATE
from cutaway.recipes.constructed.mechanisms.modular import FREQUENCIES, MODULAR, PHASES, P, waves
from cutaway.recipes.constructed.mechanisms.table import TABLE
from cutaway.zoo.known import CaseRecipe, KnownAlgorithm, KnownWays
from cutaway.zoo.truth import Variable

#: Letters of the cases; few, so that several come again.
LETTERS = letters(6)
#: A wave of the two numbers together: cosine and sine.
Wave = tuple[float, float]


def known_of(design: Design, arch: str, seed: int = 0) -> KnownWays | None:
    """What is known of a constructed network's prompts; None where its task is solved in one way only."""
    makers: Mapping[str, Callable[[Design, Architecture, int], KnownWays]] = {
        DUPLICATE.name: _duplicates, COUNTED.name: _duplicates, MODULAR.name: _sums, TABLE.name: _sums,
    }  # fmt: skip
    return makers[design.name](design, ARCHITECTURES[arch], seed) if design.name in makers else None


def _at(design: Design, arch: Architecture, **parts: str) -> dict[str, str]:
    """Variables at the last token of parts of a blueprint, by their names in it."""
    where = places(design.plan(), arch)
    return {variable: f"{where[part]}@last" for variable, part in parts.items()}


DUPLICATES = CaseRecipe(
    ("{x1} {x2} {x3} {x4} {x5} {x6}",),
    dict.fromkeys(("x1", "x2", "x3", "x4", "x5", "x6"), LETTERS),
    lambda x1, x2, x3, x4, x5, x6: " again" if x6 in (x1, x2, x3, x4, x5) else " new",
)
"""Six letters, each drawn by itself; does the last come again?"""


def _counted(x1: str, x2: str, x3: str, x4: str, x5: str, x6: str) -> str:
    return "".join(sorted(x1 + x2 + x3 + x4 + x5 + x6))


def _duplicates(design: Design, arch: Architecture, _seed: int) -> KnownWays:
    spoken = {"x6": "resid_pre.0@last"}
    looks = KnownAlgorithm(
        "looks for the letter",
        {
            "found": (
                lambda x1, x2, x3, x4, x5, x6: x6 in (x1, x2, x3, x4, x5),
                "was the last letter there before",
            ),
            "verdict": (lambda found: "again" if found else "new", "what to say"),
        },
        lambda verdict: f" {verdict}",
        spoken | _at(DUPLICATE, arch, found="duplicate", verdict="threshold"),
        design is DUPLICATE,
    )
    counts = KnownAlgorithm(
        "counts all letters",
        {
            "counts": (_counted, "how often each is there"),
            "verdict": (
                lambda counts, x6: "again" if counts.count(x6) > 1 else "new",
                "what to say of the last one",
            ),
        },
        lambda verdict: f" {verdict}",
        spoken | _at(COUNTED, arch, counts="count", verdict="threshold"),
        design is COUNTED,
    )
    return KnownWays({"six letters": DUPLICATES}, (looks, counts))


SUMS = CaseRecipe(
    ("{a} {b} =",), {"a": tuple(range(P)), "b": tuple(range(P))}, lambda a, b: f" {(a + b) % P}"
)
"""All pairs of numbers."""


def _sums(design: Design, arch: Architecture, seed: int) -> KnownWays:
    wave = {f"wave{f}": f for f in FREQUENCIES}
    planes = _planes(design, seed)
    site = f"attn_write.{places(design.plan(), arch)['gather' if design is MODULAR else 'first'].layer}"
    held = {
        name: Variable(name, f"frequency {f} of both numbers", site, basis=planes[f])
        for name, f in wave.items()
    }
    fourier = KnownAlgorithm(
        "adds waves",
        {
            name: (_wave(f), f"cosine and sine of both numbers at frequency {f}, added up")
            for name, f in wave.items()
        }
        | {"sum": (_sum_of_waves, "the number whose waves are most like those of the sum")},
        lambda sum: f" {sum}",
        held | _at(MODULAR, arch, sum="multiply"),
        design is MODULAR,
    )
    table = KnownAlgorithm(
        "looks the pair up",
        {
            "first": (lambda a: a, "the first number, moved to the end"),
            "second": (lambda b: b, "the second number, moved to the end"),
            "sum": (lambda first, second: (first + second) % P, "what the table has for the two"),
        },
        lambda sum: f" {sum}",
        _at(TABLE, arch, first="first", second="second", sum="table"),
        design is TABLE,
    )
    return KnownWays({"all pairs": SUMS}, (fourier, table))


def _planes(design: Design, seed: int) -> dict[int, tuple[tuple[float, ...], ...]]:
    """[2 d] for each frequency the plane in which the waves of both numbers lie, or would lie, at the end."""
    half = len(FREQUENCIES)
    if design is MODULAR:
        both = direction(design.plan(), "both", seed)
        rows = {f: both[[i, half + i]] for i, f in enumerate(FREQUENCIES)}
    else:
        moved = direction(design.plan(), "first", seed) + direction(design.plan(), "second", seed)
        rows = {f: waves()[:, [i, half + i]].T @ moved / math.sqrt(P) for i, f in enumerate(FREQUENCIES)}
    return {f: _plain(row) for f, row in rows.items()}


def _plain(rows: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in rows.tolist())


def _wave(frequency: int) -> Callable[..., Wave]:
    """The step that adds the waves of two numbers at a frequency."""
    turn = 2 * math.pi * frequency / P

    def wave(a: int, b: int) -> Wave:
        return math.cos(turn * a) + math.cos(turn * b), math.sin(turn * a) + math.sin(turn * b)

    return wave


_PHASE = 2 * np.pi * np.arange(PHASES) / PHASES
#: [2f P] the waves of every number, cosines first.
_WAVES = waves().numpy().T.astype(np.float64)


def _sum_of_waves(wave1: Wave, wave2: Wave, wave3: Wave, wave5: Wave) -> int:
    """What rectified neurons at eight phases make of the waves (their second harmonic), compared with every number."""
    cosines, sines = np.array((wave1, wave2, wave3, wave5)).T
    fires = np.maximum(0.0, np.outer(cosines, np.cos(_PHASE)) - np.outer(sines, np.sin(_PHASE)))
    doubled = np.concatenate([fires @ np.cos(2 * _PHASE), -(fires @ np.sin(2 * _PHASE))])
    return int((doubled @ _WAVES).argmax())
