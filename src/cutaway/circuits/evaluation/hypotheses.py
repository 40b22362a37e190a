"""The hypothesis tests of Shi et al. 2024 (arXiv 2410.13032), derived from the paper and exact for any n.

Ideal properties (a good circuit *retains* the null hypothesis): equivalence, independence, minimality. Flexible ones (a good
circuit *rejects* it): sufficiency and partial necessity against random circuits of the same size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.errors import BadBehaviour, BadInput
from cutaway.statistics import benjamini_hochberg, log_binomial_tail


@dataclass(frozen=True)
class Tested:
    """One test.

    Attributes:
        name: what it is called.
        null: the null hypothesis in words.
        p: its p-value.
        passed: whether the circuit passes at level alpha; None where that cannot be decided with so few examples.
        statistic: the figure that was compared.
        n: how many examples or random circuits it rests on.
        alpha: the level.
        least: how many examples would do.
        sentence: what came out, in words.
    """

    name: str
    null: str
    p: float
    passed: bool | None
    statistic: float
    n: int
    alpha: float
    least: int
    sentence: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(self.__dict__)


def least_for_equivalence(epsilon: float, alpha: float) -> int:
    """The fewest examples of which, all won by one side, equivalence would be rejected."""
    return next(n for n in itertools.count(1) if _two_sided(n, 0.5, epsilon) <= alpha)


def _two_sided(n: int, distance: float, epsilon: float) -> float:
    """P(|W/n - 1/2| >= distance) for W ~ Bin(n, 1/2 + epsilon)."""
    upper = math.exp(log_binomial_tail(n, n * (0.5 + distance), 0.5 + epsilon))
    lower = math.exp(log_binomial_tail(n, n * (0.5 - distance), 0.5 + epsilon, "lower"))
    return min(1.0, upper + lower) if distance > 0 else 1.0


def equivalence(
    network: np.ndarray, circuit: np.ndarray, epsilon: float = 0.1, alpha: float = 0.05
) -> Tested:
    """Does the circuit beat the network as often as the network beats it? (Shi et al. 2024, section 3.1)

    H0: |P(m(C) > m(N)) - 1/2| <= epsilon. Statistic: t = |W/n - 1/2|, W the number of examples on which the circuit scores
    higher (a tie counts half). p = sup over H0 of P(|W'/n - 1/2| >= t), which is attained at 1/2 + epsilon (and, by
    symmetry, 1/2 - epsilon). Retained: as good as equivalent. It is the win proportion that enters, not a mean difference.

    network, circuit: metric per example [n].
    """
    first, second = _pair(network, circuit)
    n = len(first)
    tolerance = 1e-9 * max(1.0, float(np.abs(first).max()))
    ties = float((np.abs(second - first) <= tolerance).sum())
    wins = float((second > first + tolerance).sum()) + 0.5 * ties
    distance = abs(wins / n - 0.5)
    p = _two_sided(n, distance, epsilon)
    least = least_for_equivalence(epsilon, alpha)
    passed = None if n < least else p > alpha
    return Tested(
        "Equivalence", f"the circuit scores higher than the network in {0.5 - epsilon:g} to {0.5 + epsilon:g} of cases",
        p, passed, wins / n, n, alpha, least,
        f"The circuit scores higher than the network on {100 * wins / n:.0f} % of {n} examples (p = {p:.3g}).",
    )  # fmt: skip


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Hilbert-Schmidt independence criterion of two samples [n]: tr(K H L H) / n^2, Gaussian kernels with the median
    distance as width (Gretton et al. 2005).
    """
    return float((_centred(_kernel(x)) * _kernel(y)).sum() / len(x) ** 2)


def _kernel(x: np.ndarray) -> np.ndarray:
    distance = np.abs(x[:, None] - x[None, :])
    positive = distance[distance > 0]
    width = float(np.median(positive)) if positive.size else 1.0
    return np.exp(-(distance**2) / (2 * width**2))


def _centred(k: np.ndarray) -> np.ndarray:
    return k - k.mean(0) - k.mean(1)[:, None] + k.mean()


