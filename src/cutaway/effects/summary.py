"""From per-example effects to mean, interval and corrected significance of every cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutaway.effects.baselines import Resampling
from cutaway.statistics import benjamini_hochberg, flips_needed, least_p, means_of, sign_flip_p
from cutaway.sweeps import CellState

#: Cells with a larger q are not told from zero.
Q = 0.05
#: With fewer examples no cell can reach that, whatever its effect: it has no q, and no interval.
FEWEST = flips_needed(Q)


def summarise(
    effect: np.ndarray, states: np.ndarray, templates: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Mean, low, high, p, q, n, known_zero, not_finite of each cell.

    Args:
        effect: [cells n] effect of each example, NaN where there is none.
        states: [cells n] of `CellState`.
        templates: [n] labels of the examples that share a frame; see `Resampling`.
        seed: of the sign flips.

    A cell with a non-finite example has no mean; a cell that is a known zero has mean 0 and p 1 without any run; a cell
    that is not finished (Ctrl-C) has no mean. Examples without that position are left out of the cell's mean. A cell with
    fewer than `FEWEST` examples has no interval and no q, because no effect of any size could be told from zero there; and
    no cell has a q where, among so many cells, one more could not be told from zero either.
    """
    usable = np.isin(states, (CellState.RUN, CellState.KNOWN_ZERO))
    not_finite = (states == CellState.NOT_FINITE).any(1)
    unfinished = (states == CellState.NOT_RUN).any(1)
    known = (states == CellState.KNOWN_ZERO).any(1) & (~usable | (states == CellState.KNOWN_ZERO)).all(1)
    shown = ~not_finite & ~unfinished & usable.any(1)
    out = {name: np.full(len(effect), np.nan) for name in ("mean", "low", "high", "p", "q")}
    least = np.ones(len(effect))
    for pattern in np.unique(usable[shown], axis=0) if shown.any() else []:
        cells = np.flatnonzero(shown & (usable == pattern).all(1))
        values = effect[np.ix_(cells, np.flatnonzero(pattern))].T
        drawn = Resampling.of([label for label, use in zip(templates, pattern, strict=True) if use])
        estimates = means_of(values, drawn.intervals)
        out["mean"][cells] = estimates.value
        out["low"][cells], out["high"][cells] = estimates.low, estimates.high
        out["p"][cells] = sign_flip_p(values, drawn.signs, seed=seed)
        least[cells] = least_p(len(values) if drawn.signs is None else len(set(drawn.signs)))
    out["p"][known] = 1.0
    few = usable.sum(1) < FEWEST
    out["low"][few] = out["high"][few] = np.nan
    tested = shown & ~known & ~few & np.isfinite(out["p"])
    out["q"][tested] = benjamini_hochberg(out["p"][tested])
    if not _one_more(out["p"][tested], out["q"][tested], least[tested]):
        out["q"][tested] = np.nan
    out["q"][known] = 1.0
    return out | {"n": usable.sum(1).astype(np.int64), "known_zero": known, "not_finite": not_finite}


def _one_more(p: np.ndarray, q: np.ndarray, least: np.ndarray) -> bool:
    """Could a further cell, whose every sign agrees, be told from zero among these, after the correction for all of them?"""
    if not len(p) or (q <= Q).any():
        return True
    smallest = least.min()
    return smallest * len(p) / ((p <= smallest * (1 + 1e-9)).sum() + 1) <= Q


def token_labels(tokens: np.ndarray) -> list[str]:
    """One label for each position of `tokens` [examples positions] ("" = no such position).

    A token that all examples share is its own label; where they differ it is the longest prompt's, in angle quotes.

    >>> token_labels(np.array([[" Mary", " ran"], [" John", " ran"]]))
    ['‹Mary›', ' ran']
    """
    longest = int((tokens != "").sum(1).argmax())
    labels = []
    for column in tokens.T:
        mine = str(column[longest])
        labels.append(mine if set(column.tolist()) <= {mine, ""} else f"‹{mine.strip() or mine}›")
    return labels
