"""Which places stand out: those whose share is told from zero among all places and variables, and of some size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cutaway.algorithms.carried.exchanging import Moved
from cutaway.algorithms.carried.limits import CarriedLimits
from cutaway.statistics import benjamini_hochberg, sign_flip_p


def corrected(
    moved: Mapping[str, Moved], seed: int, signs: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """For every variable the significance of each place [places], corrected for all places of all variables.

    1 where nothing can change, NaN where nothing was measured. signs: of each variable 1 or -1 for every pair [n], by which
    its shares are multiplied.
    """
    p = {}
    for name, one in moved.items():
        p[name] = np.where(one.there, 1.0, np.nan)
        tested = np.flatnonzero(one.there & ~one.known_zero)
        if len(tested):
            shares = one.shares[tested] if signs is None else one.shares[tested] * signs[name]
            p[name][tested] = sign_flip_p(shares.T, one.signs, seed=seed)
    tested = {name: one.there & ~one.known_zero for name, one in moved.items()}
    every = np.concatenate([p[name][which] for name, which in tested.items()])
    q, begin = benjamini_hochberg(every), 0
    for name, which in tested.items():
        count = int(which.sum())
        p[name][which] = q[begin : begin + count]
        begin += count
    return p


def standing_out(shares: np.ndarray, q: np.ndarray, limits: CarriedLimits) -> list[int]:
    """The places that stand out, by their mean shares [places] and significance [places]; the largest share first."""
    order = np.argsort(-np.nan_to_num(shares, nan=-np.inf), kind="stable")
    return [int(i) for i in order if q[i] <= limits.alpha and shares[i] >= limits.stands_out]


def shuffled(moved: Mapping[str, Moved], limits: CarriedLimits, seed: int) -> dict[str, list[int]]:
    """How many places of each variable stand out with its two values exchanged on a random half of its pairs; several times.

    The scale stays that of the values as they are: shuffled, there is no effect to be a share of.
    """
    found: dict[str, list[int]] = {name: [] for name in moved}
    rng = np.random.default_rng([seed, 31])
    for turn in range(limits.shuffled):
        signs = {name: _half(rng, one.behaviour.n) for name, one in moved.items()}
        q = corrected(moved, seed + turn + 1, signs)
        for name, one in moved.items():
            found[name].append(len(standing_out((one.shares * signs[name]).mean(1), q[name], limits)))
    return found


def _half(rng: np.random.Generator, n: int) -> np.ndarray:
    """1 and -1 [n], as many of each, in random order."""
    return rng.permutation(np.where(np.arange(n) < n // 2, -1.0, 1.0))
