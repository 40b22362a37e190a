"""What each cell changes on each example: from which column on, at which layer, or nothing at all.

A written value that equals the present one bit for bit changes nothing; nor does a change that cannot reach the position
whose logits are read. Both are found by comparing the values themselves, so they hold for every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cutaway.network.sites import SITES, Site
from cutaway.sweeps.cells import AxisLayout, Cell, CellState, Experiment, Write, columns_of, not_run
from cutaway.sweeps.stages import Parts, Stage


@dataclass(frozen=True, eq=False)
class Changes:
    """Of every (cell, example): state, the layer at which it joins, its stage there, and the first changed column.

    Attributes:
        states: [cells n] of `CellState`.
        layers: [cells n] at which it joins.
        starts: [cells n], the first changed column.
        stages: [cells n], an index into `kinds`.
        kinds: the stages that occur.
        plain: [cells], those that only a whole forward pass can run.
        unreachable: [cells], those whose changes are all where the metric cannot see them.
    """

    states: np.ndarray
    layers: np.ndarray
    starts: np.ndarray
    stages: np.ndarray
    kinds: tuple[Stage, ...]
    plain: np.ndarray
    unreachable: np.ndarray


@dataclass(frozen=True, eq=False)
class Reach:
    """What a change can reach.

    Attributes:
        causal: only positions from its own on.
        parts: each layer's parts.
        zeros: whether what changes nothing is looked for.
        one_position: logits are read at one position of each row.
    """

    causal: bool
    parts: Mapping[int, Parts]
    zeros: bool = True
    one_position: bool = True

    @property
    def last(self) -> int:
        """The last layer."""
        return max(self.parts, default=-1)


def find_changes(
    experiment: Experiment,
    cells: Sequence[Cell],
    base: Mapping[Site, Tensor],
    reach: Reach,
    states: np.ndarray | None,
) -> Changes:
    """Look at every cell on every example.

    base: values of the written sites in the base run. states: [cells n], entries other than `NOT_RUN` stay.
    """
    n, shape = experiment.tokens.n, (len(cells), experiment.tokens.n)
    out = not_run(*shape) if states is None else states.astype(np.int8)
    layers, starts = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    stages, kinds = np.zeros(shape, np.int64), [Stage()]
    plain, unreachable = np.zeros(len(cells), bool), np.zeros(len(cells), bool)
    looker = _Looker(experiment, base, reach)
    for i, cell in enumerate(cells):
        open_rows = out[i] == CellState.NOT_RUN
        if not open_rows.any():
            continue
        plain[i] = any(not replayable(w.where) for w in cell)
        looks = [looker.look(write) for write in cell]
        absent = np.all([look.absent for look in looks], axis=0) if looks else ~open_rows
        out[i, open_rows & absent] = CellState.ABSENT
        if looks and reach.zeros:
            changed = np.any([look.seen.any(1) for look in looks], axis=0)
            somewhere = np.any([look.changed for look in looks], axis=0)
            unreachable[i] = bool(somewhere.any() and not changed.any())
            out[i, open_rows & ~absent & ~changed] = CellState.KNOWN_ZERO
        elif reach.zeros:
            out[i, open_rows] = CellState.KNOWN_ZERO
        if plain[i]:
            continue
        joining, at = _join(cell, looks, n, reach.zeros)
        layers[i], starts[i] = joining, at
        for layer in np.unique(joining[joining >= 0]):
            sites = {w.site for w in cell if w.layer == layer}
            stage = reach.parts[int(layer)].stage(sites) if int(layer) in reach.parts else Stage()
            if stage not in kinds:
                kinds.append(stage)
            stages[i, joining == layer] = kinds.index(stage)
    return Changes(out, layers, starts, stages, tuple(kinds), plain, unreachable)


def replayable(site: Site) -> bool:
    """Whether an edit of this site happens inside a layer of the main stack, at positions of its own tokens."""
    return (
        site.layer is not None
        and not site.stack
        and SITES[site.name].layered
        and AxisLayout.of(site).position is not None
        and not site.name.startswith("cross_scores")
    )


def _join(cell: Cell, looks: Sequence[_Look], n: int, zeros: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each example the lowest layer that changes, and the first column that does."""
    joining, start = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).max)
    for write, look in zip(cell, looks, strict=True):
        seen = look.seen if zeros else look.covered
        changes = seen.any(1)
        joining = np.where(changes, np.minimum(joining, write.layer or 0), joining)
        start = np.where(changes, np.minimum(start, seen.argmax(1)), start)
    nothing = joining == np.iinfo(np.int64).max
    return np.where(nothing, 0 if cell else -1, joining), np.where(nothing, 0, start)


