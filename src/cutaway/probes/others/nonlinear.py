"""A probe with one hidden layer, never without the linear one beside it: what does the bend add, and to the control task?

A network can compute what a representation does not hold (Hewitt and Liang 2019), so a nonlinear probe's score says little
by itself. What counts is its lead over the linear probe, and whether it leads as much on random labels by type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.probes.data.examples import ProbeData
from cutaway.probes.fits.kinds import standardiser
from cutaway.probes.fits.scores import SCORE, loss, standard
from cutaway.probes.map import controls
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.probing import Probing
from cutaway.probes.map.setting import Setting
from cutaway.probes.reading.activations import collect
from cutaway.probes.reading.places import Cell
from cutaway.results import Work, working
from cutaway.statistics import Estimate
from cutaway.statistics.fits import descent

if TYPE_CHECKING:
    from cutaway.network import Network

_HIDDEN, _STEPS, _DECAY = 32, 120, 3e-3


@dataclass(frozen=True)
class Bend:
    """What a hidden layer adds at one place.

    Attributes:
        where, what: the place, and the score's name.
        linear, nonlinear: held-out scores.
        lead: of the nonlinear one.
        control_lead: the same on the control task; None where there is none.
    """

    where: str
    what: str
    linear: Estimate
    nonlinear: Estimate
    lead: Estimate
    control_lead: float | None

    @property
    def bent(self) -> bool:
        """Is the label held in a form that a linear probe misses: a lead beyond its interval, and more than on the control
        task?"""
        return self.lead.above(0.0) is True and self.lead.value > (self.control_lead or 0.0)

    def __str__(self) -> str:
        control = "" if self.control_lead is None else f", on the control task by {self.control_lead:+.3f}"
        return (
            f"{self.where}: {self.what} {self.linear} linear, {self.nonlinear} with a hidden layer; it leads by "
            f"{self.lead}{control}."
        )


def beside_linear(
    net: Network,
    probing: Probing,
    data: ProbeData,
    *,
    where: Mapping[str, Any] | None = None,
    options: ProbeOptions | None = None,
    seed: int | None = None,
    work: Work | None = None,
) -> Bend:
    """Fit a probe with one hidden layer (32 rectified units) beside the linear one at one place, in the same grouped folds.

    where: layer, head, position, site (default the best place). seed: by default that of the probing, so that folds are
    the same.
    """
    options = options or ProbeOptions(kind=str(probing.data.attrs["probe"]), permutations=0)
    seed = probing.provenance.seed if seed is None else seed
    setting, cell, places = Setting.of(data, options, seed), probing.cell(where), probing.places
    near = places.near(cell)
    with working(work).interruptible() as work:
        features = collect(net, data, near, work).cell(Cell(cell.site, cell.head, 0))
        straight = setting.held_out(features).outputs[0]
        work.check()
        bent = _held_out(features, setting)
        tasks = controls.control_tasks(data, controls.ControlText(net, data, near).types(0), 1, seed)
        control = None
        if tasks is not None:
            task = setting.relabelled(tasks[0])
            work.check()
            linear = max(float(task.held_out(features).scores[0]), task.chance)
            control = task.score(_held_out(features, task)) - linear
    lead = setting.lead(bent, straight)
    label = cell.label(places.positions)
    return Bend(label, SCORE[data.kind], setting.figure(straight), setting.figure(bent), lead, control)


def _held_out(features: Tensor, setting: Setting) -> Tensor:
    """Held-out outputs [n c] of the network with one hidden layer."""
    data, labels, of = setting.data, setting.labels, torch.as_tensor(setting.folds)
    c = setting.real.outputs
    out = torch.empty(len(features), c, dtype=torch.float64)
    for fold in of.unique():
        train, test = of != fold, of == fold
        mean, scale = standardiser(features[train])
        x, new = (features[train].double() - mean) / scale, (features[test].double() - mean) / scale
        goal, middle, spread = standard(data.kind, labels[train])
        weights = _start(x.shape[1], c, setting.seed)
        _fit(x, goal, data, weights)
        with torch.no_grad():
            out[test] = _forward(new, weights) * spread + middle
    return out


def _start(d: int, c: int, seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    first = torch.randn(d, _HIDDEN, generator=draw).double() * (2 / d) ** 0.5
    second = torch.randn(_HIDDEN, c, generator=draw).double() * _HIDDEN**-0.5
    shapes = (first, torch.zeros(_HIDDEN).double(), second, torch.zeros(c).double())
    return [t.requires_grad_() for t in shapes]


def _forward(x: Tensor, weights: list[Tensor]) -> Tensor:
    return torch.relu(x @ weights[0] + weights[1]) @ weights[2] + weights[3]


def _fit(x: Tensor, y: Tensor, data: ProbeData, weights: list[Tensor]) -> None:
    def objective() -> Tensor:
        size = (weights[0] ** 2).sum() + (weights[2] ** 2).sum()
        return loss(data.kind, _forward(x, weights), y) + _DECAY * size / 2

    descent.minimise(objective, weights, _STEPS)
