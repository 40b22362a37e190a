"""Shares of an attribution at spans and variables, and how far their order is that of what exchanging the variables does.

That attributions may look right and say nothing of the network is told by Adebayo et al. 2018 (*Sanity Checks for Saliency
Maps*): so the same is asked of a network with random weights, and of spans of the same form elsewhere in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cutaway.statistics import Estimate, mean_of, ratio_of

#: With fewer variables of a prompt there is no order to speak of.
FEWEST_VARIABLES = 3
#: Between which numbers a correlation and the difference of two of them lie.
CORRELATION, DIFFERENCE = (-1.0, 1.0), (-2.0, 2.0)


def shares_at(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The share of each prompt's absolute attribution that lies at some tokens.

    values: [n t], NaN behind the last token. where: bool [k n t]. Gives [k n], NaN where none of a prompt's tokens is meant,
    or nothing is attributed at all.

    >>> shares_at(np.array([[1.0, -3.0, np.nan]]), np.array([[[False, True, False]], [[False, False, False]]])).tolist()
    [[0.75], [nan]]
    """
    size = np.nan_to_num(np.abs(values))
    whole = size.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (size * where).sum(2) / whole
    return np.where(where.any(2) & (whole > 0), found, np.nan)


def rank_correlations(shares: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Spearman's correlation of shares [v n] and effects [v n] over the variables, prompt by prompt: [n].

    0 where either has no order; NaN where fewer than three variables have both.

    >>> rank_correlations(np.array([[0.1], [0.2], [0.7]]), np.array([[1.0], [2.0], [9.0]])).tolist()
    [1.0]
    """
    from scipy.stats import rankdata  # half a second of import, for who asks only

    found = np.full(shares.shape[1], np.nan)
    for row in range(shares.shape[1]):
        both = np.isfinite(shares[:, row]) & np.isfinite(effects[:, row])
        if both.sum() < FEWEST_VARIABLES:
            continue
        a, b = (rankdata(of[both, row]) - (both.sum() + 1) / 2 for of in (shares, effects))
        size = float(np.sqrt((a * a).sum() * (b * b).sum()))
        found[row] = float((a * b).sum()) / size if size > 0 else 0.0
    return found


def elsewhere(where: np.ndarray, lengths: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """The same sets of tokens, each moved round its prompt by a random number of tokens: bool [v n t]."""
    moved = np.zeros_like(where)
    for row, length in enumerate(lengths):
        for v in range(len(where)):
            by = int(rng.integers(1, length)) if length > 1 else 0
            moved[v, row, :length] = np.roll(where[v, row, :length], by)
    return moved


def by_chance(
    values: np.ndarray, where: np.ndarray, effects: np.ndarray, lengths: Sequence[int], draws: int, seed: int
) -> np.ndarray:
    """The mean rank correlation of each prompt [n] with the variables' tokens moved to other places, over some draws."""
    rng = np.random.default_rng([seed, 52])
    drawn = [
        rank_correlations(shares_at(values, elsewhere(where, lengths, rng)), effects) for _ in range(draws)
    ]
    return np.mean(drawn, axis=0)


def merged(
    names: Sequence[str], where: np.ndarray, changes: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Variables whose exchanges change the same tokens taken together, because no attribution of tokens can tell them apart.

    where: bool [v n t]. changes: [v n] absolute, NaN where a variable was not exchanged. Gives names joined by "and", the
    tokens, and of each prompt the largest change: what stands there matters as much as the variable that matters most.

    >>> where = np.array([[[True, False]], [[True, False]], [[False, True]]])
    >>> merged(["gender", "who", "place"], where, np.array([[2.0], [0.5], [0.1]]))[0]
    ['gender and who', 'place']
    """
    groups: list[list[int]] = []
    for v in range(len(names)):
        mine = np.isfinite(changes[v])
        fits = (g for g in groups if _alike(where, changes, g[0], v, mine))
        group = next(fits, None)
        if group is None:
            groups.append([v])
        else:
            group.append(v)
    told = [" and ".join(names[v] for v in group) for group in groups]
    most = []
    for group in groups:
        some = changes[group]
        none = ~np.isfinite(some).any(0)
        most.append(np.where(none, np.nan, np.max(np.where(np.isfinite(some), some, -np.inf), axis=0)))
    return told, np.stack([where[group].any(0) for group in groups]), np.stack(most)


def _alike(where: np.ndarray, changes: np.ndarray, one: int, other: int, mine: np.ndarray) -> bool:
    both = mine & np.isfinite(changes[one])
    return bool(both.any() and (where[one][both] == where[other][both]).all())


def mean_at(
    values: np.ndarray,
    clusters: Sequence[str] | None,
    level: float = 0.95,
    within: tuple[float, float] = (0.0, 1.0),
) -> Estimate | None:
    """The mean over prompts that have a value; None where fewer than two do.

    within: between which numbers it must lie, and so the ends of its interval.
    """
    there = np.flatnonzero(np.isfinite(values))
    if len(there) < 2:
        return None
    found = mean_of(values[there], labels(clusters, there), level)
    if found.interval is None:
        return found
    low, high = (float(np.clip(end, *within)) for end in found.ends())
    return replace(found, interval=replace(found.interval, low=low, high=high))


def effects_of(
    changes: np.ndarray, clusters: Sequence[str] | None, level: float
) -> tuple[int, list[Estimate | None]]:
    """Which variable's exchange changes the metric most, and what each does as a share of that, with Fieller's interval.

    changes: [v n] absolute changes of the metric, NaN where a variable was not exchanged.
    """
    means = [float(np.nanmean(one)) if np.isfinite(one).any() else 0.0 for one in changes]
    most, found = int(np.argmax(means)), []
    for one in changes:
        both = np.flatnonzero(np.isfinite(one) & np.isfinite(changes[most]))
        if len(both) < 2 or changes[most][both].mean() == 0:
            found.append(None)
        else:
            found.append(ratio_of(one[both], changes[most][both], labels(clusters, both), level))
    return most, found


def labels(clusters: Sequence[str] | None, rows: np.ndarray) -> list[str] | None:
    """The clusters of some rows; None where there are none, or too few are left."""
    if clusters is None:
        return None
    some = [clusters[int(i)] for i in rows]
    return some if len(set(some)) >= 4 else None
