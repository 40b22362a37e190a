"""The plain way to run a sweep: one full forward pass for every cell and example, many of them in one batch.

Cells do not influence each other, so rows of different cells share a batch; that changes nothing but the time. It is
what every other way is compared with, and what serves where no other is valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import OutOfMemory, Stopped
from cutaway.interventions import Apply
from cutaway.network.edits import Edit
from cutaway.network.memory import MOST_TOKENS, are_square, rows_at_once
from cutaway.results import Work, working
from cutaway.sweeps.cells import Cell, CellState, CellValues, Experiment, not_run, put, scores_of
from cutaway.sweeps.masks import Overwrite, overwrites


def run_cells(
    experiment: Experiment,
    cells: Sequence[Cell],
    *,
    base: np.ndarray | None = None,
    states: np.ndarray | None = None,
    tokens_at_once: int | None = None,
    work: Work | None = None,
    label: str = "cells",
) -> CellValues:
    """The metric of every example under every cell's writes, each by a whole forward pass.

    It takes what `sweeps.run_cells` takes, less the savings, and is what that is compared with.

    Args:
        experiment: network, prompts, metric and sources.
        cells: what is written in each.
        base: [n] metric without any write; stands where a state says `KNOWN_ZERO`.
        states: [cells n]; only entries that are `NOT_RUN` are run. Default: all.
        tokens_at_once: how many tokens go through the network in one batch; default what memory allows. Rows are halved when
            it runs out all the same.
        work: hears of every batch, and may end the sweep after it.
        label: what is being done, for whoever listens.

    Returns:
        values [cells n]. Where the work was stopped, what is finished is kept and `interrupted` is set.

    Raises `OutOfMemory` when not even one row fits.
    """
    n = experiment.tokens.n
    states = not_run(len(cells), n) if states is None else states.astype(np.int8)
    values = np.full(states.shape, np.nan)
    if base is not None:
        values = np.where(states == CellState.KNOWN_ZERO, base[None, :], values)
    interrupted, work = False, working(work)
    try:
        work.check()
        todo = np.argwhere(states == CellState.NOT_RUN)
        for part, scores in batches(experiment, cells, todo, tokens_at_once, work):
            put(values, states, part, scores)
            work.step(label, int(part[-1, 0]) + 1, len(cells))
    except Stopped:
        interrupted = True
    return CellValues(values, states, interrupted)


def batches(
    experiment: Experiment,
    cells: Sequence[Cell],
    todo: np.ndarray,
    tokens_at_once: int | None = None,
    work: Work | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run (cell, row) pairs `todo [k 2]` batch by batch: the pairs of each batch and their metric.

    work: its budget says how much memory a batch may take.

    Raises `OutOfMemory` when not even one row fits.
    """
    width = experiment.tokens.size
    square = are_square({w.where for cell in cells for w in cell})
    size = rows_at_once(experiment.net, width, work, most=MOST_TOKENS, square=square)
    if tokens_at_once is not None:
        size = max(1, tokens_at_once // max(1, width))
    done = 0
    while done < len(todo):
        part = todo[done : done + size]
        try:
            scores = _batch(experiment, cells, part)
        except OutOfMemory:
            if len(part) == 1:
                raise
            size = max(1, len(part) // 2)
            continue
        done += len(part)
        yield part, scores


def live(experiment: Experiment, edits: Sequence[Edit]) -> np.ndarray:
    """Metric [n] of the base prompts under edits that are made as they are, in one forward pass."""
    run = experiment.net.run(experiment.tokens, edits=list(edits), logits=experiment.positions[:, None])
    assert run.logits is not None
    return scores_of(experiment, run.logits[:, 0], torch.arange(experiment.tokens.n), few=False)


def _batch(experiment: Experiment, cells: Sequence[Cell], part: np.ndarray) -> np.ndarray:
    """Metric of one batch of (cell, row) pairs `part [k 2]`."""
    rows = torch.as_tensor(part[:, 1].copy(), dtype=torch.long)
    inputs: object = experiment.tokens[rows.to(experiment.tokens.ids.device)]
    if experiment.inputs is not None:
        inputs = dict(experiment.inputs.select(rows).kwargs)
    edits = [Apply(write.site, Whole(write, rows)) for write in overwrites(experiment, cells, part)]
    run = experiment.net.run(inputs, edits=edits, logits=experiment.positions[rows][:, None])  # type: ignore[arg-type]
    assert run.logits is not None
    return scores_of(experiment, run.logits[:, 0], rows, few=False)


@dataclass(frozen=True, eq=False)
class Whole:
    """An overwrite of whole rows, as a function of the site's value.

    Attributes:
        write: the overwrite.
        rows: which rows.
    """

    write: Overwrite
    rows: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        """The value with what the source writes."""
        return self.write.apply(value, slice(None), self.rows, 0)
