"""One place looked at closely: its rivals, sources left out, description length, and the verdict they give."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import CutawayError, Stopped
from cutaway.probes.data.folds import source_folds
from cutaway.probes.data.permutations import different
from cutaway.probes.fits.cross_validation import HeldOut
from cutaway.probes.fits.description_length import compression
from cutaway.probes.fits.kinds import fit
from cutaway.probes.fits.scores import SCORE, chance
from cutaway.probes.fits.side_by_side import side_by_side
from cutaway.probes.map import controls
from cutaway.probes.map.mapping import working_bytes
from cutaway.probes.map.setting import Setting
from cutaway.probes.map.verdict import Figures, Finding, Rival, judge_encoded
from cutaway.probes.reading.activations import Kept, collect
from cutaway.probes.reading.places import Cell, Places
from cutaway.results import Work, brief
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    from cutaway.network import Network

_MOST_SOURCES = 20


@dataclass(frozen=True, eq=False)
class Untrained:
    """The same probes on the network with random weights.

    Attributes:
        outcomes: held-out outputs of each cell; empty where there are none.
        why: what stood in the way.
    """

    outcomes: tuple[HeldOut, ...] = ()
    why: str = ""

    __repr__ = brief

    @classmethod
    def of(
        cls, net: Network, setting: Setting, places: Places, work: Work, cell: Cell | None = None
    ) -> Untrained:
        """Probe every cell, or one, of the network with freshly drawn weights."""
        try:
            other = net.randomized(setting.seed)
            kept = collect(other, setting.data, places, work, "reading random weights")
        except Stopped:
            raise
        except CutawayError as error:
            return cls(why=f"The control with random weights could not be run: {error.problem}")
        chosen = places.cells if cell is None else [cell]
        each, memory = working_bytes(kept, setting.data.n), setting.options.memory
        done = partial(work.step, "probing random weights", total=len(chosen))
        return cls(tuple(side_by_side(lambda c: setting.held_out(kept.cell(c)), chosen, each, memory, done)))

    def scores(self, cells: int) -> np.ndarray:
        """Score of each cell [c]; NaN where there is none."""
        if not self.outcomes:
            return np.full(cells, np.nan)
        return np.array([float(outcome.scores[0]) for outcome in self.outcomes])


@dataclass(frozen=True)
class Against:
    """What the map says of the place.

    Attributes:
        p_best: its p-value against the best cell of every permutation.
        cells: how many cells it is the best of.
        control_task: the control task's score there.
        tokens: the token baseline.
    """

    p_best: float
    cells: int
    control_task: float | None
    tokens: HeldOut | None

    __repr__ = brief


def look_closely(
    net: Network, setting: Setting, places: Places, cell: Cell, kept: Kept | None, untrained: Untrained,
    against: Against, text: controls.ControlText, work: Work,
) -> Finding:  # fmt: skip
    """The verdict on one cell. Where its activations are not in memory, they are read again, of this cell only."""
    data, options = setting.data, setting.options
    there, number = cell, places.cells.index(cell)
    if kept is None:
        near = places.near(cell)
        there, number = Cell(cell.site, cell.head, 0), 0
        kept = collect(net, data, near, work, "reading the best place")
        untrained = Untrained.of(net, setting, near, work, there) if options.untrained else Untrained()
    features = kept.cell(there)
    outputs, least = setting.held_out(features).outputs[0], chance(data.kind, data.n_classes)

    def rival(name: str, outcome: HeldOut) -> Rival:
        theirs = outcome.outputs[0]
        return Rival(name, setting.figure(theirs), setting.lead(outputs, theirs), least)

    tokens = against.tokens
    if tokens is None and options.baselines:
        tokens = setting.baseline(text.counts(cell.position))
    rivals = [] if tokens is None else [rival("the tokens alone", tokens)]
    if untrained.outcomes:
        rivals.append(rival("the network with random weights", untrained.outcomes[number]))
    for name, table in text.surroundings(cell.position).items() if options.baselines else ():
        if (outcome := setting.baseline(table)) is not None:
            rivals.append(rival(name, outcome))
    work.check()
    return judge_encoded(
        Figures(
            data.name, cell.label(places.positions), SCORE[data.kind], setting.figure(outputs), least, against.p_best,
            against.cells, len(setting.permuted), rivals, against.control_task, _left_out(setting, features),
            compression(features, data, setting.family, setting.seed), different(data.labels, setting.permuted),
        )
    )  # fmt: skip


def _left_out(setting: Setting, features: Tensor) -> Estimate | None:
    """The held-out score where each source in turn is left out, and with it each fold's groups: what is tested shares
    neither source nor group with what was fitted. None without at least two sources."""
    data, real = setting.data, setting.real
    if data.sources is None or len(set(map(str, data.sources))) < 2:
        return None
    source, _, _ = source_folds(data.sources, _MOST_SOURCES)
    outputs = torch.zeros(data.n, real.outputs, dtype=torch.float64)
    for s, f in itertools.product(np.unique(source), np.unique(setting.folds)):
        train = torch.as_tensor((source != s) & (setting.folds != f))
        test = torch.as_tensor((source == s) & (setting.folds == f))
        if not bool(test.any()):
            continue
        part = real[train]
        if data.kind in ("binary", "multiclass") and len(part.labels[0].unique()) < data.n_classes:
            return Estimate(chance(data.kind, data.n_classes), None, data.n)  # a class is in one source only
        drawn = torch.as_tensor(setting.drawn)[train]
        outputs[test] = fit(features[train], part, setting.options.fitting, drawn).outputs(features[test])[0]
    return setting.figure(outputs)
