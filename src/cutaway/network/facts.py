"""FactMemo about a network, each found once: certified norms, the wiring of its circuit graph, baselines of a behaviour."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class FactMemo:
    """One memo for everything that is costly to find out about a network.

    A fact holds as long as the network stays as it is. `Core.fact` sees to that: it forgets them when the network is moved
    or its weights change, and neither reads nor keeps any while edits stand.

    >>> facts = FactMemo()
    >>> facts.get("size", lambda: 3), facts.get("size", lambda: 4)
    (3, 3)
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The fact of that key, found by `make` where it is not known yet."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def forget(self) -> None:
        """Know nothing any more."""
        self._known.clear()

    def __reduce__(self) -> tuple[type[FactMemo], tuple[()]]:
        return FactMemo, ()
