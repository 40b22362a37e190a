"""A fitted linear probe: what it says of activations, its direction, and how it is put on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from torch import Tensor

from cutaway.errors import BadFormat, BadInput
from cutaway.figures import Bar, bars
from cutaway.interventions import Add, Project
from cutaway.network.sites import Site
from cutaway.probes.data.labels import Kind
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, finite, head, read, save_folder
from cutaway.trials import Subspace, SubspacePlace

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cutaway.network import Run
#: Of results that were saved before provenance was recorded.
UNRECORDED = Provenance("", "", versions={}, device="", dtype="", created="")
#: A probe's tensors, in the order of its fields.
TENSORS = ("weights", "bias", "centres", "mean", "scale")
_SHOWN = 20
_ALPHA = 0.05


def site_to_list(site: Site) -> list[Any]:
    """A site as plain data."""
    return [site.name, site.layer, site.stack, site.module]


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe at one site: outputs = features @ weights' + bias. It comes from `Probing.probe(...)`.

    Attributes:
        method: how it was fitted: ridge, logistic, means, lda, mass-mean.
        at, head, position: where its features [d] come from.
        label, label_kind, classes: what it is a probe for.
        weights: [c d].
        bias: [c].
        centres: the mean of each class [k d] (of the upper and lower half, where the label is a value).
        mean, scale: of the features that it was fitted on [d].
        about: figures that belong to it (held-out score and so on), plain data.
        provenance: where it came from; empty names where that was not recorded.
    """

    kind: ClassVar[str] = "probe"

    method: str
    at: Site
    head: int | None
    position: Any
    label: str
    label_kind: Kind
    classes: tuple[str, ...]
    weights: Tensor
    bias: Tensor
    centres: Tensor
    mean: Tensor
    scale: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = UNRECORDED

    @property
    def d(self) -> int:
        """Width of the features."""
        return self.weights.shape[1]

    def outputs(self, features: Tensor) -> Tensor:
        """[... c] of features [... d]: above zero means class 1 (binary), the largest wins (multi-class), or the value."""
        if features.shape[-1] != self.d:
            raise BadInput(
                f"Features of width {features.shape[-1]} do not fit this probe of width {self.d} at {self.at}.",
                "Read them at its own site and head.",
            )
        weights = self.weights.to(features.device)
        return features.to(weights.dtype) @ weights.T + self.bias.to(features.device)

    def predict(self, features: Tensor) -> Tensor:
        """Class numbers [...] (0/1 per label [... c] where multilabel, values where continuous) of features [... d]."""
        out = self.outputs(features)
        if self.label_kind == "binary":
            return (out[..., 0] > 0).long()
        if self.label_kind == "multiclass":
            return out.argmax(-1)
        return (out > 0).long() if self.label_kind == "multilabel" else out[..., 0]

    def direction(self, output: int = 0) -> Tensor:
        """The unit vector [d] along which an output grows fastest: the direction that detects."""
        w = self.weights[output]
        return w / w.norm().clamp(min=1e-300)

    def candidate(self, output: int = 0, pos: int | None = None) -> Subspace:
        """Its direction as a candidate for what carries a behaviour, to be put to the test on a `SubspaceBench`.

        pos: at which position; None: the probe's own, all of them where it was fitted on all.
        """
        if pos is None and isinstance(self.position, int):
            pos = self.position
        return Subspace.of(self.direction(output), SubspacePlace(self.at, self.head, pos))

    def on(self, run: Run) -> Tensor:
        """Outputs [b p c] at every position of a run that kept the site: for watching a network while it runs."""
        value = run[self.at]
        if self.head is not None:
            value = value[..., self.head, :]
        elif value.ndim == 4:
            value = value.flatten(2)
        return self.outputs(value)

    def project_out(self) -> Project:
        """The intervention that takes the probe's directions out of the stream."""
        self._whole("projected out")
        return Project(self.at, self.weights.float(), head=self.head)

    def add(self, scale: float = 1.0) -> Add:
        """The intervention that moves the stream from class 0 towards class 1; 1 is the distance between their means."""
        self._whole("added")
        gap = (self.centres[1] - self.centres[0]).float()
        return Add(self.at, gap, scale, head=self.head)

    def _whole(self, what: str) -> None:
        if self.head is None and not self.at.module and "head_width" in self.at.axes:
            raise BadInput(
                f"This probe reads all heads of {self.at} side by side, so its direction cannot be {what} head by head.",
                'Probe with head in `by`, or at "attn_out".',
            )

    def to_pandas(self) -> pd.DataFrame:
        """One row per feature and output: the weight, and mean and deviation of the feature."""
        names = self.classes if len(self.weights) > 1 else (self.label,)
        mean, scale = self.mean.tolist(), self.scale.tolist()
        parts = [
            pd.DataFrame(
                {"output": name, "feature": range(self.d), "weight": row, "mean": mean, "scale": scale}
            )
            for name, row in zip(names, self.weights.tolist(), strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the tensors as lists."""
        return finite({**self._plain(), **self.tensors(), "provenance": self.provenance})

    def tensors(self, before: str = "") -> dict[str, Tensor]:
        """The tensors by name, with something before each name."""
        return {f"{before}{name}": getattr(self, name) for name in TENSORS}

    def plot(self) -> go.Figure:
        """The features that the first output leans on most: weights times the features' deviations."""
        leans = (self.weights[0] * self.scale).double()
        most = leans.abs().argsort(descending=True)[:_SHOWN].tolist()
        items = [Bar(f"feature {i}", v, v, v) for i in most for v in (float(leans[i]),)]
        return bars(items, title=str(self), unit="weight times the feature's deviation")

    def page(self) -> Page:
        """The page of one probe: what it leans on, and how it was made."""
        blocks = [Figure(self.plot(), "The features that the probe leans on most.")]
        about = "; ".join(part for part in (str(self), self._figures()) if part)
        return result_page(f"{about}.", "Cutaway · probe", f"{self.headline}.", blocks, self.provenance)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder (`manifest.json`, `tensors.safetensors`), whole or not at all. Raises `SaveFailed`."""
        return save_folder(path, head("probe", self.provenance, **self._plain()), self.tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Probe:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        saved, version = read(path, "probe")
        data = saved.manifest
        try:
            provenance = Provenance.from_dict(data["provenance"]) if version else UNRECORDED
            content: dict[str, Any] = {name: saved.tensors[name] for name in TENSORS}
            content |= {name: data[name] for name in ("head", "position", "label", "label_kind", "about")}
            content |= {"method": data["method" if version else "kind"], "at": Site(*data["at"])}
            return cls(**content, classes=tuple(data["classes"]), provenance=provenance)
        except (KeyError, TypeError) as error:
            raise BadFormat(f"The probe in {path} cannot be read: {error!r}.", "Make it again.") from error

    def _plain(self) -> dict[str, Any]:
        return {
            "method": self.method, "at": site_to_list(self.at), "head": self.head, "position": self.position,
            "label": self.label, "label_kind": self.label_kind, "classes": list(self.classes), "about": dict(self.about),
        }  # fmt: skip

    @property
    def headline(self) -> str:
        """How well it reads the label, in a sentence; or that this is not told from chance."""
        at = f"{self.at}" if self.head is None else f"head {self.head} of {self.at}"
        figures = {name: value for name, value in self.about.items() if value == value}
        if "score" not in figures:
            return f"A {self.method} probe reads {self.label!r} at {at}; how well was not measured"
        ends = f" [{figures['low']:.3f}, {figures['high']:.3f}]" if {"low", "high"} <= figures.keys() else ""
        score = f"held-out score {figures['score']:.3f}{ends}"
        q = figures.get("q", figures.get("p"))
        if q is None:
            return f"A {self.method} probe reads {self.label!r} at {at} ({score}; not told from chance by permutations)"
        if q > _ALPHA:
            return f"{self.label!r} is not told from chance at {at} ({score}, q = {q:.3f})"
        return f"{self.label!r} can be read at {at} ({score}, q = {q:.3f})"

    def _figures(self) -> str:
        """What else was measured of it, in words."""
        told = {
            "cosine": "cosine with the direction that controls the output",
            "means_cosine": "that of the difference of means",
        }
        return ", ".join(
            f"{told.get(name, name.replace('_', ' '))} {value:+.3f}"
            for name, value in self.about.items()
            if value == value and name not in ("score", "low", "high", "p", "q")
        )

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.method} probe for {self.label!r} at {self.at}{head}, position {self.position}"

    def __repr__(self) -> str:
        return f"Probe({self}, {self.label_kind}, width {self.d})"

    def _repr_html_(self) -> str:
        lines = (self.headline, self._figures(), f"{self.label_kind}, width {self.d}")
        return display(str(self), lines, provenance=self.provenance)
