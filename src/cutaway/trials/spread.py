"""A part of some examples that stands for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def spread(labels: Sequence[Hashable], n: int) -> list[int]:
    """The numbers of n examples, as many of each label as there can be, and of each label evenly spaced; in order.

    labels: of the examples that belong together, such as their sentence frame.

    >>> spread(["a", "a", "a", "b"], 2)
    [0, 3]
    >>> spread("aaaabb", 4), spread("ab", 9)
    ([0, 2, 4, 5], [0, 1])
    """
    rows: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    share = dict.fromkeys(rows, 0)
    left = min(n, len(labels))
    while left:
        for label, members in rows.items():
            if left and share[label] < len(members):
                share[label] += 1
                left -= 1
    chosen = []
    for label, members in rows.items():
        take = share[label]
        chosen += [members[int(i * len(members) / take)] for i in range(take)]
    return sorted(chosen)
