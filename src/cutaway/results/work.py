"""Work: who hears of a verb's progress, what may stop it, and what it may spend. One object, handed down.

A verb takes `work` and hands it on. Where it could stop it calls `work.step(label, done, total)`, which tells the listener
and raises `Stopped` once somebody has asked for an end: Ctrl-C, another thread, a spent budget. Whoever can keep what is
finished catches `Stopped` and returns it, marked as partial.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cutaway.errors import BadInput, Stopped
from cutaway.results.account import Account
from cutaway.results.meter import Meter, metered
from cutaway.results.price import Price, duration, size
from cutaway.results.stages import Stages

T = TypeVar("T")
#: A budget is too small beforehand where even so large a share of what is expected does not fit: predictions of
#: forward-equivalents are good to a third, of seconds on a busy machine to a factor of two, of memory to a fifth.
_FORWARDS, _SECONDS, _MEMORY = 0.7, 0.5, 0.8
#: Bytes that are taken whatever the budget.
_LITTLE = 1 << 20


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    Attributes:
        label: what is being done.
        done: steps finished.
        total: steps in all.
        seconds: since the work began.
        forwards: forward-equivalents that the work has taken.
        price: what is about to begin will take; None in every report but the one that announces it.
    """

    label: str
    done: int
    total: int
    seconds: float
    forwards: float = 0.0
    price: Price | None = None


#: Called with every report of progress, in the thread that works.
Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class Budget:
    """What a piece of work may spend; None means as much as it takes.

    Attributes:
        seconds: by the clock, from the moment the work began.
        forwards: forward-equivalents, by `results.meter`: rows times the share of the layers that are run.
        memory: bytes at the peak, beside the network itself; by default half of what is free.

    Raises BadInput for a figure that is not positive.
    """

    seconds: float | None = None
    forwards: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "forwards", "memory"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise BadInput(
                    f"A budget of {value!r} {name} is not a positive number.", "Give more, or leave it out."
                )


