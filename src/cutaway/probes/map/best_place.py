"""One place looked at closely: its rivals, sources left out, description length, and the verdict they give."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import source_folds
from cutaway.probes.data.permutations import different
from cutaway.probes.fits.cross_validation import HeldOut, cross_validate
from cutaway.probes.fits.description_length import compression
from cutaway.probes.fits.kinds import fit
from cutaway.probes.fits.scores import SCORE, chance, score
from cutaway.probes.fits.side_by_side import side_by_side
from cutaway.probes.map import controls
from cutaway.probes.map.mapping import Setting, baseline, difference_interval, fold_interval, working_bytes
from cutaway.probes.map.verdict import Figures, Finding, Rival, estimate, judge_encoded
from cutaway.probes.reading.activations import Kept, Report, collect
from cutaway.probes.reading.places import Cell, Places
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    from cutaway.network import Network

_MOST_SOURCES = 20


@dataclass(frozen=True, eq=False)
class Untrained:
    """The same probes on the network with random weights: held-out outputs of each cell, or why there are none."""

    found: tuple[HeldOut, ...] = ()
    why: str = ""

    @classmethod
    def of(
        cls, net: Network, setting: Setting, places: Places, report: Report | None, cell: Cell | None = None
    ) -> Untrained:
        """Probe every cell, or one, of the network with freshly drawn weights."""
        try:
            other = net.randomized(setting.options.seed)
            kept = collect(other, setting.data, places, report, "reading random weights")
        except CutawayError as error:
            return cls(why=f"The control with random weights could not be run: {error.problem}")
        chosen = places.cells if cell is None else [cell]
        done = None if report is None else lambda ready: report("probing random weights", ready, len(chosen))
        size = working_bytes(kept, setting.data.n)
        memory = setting.options.memory
        found = side_by_side(lambda c: held_out(setting, kept.cell(c)), chosen, size, memory, done)
        return cls(tuple(found))

    def scores(self, cells: int) -> np.ndarray:
        """Score of each cell [c]; NaN where there is none."""
        return np.array([float(u.scores[0]) for u in self.found]) if self.found else np.full(cells, np.nan)


@dataclass(frozen=True)
class Against:
    """What the map says of the place: p_best, how many cells it is the best of, the control task's score there, and the
    token baseline."""

    p_best: float
    cells: int
    control_task: float | None
    tokens: HeldOut | None


def held_out(setting: Setting, features: Tensor, folds: np.ndarray | None = None) -> HeldOut:
    """Held-out outputs for the real labels alone."""
    real = controls.labellings(setting.data, None, setting.permuted[:0])
    chosen = setting.folds if folds is None else folds
    return cross_validate(features, real, chosen, setting.options.fitting, setting.drawn)


def look_closely(
    net: Network, setting: Setting, places: Places, cell: Cell, kept: Kept | None, untrained: Untrained | None,
    against: Against, text: controls.ControlText, report: Report | None = None,
) -> Finding:  # fmt: skip
    """The verdict on one cell. Where its activations are not in memory, they are read again, of this cell only."""
    data, options = setting.data, setting.options
    there, number = cell, places.cells.index(cell)
    if kept is None:
        near = Places((cell.site,), places.heads, (places.positions[cell.position],), places.by)
        there, number = Cell(cell.site, cell.head, 0), 0
        kept = collect(net, data, near, report, "reading the best place")
        untrained = Untrained.of(net, setting, near, report, there) if options.untrained else Untrained()
    features = kept.cell(there)
    found = held_out(setting, features)
    outputs, least = found.outputs[0], chance(data.kind, data.n_classes)
    tokens = against.tokens
    if tokens is None and options.baselines:
        tokens = baseline(setting, text.counts(cell.position))
    rivals = [] if tokens is None else [_rival(setting, "the tokens alone", outputs, tokens, least)]
    if untrained is not None and untrained.found:
        other = untrained.found[number]
        rivals.append(_rival(setting, "the network with random weights", outputs, other, least))
    for name, table in text.surroundings(cell.position).items() if options.baselines else ():
        other = baseline(setting, table)
        if other is not None:
            rivals.append(_rival(setting, name, outputs, other, least))
    figure = estimate(float(found.scores[0]), *fold_interval(setting, outputs), data.n)
    code = compression(features, data, setting.family, options.seed)
    return judge_encoded(
        Figures(
            data.name, cell.label(places.positions), SCORE[data.kind], figure, least, against.p_best, against.cells,
            len(setting.permuted), rivals, against.control_task, _left_out(setting, features), code,
            different(data.labels, setting.permuted),
        )
    )  # fmt: skip


def _rival(setting: Setting, name: str, outputs: Tensor, rival: HeldOut, least: float) -> Rival:
    n = setting.data.n
    score = estimate(float(rival.scores[0]), *fold_interval(setting, rival.outputs[0]), n)
    lead = estimate(*difference_interval(setting, outputs, rival.outputs[0]), n)
    return Rival(name, score, lead, least)


def _left_out(setting: Setting, features: Tensor) -> Estimate | None:
    """The held-out score where each source in turn is left out, and with it each fold's groups: what is tested shares
    neither source nor group with what was fitted. None without at least two sources."""
    data = setting.data
    if data.sources is None or len(set(map(str, data.sources))) < 2:
        return None
    source, _, _ = source_folds(data.sources, _MOST_SOURCES)
    outputs, least = (
        torch.zeros(data.n, _columns(data), dtype=torch.float64),
        chance(data.kind, data.n_classes),
    )
    real, fitting = controls.labellings(data, None, setting.permuted[:0]), setting.options.fitting
    for s, f in itertools.product(np.unique(source), np.unique(setting.folds)):
        train, test = (
            torch.as_tensor(m)
            for m in ((source != s) & (setting.folds != f), (source == s) & (setting.folds == f))
        )
        if not bool(test.any()):
            continue
        part = real[train]
        if data.kind in ("binary", "multiclass") and len(part.labels[0].unique()) < data.n_classes:
            return estimate(least, float("nan"), float("nan"), data.n)  # a class occurs in one source only
        found = fit(features[train], part, fitting, torch.as_tensor(setting.drawn)[train])
        outputs[test] = found.outputs(features[test])[0]
    value = score(data.kind, outputs, torch.as_tensor(data.labels), max(data.n_classes, 1))
    return estimate(float(value), *fold_interval(setting, outputs), data.n)


def _columns(data: ProbeData) -> int:
    return 1 if data.kind in ("binary", "continuous") else data.n_classes
