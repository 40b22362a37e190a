"""What was said beforehand that a piece of work will take, and for how long it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cutaway.results.price import Price


@dataclass(eq=False)
class Account:
    """The price in force. One that a verb announces holds until the verb ends; what it calls announces nothing.

    Attributes:
        price: what was announced last by the outermost that announced; None where nothing is in force.
        depth: how many verbs are inside one another.
        at: the depth at which the price was announced.
        after: called once the verb that announced has come to its end; not where it was stopped by an error.
    """

    price: Price | None = None
    depth: int = 0
    at: int = 0
    after: Callable[[], None] | None = None

    def take(self, price: Price, after: Callable[[], None] | None = None) -> bool:
        """Put a price in force; False where it is of a part of what is announced already."""
        if self.price is not None and self.depth > self.at:
            return False
        self.price, self.at, self.after = price, self.depth, after
        return True

    @contextmanager
    def verb(self) -> Iterator[None]:
        """While active, one verb more is running.

        >>> account = Account()
        >>> with account.verb():
        ...     whole = account.take(Price(100))
        ...     with account.verb():
        ...         part = account.take(Price(10))
        ...     account.price.forwards
        100
        >>> whole, part, account.price
        (True, False, None)
        """
        self.depth += 1
        try:
            yield
            if self.at >= self.depth and self.after is not None:
                self.after()
        finally:
            if self.at >= self.depth:
                self.price, self.at, self.after = None, 0, None
            self.depth -= 1
