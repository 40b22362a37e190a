"""Progress on stderr: a live display on a terminal, a line every few seconds in a pipe, events for other programs.

A thread of its own tells the time where a single step takes long, so that nothing is silent.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from cutaway.results.price import duration

if TYPE_CHECKING:
    from cutaway.results import Price, Progress
    from cutaway.results.meter import Meter

#: Seconds: what is shorter is not told; between lines; what a price must be to be worth saying; between two events.
PATIENCE, EVERY, WORTH, _APART = 1.0, 5.0, 2.0, 0.2
#: Of a price's forward-equivalents so many are run before their own pace is all that counts.
_TRUSTED = 0.2


class Headway:
    """How far a piece of work has come, and how long the rest will take.

    >>> from cutaway.results import Price, Progress
    >>> course = Headway()
    >>> _ = course.hear(Progress("patching", 0, 1, 2.0, 50, Price(100, 20.0)))
    >>> _ = course.hear(Progress("patching", 3, 10, 12.0, 100))
    >>> course.remaining(12.0, 100.0)
    10.0
    """

    def __init__(self) -> None:
        self.label, self.done, self.total = "", 0, 0
        self.price: Price | None = None
        self.since = (0.0, 0.0)  # seconds and forward-equivalents when the price was said
        self.stage = (0.0, 0)  # seconds when the stage began, and steps that were done then

    def hear(self, progress: Progress) -> bool:
        """Take a report; True where a new stage begins with it."""
        if progress.price is not None:
            self.price, self.since = progress.price, (progress.seconds, progress.forwards)
        new = (progress.label, progress.total) != (self.label, self.total)
        if new:
            self.stage = (progress.seconds, progress.done)
        self.label, self.done, self.total = progress.label, progress.done, progress.total
        return new

    @property
    def steps(self) -> str:
        """How many steps are done, in words; a total of zero says that nobody knows how many there are.

        >>> from cutaway.results import Progress
        >>> course = Headway()
        >>> _ = course.hear(Progress("reading", 64, 0, 2.0))
        >>> course.steps
        '64 so far'
        """
        if not self.total:
            return f"{self.done} so far" if self.done else ""
        return f"{self.done} of {self.total}" if self.total > 1 else ""

    def remaining(self, seconds: float, forwards: float) -> float | None:
        """Seconds that are left at so many seconds and forward-equivalents; None where nothing tells.

        By the price and the pace so far; where all that the price foresaw is run, or there is none, by the steps.
        """
        if self.price is not None and self.price.forwards > 0:
            run, left = forwards - self.since[1], self.price.forwards - (forwards - self.since[1])
            if left > 0.01 * self.price.forwards:
                expected = self.price.seconds_of(1.0)
                if run <= 0:
                    return None if expected is None else expected * left
                pace = (seconds - self.since[0]) / run
                known = min(1.0, run / self.price.forwards / _TRUSTED)
                return left * (pace if expected is None else known * pace + (1 - known) * expected)
        began, before = self.stage
        if self.done <= before or self.total <= self.done:
            return None
        return (seconds - began) / (self.done - before) * (self.total - self.done)


class Telling:
    """Hears of progress and tells it; what follows says how. A context: its thread ends with it."""

    def __init__(self, console: Console) -> None:
        self.console, self.course = console, Headway()
        self.began, self.told = time.monotonic(), time.monotonic()
        self.meter: Meter | None = None
        self.processor = time.process_time()
        self.kept = ""
        self.due: str = ""
        self.lock, self.over = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Telling:
        self.processor = time.process_time()
        self.thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.close()
        if failed is None:
            self.end()

    def __call__(self, progress: Progress) -> None:
        """A report, in the thread that works."""
        with self.lock:
            new = self.course.hear(progress)
            if progress.price is not None:
                self._priced(progress.label, progress.price)
            self.tell(new)

    def _beat(self) -> None:
        while not self.over.wait(0.5):
            with self.lock:
                self.tell(False)

    def _priced(self, label: str, price: Price) -> None:
        """Keep a price to be said; what is over before that is worth it, is never."""
        self.due = f"{label}: {price.sentence}"
        self.due += (
            f"\nFinished stages are kept: --resume {self.kept} goes on from them." if self.kept else ""
        )

    def due_now(self) -> str:
        """The price that is to be said, once."""
        if not self.due or self.course.price is None:
            return ""
        expected = self.course.price.seconds
        if self.seconds - self.course.since[0] < WORTH and (expected is None or expected < WORTH):
            return ""
        said, self.due = self.due, ""
        return said

    @property
    def seconds(self) -> float:
        """Since this began."""
        return time.monotonic() - self.began

    @property
    def forwards(self) -> float:
        """Forward-equivalents so far."""
        return 0.0 if self.meter is None else self.meter.forwards

    @property
    def remaining(self) -> float | None:
        """Seconds that are left."""
        return self.course.remaining(self.seconds, self.forwards)

    def tell(self, _new: bool) -> None:
        """Tell how far it is, if it is time to; _new: a stage begins."""
        raise NotImplementedError

    def end(self) -> None:
        """Say what it took, where that is worth it."""
        if self.seconds < WORTH:
            return
        said = [f"{duration(self.seconds)} by the clock", f"{duration(self.spent)} of processor time"]
        said += [f"{self.forwards:,.0f} forward-equivalents"] if self.forwards else []
        self.console.print(f"It took {', '.join(said)}.", soft_wrap=True)

    @property
    def spent(self) -> float:
        """Seconds of processor time since this began."""
        return time.process_time() - self.processor

    def close(self) -> None:
        """Nothing is left to take away."""


class PipedLines(Telling):
    """A line every few seconds, for a file or a pipe."""

    def tell(self, _new: bool) -> None:
        """The price first; then how far it is, every few seconds."""
        if said := self.due_now():
            self.console.print(escape(said), soft_wrap=True)
        if time.monotonic() - self.told < EVERY:
            return
        self.told = time.monotonic()
        course, left = self.course, self.remaining
        steps = f" ({course.steps})" if course.steps else ""
        about = "" if left is None or left < 1 else "about "
        rest = "" if left is None else f", {about}{duration(left)} left"
        self.console.print(
            escape(f"{self.seconds:.0f} s: {course.label or 'preparing'}{steps}{rest}"), soft_wrap=True
        )


class LiveBar(Telling):
    """A live display for a person."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        from rich import progress as p

        self.bar: Any = p.Progress(
            p.SpinnerColumn(), p.TextColumn("{task.description}"), p.BarColumn(),
            p.TextColumn("{task.fields[steps]}"),
            p.TimeElapsedColumn(), p.TextColumn("{task.fields[left]}"), console=console, transient=True,
        )  # fmt: skip
        self.task, self.shown = self.bar.add_task("", total=None, left="", steps=""), False

    def tell(self, _new: bool) -> None:
        """Move the bar; show it once the work takes more than a second."""
        if not self.shown and self.seconds > PATIENCE:
            self.bar.start()
            self.shown = True
        if said := self.due_now():
            self.bar.console.print(escape(said), soft_wrap=True)
        course, left = self.course, self.remaining
        for task in self.bar.tasks:  # `update` takes no total for one that is not known any more
            task.total = course.total if course.total > 1 else None
        self.bar.update(
            self.task, description=escape(course.label or "preparing"), completed=course.done,
            steps=course.steps, left="" if left is None else f"{duration(left)} left",
        )  # fmt: skip

    def close(self) -> None:
        """Take the bar away."""
        if self.shown:
            self.bar.stop()