def independence(
    network: np.ndarray, complement: np.ndarray, permutations: int = 1000, alpha: float = 0.05, seed: int = 0
) -> Tested:
    """Does what is left without the circuit still know anything of the behaviour? (Shi et al. 2024, section 3.2)

    H0: the scores of the network without the circuit are independent of the network's. Statistic: HSIC; p by permutation,
    the observed order counted, so that no p is zero. Retained: the behaviour was the circuit's.

    network, complement: metric per example [n].
    """
    first, second = _pair(network, complement)
    n, least = len(first), _least_for_permutations(alpha)
    k, low = _centred(_kernel(first)), _kernel(second)
    observed = float((k * low).sum())
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(permutations):
        order = rng.permutation(n)
        count += float((k * low[np.ix_(order, order)]).sum()) >= observed * (1 - 1e-12)
    p = (count + 1) / (permutations + 1)
    passed = None if n < least else p > alpha
    return Tested(
        "Independence", "what is left without the circuit is independent of what the network answers",
        p, passed, observed / n**2, n, alpha, least,
        f"HSIC of the network's and the complement's scores: {observed / n**2:.3g} (p = {p:.3g}, "
        f"{permutations} permutations).",
    )  # fmt: skip


def _least_for_permutations(alpha: float) -> int:
    return next(n for n in itertools.count(2) if 1 / math.factorial(n) <= alpha / 4)


def minimality(
    edges: Sequence[str],
    effects: np.ndarray,
    reference: np.ndarray,
    quantile: float = 0.9,
    alpha: float = 0.05,
) -> tuple[Tested, np.ndarray]:
    """Is there an edge whose removal changes no more than that of a random edge added to the circuit? (section 3.3)

    For each edge e, H0: P(reference < effect of e) >= quantile, that is, e matters more than most edges of inflated
    circuits.
    Statistic: how many of the reference effects lie below the effect of e; p = P(Bin(r, quantile) <= that). Corrected over
    edges by Benjamini-Hochberg. Retained for all edges: minimal.

    effects: [k] mean |m(C) - m(C without e)|; reference: [r] the same for random edges of randomly inflated circuits.

    Returns the test, and the corrected p of each edge [k].
    """
    r = len(reference)
    if r < 1 or len(effects) != len(edges):
        raise BadInput(
            "Minimality needs reference effects, and one effect for each edge.", "See `minimality`."
        )
    below = (np.asarray(reference)[None, :] < np.asarray(effects)[:, None]).sum(1)
    p = np.array([math.exp(log_binomial_tail(r, int(b), quantile, "lower")) for b in below])
    q = benjamini_hochberg(p)
    worst = int(np.argmin(p))
    least = math.ceil(math.log(alpha / max(1, len(edges))) / math.log(1 - quantile))
    passed = None if r < least else bool((q > alpha).all())
    many = int((q <= alpha).sum())
    return Tested(
        "Minimality", f"removing any edge changes more than {100 * quantile:g} % of random added edges do",
        float(q[worst]), passed, float(below[worst] / r), r, alpha, least,
        f"{many} of {len(edges)} edges change no more than a random added edge does"
        + (f"; the least is {edges[worst]}." if many else "."),
    ), q  # fmt: skip


def least_for_wins(quantile: float, alpha: float) -> int:
    """The fewest random circuits that, all beaten, reject 'beats at most a share `quantile` of them'.

    >>> least_for_wins(0.9, 0.05)
    29
    """
    return math.ceil(math.log(alpha) / math.log(quantile) - 1e-12)


def beats_random(
    name: str,
    null: str,
    mine: float,
    random: np.ndarray,
    quantile: float = 0.9,
    alpha: float = 0.05,
    tie: float = 0.0,
) -> Tested:
    """Does the circuit beat more than a share `quantile` of random circuits of its size? (Shi et al. 2024, section 3.4)

    H0: P(mine > random) <= quantile. p = P(Bin(r, quantile) >= number beaten). Ties are left out, as in a sign test: they
    say nothing for either, and where few others are left the test cannot decide. Rejected: it does. Sufficiency: `mine` is
    how near the circuit alone comes to the network; partial necessity: how much its removal damages. tie: the largest
    difference that counts as none.
    """
    apart = mine - np.asarray(random)
    beaten, r = int((apart > tie).sum()), int((np.abs(apart) > tie).sum())
    p = math.exp(log_binomial_tail(r, beaten, quantile))
    least = least_for_wins(quantile, alpha)
    passed = None if r < least else p <= alpha
    ties = f"; {len(random) - r} do the same" if r < len(random) else ""
    return Tested(
        name, null, p, passed, beaten / r if r else float("nan"), r, alpha, least,
        f"It beats {beaten} of {len(random)} random circuits of its size (p = {p:.3g}{ties}).",
    )  # fmt: skip


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise BadInput(
            f"The scores {a.shape} and {b.shape} are not of the same examples.", "Pass two arrays [n]."
        )
    return a, b


def require_enough(n: int, least: int, what: str) -> None:
    """BadBehaviour, naming the least number, where a test has too few examples."""
    if n < least:
        raise BadBehaviour(
            f"{what} needs at least {least} examples to be able to fail, and there are {n}.",
            f"Give {least} or more.",
        )
