"""Erasing a label from a network's sites by least squares, and probing again to see what is left.

The mathematics is in `cutaway.statistics.fits.leace`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadFormat, BadInput
from cutaway.figures import Bar, bars
from cutaway.interventions import Erase
from cutaway.network.inputs import Pos
from cutaway.network.sites import Site, SiteLike
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.fits.kinds import Fitting, fit
from cutaway.probes.fits.scores import SCORE, chance, loss
from cutaway.probes.map.linear_probe import UNRECORDED, site_to_list
from cutaway.probes.map.options import ProbeOptions
from cutaway.probes.map.setting import Setting
from cutaway.probes.reading.activations import announce_reading, collect, stream
from cutaway.probes.reading.places import plan
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, Work, finite, head, read, save_folder, strict, working
from cutaway.statistics import Estimate
from cutaway.statistics.fits.leace import Erasure, Leace

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Eraser(Erasure):
    """The erasure of a label at a site, from `leace`. It is called on features, or put into a network.

    Fitted to all groups of a data set it must not be tested on one of them: what is left there is the mirror image of
    what is left in the others (`reprobe` does it fold by fold).

    Attributes:
        label: what is erased; empty where that was not recorded.
        at: where; None where that was not recorded.
        provenance: where it came from; empty names where that was not recorded.
    """

    kind: ClassVar[str] = "eraser"

    label: str = ""
    at: Site | None = None
    provenance: Provenance = UNRECORDED

    def intervention(self, at: SiteLike | None = None, head: int | None = None, pos: Pos = None) -> Erase:
        """The erasure as an intervention at a site, by default its own."""
        site = self.at if at is None else at
        if site is None:
            raise BadInput("It is not known where this eraser belongs.", "Name the site.")
        return Erase(site, self.left.float(), self.right.float(), self.mean.float(), head=head, pos=pos)

    def to_pandas(self) -> pd.DataFrame:
        """One row per direction that is taken out: how long its projection is (1 where it is orthogonal)."""
        size = self.left.norm(dim=0) * self.right.norm(dim=1)
        return pd.DataFrame({"direction": range(self.rank), "size": size.tolist()})

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the tensors as lists."""
        return finite({**self._plain(), **self._tensors(), "provenance": self.provenance})

    def _tensors(self) -> dict[str, Tensor]:
        return {"left": self.left, "right": self.right, "mean": self.mean}

    def plot(self) -> go.Figure:
        """How long the projection of each direction is: 1 is orthogonal, more is oblique."""
        sizes = self.to_pandas()["size"].tolist()
        items = [Bar(f"direction {i}", v, v, v) for i, v in enumerate(sizes)]
        return bars(
            items,
            title=f"{str(self)[:1].upper()}{str(self)[1:]}",
            unit="length of the projection (1: orthogonal)",
        )

    @property
    def headline(self) -> str:
        """How much is taken out, in a sentence."""
        place = "" if self.at is None else f" at {self.at}"
        what = f"{self.label!r}" if self.label else "the label"
        return f"Erasing {what}{place} takes out {self.rank} of {self.left.shape[0]} dimensions"

    def page(self) -> Page:
        """The page: the directions that are taken out, and how it was made."""
        blocks = [Figure(self.plot(), "The directions that are taken out.")]
        about = (
            "After that no linear probe does better than a constant guess on the data that it was fitted to."
        )
        return result_page(about, "Cutaway · eraser", f"{self.headline}.", blocks, self.provenance)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        return save_folder(path, head("eraser", self.provenance, **self._plain()), self._tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Eraser:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        saved, version = read(path, "eraser")
        data = saved.manifest
        try:
            left, right, mean = (saved.tensors[name] for name in ("left", "right", "mean"))
            if version == 0:
                return cls(left, right, mean)
            at = None if data["at"] is None else Site(*data["at"])
            return cls(left, right, mean, data["label"], at, Provenance.from_dict(data["provenance"]))
        except (KeyError, TypeError) as error:
            raise BadFormat(f"The eraser in {path} cannot be read: {error!r}.", "Make it again.") from error

    def _plain(self) -> dict[str, Any]:
        return {"label": self.label, "at": None if self.at is None else site_to_list(self.at)}

    def __str__(self) -> str:
        place = "" if self.at is None else f" at {self.at}"
        of = f" of {self.label!r}" if self.label else ""
        return f"eraser{of}{place}: {self.rank} of {self.left.shape[0]} dimensions"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return display(str(self), table=self.to_pandas(), provenance=self.provenance)


def concept_of(data: ProbeData) -> Tensor:
    """The label as concept columns [n k]: one per class, or the values."""
    labels = torch.as_tensor(data.labels)
    if data.kind == "continuous":
        return labels.double()[:, None]
    if data.kind == "multilabel":
        return labels.double()
    return torch.nn.functional.one_hot(labels.long(), len(data.classes)).double()


@strict
def leace(
    net: Network,
    data: ProbeData,
    *,
    at: SiteLike | Sequence[SiteLike] = "resid_post",
    pos: int | None = None,
    work: Work | None = None,
) -> dict[Site, Eraser]:
    """Erasers of a label at sites, from one pass over the data that keeps sums only.

    `with net.edit(*(e.intervention() for e in leace(...).values()))` erases it while the network runs; probing
    again inside that block says what is left.

    Raises `BadInput` where the label does not vary, `Stopped` where the work is stopped.
    """
    if not isinstance(data, ProbeData):
        raise BadInput(f"A {type(data).__name__} is no labelled data.", "Give what cutaway.probe_data gave.")
    places = plan(net, data, at, ("layer",), pos)
    concept = concept_of(data)
    sums: dict[Site, Leace] = {}
    with working(work).interruptible() as work:
        announce_reading(net, data, places, work, "summing")
        for batch in stream(net, data, places, work, "summing"):
            z = concept[torch.as_tensor(batch.examples)]
            for site, value in batch.values.items():
                x = value[:, 0].flatten(1)
                sums.setdefault(site, Leace(x.shape[1], concept.shape[1])).update(x, z)
    source = Provenance.of(net, data.hash, seconds=work.seconds)
    fitted = {site: fitter.eraser for site, fitter in sums.items()}
    return {site: Eraser(e.left, e.right, e.mean, data.name, site, source) for site, e in fitted.items()}


@dataclass(frozen=True)
class Reprobed:
    """What linear probes find at a site before and after erasure.

    Attributes:
        site, what: the place, and the score's name.
        before: held-out score.
        after: held-out score where the eraser and the probe were made on the training groups and the tested ones were
            erased by it.
        saved: nats per example that the best linear predictor saves on the *training* data over a constant, after
            erasure; zero by theorem.
        chance: the score of a constant guess.
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
    net: Network,
    data: ProbeData,
    *,
    at: SiteLike,
    pos: int | None = None,
    options: ProbeOptions | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> Reprobed:
    """Probe one site with a weakly penalised logistic probe (ridge for values), erase the label, and probe again.

    In each fold the eraser sees the training groups only. (An eraser fitted to all groups makes what is left of them in
    one fold the mirror image of what is left in the others, and scores far below chance.)

    Raises `BadInput` where `at` is several places.
    """
    places = plan(net, data, at, ("layer",), pos)
    if len(places.cells) != 1:
        raise BadInput(f"{at!r} is {len(places.cells)} places.", f"Name one, such as {places.sites[-1]}.")
    setting, concept = Setting.of(data, options or ProbeOptions(permutations=0), seed), concept_of(data)
    with working(work).interruptible() as work:
        features = collect(net, data, places, work).cell(places.cells[0]).double()
    real, labels = setting.real, setting.labels
    fitting = Fitting("ridge" if data.kind == "continuous" else "logistic", (1e-3,))
    outputs, saved = [torch.zeros(data.n, real.outputs, dtype=torch.float64) for _ in range(2)], []
    for fold in range(int(setting.folds.max()) + 1):
        test = torch.as_tensor(setting.folds == fold)
        train = ~test
        eraser = Leace(features.shape[1], concept.shape[1]).update(features[train], concept[train]).eraser
        for which, x in enumerate((features, eraser(features))):
            probe = fit(x[train], real[train], fitting)
            outputs[which][test] = probe.outputs(x[test])[0]
            if which == 1:
                saved.append(_saved(data, probe.outputs(x[train])[0], labels[train]))
    before, after = (setting.figure(o) for o in outputs)
    least = chance(data.kind, data.n_classes)
    return Reprobed(str(places.sites[0]), SCORE[data.kind], before, after, float(max(saved)), least)


def _saved(data: ProbeData, outputs: Tensor, labels: Tensor) -> float:
    """Loss of a constant minus the loss of outputs [n c], per example: nats, or share of the variance for values."""
    if data.kind == "continuous":
        return 1 - float(loss("continuous", outputs, labels)) / float(labels.double().var(correction=0))
    if data.kind == "multiclass":
        share = torch.bincount(labels, minlength=data.n_classes).double() / len(labels)
        return float(-(share * share.clamp(min=1e-12).log()).sum() - loss(data.kind, outputs, labels))
    p = labels.double().reshape(outputs.shape).mean(0).clamp(1e-12, 1 - 1e-12)
    return float(-(p * p.log() + (1 - p) * (1 - p).log()).mean() - loss(data.kind, outputs, labels))
