"""Looking at few examples first and at more only where these do not decide, without being wrong more often.

Every look at growing data is a chance to be wrong. The error rate is shared out beforehand: each look but the last gets half
of what is left of it, the last gets the rest, so that all together (Bonferroni) err at most as often as one look would.

Alpha spending: Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials".
"""

from __future__ import annotations


def looks_at(n: int, first: int, alpha: float = 0.05) -> list[tuple[int, float]]:
    """How many of n examples each look takes, and the level of its intervals: `first`, then twice as many, until all.

    A last look that would take less than three quarters more than the one before takes its place.

    >>> looks_at(64, 64), looks_at(200, 64)
    ([(64, 0.95)], [(64, 0.975), (200, 0.975)])
    >>> [(k, round(level, 4)) for k, level in looks_at(1000, 64)]
    [(64, 0.975), (128, 0.9875), (256, 0.9938), (512, 0.9969), (1000, 0.9969)]
    """
    sizes, size = [], max(1, first)
    while size < n:
        sizes.append(size)
        size *= 2
    if sizes and n < 1.75 * sizes[-1]:
        sizes.pop()
    looks, left = [], alpha
    for k in sizes:
        left /= 2
        looks.append((k, 1 - left))
    return [*looks, (n, 1 - left)]