class JsonEvents(Telling):
    """One JSON object a line, for other programs."""

    def event(self, kind: str, **content: Any) -> None:
        """Write one event."""
        self.console.file.write(json.dumps({"event": kind, **content}, ensure_ascii=False) + "\n")
        self.console.file.flush()

    def _priced(self, label: str, price: Price) -> None:
        parts = [{"stage": stage, "forwards": forwards} for stage, forwards in price.parts]
        self.event("price", label=label, forwards=price.forwards, seconds=price.seconds, processor=price.processor,
                   memory=price.memory, parts=parts, resume=self.kept or None, at=round(self.seconds, 3),
                   at_processor=round(self.spent, 3), at_forwards=round(self.forwards, 3))  # fmt: skip

    def tell(self, _new: bool) -> None:
        """A stage when it begins; a step when it was made, but not too often; and every few seconds in any case."""
        course, since = self.course, time.monotonic() - self.told
        steps = threading.current_thread() is not self.thread
        if _new and course.label:
            self.event("stage", label=course.label, total=course.total, seconds=round(self.seconds, 3))
        if since < (_APART if steps else EVERY) and not (_new or (steps and course.done >= course.total)):
            return
        self.told, left = time.monotonic(), self.remaining
        self.event(
            "step", label=course.label, done=course.done, total=course.total, seconds=round(self.seconds, 3),
            forwards=round(self.forwards, 3), remaining=None if left is None else round(left, 1),
        )  # fmt: skip

    def end(self) -> None:
        """What it took, always."""
        self.event(
            "end",
            seconds=round(self.seconds, 3),
            processor=round(self.spent, 3),
            forwards=round(self.forwards, 3),
        )
