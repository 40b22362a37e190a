"""A fitted linear probe: what it says of activations, its direction, and how it is put on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cutaway.errors import BadFormat, BadInput
from cutaway.interventions import Add, Project
from cutaway.network.sites import Site
from cutaway.probes.data.labels import Kind
from cutaway.results import load_folder, save_folder

if TYPE_CHECKING:
    from cutaway.network import Run

_FORMAT = "cutaway-probe-1"


@dataclass(frozen=True, eq=False)
class Probe:
    """outputs = features @ weights' + bias, at one site.

    kind: ridge, logistic, means, lda, mass-mean. at, head, position: where its features [d] come from. label, label_kind,
    classes: what it is a probe for. weights: [c d], bias: [c]. centres: [k d], the mean of each class (of the upper and
    lower half, where the label is a value). mean, scale: [d] of the features it was fitted on.
    about: figures that belong to it (held-out score and so on), plain data.
    """

    kind: str
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

    def means_direction(self) -> Tensor:
        """The unit vector [d] from the mean of class 0 to that of class 1."""
        gap = self.centres[1] - self.centres[0]
        return gap / gap.norm().clamp(min=1e-300)

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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder (`manifest.json`, `tensors.safetensors`), whole or not at all. Raises `SaveFailed`."""
        names = ("weights", "bias", "centres", "mean", "scale")
        site = [self.at.name, self.at.layer, self.at.stack, self.at.module]
        plain = {
            "format": _FORMAT, "kind": self.kind, "at": site, "head": self.head, "position": self.position,
            "label": self.label, "label_kind": self.label_kind, "classes": list(self.classes), "about": dict(self.about),
        }  # fmt: skip
        return save_folder(path, plain, {n: getattr(self, n) for n in names})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Probe:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        saved = load_folder(path)
        data = dict(saved.manifest)
        if data.pop("format", None) != _FORMAT:
            raise BadFormat(f"{path} does not hold a probe.", "Give a folder that Probe.save wrote.")
        try:
            made: dict[str, Any] = {**data, **saved.tensors, "at": Site(*data["at"])}
            return cls(**{**made, "classes": tuple(data["classes"])})
        except (KeyError, TypeError) as error:
            raise BadFormat(f"The probe in {path} cannot be read: {error!r}.", "Make it again.") from error

    def __repr__(self) -> str:
        where = f"{self.at}" + ("" if self.head is None else f" head {self.head}")
        what = f"{self.label_kind}, width {self.d}"
        return f"Probe({self.kind} for {self.label!r} at {where}, position {self.position}, {what})"