@dataclass(frozen=True, eq=False)
class Work:
    """How a verb works: `Work()` is silent, cannot be stopped from outside, and may spend what it takes.

    Attributes:
        listener: called with a `Progress` at every step.
        budget: what may be spent.
        ends: set by whoever wants the work to stop; a thread, a server and Ctrl-C all do it this way.
        began: `time.monotonic()` when the work began.
        meter: the forward-equivalents that it has taken, all its parts together.
        part: what a step of a larger piece of work is called; put before its labels.
        account: the price in force.
        stages: where finished stages are kept, so that what is stopped or killed can go on; None: nowhere.

    >>> heard = []
    >>> work = Work(lambda p: heard.append((p.label, p.done, p.total)))
    >>> work.within("control").step("patching", 1, 2)
    >>> heard
    [('control: patching', 1, 2)]
    """

    listener: Listener | None = None
    budget: Budget = Budget()
    ends: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)
    meter: Meter = field(default_factory=Meter)
    part: str = ""
    account: Account = field(default_factory=Account)
    stages: Stages | None = None

    def step(self, label: str, done: int, total: int) -> None:
        """Report progress. Raises `Stopped` where the work was asked to end; a listener may raise KeyboardInterrupt."""
        self._tell(label, done, total)
        self.check()

    @property
    def priced(self) -> bool:
        """Is a price of use to anybody: does somebody listen, or is there a budget, and is none in force already?"""
        account = self.account
        wanted = (
            self.listener is not None or self.budget.seconds is not None or self.budget.forwards is not None
        )
        return wanted and (account.price is None or account.depth <= account.at)

    @property
    def times(self) -> bool:
        """Are seconds of use to anybody, so that a pace is worth measuring?"""
        return self.listener is not None or self.budget.seconds is not None

    def announce(self, label: str, price: Price, after: Callable[[], None] | None = None) -> None:
        """Say what something will take, before it begins. A part of what is announced already announces nothing.

        after: called once the verb has come to its end. Who asks for an end here is heard at the first step, where there is
        something to keep. Raises `Stopped` where the budget is too small for anything that could be kept.

        >>> heard = []
        >>> Work(lambda p: heard.append((p.label, p.price.sentence))).announce("patching", Price(640))
        >>> heard
        [('patching', 'about 640 forward-equivalents')]
        >>> Work(budget=Budget(forwards=100)).announce("patching", Price(640, least=500))
        Traceback (most recent call last):
        cutaway.errors.Stopped: The budget of 100 forward-equivalents is too small for anything: nothing was run. ...
        """
        if not self.account.take(price, after):
            return
        self._tell(label, 0, 1, price)
        self._require_enough(price)

    def _require_enough(self, price: Price) -> None:
        """Raise `Stopped` where not even the least that could be kept fits into what is left of the budget."""
        seconds, budget = price.seconds_of(price.least), self.budget
        enough = []
        if budget.forwards is not None and _FORWARDS * price.least > budget.forwards - self.meter.forwards:
            enough.append(f"{self.meter.forwards + price.least:.0f} forward-equivalents")
        if (
            seconds is not None
            and budget.seconds is not None
            and _SECONDS * seconds > budget.seconds - self.seconds
        ):
            enough.append(duration(self.seconds + seconds))
        memory = price.memory or 0
        if budget.memory is not None and memory > _LITTLE and _MEMORY * memory > budget.memory:
            enough.append(f"{size(-(-memory // _LITTLE) * _LITTLE)} of memory")
        if enough:
            told = " and ".join(enough)
            raise Stopped(
                f"The budget of {self._allowed()} is too small for anything: nothing was run.",
                f"{told[:1].upper()}{told[1:]} would be enough for a first result; from here all of it takes "
                f"{price.sentence}.",
            )

    def _allowed(self) -> str:
        """The budget, in words."""
        told = [] if self.budget.seconds is None else [duration(self.budget.seconds)]
        told += [] if self.budget.forwards is None else [f"{self.budget.forwards:g} forward-equivalents"]
        told += [] if self.budget.memory is None else [f"{size(self.budget.memory)} of memory"]
        return ", ".join(told)

    def bound(self, verb: str, question: Callable[[], Mapping[str, Any]]) -> Work:
        """The same work, its stages those of this question (`Stages.bound`). Where none are kept, nothing is asked."""
        return self if self.stages is None else replace(self, stages=self.stages.bound(verb, question()))

    def once(
        self,
        name: str,
        make: Callable[[], T],
        save: Callable[[T], Mapping[str, Any]],
        load: Callable[[dict[str, Any]], T],
        of: Callable[[], object] = lambda: None,
    ) -> T:
        """A stage (`Stages.once`), made anew where none are kept. of: what it depends on beside the question."""
        return make() if self.stages is None else self.stages.once(name, make, save, load, of())

    def _tell(self, label: str, done: int, total: int, price: Price | None = None) -> None:
        if self.listener is None:
            return
        label = f"{self.part}: {label}" if self.part else label
        try:
            self.listener(Progress(label, done, total, self.seconds, self.meter.forwards, price))
        except KeyboardInterrupt:
            self.ends.set()

    def check(self) -> None:
        """Raise `Stopped` where the work was asked to end, or its seconds or forward-equivalents are spent."""
        if self.ends.is_set():
            raise Stopped(
                "The work was stopped.", "What was finished is kept where there is something to keep."
            )
        if spent := self._spent():
            price = self.account.price
            whole = "" if price is None else f" All of it takes {price.sentence}."
            raise Stopped(f"The budget of {spent} is spent.", f"Give more, or ask for less.{whole}")

    def stop(self) -> None:
        """Ask the work to end at its next step; may be called from any thread."""
        self.ends.set()

    @property
    def stopped(self) -> bool:
        """Has somebody asked for an end, or is the budget spent?"""
        return self.ends.is_set() or self._spent() != ""

    def _spent(self) -> str:
        """What of the budget is spent, in words; "" where nothing is."""
        budget = self.budget
        if budget.seconds is not None and self.seconds > budget.seconds:
            return f"{budget.seconds:g} seconds"
        if budget.forwards is not None and self.meter.forwards > budget.forwards:
            return f"{budget.forwards:g} forward-equivalents"
        return ""

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self.began

    def within(self, part: str) -> Work:
        """The same work for one of its parts: labels begin with the part's name."""
        return replace(self, part=f"{self.part}: {part}" if self.part else part)

    def counting(self, before: int, total: int) -> Work:
        """The same work for a share of its steps: the listener hears of `total` steps, of which `before` are done.

        >>> heard = []
        >>> Work(lambda p: heard.append((p.done, p.total))).counting(10, 30).step("patching", 1, 5)
        >>> heard
        [(11, 30)]
        """
        listener = self.listener
        if listener is None:
            return self

        def listen(progress: Progress) -> None:
            if progress.price is None:
                progress = replace(progress, done=before + progress.done, total=total)
            listener(progress)

        return replace(self, listener=listen)

    @contextmanager
    def interruptible(self) -> Iterator[Work]:
        """While active, Ctrl-C asks the work to end at its next step; a second Ctrl-C ends it at once.

        Outside the main thread, where signals do not arrive, that is not changed. What is run counts for the budget.
        """
        with metered(self.meter, outermost=True), self._signalled():
            yield self

    @contextmanager
    def _signalled(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler:  # somebody else's, perhaps an outer verb's: leave it
            yield
            return

        def ask(_number: int, _frame: object) -> None:
            if self.ends.is_set():
                raise KeyboardInterrupt
            self.ends.set()

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def working(work: Work | None) -> Work:
    """The work that was handed down, or a silent one of its own."""
    return Work() if work is None else work
