"""What training will take, said before it begins: forwards, seconds from a few measured steps, memory, bytes on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cutaway.errors import OutOfMemory
from cutaway.features.training.end_to_end import MEASURED
from cutaway.features.training.loop import CALIBRATED_ON, LABEL, Assignment
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.rows import HELD_ROWS, ChunkSizes, TextRows
from cutaway.features.training.thresholds import rebuilt
from cutaway.features.training.trainee import Trainee
from cutaway.features.training.wiring import memory_of, parameters_of
from cutaway.network.learnt import corrected
from cutaway.network.memory import budget_bytes, row_bytes
from cutaway.network.pace import pace_of
from cutaway.network.pricing import announce_price, until
from cutaway.results import Price, Work
from cutaway.results.meter import BACKWARD
from cutaway.results.price import duration, size

if TYPE_CHECKING:
    from cutaway.network import Network

#: Rows of a chunk: at most, at least, and the share of the memory that they may take.
MOST, LEAST, SHARE = 1 << 17, 1 << 12, 6
#: Rows that are measured at once.
_AT_ONCE = 512
#: Steps that are made to warm up, and steps that are timed.
_WARM, _TIMED = 1, 3
#: Work of fewer forwards and rows is not timed beforehand.
_WORTH, _WORTH_ROWS = 24.0, 20_000


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will take.

    Attributes:
        dictionaries: names, twins among them.
        rows: that each is trained on.
        steps: of all dictionaries together.
        epochs: how often the texts are read; NaN where they are not counted beforehand.
        forwards: forward-equivalents.
        seconds: by the clock, from steps that were just timed and the network's pace; None where nothing was timed.
        memory: bytes at the peak, beside the network.
        disk: bytes in the folder at the most: two checkpoints while one replaces the other, and the dictionaries.
        parts: seconds of reading rows, and of each dictionary's steps.
    """

    dictionaries: tuple[str, ...]
    rows: int
    steps: int
    epochs: float
    forwards: float
    seconds: float | None
    memory: int
    disk: int
    parts: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        took = "" if self.seconds is None else f" in {duration(self.seconds)}"
        return (
            f"{len(self.dictionaries)} dictionaries on {self.rows:,} rows{took}: {self.steps:,} steps, "
            f"{self.forwards:,.0f} forward-equivalents, {size(self.memory)} of memory, {size(self.disk)} on disk"
        )


def chunk_rows(widths: Mapping[str, int], budget: int, rows: int | None) -> int:
    """Rows of a chunk: at most a power of two within a share of the budget, and chunks of about one size, so that no more
    rows are read for the last one than are trained on.

    >>> chunk_rows({"resid_post.5": 128}, 1 << 40, None), chunk_rows({"resid_post.5": 128}, 1 << 40, 200_000)
    (131072, 100000)
    """
    fits = budget // SHARE // (8 * sum(widths.values()))
    most = max(LEAST, min(MOST, fits, rows or MOST))
    chunk = 1 << (int(most).bit_length() - 1)
    return chunk if not rows or rows <= chunk else math.ceil(rows / math.ceil(rows / chunk))


def bytes_at_peak(
    tasks: Sequence[Assignment], widths: Mapping[str, int], sizes: ChunkSizes, net: Network | None = None,
    source: TextRows | None = None,
) -> int:  # fmt: skip
    """Bytes that training takes at its fullest, beside the network.

    Rows of a chunk, as they are and on one scale; a pass that reads them; all dictionaries with their moments, and what one
    step takes beside, or folding one in double precision and measuring it. source: few texts fill no chunk.
    """
    width = sum(widths.values())
    held = HELD_ROWS if source is None else source.held_rows
    # texts that hold out fewer rows than are measured were all counted
    chunk = sizes.chunk if source is None or held == HELD_ROWS else min(sizes.chunk, source.counted)
    rows = 2 * (chunk + min(CALIBRATED_ON, chunk) + held) * 4 * width
    reading = 0 if net is None else sizes.batch * row_bytes(net, sizes.length, width, read=0)
    one = [_parameters(t.recipe, widths) for t in tasks]
    step = max(
        memory_of(t.recipe, *_widths(t.recipe, widths)) - 3 * k for t, k in zip(tasks, one, strict=True)
    )
    finish = max(6 * k + 6 * 4 * _AT_ONCE * t.recipe.latents for t, k in zip(tasks, one, strict=True)) + sum(
        one
    )
    return rows + 3 * sum(one) + max(0, step, finish, reading)


def bytes_on_disk(tasks: Sequence[Assignment], widths: Mapping[str, int]) -> int:
    """Bytes in the folder at the most."""
    one = sum(_parameters(t.recipe, widths) for t in tasks)
    return 2 * 3 * one + one


def _parameters(recipe: DictionaryRecipe, widths: Mapping[str, int]) -> int:
    return 4 * parameters_of(recipe, *_widths(recipe, widths))


