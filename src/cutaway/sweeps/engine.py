"""From cells to waves, and the loop that runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.errors import OutOfMemory
from cutaway.network.sites import Site
from cutaway.sweeps import naive
from cutaway.sweeps.base_runs import recorded
from cutaway.sweeps.cells import Cell, CellState, Experiment, scores_of
from cutaway.sweeps.changes import Changes, Reach, find_changes
from cutaway.sweeps.record import Record
from cutaway.sweeps.replay import Replayer
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.stages import Parts, layer_parts
from cutaway.sweeps.waves import Wave

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.edits import Edit
    from cutaway.results import Work

#: Most tokens that one wave carries through a layer on a processor: with more, activations no longer fit its caches.
TOKENS_IN_WAVE = 4_096
#: Bytes of an MLP's hidden layer, taken as four widths, beyond which larger batches only miss the processor's caches.
_BYTES_IN_CACHE = 12 << 20


@dataclass(frozen=True, eq=False)
class Job:
    """A sweep made ready: the base run, what every cell changes, the waves, and what is left for whole forwards.

    Attributes:
        experiment, cells, rules: what is run, and with which savings.
        record: the base run.
        changes: what every cell changes of it.
        waves: the rows that are run through the model together.
        plain: (cell, row) pairs [k 2] that are run as whole forwards.
        base: [n] metric of the base prompts.
        replayer: what runs the waves; None where every pair is a whole forward.
        tokens_at_once: most tokens in one wave.
        live: cells whose edits are made as they are, all rows in one plain forward, because they depend on one another.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    rules: Rules
    record: Record
    changes: Changes
    waves: tuple[Wave, ...]
    plain: np.ndarray
    base: np.ndarray
    replayer: Replayer | None
    tokens_at_once: int = TOKENS_IN_WAVE
    live: Mapping[int, Sequence[Edit]] = field(default_factory=dict)

    def results(self, work: Work | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Run everything, wave by wave: (cell, row) pairs [k 2] and their metric [k].

        work: its budget says how much memory whole forwards may take; waves were cut to it. A wave for which memory does
        not suffice is cut in two.

        Raises `OutOfMemory` when not even one row fits.
        """
        waiting = list(reversed(self.waves))
        while waiting:
            wave = waiting.pop()
            try:
                scores = self.score(wave)
            except OutOfMemory:
                if len(wave.pairs) == 1:
                    raise
                waiting.extend(reversed(split(wave, math.ceil(len(wave.pairs) / 2))))
                continue
            yield wave.pairs, scores
        if len(self.plain):
            yield from naive.batches(self.experiment, self.cells, self.plain, work=work)
        for cell, edits in self.live.items():
            rows = np.arange(self.experiment.tokens.n)
            yield np.stack([np.full_like(rows, cell), rows], 1), naive.live(self.experiment, edits)

    def blank(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and states [cells n] before anything is run: the base metric where nothing changes, NaN elsewhere."""
        states = self.changes.states.copy()
        return np.where(states == CellState.KNOWN_ZERO, self.base[None, :], np.nan), states

    def without(self, done: np.ndarray) -> Job:
        """The same job less the pairs that are done, BoolTensor [cells n]."""
        waves = [w.only(~done[w.pairs[:, 0], w.pairs[:, 1]]) for w in self.waves]
        plain = self.plain[~done[self.plain[:, 0], self.plain[:, 1]]] if len(self.plain) else self.plain
        live = {cell: edits for cell, edits in self.live.items() if not done[cell].all()}
        return replace(self, waves=tuple(w for w in waves if len(w.pairs)), plain=plain, live=live)

    def with_live(self, live: Mapping[int, Sequence[Edit]]) -> Job:
        """The same job with some cells run as they are."""
        states = self.changes.states.copy()
        states[list(live)] = CellState.NOT_RUN
        return replace(self, live=live, changes=replace(self.changes, states=states))

    def fitting(self, room: float, row: Callable[[Wave], float]) -> Job:
        """The same job in waves of at most so many bytes, a row at the least; row: bytes for each row of a wave."""
        waves = (p for w in self.waves for p in split(w, max(1, int(room / max(row(w), 1e-9)))))
        return replace(self, waves=tuple(waves))

    @property
    def shares(self) -> np.ndarray:
        """Of every (cell, row) [cells n] its share of all that is to be run: layers times columns."""
        changes, width = self.changes, self.experiment.tokens.width
        depth = self.experiment.net.n_layers or 1
        columns = self.experiment.answer_columns[None] + 1 - changes.starts if self.rules.suffix else width
        waved = np.maximum(1, (depth - changes.layers) * columns)
        outside = np.zeros(len(self.cells), bool) if self.rules.restart else np.ones(len(self.cells), bool)
        work = np.where((changes.plain | outside)[:, None], depth * width, waved).astype(float)
        work = np.where(changes.states == CellState.NOT_RUN, work, 0.0)
        return work / max(1.0, float(work.sum()))

    @property
    def few(self) -> int | None:
        """How many tokens' logits are computed; None for all."""
        if self.replayer is None or not self.replayer.few() or self.experiment.vocabulary is None:
            return None
        return int(self.experiment.vocabulary.numel())

    @property
    def largest(self) -> int:
        """Tokens in the largest wave."""
        return max((len(w.pairs) * w.columns for w in self.waves), default=0)

    def score(self, wave: Wave) -> np.ndarray:
        """Metric [k] of one wave's rows."""
        assert self.replayer is not None
        rows = torch.from_numpy(wave.pairs[:, 1].copy())
        return scores_of(self.experiment, self.replayer.run(wave), rows, self.replayer.few())


def tokens_in_wave(net: Network) -> int:
    """Tokens in one wave beyond which nothing is gained on this network and its device."""
    if net.device.type != "cpu":
        return 16 * TOKENS_IN_WAVE
    size = 4 * (net.d_model or 1) * torch.empty(0, dtype=net.dtype).element_size()
    return max(64, min(TOKENS_IN_WAVE, _BYTES_IN_CACHE // size))


def record_under(
    experiment: Experiment, rules: Rules, sites: Collection[Site], work: Work | None = None
) -> tuple[Record, dict[int, Parts]]:
    """The base run with these sites and all that the rules need of it, and the parts of each layer that can be taken."""
    parts = layer_parts(experiment.net) if rules.restart else {}
    streams = {Site("resid_pre", layer) for layer in parts}
    modules = [p for part in parts.values() for p in (*part.attention, *part.mlp)] if rules.stages else []
    cached = rules.suffix or rules.last
    return recorded(experiment, {*sites, *streams}, modules, cached, not rules.restart, work), parts


def prepare(
    experiment: Experiment,
    cells: Sequence[Cell],
    rules: Rules,
    states: np.ndarray | None = None,
    tokens_at_once: int = TOKENS_IN_WAVE,
    one_position: bool = True,
    work: Work | None = None,
) -> Job:
    """Run the base prompts once, find what every cell changes, and sort the rest into waves.

    one_position: the metric reads one position of each row, so that what cannot reach it is not run. work: its budget says
    how much memory the base run may take at once.
    """
    written = {w.where for cell in cells for w in cell}
    record, parts = record_under(experiment, rules, written, work)
    if (rules.suffix or rules.last) and len(record.caches) < len(parts):
        missing = min(set(parts) - set(record.caches))
        rules = rules.without(f"Layer {missing} does not keep keys and values of its own.", "suffix", "last")
    if not rules.stages:
        parts = {i: Parts((), (), p.parallel, frozenset(), False) for i, p in parts.items()}
    reach = Reach(rules.suffix, parts, rules.zeros, one_position)
    changes = find_changes(experiment, cells, {s: record.sites[s] for s in written}, reach, states)
    assert record.logits is not None
    base = scores_of(experiment, record.logits, torch.arange(experiment.tokens.n), few=False)
    whole = changes.plain[:, None] if rules.restart else True
    plain = np.argwhere((changes.states == CellState.NOT_RUN) & whole)
    waves = tuple(_waves(experiment, changes, rules, tokens_at_once)) if rules.restart else ()
    replayer = Replayer(experiment, cells, record, parts, rules) if rules.restart else None
    return Job(experiment, cells, rules, record, changes, waves, plain, base, replayer, tokens_at_once)


def _waves(experiment: Experiment, changes: Changes, rules: Rules, tokens_at_once: int) -> Iterator[Wave]:
    """Pairs of one first and one last column together, sorted by layer and stage, cut to size."""
    todo = np.argwhere((changes.states == CellState.NOT_RUN) & ~changes.plain[:, None])
    if not len(todo):
        return
    cell, row = todo.T
    answers = experiment.answer_columns
    causal = rules.suffix
    starts = np.minimum(changes.starts[cell, row], answers[row]) if causal else np.zeros(len(todo), np.int64)
    stops = answers[row] + 1 if causal or rules.last else np.full(len(todo), experiment.tokens.width)
    layers, stages = changes.layers[cell, row], changes.stages[cell, row]
    ordered = sorted(changes.kinds)
    rank = np.array([ordered.index(kind) for kind in changes.kinds])
    order = np.lexsort((row, cell, rank[stages], layers, starts, stops))
    keys = np.stack([starts, stops], 1)[order]
    edges = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(1)])
    for first, last in zip(edges, [*edges[1:], len(order)], strict=True):
        chosen = order[first:last]
        kinds = tuple(changes.kinds[i] for i in stages[chosen])
        whole = Wave(todo[chosen], layers[chosen], kinds, *map(int, keys[first]))
        yield from split(whole, max(1, tokens_at_once // whole.columns))


def split(wave: Wave, rows: int) -> list[Wave]:
    """The same wave in pieces of at most so many rows."""
    return [wave.only(slice(first, first + rows)) for first in range(0, len(wave.pairs), rows)]
