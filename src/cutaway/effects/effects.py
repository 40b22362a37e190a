"""`Effects`: what interventions changed, as one labelled array with intervals, that shows, saves and loads itself."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.effects import storage
from cutaway.effects.baselines import Resampling
from cutaway.effects.summary import summarise, token_labels
from cutaway.errors import BadFormat, BadInput
from cutaway.figures import Bar, Grid, bars, grid_picture, heatmap, show_token, small_bars
from cutaway.network.parts import Input, Part, in_words
from cutaway.reports import Figure, Page, Section, Table, display, result_page
from cutaway.results import Provenance, finite
from cutaway.sweeps import CellState

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Cells with a larger q are drawn faintly.
Q = 0.05
_OWN_GAP = 0.1
_ROWS = 12
#: A grid of more cells than this is shown in a notebook without its numbers, the strongest cells below it.
_MANY = 100
#: Dimensions whose labels are names of parts or of their inputs.
_PARTS = {"sender": Part, "receiver": Input, "first": Part, "second": Part}
_CELL = ("mean", "low", "high", "p", "q", "n", "known_zero", "not_finite")


@dataclass(frozen=True, eq=False)
class Effects:
    """The effect of each cell of a sweep: the change of the metric, as a share of the gap between the baselines.

    What `patch`, `ablate`, `path_patch`, `pair_effects` and plans return. Effects may be larger than 1 or of the wrong sign:
    a part may do more than the whole network, or work against it.

    Attributes:
        data: an `xarray.Dataset`, see below.
        provenance: what is needed to repeat it, with the seconds and forward passes that it took.

    `data` lies over the sweep's dimensions (`layer`, `position`, `head`; `sender` and `receiver`; ...) and `example`:

    - `effect` [... example]: change against the unpatched run, 1 = the whole gap. Restoring moves from 0 (corrupted
      baseline) towards +1, corrupting from 1 (clean baseline) by down to -1.
    - `metric` [... example]: the metric itself, in its own unit; `state` [... example]: see `sweeps.CellState`.
    - `mean`, `low`, `high`, `p`, `q`, `n` [...]: mean over examples, ends of the 95 % interval, p-value of a sign-flip
      test, the same after Benjamini-Hochberg over all cells of this sweep, number of examples.
    - `known_zero`, `not_finite` [...]: nothing can change here; at least one example gave NaN or infinity (then there is
      no mean).
    - `clean`, `corrupted` [example]: the metric of both baselines.
    - coordinate `token`: the token at each position of the example prompt.
    """

    kind: ClassVar[str] = "effects"

    data: xr.Dataset
    provenance: Provenance

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the sweep's dimensions, without `example`."""
        return tuple(str(d) for d in self.data["mean"].dims)

    @property
    def values(self) -> xr.DataArray:
        """Per-example effects [... example], NaN where a cell was not run or does not exist."""
        return self.data["effect"]

    @property
    def mean(self) -> xr.DataArray:
        """Mean effect of each cell."""
        return self.data["mean"]

    @property
    def low(self) -> xr.DataArray:
        """Lower end of each cell's interval."""
        return self.data["low"]

    @property
    def high(self) -> xr.DataArray:
        """Upper end of each cell's interval."""
        return self.data["high"]

    @property
    def q(self) -> xr.DataArray:
        """Corrected significance of each cell."""
        return self.data["q"]

    @property
    def normalised(self) -> xr.DataArray:
        """Mean metric on the scale where 0 is the corrupted and 1 the clean baseline."""
        return self.data["mean"] + (0.0 if self.direction == "restore" else 1.0)

    @property
    def site(self) -> str:
        """The site that was patched."""
        return str(self.data.attrs["site"])

    @property
    def direction(self) -> str:
        """`restore` (clean values into the corrupted run) or `corrupt` (the other way)."""
        return str(self.data.attrs["direction"])

    @property
    def complete(self) -> bool:
        """Whether every cell was run; False after Ctrl-C."""
        return bool(self.data.attrs["complete"])

    @property
    def not_finite(self) -> list[str]:
        """The cells that gave NaN or infinity, each named by its coordinates."""
        return [self._name(index.tolist()) for index in np.argwhere(self.data["not_finite"].values)]

    def sel(self, **coordinates: Any) -> Effects:
        """The same effects at some layers, positions, heads, parts or examples (xarray's `sel`).

        Parts may be given themselves or by either spelling (`a3.h1`, `head 3.1`).

        Raises `BadInput` for a dimension or a value that these effects do not have.
        """
        for name, wanted in coordinates.items():
            if name not in self.data.dims:
                remedy = f"They have {', '.join(map(str, self.data.dims))}."
                raise BadInput(f"These effects have no dimension {name!r}.", remedy)
            there = self.data[name].values
            coordinates[name] = wanted = _spelled(name, wanted, there.tolist())
            asked = [] if isinstance(wanted, slice) else np.ravel(np.asarray(wanted)).tolist()
            if missing := [value for value in asked if value not in there.tolist()]:
                remedy = f"There is {name} {', '.join(map(str, there))}."
                raise BadInput(f"These effects have no {name} {missing[0]!r}.", remedy)
        return Effects(self.data.sel(**coordinates), self.provenance)

    def among(self, examples: Sequence[int]) -> Effects:
        """The effects among some examples only, as a share of *their* gap, with interval, significance and labels anew.

        Where these examples have hardly a gap of their own (under a tenth of the whole one), the whole gap stays the unit.
        """
        part = self.data.isel(example=list(examples))
        ends = [float(part[side].mean()) for side in ("clean", "corrupted")]
        whole = float(part.attrs["gap"])
        gap = ends[0] - ends[1] if (ends[0] - ends[1]) / whole > _OWN_GAP else whole
        part = part.assign(effect=part["effect"] * (whole / gap))
        flat = {name: part[name].transpose(*self.dims, "example").values for name in ("effect", "state")}
        effect, states = (array.reshape(-1, len(examples)) for array in flat.values())
        templates = [str(t) for t in part["template"].values]
        summary = summarise(effect, states, templates, self.provenance.seed)
        cells = [part.sizes[d] for d in self.dims]
        part = part.assign({name: (self.dims, values.reshape(cells)) for name, values in summary.items()})
        if "tokens" in part.coords:
            tokens = part["tokens"].values
            part = part.assign_coords(token=("position", token_labels(tokens)))
            part = part.isel(position=np.flatnonzero((tokens != "").any(0)))
        anew = {"intervals": Resampling.of(templates).sentence, "gap": gap}
        anew |= {"clean_metric": ends[0], "corrupted_metric": ends[1]}
        return Effects(part.assign_attrs(part.attrs | anew), self.provenance)

    def groups(self) -> list[tuple[str, Effects]]:
        """The effects of each group of examples whose positions correspond: one template, one length. Largest group first.

        Positions of prompts of different form do not mean the same; a heat map over all of them mixes them up.
        """
        lengths = np.zeros(self.data.sizes["example"])
        if "tokens" in self.data.coords:
            lengths = (self.data["tokens"].values != "").sum(1)
        rows: dict[tuple[str, int], list[int]] = {}
        for row, (template, length) in enumerate(zip(self.data["template"].values, lengths, strict=True)):
            rows.setdefault((str(template), int(length)), []).append(row)
        ordered = sorted(rows.items(), key=lambda item: (-len(item[1]), item[1][0]))
        return [(template, self.among(members)) for (template, _), members in ordered]

    def to_pandas(self) -> pd.DataFrame:
        """One row per cell: coordinates, token, mean, low, high, p, q, n, known_zero, not_finite."""
        cells = self.data[[name for name in _CELL if name in self.data]]
        if self.dims:
            return cells.to_dataframe().reset_index()
        scalars = {str(name): cells[name].item() for name in (*cells.coords, *cells) if cells[name].ndim == 0}
        return pd.DataFrame([scalars])

    def top(self, n: int = 10) -> pd.DataFrame:
        """The `n` cells with the largest magnitude of effect, strongest first (ties in sweep order)."""
        frame = self.to_pandas().dropna(subset=["mean"])
        order = np.argsort(-frame["mean"].abs().to_numpy(), kind="stable")
        return frame.iloc[order[:n]].reset_index(drop=True)

    def plot(self, title: str | None = None, limit: float | None = None) -> go.Figure:
        """A heat map, or bars where the sweep has one dimension. With three, layers and heads share the rows.

        Raises `BadInput` when only one cell is left.
        """
        title = self.headline() if title is None else title
        if len(self.dims) >= 2:
            return heatmap(self.grid(), title=title, limit=limit)
        if not self.dims:
            remedy = "Leave at least one dimension, such as layer, unselected."
            raise BadInput("One cell has no picture.", remedy)
        return bars(self._bars(), title=title, unit=self.unit)

    def _bars(self) -> list[Bar]:
        """The cells of a sweep over one dimension, as bars."""
        cells = self.to_pandas().to_dict("records")
        names = [f"{self.dims[0]} {self._label(self.dims[0], i)}" for i in range(len(cells))]
        return [
            Bar(name, row["mean"], row["low"], row["high"], row["q"] <= Q)
            for name, row in zip(names, cells, strict=True)
            if np.isfinite(row["mean"])
        ]

    @property
    def unit(self) -> str:
        """What an effect is a number of, in a few words."""
        return "share of the gap"

    def grid(self) -> Grid:
        """Values and labels of the heat map [rows columns]: the last dimension is the columns, the others the rows."""
        *rows, columns = self.dims
        places = list(np.ndindex(*(self.data.sizes[d] for d in rows)))
        width = self.data.sizes[columns]
        cells = {name: self.data[name].values.reshape(len(places), width) for name in _CELL}
        return Grid(
            values=cells["mean"],
            rows=[".".join(self._label(d, i) for d, i in zip(rows, place, strict=True)) for place in places],
            columns=[self._label(columns, i) for i in range(width)],
            row_title=".".join(rows),
            column_title="token" if columns == "position" else columns,
            low=cells["low"],
            high=cells["high"],
            q=cells["q"],
            known_zero=cells["known_zero"],
            notes=np.array([[self._note((*place, c)) for c in range(width)] for place in places]),
            unit=self.unit,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data: what it says of itself, one record for each cell, and where it comes from."""
        cells = self.to_pandas().to_dict("records")
        said = {"kind": self.kind, **self.data.attrs, "cells": cells}
        return finite(said | {"provenance": self.provenance.to_dict()})

    def page(self) -> Page:
        """The report: a map of the cells (where there are positions, of the largest group), the strongest ones."""
        attrs = self.data.attrs
        shown = self.groups()[0][1] if "position" in self.dims else self
        blocks = [] if not self.dims else [Section("map", "Effects", [Figure(shown.plot(), shown.caption)])]
        top = shown.top(_ROWS)
        columns = [c for c in ("mean", "low", "high", "q") if c in top]
        places = [c for c in (*shown.dims, "token") if c in top]
        rows = tuple(
            (*(_said(c, str(row[c])) for c in places), *(f"{row[c]:.3g}" for c in columns))
            for row in top.to_dict("records")
        )
        numeric = frozenset(range(len(places), len(places) + len(columns)))
        strongest = Table((*places, *columns), rows, "As shares of the gap.", numeric)
        notes = [str(attrs[name]) for name in ("where", "notes") if attrs.get(name)]
        way = "ablated" if self.direction.startswith("ablate") else "patched"
        return result_page(
            f"{self.site} of {attrs['network']}, {way} on “{attrs['behaviour']}”",
            "Cutaway · activation patching",
            self.headline(),
            [*blocks, Section("strongest", "Strongest cells", [strongest])],
            self.provenance,
            lead=" ".join(notes),
        )

    @property
    def caption(self) -> str:
        """What the intervals are over, and the metric at both ends."""
        return f"{self.data.attrs['intervals']}. {self._ends}."

    @property
    def _ends(self) -> str:
        """The metric at both ends."""
        attrs = self.data.attrs
        clean, corrupted = attrs["clean_metric"], attrs["corrupted_metric"]
        return f"{attrs['metric']}: clean {clean:.3f}, corrupted {corrupted:.3f}"

    def headline(self) -> str:
        """One line: what was patched into what, and whether the sweep is complete."""
        ways = {"restore": "clean → corrupted", "corrupt": "corrupted → clean"}
        way = ways.get(self.direction, self.direction)
        tail = "" if self.complete else " · partial: stopped before the end"
        return f"{self.site}, {way}{tail}"

    def save(self, path: str | Path) -> Path:
        """Write everything to a folder (manifest.json and safetensors), or to one netCDF file when `path` ends in `.nc`.

        Atomic: the whole result or nothing. Raises `SaveFailed` when the disk refuses; the effects stay usable.
        """
        return storage.save(Path(path), self.data, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> Effects:
        """Read what `save` wrote, now or in an earlier version.

        Raises `BadFormat` or `CorruptFile` when it is not that.
        """
        return cls(*storage.load(Path(path)))

    def _label(self, dim: str, index: int) -> str:
        if dim == "position" and "token" in self.data.coords:
            return show_token(str(self.data["token"].values[index]))
        return html.escape(_said(dim, str(self.data[dim].values[index])))

    def _name(self, index: Sequence[int]) -> str:
        place = ", ".join(
            f"{dim} {_said(dim, str(self.data[dim].values[i]))}"
            for dim, i in zip(self.dims, index, strict=True)
        )
        return f"{self.site} at {place}" if place else self.site

    def _note(self, index: tuple[int, ...]) -> str:
        cell = self.data.isel(dict(zip(self.dims, index, strict=True)))
        if bool(cell["not_finite"]):
            return "NaN or infinity here: not averaged"
        state = cell["state"].values
        if (state == CellState.NOT_RUN).any():
            return f"run on {int((state == CellState.RUN).sum())} of {state.size} examples"
        return f"{int(cell['n'])} examples" if (state == CellState.ABSENT).any() and int(cell["n"]) else ""

    def _summary(self) -> str:
        attrs = self.data.attrs
        lines = [
            self.headline(),
            f"{attrs['network']} · {attrs['behaviour']} · {self.data.sizes.get('example', 1)} examples · {self._ends}",
            str(attrs["intervals"]),
        ]
        return "\n".join(lines + [f"not finite: {name}" for name in self.not_finite[:5]])

    def _strongest(self, n: int) -> pd.DataFrame:
        """`top` for people: parts in words, without columns that say nothing."""
        table = self.top(n)
        table = table.drop(
            columns=[c for c in ("known_zero", "not_finite") if c in table and not table[c].to_numpy().any()]
        )
        return table.assign(**{dim: table[dim].map(in_words) for dim in self.dims if dim in _PARTS})

    def __repr__(self) -> str:
        return f"{self._summary()}\n{self._strongest(8).to_string(index=False, float_format='%.3f')}"

    def _repr_html_(self) -> str:
        headline, *lines = self._summary().split("\n")
        if len(self.dims) == 1:
            return display(
                headline, lines, picture=small_bars(self._bars(), self.unit), provenance=self.provenance
            )
        picture = grid_picture(self.grid()) if self.dims else ""
        table = self._strongest(5) if not picture or self.data["mean"].size > _MANY else None
        return display(headline, lines, table, picture, provenance=self.provenance)


def _said(dim: str, label: str) -> str:
    """A label for people: parts in words; names that an earlier version saved are in words already.

    >>> _said("sender", "a3.h1"), _said("receiver", "a5.kv1<k>"), _said("layer", "3")
    ('head 3.1', "key/value head 5.1's keys", '3')
    """
    return in_words(label) if dim in _PARTS else label


def _spelled(dim: str, wanted: Any, there: Sequence[Any]) -> Any:
    """What is asked of a dimension of parts, as its labels spell it."""
    if dim not in _PARTS or isinstance(wanted, slice):
        return wanted
    if isinstance(wanted, list | tuple | np.ndarray):
        return [_spelled(dim, item, there) for item in wanted]
    if str(wanted) in there:
        return str(wanted)
    try:
        asked = _PARTS[dim].of(wanted)
        return next((label for label in there if _PARTS[dim].parse(label) == asked), str(wanted))
    except BadFormat:
        return str(wanted)
