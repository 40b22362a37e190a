"""Detecting is not controlling: how each probe's direction lies to the direction along which the output moves.

Both are found on different examples. Activations and outputs of the same examples vary together, so that a direction and a
contrast of outputs that share examples point the same way even where the label is noise. Here the direction that controls is
found in each fold, and compared with directions that were found without that fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput, CutawayError, Stopped
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.reading import beds
from cutaway.probes.reading.places import Places
from cutaway.probes.reading.spots import PROMPTS, Spot, gradients
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network

#: Figures that these cosines are called in a map, and what they are of.
NAMES: dict[str, str] = {"cosine": "the probe's direction", "means_cosine": "the difference of means"}


@dataclass(frozen=True, eq=False)
class Controlling:
    """The directions that control the output's own contrast between the classes.

    Attributes:
        directions: for each cell, one for each fold [f d]: the mean gradient of the metric there (NaN where the fold
            lacks a class; empty where there is none).
        what: the metric.
        why: what stood in the way, where there are none.
    """

    directions: tuple[Tensor, ...] = ()
    what: str = ""
    why: str = ""

    def cosines(self, apart: Sequence[Tensor]) -> dict[str, np.ndarray]:
        """Cosine [c] of each cell's directions [2 f d], found without each fold, with the one that controls in that fold,
        mean over folds; NaN where there is none."""
        if not self.directions:
            return {name: np.full(len(apart), np.nan) for name in NAMES}
        pairs = list(zip(apart, self.directions, strict=True))
        return {name: np.array([_cosine(a[i], d) for a, d in pairs]) for i, name in enumerate(NAMES)}


def controlling(
    net: Network, data: ProbeData, places: Places, folds: np.ndarray, work: Work | None = None
) -> Controlling:
    """The direction that controls, to first order, at every cell and for every fold [n]: the mean over the fold's prompts of
    the gradient, at length one, of the output's own contrast between the label's two classes (values: halves) in that fold.

    At most 256 prompts; all sites in one backward pass.
    """
    try:
        return _by_fold(net, data, places, folds, work or Work())
    except Stopped:
        raise
    except CutawayError as error:
        return Controlling(why=f"The direction that controls the output was not found: {error.problem}")


def controlling_price(data: ProbeData, folds: int) -> float:
    """What that takes: for each of at most 256 prompts its outputs, a forward pass with gradient, and a backward pass."""
    return 4.0 * min(data.n, folds * max(8, PROMPTS // folds))


def _by_fold(net: Network, data: ProbeData, places: Places, folds: np.ndarray, work: Work) -> Controlling:
    chosen, _ = data.two_classes()
    first = {cell.position: cell for cell in reversed(places.cells)}
    by_position = [beds.bed_of_data(net, data, places, first[p]) for p in range(len(places.positions))]
    bed = by_position[0]  # they differ in where they are edited only
    edits = torch.stack([b.edit for b in by_position], 1)
    spots = [(Spot(c.site, c.head), c.position) for c in places.cells]
    of, numbers = torch.as_tensor(folds[chosen]), np.unique(folds)
    most, what = max(8, PROMPTS // len(numbers)), ""
    directions: list[list[Tensor] | None] = []
    for done, fold in enumerate(numbers):
        work.step("finding what controls", done, len(numbers))
        rows = torch.nonzero(of == fold)[:, 0]
        rows = rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()]
        part = bed.take(rows)
        if len(part.classes.unique()) < 2:
            directions.append(None)
            continue
        score, what = beds.contrast_score(net, part)
        directions.append(gradients(net, part.measured_by(score, what), spots, edits[rows]))
    known = next((d for d in directions if d is not None), None)
    if known is None:
        raise BadInput("No fold has prompts of both classes.", "Give more of them.")
    whole = [[torch.full_like(d, torch.nan) for d in known] if ds is None else ds for ds in directions]
    return Controlling(tuple(torch.stack(list(d)) for d in zip(*whole, strict=True)), what)


def _cosine(detects: Tensor, controls: Tensor) -> float:
    """Mean over folds of the cosine of directions [f d]."""
    size = detects.norm(dim=1) * controls.norm(dim=1)
    each = (detects.double() * controls).sum(1) / size.clamp(min=1e-300)
    each = each[torch.isfinite(each) & (size > 0)]
    return float(each.mean()) if len(each) else float("nan")
