"""Detecting is not controlling: how each probe's direction lies to the direction along which the output moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from cutaway.probes.places import Places

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
    first = {cell.position: cell for cell in reversed(places.cells)}
    there = [beds.bed_of_data(net, data, places, first[p]) for p in range(len(places.positions))]
    bed = there[0]  # they differ in where they are edited only
    two = data.take(chosen).with_labels(bed.classes.numpy(), "binary", ("0", "1"))
    folds = torch.as_tensor(assign_folds(two, families(two), 2, seed))
    past, future = (torch.nonzero(folds == f)[:_PROMPTS, 0] for f in (0, 1))
    score, what = beds.contrast_score(net, bed.take(past))
    scored = replace(bed.take(future), score=score)
    edits = torch.stack([b.edit[future] for b in there], 1)
    return Controlling(_gradients(net, scored, edits, places), what)


def _gradients(net: Network, bed: Bed, edits: Tensor, places: Places) -> tuple[Tensor, ...]:
    """The mean gradient [d] of the bed's score at each cell; edits: [n p], the cells' positions in each prompt."""
    totals: list[Tensor] = []
    for part in torch.arange(bed.n).split(_ROWS):
        run = net.run(bed.tokens[part], keep=list(places.sites), logits=bed.read[part][:, None], grad=True)
        if run.logits is None:
            raise BadInput(f"{net.name} gives no logits.", "Causal tests need an output over tokens.")
        values = [run[site] for site in places.sites]
        total = bed.score(run.logits[:, 0], part).sum()
        slopes = torch.autograd.grad(total, values, allow_unused=True)
        rows, at = torch.arange(len(part))[:, None], edits[part] + bed.tokens.first[part][:, None]
        kept = {
            site: (torch.zeros_like(v) if s is None else s)[rows.to(v.device), at.to(v.device)].double().cpu()
            for site, v, s in zip(places.sites, values, slopes, strict=True)
        }
        here = [Spot(c.site, c.head).read(kept[c.site][:, c.position]) for c in places.cells]
        means = [(h / h.norm(dim=1, keepdim=True).clamp(min=1e-300)).sum(0) / bed.n for h in here]
        totals = [a + b for a, b in zip(totals, means, strict=True)] if totals else means
    return tuple(totals)


def _detecting(probe: Probe) -> Tensor:
    if probe.label_kind == "multiclass":
        return probe.weights[1] - probe.weights[0]
    return probe.direction()


def _cosine(a: Tensor, b: Tensor) -> float:
    size = float(a.norm() * b.norm())
    return float("nan") if size == 0 else float(a.double() @ b.double()) / size
