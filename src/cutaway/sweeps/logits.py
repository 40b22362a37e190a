"""Whole logits, cell by cell: for metrics that read more than one position, or all examples at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cutaway.interventions import Apply
from cutaway.network.memory import MOST_TOKENS, rows_at_once
from cutaway.sweeps.cells import Cell, CellState, Experiment
from cutaway.sweeps.engine import prepare
from cutaway.sweeps.masks import overwrites
from cutaway.sweeps.naive import Whole
from cutaway.sweeps.replay import Replayer
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.validity import valid_rules
from cutaway.sweeps.waves import Wave


def cell_logits(
    experiment: Experiment, cells: Sequence[Cell], rules: Rules | None = None
) -> Iterator[tuple[int, Tensor]]:
    """The logits [n p v] of all examples under each cell's writes, in the order in which the cells are run.

    Only the rules that do not depend on which position is read are used. Positions before the first changed one, and cells
    that change nothing, have the base run's logits.
    """
    usable = valid_rules(experiment)
    rules = usable if rules is None else rules.both(usable)
    rules = rules.without("All logits are wanted.", "last", "tokens")
    # every column may be read: what each position's change reaches is judged from the last one
    ends = experiment.tokens.lengths.cpu() - 1
    whole = replace(experiment, positions=ends, vocabulary=None, score_few=None)
    job = prepare(whole, cells, rules, one_position=False)
    base = experiment.net.run(experiment.tokens).logits
    assert base is not None
    if job.replayer is None:
        yield from _plainly(experiment, cells, base)
        return
    replayer = replace(job.replayer, every=True, factors={})
    n, width = experiment.tokens.n, experiment.tokens.width
    changed = np.flatnonzero((job.changes.states == CellState.NOT_RUN).any(1) & ~job.changes.plain)
    for cell in np.flatnonzero((job.changes.states != CellState.NOT_RUN).all(1)):
        yield int(cell), base
    plain = np.flatnonzero(job.changes.plain)
    for number, logits in _plainly(experiment, [cells[int(i)] for i in plain], base):
        yield int(plain[number]), logits
    running, never = job.changes.states == CellState.NOT_RUN, np.iinfo(np.int64).max
    layers, starts = (np.where(running, x, never).min(1) for x in (job.changes.layers, job.changes.starts))
    starts = starts if rules.suffix else np.zeros_like(starts)
    for start in np.unique(starts[changed]).tolist():
        group = changed[starts[changed] == start]
        group = group[np.argsort(layers[group], kind="stable")]
        columns = width - start
        size = max(1, rows_at_once(experiment.net, columns, read=columns, most=MOST_TOKENS) // n)
        for first in range(0, len(group), size):
            part = group[first : first + size]
            yield from _wave(replayer, part, layers[part], start, base)


def _wave(
    replayer: Replayer, part: np.ndarray, joining: np.ndarray, start: int, base: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Cells [c], each of them joining at one layer [c], over the columns from `start` on."""
    n, width = base.shape[:2]
    pairs = np.stack([np.repeat(part, n), np.tile(np.arange(n), len(part))], 1)
    layers = np.repeat(joining, n)
    stages = [replayer.parts[int(i)].stage({w.site for w in replayer.cells[int(c)] if w.layer == int(i)}) for c, i in
              zip(part, joining, strict=True)]  # fmt: skip
    # rows of one layer stand together by stage, as a wave must
    order = np.lexsort((np.repeat([(s.attention * 2 + s.mlp) for s in stages], n), layers))
    pairs, layers = pairs[order], layers[order]
    wave = Wave(pairs, layers, tuple(stages[i // n] for i in order), start, width)
    logits = replayer.run(wave)
    back = torch.from_numpy(np.argsort(order, kind="stable"))
    logits = logits[back.to(logits.device)].unflatten(0, (len(part), n))
    for cell, suffix in zip(part, logits, strict=True):
        yield int(cell), torch.cat([base[:, :start], suffix], 1) if start else suffix


def _plainly(experiment: Experiment, cells: Sequence[Cell], base: Tensor) -> Iterator[tuple[int, Tensor]]:
    rows = torch.arange(experiment.tokens.n)
    for number, _ in enumerate(cells):
        pairs = np.stack([np.full(experiment.tokens.n, number), np.arange(experiment.tokens.n)], 1)
        edits = [Apply(w.site, Whole(w, rows)) for w in overwrites(experiment, cells, pairs)]
        logits = experiment.net.run(experiment.tokens, edits=edits).logits
        yield number, base if logits is None else logits
