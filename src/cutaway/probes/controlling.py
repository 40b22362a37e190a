"""Detecting is not controlling: how each probe's direction lies to the direction along which the output moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, CutawayError
from cutaway.probes import beds
from cutaway.probes.beds import Bed
from cutaway.probes.data import ProbeData
from cutaway.probes.displace import Spot
from cutaway.probes.fitted import Probe
from cutaway.probes.folds import assign_folds, families
from cutaway.probes.places import Cell, Places

if TYPE_CHECKING:
    from cutaway.network import Network

#: Figures that these cosines are called in a map, and what they are of.
NAMES: dict[str, str] = {"cosine": "the probe's direction", "means_cosine": "the difference of means"}
_PROMPTS, _ROWS = 256, 32


@dataclass(frozen=True, eq=False)
class Controlling:
    """directions: for each cell the mean gradient [d] of the metric there (empty where there is none). what: the metric.
    why: what stood in the way, where there are none."""

    directions: tuple[Tensor, ...] = ()
    what: str = ""
    why: str = ""

    def cosines(self, probes: Sequence[Probe]) -> dict[str, np.ndarray]:
        """Cosine [c] of each cell's probe, and of its difference of means, with the direction that controls; NaN where
        there is none."""
        if not self.directions:
            return {name: np.full(len(probes), np.nan) for name in NAMES}
        pairs = list(zip(probes, self.directions, strict=True))
        found = {"cosine": [_cosine(_detecting(p), d) for p, d in pairs]}
        found["means_cosine"] = [_cosine(p.means_direction(), d) for p, d in pairs]
        return {name: np.array(values) for name, values in found.items()}


def controlling(net: Network, data: ProbeData, places: Places, seed: int = 0) -> Controlling:
    """The direction that controls, to first order, at every cell: the mean over prompts of the gradient, at length one, of
    the output's own contrast between the label's two classes (values: halves).

    The contrast is found on one half of the groups, gradients on the other, at most 256 prompts of each, all sites in one
    backward pass.
    """
    try:
        return _found(net, data, places, seed)
    except CutawayError as error:
        return Controlling(why=f"The direction that controls the output was not found: {error.problem}")


def _found(net: Network, data: ProbeData, places: Places, seed: int) -> Controlling:
    labels = data.labels
    chosen = np.arange(data.n) if data.kind == "continuous" else np.flatnonzero(np.isin(labels, (0, 1)))
    totals: dict[int, Tensor] = {}
    what = ""
    for position in range(len(places.positions)):
        here = [(i, cell) for i, cell in enumerate(places.cells) if cell.position == position]
        bed = beds.bed_of_data(net, data, places, here[0][1])
        two = data.take(chosen).with_labels(bed.classes.numpy(), "binary", ("0", "1"))
        folds = torch.as_tensor(assign_folds(two, families(two), 2, seed))
        first, second = (torch.nonzero(folds == f)[:_PROMPTS, 0] for f in (0, 1))
        score, what = beds.contrast_score(net, bed.take(first))
        scored = bed.take(second)
        totals |= _gradients(net, Bed(**{**vars(scored), "score": score}), places, here)
    return Controlling(tuple(totals[i] for i in range(len(places.cells))), what)


def _gradients(net: Network, bed: Bed, places: Places, cells: list[tuple[int, Cell]]) -> dict[int, Tensor]:
    """The mean gradient [d] of the bed's score at each cell, by the cell's number."""
    totals: dict[int, Tensor] = {}
    for part in torch.arange(bed.n).split(_ROWS):
        run = net.run(bed.tokens[part], keep=list(places.sites), logits=bed.read[part][:, None], grad=True)
        if run.logits is None:
            raise BadInput(f"{net.name} gives no logits.", "Causal tests need an output over tokens.")
        values = [run[site] for site in places.sites]
        total = bed.score(run.logits[:, 0], part).sum()
        slopes = dict(zip(places.sites, torch.autograd.grad(total, values, allow_unused=True), strict=True))
        rows, at = torch.arange(len(part)), bed.edit[part] + bed.tokens.first[part]
        for i, cell in cells:
            slope = slopes[cell.site]
            if slope is None:
                slope = torch.zeros_like(run[cell.site])
            here = Spot(cell.site, cell.head).read(slope[rows, at.to(slope.device)]).double().cpu()
            here = (here / here.norm(dim=1, keepdim=True).clamp(min=1e-300)).sum(0) / bed.n
            totals[i] = totals[i] + here if i in totals else here
    return totals


def _detecting(probe: Probe) -> Tensor:
    if probe.label_kind == "multiclass":
        return probe.weights[1] - probe.weights[0]
    return probe.direction()


def _cosine(a: Tensor, b: Tensor) -> float:
    size = float(a.norm() * b.norm())
    return float("nan") if size == 0 else float(a.double() @ b.double()) / size