def _widths(recipe: DictionaryRecipe, widths: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(widths[p] for p in recipe.reads), tuple(widths[p] for p in recipe.writes)


def check_memory(needed: int, budget: int) -> None:
    """Raise `OutOfMemory` where it does not fit."""
    if needed > budget:
        raise OutOfMemory(
            f"Training takes {size(needed)} of memory, and {size(budget)} may be taken.",
            "Give fewer latents, a smaller batch, fewer sites at once, or controls=().",
        )


def step_seconds(recipe: DictionaryRecipe, widths: Mapping[str, int]) -> tuple[float, float, float]:
    """Of one step, on rows that mean nothing: seconds by the clock and of processor time; and, by the clock, of encoding and
    decoding one row with what is trained, as it is done to measure it.
    """
    reads, writes = _widths(recipe, widths)
    generator = torch.Generator().manual_seed(0)
    rows = {
        p: torch.randn(recipe.batch, widths[p], generator=generator) for p in (*recipe.reads, *recipe.writes)
    }
    trainee = Trainee(recipe, reads, writes)
    at = time.perf_counter(), time.process_time()
    for number in range(_WARM + _TIMED):
        if number == _WARM:
            at = time.perf_counter(), time.process_time()
        trainee.step([rows[p] for p in recipe.reads], [rows[p] for p in recipe.writes], 0.5)
    took = (time.perf_counter() - at[0]) / _TIMED, (time.process_time() - at[1]) / _TIMED
    made = trainee.dictionary(
        [torch.zeros(w) for w in reads],
        [1.0] * len(reads),
        [torch.zeros(w) for w in writes],
        [1.0] * len(writes),
    )
    some = [rows[p][:_AT_ONCE] for p in recipe.reads]
    began = time.perf_counter()
    rebuilt(made, some)
    return (*took, (time.perf_counter() - began) / len(some[0]))


def steps_of(tasks: Sequence[Assignment], total: int) -> int:
    """Steps of all dictionaries together, about."""
    return sum(max(1, round(total / t.recipe.batch)) for t in tasks)


def forwards_of(net: Network, rows: TextRows, total: int) -> float:
    """Forward-equivalents of reading so many rows, and those that are held out."""
    windows = rows.windows_of(rows.counted if rows.fits else total)
    return (windows + len(rows.held_out(HELD_ROWS))) * until(net, rows.sites)


def tuning_forwards(rows: TextRows, tasks: Sequence[Assignment], tokens: int) -> float:
    """Forward-equivalents of fine-tuning all dictionaries through the network: two passes and a gradient a window."""
    if not tokens:
        return 0.0
    measured = 3 * 2 * len(rows.held_out(MEASURED)) + len(rows.held_out(MEASURED)) + 1
    return len(tasks) * (rows.windows_of(tokens) * (2 + BACKWARD) + measured)


def seconds_of(
    net: Network | None, rows: TextRows | None, tasks: Sequence[Assignment], widths: Mapping[str, int], total: int,
    forwards: float, work: Work,
) -> tuple[tuple[str, float, float], ...]:  # fmt: skip
    """Parts of the work in words, with their seconds by the clock and of processor time."""
    parts = []
    if net is not None and rows is not None and forwards:
        tokens = net.encode([list(window.ids) for window in rows.some])
        found = pace_of(net, tokens, work, False, forwards).price(
            forwards, forwards / max(1, rows.sizes.batch)
        )
        parts.append(("reading", found.seconds or 0.0, found.processor or 0.0))
    known: dict[DictionaryRecipe, tuple[float, float, float]] = {}
    measured = min(HELD_ROWS, total) + 3 * min(CALIBRATED_ON, total)
    for task in tasks:
        like = DictionaryRecipe(**{**vars(task.recipe), "seed": 0})
        known[like] = known.get(like) or step_seconds(like, widths)
        steps = total / task.recipe.batch
        clock, processor, row = known[like]
        after = row * measured
        parts.append(
            (task.name, steps * clock + after, steps * processor + after * processor / max(clock, 1e-9))
        )
    return tuple(parts)


def announce_training(
    net: Network | None, rows: TextRows | None, tasks: Sequence[Assignment], widths: Mapping[str, int], sizes: ChunkSizes,
    total: int, work: Work, tune: int = 0,
) -> None:  # fmt: skip
    """Say what training takes, where anybody wants to know. Raises `OutOfMemory`, and `Stopped` for too small a budget."""
    memory = bytes_at_peak(tasks, widths, sizes, net, rows)
    if net is not None:
        check_memory(memory, budget_bytes(net, work))
    if not work.priced:
        return
    forwards = 0.0
    if net is not None and rows is not None:
        forwards = forwards_of(net, rows, total) + tuning_forwards(rows, tasks, tune)
    seconds: tuple[float, float] | None = None
    first = min(1.0, sizes.chunk / total)  # of what is read, before there is a step to keep
    least = first
    if work.times and (forwards >= _WORTH or total * len(tasks) >= _WORTH_ROWS):
        parts = seconds_of(net, rows, tasks, widths, total, forwards, work)
        seconds = sum(p[1] for p in parts), sum(p[2] for p in parts)
        if work.budget.forwards is None:  # what is asked of the least is its share of the seconds
            least = max(1e-6, first * sum(p[1] for p in parts[: -len(tasks)]) / max(seconds[0], 1e-9))
    price = Price(forwards, *(seconds or ()), memory=memory, least=forwards * least)
    if net is None:
        work.announce(LABEL, price)
    else:
        announce_price(net, work, LABEL, corrected(net, LABEL, price) if seconds else price, LABEL)
