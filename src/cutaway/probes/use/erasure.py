"""Erasing a label from a network's sites by least squares, and probing again to see what is left.

The mathematics is in `cutaway.statistics.fits.leace`.
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
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.fits.kinds import Fitting, fit
from cutaway.probes.fits.scores import SCORE, chance, loss, score
from cutaway.probes.map.controls import labellings
from cutaway.probes.map.mapping import Setting, fold_interval
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.verdict import estimate
from cutaway.probes.reading.activations import Report, collect, stream
from cutaway.probes.reading.places import plan
from cutaway.results import load_folder, save_folder
from cutaway.statistics import Estimate
from cutaway.statistics.fits.leace import Erasure, Leace

if TYPE_CHECKING:
    from cutaway.network import Network

_FORMAT = "cutaway-eraser-1"


@dataclass(frozen=True, eq=False)
class Eraser(Erasure):
    """An erasure that can be saved and put into a network."""

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
    return {site: Eraser(s.eraser.left, s.eraser.right, s.eraser.mean) for site, s in sums.items()}


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
    net: Network, data: ProbeData, at: SiteLike, pos: int | None = None, options: ProbeOptions | None = None
) -> Reprobed:
    """Probe one site with a weakly penalised logistic probe (ridge for values), erase the label, and probe again.

    In each fold the eraser sees the training groups only. (An eraser fitted to all groups makes what is left of them in
    one fold the mirror image of what is left in the others, and scores far below chance.)
    """
    options = options or ProbeOptions(permutations=0)
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
