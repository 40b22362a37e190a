"""`Probing`: the map of a label over a network, with its controls, its probes and the verdict on the best place."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from cutaway.errors import BadFormat, BadInput, require_known
from cutaway.figures import Bar, Grid, small_bars, small_map
from cutaway.figures.probes import MapPanel, against_tokens, curves, maps, projections
from cutaway.network.sites import Site
from cutaway.probes.data.labels import Kind
from cutaway.probes.fits.scores import SCORE, chance
from cutaway.probes.map.controlling import NAMES
from cutaway.probes.map.linear_probe import TENSORS, Probe, site_to_list
from cutaway.probes.map.verdict import Finding
from cutaway.probes.reading.places import Cell, Places
from cutaway.reports import Block, ClaimTests, Figure, Page, Section, Text, display, result_page
from cutaway.results import Provenance, Result, finite, head, read, save_folder

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Controls of the map, in the order in which they are shown, and what each is.
CONTROLS: dict[str, str] = {
    "null_high": "permuted labels (95 %)", "untrained": "random weights", "tokens": "tokens alone",
    "control": "control task",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Probing:
    """What a label's probes say of every place.

    `data` is an `xarray.Dataset` over layer (or site), head where asked for, and position:

    - `score`, `low`, `high`: held-out score (`what`: AUROC, balanced accuracy, R²) with its cluster-bootstrap interval;
      `accuracy`: balanced accuracy.
    - `p`, `q`, `p_best`: see `significance.significance`; `null`, `null_high`: mean and 95 % point under permuted labels.
    - `control`: score on the control task; `untrained`: of the same probe on the network with random weights; `tokens`: of
      the tokens that can be seen from there. `penalty`: chosen, per example.
    - `cosine`, `means_cosine`: of the probe's direction, and of the difference of means, with the direction that controls
      the output's own contrast between the classes, found on other examples (`controlling`).

    Attributes:
        data: see above.
        places: all cells, by dimension.
        probes: the probe of each cell; None where the work was stopped before its turn.
        finding: the verdict on the best place.
        outputs: the held-out outputs [cells n o]; None where only sums were kept.
        labels: the real labels [n].
        complete: False where the work was stopped: then the finding is "not decided", and figures may be NaN.
        tokens: the tokens whose embeddings lie most along the best probe's direction, and most against it, with their
            cosines; empty where they lie no nearer than to directions of shuffled labels, and where widths do not fit.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "probing"

    data: xr.Dataset
    places: Places
    probes: tuple[Probe | None, ...]
    finding: Finding
    provenance: Provenance
    outputs: Tensor | None = None
    labels: Tensor | None = None
    complete: bool = True
    tokens: tuple[tuple[str, float], ...] = ()

    @property
    def what(self) -> str:
        """Name of the score."""
        return str(self.data.attrs["what"])

    @property
    def chance(self) -> float:
        """The score of a constant guess."""
        return float(self.data.attrs["chance"])

    @property
    def verdict(self) -> str:
        """The verdict on the best place, in words."""
        return str(self.finding)

    @property
    def best(self) -> Cell:
        """The cell with the best held-out score."""
        return self.places.cells[int(np.nanargmax(self.data["score"].values.ravel()))]

    def number(
        self, layer: int | None = None, head: int | None = None, position: Any = None, site: str | None = None
    ) -> int:
        """Index of a cell; what is left out is the best cell's. Raises `BadInput` where there is none."""
        best = self.best
        wanted_layer = best.site.layer if layer is None else layer
        name = best.site.name if site is None else site
        where = best.position if position is None else self._position(position)
        which = best.head if head is None else head
        for i, cell in enumerate(self.places.cells):
            named = str(cell.site) == name or (cell.site.name == name and cell.site.layer == wanted_layer)
            if named and cell.head == which and cell.position == where:
                return i
        raise BadInput(
            f"No probe was fitted at layer {wanted_layer}, head {which}, position {position}.",
            f"There are {', '.join(f'{k} {v[0]} to {v[-1]}' for k, v in self.places.coordinates().items())}.",
        )

    def _position(self, position: Any) -> int:
        if position not in self.places.positions:
            there = ", ".join(map(str, self.places.positions))
            raise BadInput(f"Position {position!r} was not probed.", f"There are {there}.")
        return self.places.positions.index(position)

    def probe(
        self, layer: int | None = None, head: int | None = None, position: Any = None, site: str | None = None
    ) -> Probe:
        """The probe of one place, fitted to all examples; by default the best place's.

        Raises `BadInput` where there is no such place, or the work was stopped before its turn.
        """
        i = self.number(layer, head, position, site)
        probe = self.probes[i]
        if probe is None:
            remedy = "Probe again, or take one of the places that are finished (to_pandas shows them)."
            raise BadInput(f"The work was stopped before {self._where(i)} was probed.", remedy)
        return probe

    def cell(self, where: Mapping[str, Any] | None = None) -> Cell:
        """The cell of a place that is named by layer, head, position and site; by default the best."""
        where = where or {}
        require_known(where, ("layer", "head", "position", "site"), "where")
        return self.places.cells[self.number(**where)]

    def with_finding(self, finding: Finding) -> Probing:
        """The same with another verdict."""
        return replace(self, finding=finding)

    def to_pandas(self) -> pd.DataFrame:
        """One row per cell."""
        return self.data.to_dataframe().reset_index()

    def top(self, n: int = 10) -> pd.DataFrame:
        """The cells with the best scores."""
        ordered = self.to_pandas().sort_values("score", ascending=False, kind="stable")
        return ordered.head(n).reset_index(drop=True)

    def plot(self, title: str | None = None) -> go.Figure:
        """The map with its controls beside it: heat maps, or, over one dimension, curves with bands."""
        title = self.headline() if title is None else title
        long = [d for d in self.data["score"].dims if self.data.sizes[d] > 1]
        if len(long) >= 2:
            return maps(self._panels(long), self.chance, self.what, title)
        axis = str(long[0]) if long else str(self.data["score"].dims[0])
        flat = {k: v.values.ravel() for k, v in self.data.data_vars.items()}
        shown = {text: flat[name] for name, text in CONTROLS.items() if np.isfinite(flat[name]).any()}
        places = [str(v) for v in self.data[axis].values]
        band = (flat["low"], flat["high"])
        return curves(places, flat["score"], band, shown, axis, self.what, self.chance, title)

    def _panels(self, long: list[Any]) -> dict[str, Any]:
        rows = [d for d in self.data["score"].dims if d in long][:-1]
        out = {}
        for name, text in ({"score": "probe"} | CONTROLS).items():
            array = self.data[name]
            if not np.isfinite(array.values).any():
                continue
            array = array.squeeze([d for d in array.dims if d not in long], drop=True)
            values = array.values.reshape(-1, array.shape[-1])
            labels = [" ".join(map(str, i)) for i in np.ndindex(array.shape[:-1])]
            columns = [str(v) for v in array[array.dims[-1]].values]
            out[text] = MapPanel(values, labels, columns, " · ".join(map(str, rows)), str(array.dims[-1]))
        return out

    def histogram(self, **where: Any) -> go.Figure:
        """Held-out outputs at one place, by class. Raises `BadInput` where only sums were kept, or there are no classes."""
        if self.outputs is None or self.labels is None:
            raise BadInput("Held-out outputs were not kept.", "Probe fewer places, or give more memory.")
        if self.data.attrs["kind"] not in ("binary", "multiclass"):
            raise BadInput("The label has no classes.", "Look at the scores instead.")
        i = self.number(**where)
        classes = list(self.data.attrs["classes"])
        outputs, labels = self.outputs[i].numpy(), self.labels.numpy()
        groups = {c: outputs[labels == k, 0 if outputs.shape[1] == 1 else k] for k, c in enumerate(classes)}
        return projections(groups, f"{self.data.attrs['label']}: {self._where(i)}")

    def _where(self, i: int) -> str:
        """A cell in words."""
        return self.places.cells[i].label(self.places.positions)

    def headline(self) -> str:
        """What was found at the best place, in a sentence."""
        i = self.number()
        row = {k: float(v.values.ravel()[i]) for k, v in self.data.data_vars.items()}
        band = "" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
        score = f"{self.what} {row['score']:.3f}{band}"
        return self.finding.sentence(str(self.data.attrs["label"]), self._where(i), score)

    def controls(self) -> str:
        """How the directions that detect lie to the one that controls, at the best place; empty where it is not known."""
        i = self.number()
        if not self.data.attrs.get("controls"):
            return ""
        cosines = {what: float(self.data[name].values.ravel()[i]) for name, what in NAMES.items()}
        if any(c != c for c in cosines.values()):
            return "the output that is read does not depend on the best place"
        told = ", ".join(f"{what} {value:+.2f}" for what, value in cosines.items())
        by_chance = 1.96 / self.probe().d ** 0.5
        return (
            f"cosine with the direction that controls the {self.data.attrs['controls']}: {told} (random directions: "
            f"within ±{by_chance:.2f})"
        )

    def __str__(self) -> str:
        controls = self.controls()
        lines = [f"  {line}" for line in (self.data.attrs["kept"], controls) if line]
        notes = (f"  note: {note}" for note in self.data.attrs["notes"])
        return "\n".join([self.headline(), *lines, *notes, *map(str, self.finding.claims)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = [self.controls(), *self.data.attrs["notes"]]
        claims = "".join(c._repr_html_() for c in self.finding.claims)
        picture = self._small_map() + claims
        return display(self.headline(), lines, self.top(5), picture, provenance=self.provenance)

    def _small_map(self) -> str:
        """The scores beyond chance, as a picture for a notebook; "" where there is one place only."""
        long = [d for d in self.data["score"].dims if self.data.sizes[d] > 1]
        if not long:
            return ""
        if len(long) == 1:
            labels, score, low, high = (
                self.data[n].values.ravel() for n in (long[0], "score", "low", "high")
            )
            return small_bars([Bar(f"{long[0]} {p}", v, a, b) for p, v, a, b in zip(labels, score, low, high, strict=True)],
                              self.what)  # fmt: skip
        panel = self._panels(long)["probe"]
        rows, columns = ([html.escape(str(n)) for n in axis] for axis in (panel.rows, panel.columns))
        unit = f"{self.what} beyond chance"
        return small_map(
            Grid(panel.values - self.chance, rows, columns, panel.row_title, panel.column_title, unit=unit)
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data: attributes, cells, finding, provenance."""
        return finite(
            dict(self.data.attrs)
            | {
                "headline": self.headline(), "finding": self.finding.to_dict(), "complete": self.complete,
                "cells": self.to_pandas().to_dict("records"), "provenance": self.provenance.to_dict(),
            }
        )  # fmt: skip

    def page(self, used: Result | None = None) -> Page:
        """The page: the map with its controls, the best place, the claims; and, where it is given, what `use` found."""
        attrs = self.data.attrs
        caption = (
            f"Held-out {self.what} of {attrs['probe']} probes, {attrs['folds']} folds over {attrs['groups']} groups of "
            f"{attrs['n']} examples. {' '.join(attrs['notes'])}"
        )
        if controls := self.controls():
            caption += f" At the best place: {controls}."
        blocks: list[Block] = [Figure(self.plot(""), caption)]
        if attrs["kind"] in ("binary", "multiclass") and self.outputs is not None:
            blocks.append(Figure(self.histogram(), "Held-out outputs at the best place, by class."))
        if self.tokens:
            names, cosines = zip(*self.tokens, strict=True)
            words = (
                f"The probe's direction at the best place against the token embeddings. {self._ends_mean()}"
            )
            caption = f"{words} {attrs.get('near_tokens', '')}".strip()
            blocks.append(Figure(against_tokens(names, np.array(cosines)), caption))
        elif attrs.get("near_tokens"):
            blocks.append(Text((str(attrs["near_tokens"]),)))
        sections = [Section("map", "Where it is encoded", blocks)]
        if used is not None:
            words = "Each move beside random and sham directions of the same norm (grey)."
            sections.append(Section("use", "Whether it is used", [Figure(used.plot(), words)]))
        sections.append(Section("claims", "Claims", [ClaimTests(c) for c in self.finding.claims]))
        cells = self.data["score"].size
        about = f"{attrs['label']} in {attrs['network']}: {attrs['n']} examples in {attrs['groups']} groups, {cells} places."
        return result_page(about, "Cutaway · probes", f"{self.headline()}.", sections, self.provenance)

    def _ends_mean(self) -> str:
        """What the two ends of the best probe's direction mean."""
        kind, classes = self.data.attrs["kind"], self.data.attrs["classes"]
        if kind == "binary":
            return f"Right: towards {classes[1]!r}; left: towards {classes[0]!r}."
        if kind == "continuous":
            return "Right: towards larger values; left: towards smaller ones."
        return f"Right: towards {classes[0]!r}, the first of the labels; left: away from it."

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: figures, probes, held-out outputs, verdict. Whole or not at all (`SaveFailed`)."""
        arrays = {f"figure.{k}": v.values.copy() for k, v in self.data.data_vars.items()}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for i, probe in enumerate(self.probes):
            if probe is not None:
                tensors |= probe.tensors(f"{i}.")
        if self.outputs is not None and self.labels is not None:
            tensors |= {"outputs": self.outputs, "labels": self.labels}
        places = {
            "sites": [site_to_list(s) for s in self.places.sites], "heads": self.places.heads,
            "positions": list(self.places.positions), "by": list(self.places.by),
        }  # fmt: skip
        manifest = head(
            "probing", self.provenance, attrs=dict(self.data.attrs), figures=list(map(str, self.data.data_vars)),
            places=places, finding=self.finding.to_dict(), complete=self.complete, tokens=[list(t) for t in self.tokens],
        )  # fmt: skip
        return save_folder(path, manifest, tensors, {"cells": self.to_pandas()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Probing:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        saved, _ = read(path, "probing")
        manifest, tensors = saved.manifest, saved.tensors
        try:
            p, attrs = manifest["places"], manifest["attrs"]
            sites = tuple(Site(*s) for s in p["sites"])
            places = Places(sites, p["heads"], tuple(p["positions"]), tuple(p["by"]))
            figures = {k: tensors[f"figure.{k}"].numpy().ravel() for k in manifest["figures"]}
            provenance = Provenance.from_dict(manifest["provenance"])
            same: dict[str, Any] = {"label": attrs["label"], "label_kind": attrs["kind"]}
            same |= {"method": attrs["probe"], "classes": tuple(attrs["classes"]), "provenance": provenance}

            def probe(i: int, cell: Cell) -> Probe | None:
                if f"{i}.weights" not in tensors:
                    return None
                content: dict[str, Any] = same | {name: tensors[f"{i}.{name}"] for name in TENSORS}
                where = {"at": cell.site, "head": cell.head, "position": places.positions[cell.position]}
                return Probe(**content, **where, about=about(figures, i))

            probes = tuple(probe(i, cell) for i, cell in enumerate(places.cells))
            return cls(
                dataset(figures, places, attrs), places, probes, Finding.from_dict(manifest["finding"]), provenance,
                tensors.get("outputs"), tensors.get("labels"), manifest.get("complete", True),
                tuple((str(t), float(c)) for t, c in manifest.get("tokens", ())),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(f"The probing in {path} cannot be read: {error!r}.", "Make it again.") from error


def about(figures: Mapping[str, np.ndarray], i: int) -> dict[str, float]:
    """The figures that cell i's probe carries with it: those that are numbers."""
    names = ("score", "low", "high", "p", "q", *NAMES)
    return {name: float(figures[name][i]) for name in names if figures[name][i] == figures[name][i]}


def require_probing(value: object) -> None:
    """Raise `BadInput` for what is no map of probes."""
    if not isinstance(value, Probing):
        raise BadInput(f"A {type(value).__name__} is no map of probes.", "Give what cutaway.probe gave.")


def dataset(figures: dict[str, np.ndarray], places: Places, attrs: dict[str, Any]) -> xr.Dataset:
    """Flat figures [cells] as a labelled array over the places' dimensions."""
    dims = places.dims
    arrays = {k: (dims, v.reshape(places.shape)) for k, v in figures.items()}
    return xr.Dataset(arrays, places.coordinates(), attrs)


def describe(kind: Kind, classes: int, summed: bool) -> tuple[str, float]:
    """Name of the score and what a constant guess gets; from sums alone the score is R² of the label."""
    return ("R²", 0.0) if summed else (SCORE[kind], chance(kind, classes))
