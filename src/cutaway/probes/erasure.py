"""Least-squares concept erasure (LEACE), from statistics that are summed as the data stream by.

After `x - L R (x - m)` no linear predictor of any convex loss does better than a constant, and no other affine map that
guarantees this changes x less, in any norm (Belrose et al. 2023, theorems 4.1 to 4.3). With W the whitening of x and U
the directions in which whitened x and concept covary, `L = W⁺ U` and `R = U' W`.

Tolerances are relative to the concept's own scale: covariances are divided by the deviation of each feature and of each
concept column, so that a concept that holds in one example of a hundred is erased as surely as a common one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput
from cutaway.interventions import Erase
from cutaway.network.inputs import Pos
from cutaway.network.sites import Site, SiteLike
from cutaway.probes.activations import Report, collect, stream
from cutaway.probes.controls import labellings
from cutaway.probes.data import ProbeData
from cutaway.probes.descent import loss
from cutaway.probes.kinds import Fitting, fit
from cutaway.probes.mapping import Setting, fold_interval
from cutaway.probes.options import Options
from cutaway.probes.places import plan
from cutaway.probes.scores import SCORE, chance, score
from cutaway.probes.verdict import estimate
from cutaway.results import load_folder, save_folder
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    from cutaway.network import Network

_FORMAT = "cutaway-eraser-1"
#: Correlations of whitened features with the concept below this are rounding; eigenvalues of correlations likewise.
_CORRELATION = 1e-7
_EIGENVALUE = 1e-10


@dataclass(frozen=True, eq=False)
class Eraser:
    """x -> x - left @ right @ (x - mean). left: [d k], right: [k d], mean: [d]; k is the concept's rank."""

    left: Tensor
    right: Tensor
    mean: Tensor

    @property
    def rank(self) -> int:
        """How many directions are taken out."""
        return self.left.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """Erase from features [... d]; computed in float64, returned in x's own type."""
        wide = x.double()
        left, right, mean = (t.to(x.device) for t in (self.left, self.right, self.mean))
        return (wide - (wide - mean) @ right.T @ left.T).to(x.dtype)

    def intervention(self, at: SiteLike, head: int | None = None, pos: Pos = None) -> Erase:
        """The erasure as an intervention at a site."""
        return Erase(at, self.left.float(), self.right.float(), self.mean.float(), head=head, pos=pos)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        tensors = {"left": self.left, "right": self.right, "mean": self.mean}
        return save_folder(path, {"format": _FORMAT}, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Eraser:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        saved = load_folder(path)
        if saved.manifest.get("format") != _FORMAT:
            raise BadFormat(f"{path} does not hold an eraser.", "Give a folder that Eraser.save wrote.")
        return cls(**saved.tensors)


class Leace:
    """Sums for the erasure of a concept: `update` as often as there are batches, then `eraser`.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)); z = (x[:, :1] > 0)
    >>> erased = Leace(3, 1).update(x[:90], z[:90]).update(x[90:], z[90:]).eraser(x)
    >>> bool(((erased - erased.mean(0)).T @ (z.float() - z.float().mean())).abs().max() < 1e-3)
    True
    """

    def __init__(self, width: int, concept: int) -> None:
        self.n = 0
        self.mean_x = torch.zeros(width, dtype=torch.float64)
        self.mean_z = torch.zeros(concept, dtype=torch.float64)
        self.xx = torch.zeros(width, width, dtype=torch.float64)
        self.xz = torch.zeros(width, concept, dtype=torch.float64)
        self.zz = torch.zeros(concept, dtype=torch.float64)
        self._eraser: Eraser | None = None

    def update(self, x: Tensor, z: Tensor) -> Leace:
        """Add a batch: features [b d] and concept [b k] (0 and 1 for each class, or values).

        Sums are kept about the running means (Chan, Golub and LeVeque 1983), in float64.
        """
        x, z = x.detach().double().cpu(), z.detach().double().cpu()
        if x.ndim != 2 or x.shape[1] != len(self.mean_x) or z.shape != (len(x), len(self.mean_z)):
            raise BadInput(
                f"Features {tuple(x.shape)} and concept {tuple(z.shape)} do not fit [b {len(self.mean_x)}] and "
                f"[b {len(self.mean_z)}].",
                "Give as many rows of each, of the widths that were named.",
            )
        if not bool(torch.isfinite(x).all() and torch.isfinite(z).all()):
            raise BadInput("Features or concept hold NaN or infinity.", "Leave such examples out.")
        if len(x) == 0:
            return self
        total = self.n + len(x)
        mean_x, mean_z = x.mean(0), z.mean(0)
        step_x, step_z = mean_x - self.mean_x, mean_z - self.mean_z
        weight = self.n * len(x) / total
        centred_x, centred_z = x - mean_x, z - mean_z
        self.xx += centred_x.T @ centred_x + weight * torch.outer(step_x, step_x)
        self.xz += centred_x.T @ centred_z + weight * torch.outer(step_x, step_z)
        self.zz += (centred_z**2).sum(0) + weight * step_z**2
        self.mean_x += step_x * len(x) / total
        self.mean_z += step_z * len(x) / total
        self.n, self._eraser = total, None
        return self

    @property
    def eraser(self) -> Eraser:
        """The erasure of what was summed so far; computed once. Raises `BadInput` where the concept does not vary."""
        if self._eraser is None:
            self._eraser = self._solve()
        return self._eraser

    def _solve(self) -> Eraser:
        alive = self.zz > 1e-12 * max(self.n, 1) * (self.mean_z**2 + 1e-300)
        if self.n < 2 or not bool(alive.any()):
            raise BadInput(
                f"The concept does not vary in {self.n} examples, so there is nothing to erase.",
                "Give examples with it and without it.",
            )
        spread = (self.xx.diagonal() / self.n).clamp(min=0).sqrt()
        scale = torch.where(spread > 0, spread, 1.0)
        correlation = self.xx / self.n / scale[:, None] / scale
        with_concept = self.xz[:, alive] / self.n / scale[:, None] / (self.zz[alive] / self.n).sqrt()
        values, vectors = torch.linalg.eigh(correlation)
        solid = values > _EIGENVALUE * values[-1].clamp(min=1e-300)
        values, vectors = values[solid], vectors[:, solid]
        # in the eigenvectors' coordinates: whitening is a division, and so is its inverse
        whitened = (vectors.T @ with_concept) / values.sqrt()[:, None]
        u, s, _ = torch.linalg.svd(whitened, full_matrices=False)
        u = u[:, s > _CORRELATION]
        left = scale[:, None] * (vectors @ (values.sqrt()[:, None] * u))
        right = ((u / values.sqrt()[:, None]).T @ vectors.T) / scale
        return Eraser(left, right, self.mean_x.clone())


def concept_of(data: ProbeData) -> Tensor:
    """The label as concept columns [n k]: one per class, or the values."""
    labels = torch.as_tensor(data.labels)
    if data.kind == "continuous":
        return labels.double()[:, None]
    if data.kind == "multilabel":
        return labels.double()
    return torch.nn.functional.one_hot(labels.long(), len(data.classes)).double()


def leace(
    net: Network,
    data: ProbeData,
    at: SiteLike | list[SiteLike],
    pos: int | None = None,
    report: Report | None = None,
) -> dict[Site, Eraser]:
    """Erasers of a label at sites, from one pass over the data that keeps sums only.

    `with net.edit(*(e.intervention(site) for site, e in leace(...).items()))` erases it while the network runs; probing
    again inside that block says what is left.
    """
    places = plan(net, data, at, ("layer",), pos)
    concept, sums = concept_of(data), {}
    for batch in stream(net, data, places, report, "summing"):
        z = concept[torch.as_tensor(batch.examples)]
        for site, value in batch.values.items():
            x = value[:, 0].flatten(1)
            sums.setdefault(site, Leace(x.shape[1], concept.shape[1])).update(x, z)
    return {site: found.eraser for site, found in sums.items()}


@dataclass(frozen=True)
class Reprobed:
    """What linear probes find at a site before and after erasure.

    before: held-out score. after: held-out score where the eraser and the probe were made on the training groups and the
    tested ones were erased by it. saved: nats per example that the best linear predictor saves on the *training* data over
    a constant, after erasure; zero by theorem. chance: of a constant guess.
    """

    site: str
    what: str
    before: Estimate
    after: Estimate
    saved: float
    chance: float

    @property
    def erased(self) -> bool:
        """Is nothing left: no gain on the training data, and held-out outputs that tell the classes neither rightly nor
        the wrong way round?"""
        low = self.after.interval is not None and self.after.interval.high < self.chance and self.what != "R²"
        return abs(self.saved) < 1e-4 and self.after.above(self.chance) is not True and not low

    def __str__(self) -> str:
        return (
            f"{self.site}: {self.what} {self.before} before erasure, {self.after} after (chance {self.chance:.3g}); the "
            f"best linear predictor saves {self.saved:.1e} nats per example on its training data."
            + ("" if self.before.above(self.chance) is True else " Nothing was readable before.")
        )


def reprobe(
    net: Network, data: ProbeData, at: SiteLike, pos: int | None = None, options: Options | None = None
) -> Reprobed:
    """Probe one site with a weakly penalised logistic probe (ridge for values), erase the label, and probe again.

    In each fold the eraser sees the training groups only. (An eraser fitted to all groups makes what is left of them in
    one fold the mirror image of what is left in the others, and scores far below chance.)
    """
    options = options or Options(permutations=0)
    places = plan(net, data, at, ("layer",), pos)
    if len(places.cells) != 1:
        raise BadInput(f"{at!r} is {len(places.cells)} places.", f"Name one, such as {places.sites[-1]}.")
    setting, concept = Setting.of(data, options), concept_of(data)
    features = collect(net, data, places).cell(places.cells[0]).double()
    real = labellings(data, None, setting.permuted[:0])
    fitting = Fitting("ridge" if data.kind == "continuous" else "logistic", (1e-3,))
    outputs, saved = [torch.zeros(data.n, real.outputs, dtype=torch.float64) for _ in range(2)], []
    for fold in range(int(setting.folds.max()) + 1):
        test = torch.as_tensor(setting.folds == fold)
        train = ~test
        eraser = Leace(features.shape[1], concept.shape[1]).update(features[train], concept[train]).eraser
        erased = eraser(features)
        for which, x in enumerate((features, erased)):
            found = fit(x[train], real[train], fitting)
            outputs[which][test] = found.outputs(x[test])[0]
            if which == 1:
                saved.append(_saved(data, found.outputs(x[train])[0], torch.as_tensor(data.labels)[train]))
    labels, classes = torch.as_tensor(data.labels), max(data.n_classes, 1)
    scores = [
        estimate(float(score(data.kind, out, labels, classes)), *fold_interval(setting, out), data.n)
        for out in outputs
    ]
    least = chance(data.kind, data.n_classes)
    return Reprobed(str(places.sites[0]), SCORE[data.kind], scores[0], scores[1], float(max(saved)), least)


def _saved(data: ProbeData, outputs: Tensor, labels: Tensor) -> float:
    """Loss of a constant minus the loss of outputs [n c], per example: nats, or share of the variance for values."""
    if data.kind == "continuous":
        return 1 - float(loss("continuous", outputs, labels)) / float(labels.double().var(correction=0))
    if data.kind == "multiclass":
        share = torch.bincount(labels, minlength=data.n_classes).double() / len(labels)
        return float(-(share * share.clamp(min=1e-12).log()).sum() - loss(data.kind, outputs, labels))
    p = labels.double().reshape(outputs.shape).mean(0).clamp(1e-12, 1 - 1e-12)
    return float(-(p * p.log() + (1 - p) * (1 - p).log()).mean() - loss(data.kind, outputs, labels))
