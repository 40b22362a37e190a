"""What something will take, said before it begins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """What a piece of work is expected to take.

    Attributes:
        forwards: forward-equivalents (`results.meter`).
        seconds: by the clock, at the speed that was just measured; None where nothing was timed.
        processor: seconds of processor time, all threads together: what they do not tell of is a machine busy with other
            things; None where nothing was timed.
        memory: bytes at the peak, beside the network itself; None where it was not reckoned.
        parts: where the forward-equivalents go: a stage in words, and how many.
        least: forward-equivalents after which there is something to keep; 0 where there is at any time.
    """

    forwards: float
    seconds: float | None = None
    processor: float | None = None
    memory: int | None = None
    parts: tuple[tuple[str, float], ...] = ()
    least: float = 0.0

    def seconds_of(self, forwards: float) -> float | None:
        """What so many of its forward-equivalents take; None where nothing was timed.

        >>> Price(100, 50.0).seconds_of(10)
        5.0
        """
        return None if self.seconds is None or not self.forwards else self.seconds * forwards / self.forwards

    @property
    def sentence(self) -> str:
        """It in one line.

        >>> Price(8200.4, 95.2, 180.1, 3 << 30).sentence
        'about 8,200 forward-equivalents, 1.6 minutes (3.0 of processor time), 3.0 GiB of memory'
        >>> Price(12, 3.0, 0.4).sentence
        'about 12 forward-equivalents, 3 seconds (less than a second of processor time)'
        >>> Price(12).sentence
        'about 12 forward-equivalents'
        """
        told = [f"about {self.forwards:,.0f} forward-equivalents"]
        if self.seconds is not None:
            beside = "" if self.processor is None else f" ({duration(self.processor)} of processor time)"
            same = self.processor is not None and (self.seconds >= _MINUTES) == (self.processor >= _MINUTES)
            if self.processor is not None and same and self.processor >= 1 and self.seconds >= 1:
                beside = f" ({duration(self.processor).split()[0]} of processor time)"
            told.append(duration(self.seconds) + beside)
        if self.memory is not None:
            told.append(f"{size(self.memory)} of memory")
        return ", ".join(told)


_MINUTES, _HOURS = 90.0, 5400.0


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.42), duration(48), duration(312), duration(9000)
    ('less than a second', '48 seconds', '5.2 minutes', '2.5 hours')
    """
    if seconds < 1:
        return "less than a second"
    if seconds < _MINUTES:
        return f"{seconds:.0f} seconds" if round(seconds) != 1 else "1 second"
    return f"{seconds / 60:.1f} minutes" if seconds < _HOURS else f"{seconds / 3600:.1f} hours"


def size(count: float) -> str:
    """Bytes as a person says them.

    >>> size(100 << 10), size(900 << 20), size(3 << 30)
    ('100 KiB', '900 MiB', '3.0 GiB')
    """
    if count < 1 << 20:
        return f"{count / 2**10:,.0f} KiB"
    return f"{count / 2**20:,.0f} MiB" if count < 1 << 30 else f"{count / 2**30:.1f} GiB"
