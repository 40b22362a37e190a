"""What a job will take: memory and speed, measured on small pieces of it, and the price of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.network.memory import MOST_TOKENS, row_bytes, rows_at_once
from cutaway.results import Price, Work
from cutaway.sweeps.cells import CellState
from cutaway.sweeps.cost import Operations, Speed, clocked, peak_bytes
from cutaway.sweeps.engine import Job
from cutaway.sweeps.waves import Wave

#: Pairs that went through, and their metric.
Done = list[tuple[np.ndarray, np.ndarray]]
#: Tokens of the larger and of the smaller piece that is timed.
_PIECES = (384, 32)
#: Tokens of the pieces by which memory is measured, where there is room for them.
_PROBE = 256


@dataclass(frozen=True)
class Cost:
    """What a sweep takes.

    Attributes:
        cells, pairs: cells, and cells times examples that exist.
        zeros: pairs known to change nothing.
        plain: pairs that are run as whole forwards.
        operations, naive: floating-point operations needed, and those of one forward per pair with the logits of every
            position; 0 where they were not counted.
        forwards: forward-equivalents (`results.meter`); where operations were counted, by these, so that it is the price of
            so many plain forwards of one prompt.
        memory: bytes at the peak, beside the network.
        seconds: expected by the clock, from timed pieces of this very sweep, as busy as the machine was then; None where
            nothing was timed.
        processor: expected seconds of processor time, all threads together; other work on the machine does not change it.
    """

    cells: int
    pairs: int
    zeros: int
    plain: int
    operations: float
    naive: float
    forwards: float
    memory: int
    seconds: float | None
    processor: float | None = None

    @property
    def share(self) -> float:
        """Needed operations as a share of the naive loop's."""
        return self.operations / self.naive if self.naive else 0.0

    @property
    def price(self) -> Price:
        """The same as every verb announces it."""
        return Price(self.forwards, self.seconds, self.processor, self.memory)


@dataclass(frozen=True)
class Memory:
    """Bytes that waves take on their way, beside what is kept: for each column of a row that is run, and for each that it
    looks back at.

    Attributes:
        column: bytes for a row's column.
        key: bytes for a column that is looked at.
    """

    column: float = 0.0
    key: float = 0.0

    @classmethod
    def measured(cls, job: Job, done: Done, room: float) -> Memory:
        """From a piece of the waves with most columns and of those with fewest; the results are kept.

        room: bytes that are free; the pieces surely take less, unless they are of one row.
        """
        net, width = job.experiment.net, job.experiment.tokens.width
        most = min(_PROBE, int(room * width / max(1, row_bytes(net, width))))
        ends = (max, min)
        waves = [choose(job.waves, key=lambda w: (w.columns, len(w.pairs))) for choose in ends]
        shapes: list[tuple[int, int, float]] = []
        for wave in waves[: 1 if waves[0].columns == waves[1].columns else 2]:
            probe = piece(wave, most)
            if not shapes:
                _warm(job, probe)
            peak = peak_bytes(lambda probe=probe: done.append((probe.pairs, job.score(probe))))
            shapes.append((probe.columns, probe.stop, peak / len(probe.pairs)))
        (wide, seen, large), (narrow, behind, small) = shapes[0], shapes[-1]
        across = wide * behind - narrow * seen
        if across:
            key = (wide * small - narrow * large) / across
            column = (large - key * seen) / wide
            if key >= 0 and column >= 0:
                return cls(column, key)
        return cls(max(large / wide, small / narrow), 0.0)

    def row(self, wave: Wave) -> float:
        """Bytes for each row of a wave."""
        return self.column * wave.columns + self.key * wave.stop

    def peak(self, job: Job, work: Work) -> int:
        """Bytes of the largest wave, or of the base run where that takes more."""
        tokens = job.experiment.tokens
        rows = min(tokens.n, rows_at_once(job.experiment.net, tokens.width, work, most=MOST_TOKENS))
        waves = (len(w.pairs) * self.row(w) for w in job.waves)
        return int(max([rows * tokens.width * self.column, *waves]))


def _warm(job: Job, probe: Wave) -> None:
    """Find out about the arguments of the layers first: those passes are small, and would be measured with the piece."""
    if job.replayer is not None:
        job.replayer.batch_factors(probe)


def surely_fits(job: Job, room: float) -> bool:
    """Whether the largest wave fits by far, so that nothing needs to be measured."""
    net, tokens = job.experiment.net, job.experiment.tokens
    return job.largest * row_bytes(net, tokens.width) / max(1, tokens.width) <= room


def piece(wave: Wave, tokens: int) -> Wave:
    """Some of a wave's rows, taken evenly over its layers."""
    rows = max(1, min(len(wave.pairs), tokens // wave.columns))
    chosen = np.unique(np.linspace(0, len(wave.pairs) - 1, rows).round().astype(int))
    return wave.only(chosen)


def _calls(wave: Wave, depth: int) -> float:
    """How many times a layer is called for a wave, roughly: once for each layer that any row has reached."""
    return float(depth - int(wave.layers.min())) if len(wave.layers) else 0.0


def measured_speed(job: Job, operations: Operations, done: Done) -> Speed:
    """Time a larger and a smaller piece of the sweep; their results are kept."""
    depth, device = len(operations.layers), job.experiment.net.device
    wave = sorted(job.waves, key=lambda w: len(w.pairs) * w.columns)[len(job.waves) // 2]
    calls, counts, seconds, processor = [], [], [], []
    for tokens in _PIECES:
        part = piece(wave, tokens)
        if counts and len(part.pairs) * 2 > len(done[-1][0]):
            continue
        clock, spent = clocked(lambda part=part: done.append((part.pairs, job.score(part))), device)
        seconds.append(clock)
        processor.append(spent)
        calls.append(_calls(part, depth))
        counts.append(operations.wave(part, job.rules.last, job.few))
    # other work on the machine lengthens what the clock shows, by chance: the rates come from the processor's time
    steady = processor if device.type == "cpu" and min(processor) > 0 else seconds
    fitted = Speed.fit(calls, counts, steady)
    return fitted.beside(sum(seconds) / sum(steady), sum(processor) / sum(steady))


def cost_of(job: Job, operations: Operations | None, speed: Speed | None, memory: int) -> Cost:
    """The price of a job. operations, speed: None where they were not found out."""
    states, width = job.changes.states, job.experiment.tokens.width
    depth = job.experiment.net.n_layers
    pairs = int((states != CellState.ABSENT).sum())
    zeros, plain = int((states == CellState.KNOWN_ZERO).sum()), len(job.plain)
    total, naive, seconds, processor = 0.0, 0.0, None, None
    if operations is None:
        run = sum(float((depth - w.layers).sum()) * w.columns for w in job.waves) / max(1, depth * width)
        forwards = run + plain
    else:
        needed = [operations.wave(w, job.rules.last, job.few) for w in job.waves]
        total = sum(needed) + plain * operations.forward(1, width, 1)
        forwards = total / max(1.0, operations.forward(1, width, 1))
        naive = pairs * operations.forward(1, width, width)
        if speed is not None:
            steady = speed.seconds(sum(_calls(w, depth) for w in job.waves), total)
            seconds, processor = steady * speed.clock, steady * speed.processor
    return Cost(len(job.cells), pairs, zeros, plain, total, naive, forwards, memory, seconds, processor)
