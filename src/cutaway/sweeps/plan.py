"""A plan: what a sweep will cost, said before it is run; and the run, which can be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cutaway.errors import OutOfMemory, Stopped
from cutaway.network.memory import budget_bytes
from cutaway.reports import display
from cutaway.results import Work, working
from cutaway.sweeps.cells import Cell, CellState, CellValues, Experiment, put
from cutaway.sweeps.cost import count_operations
from cutaway.sweeps.engine import Job, prepare, tokens_in_wave
from cutaway.sweeps.footprint import affordable, held_bytes
from cutaway.sweeps.journal import Journal, LateJournal
from cutaway.sweeps.pricing import Cost, Memory, cost_of, measured_speed, surely_fits
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.stages import layer_parts
from cutaway.sweeps.validity import valid_rules


@dataclass(eq=False)
class Plan:
    """A sweep that is ready to run. Print it to see what it will cost; `run` it, with a folder to be able to go on later.

    Attributes:
        job: what is run.
        cost: what it will cost.
        rules: the savings that are used.
        done: parts that are finished: pairs, and their metric.
        warnings: what is to be said beforehand.
    """

    job: Job
    cost: Cost
    rules: Rules
    done: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    def run(
        self, folder: str | Path | None = None, work: Work | None = None, label: str = "cells"
    ) -> CellValues:
        """Run what has not been run: metric and state [cells n] of every cell and example.

        Args:
            folder: finished parts are written there as they come, and parts that are there already are not run again.
            work: hears of progress (cells' worth of the work that is done, cells in all: at any time as much is left of the
                seconds as of these) and may end the sweep. Whoever stops it, Ctrl-C too, ends
                it after the wave that is running: what is finished is kept, and `interrupted` is set.
            label: what is being done, for whoever listens.

        Raises `OutOfMemory` when not even one row fits; `BadInput` when the folder holds another sweep.
        """
        with working(work).interruptible() as work:
            return self._run(None if folder is None else Path(folder), work, label)

    def _run(self, folder: Path | None, work: Work, label: str) -> CellValues:
        job = self.job
        values, states = job.blank()
        shares, count, finished = job.shares, len(job.cells), 0.0
        left = int((states == CellState.NOT_RUN).sum())
        journal = None if folder is None else Journal.open(folder, job)
        later = None if folder is not None or work.stages is None else LateJournal(work.stages, job)
        interrupted = False

        def take(pairs: np.ndarray, scores: np.ndarray, into: Journal | None = None) -> None:
            if into is not None:
                into.write(pairs, scores)
            nonlocal left, finished
            put(values, states, pairs, scores)
            left, finished = left - len(pairs), finished + float(shares[tuple(pairs.T)].sum())
            work.step(label, count if left <= 0 else min(count - 1, int(finished * count)), count)

        try:
            work.check()
            for kept in (journal, later):
                for pairs, scores in kept.parts() if kept is not None else ():
                    take(pairs, scores)
            for pairs, scores in self.done:
                fresh = states[pairs[:, 0], pairs[:, 1]] == CellState.NOT_RUN
                if fresh.any():
                    take(pairs[fresh], scores[fresh], journal)
            for pairs, scores in job.without(states != CellState.NOT_RUN).results(work):
                self.done.append((pairs, scores))
                if later is not None:
                    later.write(pairs, scores)
                take(pairs, scores, journal)
        except Stopped:
            interrupted = True
        return CellValues(values, states, interrupted)

    def to_pandas(self) -> pd.DataFrame:
        """What it says, one row for each figure."""
        return pd.DataFrame(self.rows(), columns=["what", "says"])

    def rows(self) -> list[tuple[str, str]]:
        """What it says, as names and values."""
        cost, rules, n = self.cost, self.rules, self.job.experiment.tokens.n
        rows = [
            ("cells", f"{cost.cells:,} on {n} examples: {cost.pairs:,} pairs"),
            ("known zeros", f"{cost.zeros:,} pairs ({cost.zeros / max(1, cost.pairs):.0%})"),
            ("whole forwards", f"{cost.plain:,} pairs"),
            ("waves", f"{len(self.job.waves):,}"),
            ("operations", f"{cost.operations:.3g}, {cost.share:.1%} of the naive loop's {cost.naive:.3g}"),
            ("forward-equivalents", f"{cost.forwards:.1f}: {cost.forwards / n:.1f} for each prompt"),
            ("memory", f"{cost.memory / 2**20:,.0f} MiB"),
            ("seconds", _seconds(cost)),
            ("rules", ", ".join(rules.names) or "none"),
        ]
        rows += [(f"without {name}", reason) for name, reason in rules.reasons.items()]
        return rows + [("note", text) for text in self.warnings]

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        return display("Planned, not yet run", table=self.to_pandas())


def plan_cells(
    experiment: Experiment,
    cells: Sequence[Cell],
    *,
    base: np.ndarray | None = None,
    states: np.ndarray | None = None,
    rules: Rules | None = None,
    tokens_at_once: int | None = None,
    time_it: bool = True,
    work: Work | None = None,
    held: int = 0,
) -> Plan:
    """Make a sweep ready: run the base prompts, find what each cell changes, sort the rest into waves, time a piece.

    Args:
        experiment: network, prompts, metric and sources.
        cells: what is written in each.
        base: [n] metric without any write, for pairs that change nothing; default that of the base run.
        states: [cells n]; only entries that are `NOT_RUN` are run. Default: all.
        rules: which savings may be used; default all that are valid on this network.
        tokens_at_once: tokens in one wave; default as many as the memory allows up to what makes a difference.
        time_it: measure memory and seconds on a small piece, whose results are kept.
        work: its budget says how many bytes may be taken at the peak, planning included; default half of what is free.
            Savings whose base run does not fit are not used.
        held: bytes that are kept for this sweep already, if they are more than its sources.

    Raises `OutOfMemory` when the memory does not suffice for one cell of one example: it says what is needed.
    """
    usable = valid_rules(experiment)
    rules = usable if rules is None else rules.both(usable)
    work = working(work)
    written = {w.where for cell in cells for w in cell}
    sources = (t for values in (experiment.sources, *experiment.named.values()) for t in values.values())
    held = max(held, held_bytes(sources))
    rules = affordable(experiment, len(cells), rules, written, held, work)
    at_once = tokens_at_once or tokens_in_wave(experiment.net)
    job = prepare(experiment, cells, rules, states, at_once, work=work)
    if base is not None:
        job = replace(job, base=base)
    done: list[tuple[np.ndarray, np.ndarray]] = []
    needed, room, memory = held + job.record.bytes, budget_bytes(experiment.net, work), Memory()
    if job.waves and (time_it or work.budget.memory is not None or not surely_fits(job, room - needed)):
        memory = Memory.measured(job, done, room - needed)
        widest = max(memory.row(w) for w in job.waves)
        if needed + widest > room:
            raise OutOfMemory(
                f"One cell on one example needs {_size(widest)} beside {_size(needed)} for base run and "
                f"sources, and the budget is {_size(room)}.",
                f"Give a budget of memory={int(1.25 * (needed + widest)) + 1} bytes, or use shorter prompts.",
            )
        job = job.fitting(room - needed, memory.row)
    counted = time_it and experiment.net.n_layers
    operations = count_operations(experiment, layer_parts(experiment.net)) if counted else None
    speed = measured_speed(job, operations, done) if operations is not None and job.waves else None
    cost = cost_of(job, operations, speed, needed + memory.peak(job, work))
    return Plan(job, cost, job.rules, done, _notes(job))


def run_cells(
    experiment: Experiment,
    cells: Sequence[Cell],
    *,
    base: np.ndarray | None = None,
    states: np.ndarray | None = None,
    tokens_at_once: int | None = None,
    rules: Rules | None = None,
    folder: str | Path | None = None,
    work: Work | None = None,
    label: str = "cells",
) -> CellValues:
    """The metric of every example under every cell's writes, at the least cost that gives the naive loop's numbers.

    Args:
        experiment: network, prompts, metric and sources.
        cells: what is written in each.
        base: [n] metric without any write, for pairs that change nothing; default that of the base run.
        states: [cells n]; only entries that are `NOT_RUN` are run. Default: all.
        tokens_at_once: how many tokens go through the network in one batch.
        rules: which savings may be used; default all that are valid on this network.
        folder: where finished parts are kept, so that a stopped run can go on.
        work: hears of progress, and may end the sweep at its next wave.
        label: what is being done, for whoever listens.

    Returns:
        values [cells n] and states. Where the work was stopped, what is finished is kept and `interrupted` is set.

    Raises `OutOfMemory` when not even one row fits.
    """
    with working(work).interruptible() as work:
        plan = plan_cells(
            experiment, cells, base=base, states=states, rules=rules, tokens_at_once=tokens_at_once, time_it=False, work=work
        )  # fmt: skip
        return plan.run(folder, work, label)


def _notes(job: Job) -> tuple[str, ...]:
    notes = []
    if blind := int(job.changes.unreachable.sum()):
        notes.append(
            f"{blind} cells change only what the position that the metric reads cannot see: "
            "their effect is always zero."
        )
    if len(job.plain) and job.rules.restart:
        outside = "edit what lies outside the layers and are run as whole forwards"
        notes.append(f"{len(job.plain)} pairs {outside}.")
    return tuple(notes)


def _seconds(cost: Cost) -> str:
    if cost.seconds is None or cost.processor is None:
        return "not timed"
    return f"{cost.seconds:.1f} expected, {cost.processor:.1f} of processor time"


def _size(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"