@dataclass(frozen=True, eq=False)
class _Look:
    """One write on all examples.

    Attributes:
        covered: [n p], columns that it covers.
        seen: [n p], those that it changes in a way that the metric can see.
        changed: [n], whether it changes anything.
        absent: [n], whether there is no such place.
    """

    covered: np.ndarray
    seen: np.ndarray
    changed: np.ndarray
    absent: np.ndarray


class _Looker:
    """Looks at writes; what is shared between writes is computed once."""

    def __init__(self, experiment: Experiment, base: Mapping[Site, Tensor], reach: Reach) -> None:
        self.experiment, self.base, self.reach = experiment, base, reach
        self.answers = experiment.answer_columns
        self.looks: dict[Write, _Look] = {}
        self.differences: dict[tuple[Site, str, bool], np.ndarray] = {}
        self.columns: dict[tuple[int | None, str], np.ndarray] = {}

    def look(self, write: Write) -> _Look:
        """What a write changes."""
        if write not in self.looks:
            self.looks[write] = self._look(write)
        return self.looks[write]

    def _look(self, write: Write) -> _Look:
        key = (write.position, write.span)
        if key not in self.columns:
            self.columns[key] = columns_of(self.experiment, write).numpy()
        covered = self.columns[key]
        different = self._difference(write)  # [n p h u]
        heads, units = different.shape[2:]
        nothing = np.zeros_like(covered)
        if (write.head or 0) >= heads or (write.neuron or 0) >= units:
            return _Look(nothing, nothing, np.zeros(len(covered), bool), np.ones(len(covered), bool))
        if write.head is not None:
            different = different[:, :, write.head : write.head + 1]
        if write.neuron is not None:
            different = different[:, :, :, write.neuron : write.neuron + 1]
        touched = different.any((2, 3)) & covered
        changed, absent = np.any(touched, axis=1), ~np.any(covered, axis=1)
        return _Look(covered, touched & self._visible(write), changed, absent)

    def _visible(self, write: Write) -> np.ndarray:
        """[n p]: columns at which a change of this site can reach the logits that are read."""
        columns = np.arange(self.experiment.tokens.width)[None]
        parts = self.reach.parts.get(write.layer if write.layer is not None else -1)
        at_end = self.reach.one_position and write.layer == self.reach.last
        if at_end and parts is not None and parts.local(write.site):
            return columns == self.answers[:, None]
        if self.reach.causal and replayable(write.where):
            return columns <= self.answers[:, None]
        return np.ones((len(self.answers), self.experiment.tokens.width), bool)

    def _difference(self, write: Write) -> np.ndarray:
        """[n p h u]: where the source differs from the base; u = 1 unless the write names a neuron."""
        key = (write.where, write.source, write.neuron is not None)
        if key not in self.differences:
            old, new = self.base[write.where], self.experiment.source(write)
            unequal = old != new.to(old.device)
            layout = AxisLayout.of(write.where, old.ndim)
            if write.where.module and layout.position is None:
                unequal = unequal.flatten(2).any(-1)[:, None] if unequal.ndim > 2 else unequal[:, None]
            if write.neuron is None:
                unequal = unequal.any(-1, keepdim=True)
            if layout.head is None:
                unequal = unequal[:, :, None] if layout.position is not None else unequal[:, None, None]
                unequal = unequal[:, :, 0] if unequal.ndim == 5 else unequal
            elif layout.position is not None and layout.head < layout.position:
                unequal = unequal.transpose(1, 2)
            width = self.experiment.tokens.width
            if unequal.shape[1] != width:
                unequal = unequal.any(1, keepdim=True).expand(-1, width, -1, -1)
            self.differences[key] = unequal.cpu().numpy()
        return self.differences[key]
