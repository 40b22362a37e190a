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
from cutaway.effects.findings import finding_of, runs_of_layers
from cutaway.effects.forms import FORM, among, by_form, forms
from cutaway.effects.labels import PARTS, said, spelled
from cutaway.effects.summary import FEWEST, Q
from cutaway.effects.words import DRAWN, about, clipped, doubt, empty_columns, example_of, legend, not_drawn
from cutaway.errors import BadInput, did_you_mean
from cutaway.figures import Bar, Grid, bars, grid_picture, heatmap, show_token, small_bars
from cutaway.network.parts import in_words
from cutaway.reports import Block, Figure, Page, Section, Table, Text, display, result_page
from cutaway.results import Provenance, finite
from cutaway.sweeps import CellState

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROWS = 12
#: A grid of more cells than this is shown in a notebook without its numbers, the strongest cells below it.
_MANY = 100
#: So many forms of prompt have their map in a notebook, where maps are small.
_FORMS = 3
_CELL = ("mean", "low", "high", "p", "q", "n", "known_zero", "not_finite")


@dataclass(frozen=True, eq=False)
class Effects:
    """The effect of each cell of a sweep: the change of the metric, as a share of the gap between the baselines.

    What `patch`, `ablate`, `path_patch`, `pair_effects` and plans return. Effects may be larger than 1 or of the wrong sign:
    a part may do more than the whole network, or push towards the other answer.

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

    Where there are positions and the prompts have several forms (templates, lengths), nothing is averaged over unlike
    positions: `mean` and its like, and `token`, have a further dimension `form`, the most frequent first, in which effects
    are shares of that form's own gap. `sel(form=...)` and `groups()` give them one by one.
    """

    kind: ClassVar[str] = "effects"

    data: xr.Dataset
    provenance: Provenance

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the sweep's dimensions, without `example`."""
        return tuple(str(d) for d in self.data["effect"].dims if d != "example")

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
        if FORM in coordinates and FORM in self.data.dims:
            label, among_forms = coordinates.pop(FORM), dict(self.groups())
            if label not in among_forms:
                raise BadInput(
                    f"These effects have no form {label!r}.", did_you_mean(label, among_forms, show=repr)
                )
            return among_forms[label].sel(**coordinates)
        for name, wanted in coordinates.items():
            if name not in self.data.dims:
                remedy = f"They have {', '.join(map(str, self.data.dims))}."
                raise BadInput(f"These effects have no dimension {name!r}.", remedy)
            there = self.data[name].values
            coordinates[name] = wanted = spelled(name, wanted, there.tolist())
            asked = [] if isinstance(wanted, slice) else np.ravel(np.asarray(wanted)).tolist()
            if missing := [value for value in asked if value not in there.tolist()]:
                remedy = f"There is {name} {', '.join(map(str, there))}."
                raise BadInput(f"These effects have no {name} {missing[0]!r}.", remedy)
        return Effects(self.data.sel(**coordinates), self.provenance)

    def among(self, examples: Sequence[int]) -> Effects:
        """The effects among some examples only, as a share of *their* gap, with interval, significance and labels anew.

        Where these examples have hardly a gap of their own (under a tenth of the whole one), the whole gap stays the unit.
        """
        return Effects(among(self.data, examples, self.provenance.seed), self.provenance)

    def groups(self) -> list[tuple[str, Effects]]:
        """The effects of each form of prompt: one template, one length. The most frequent form first, each with its label.

        Positions of prompts of different form do not mean the same: cells by position are those of one form.
        """
        return [(label, self._of_form(label, rows)) for label, rows in forms(self.data)]

    def _of_form(self, label: str, rows: Sequence[int]) -> Effects:
        """The effects of one form, which say of which."""
        part = among(self.data, rows, self.provenance.seed)
        told = (
            {"form": label, "form_of": self.data.sizes["example"]}
            if len(rows) < self.data.sizes["example"]
            else {}
        )
        return Effects(part.assign_attrs(part.attrs | told), self.provenance)

    def to_pandas(self) -> pd.DataFrame:
        """One row per cell (of each form of prompt, where there are several): coordinates, token, mean, low, high, p, q, n,
        known_zero, not_finite.
        """
        cells = self.data[[name for name in _CELL if name in self.data]]
        if self.data["mean"].dims:
            frame = cells.to_dataframe().reset_index()
            if FORM in frame and "token" in frame:  # a shorter form lacks the last positions
                frame = frame.loc[frame["token"] != ""].reset_index(drop=True)
            return frame
        scalars = {str(name): cells[name].item() for name in (*cells.coords, *cells) if cells[name].ndim == 0}
        return pd.DataFrame([scalars])

    def top(self, n: int = 10) -> pd.DataFrame:
        """The `n` cells with the largest magnitude of effect, strongest first (ties in sweep order)."""
        frame = self.to_pandas().dropna(subset=["mean"])
        order = np.argsort(-frame["mean"].abs().to_numpy(), kind="stable")
        return frame.iloc[order[:n]].reset_index(drop=True)

    def plot(self, title: str | None = None, limit: float | None = None) -> go.Figure:
        """A heat map, or bars where the sweep has one dimension. With three, layers and heads share the rows.

        Of several forms of prompt it is the most frequent one, and the title says so; `groups()` gives the others.

        Raises `BadInput` when only one cell is left.
        """
        if FORM in self.data.dims:
            return self.groups()[0][1].plot(title, limit)
        title = html.escape(self.about) if title is None else title
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
            Bar(name, row["mean"], row["low"], row["high"], not row["q"] > Q)
            for name, row in zip(names, cells, strict=True)
            if np.isfinite(row["mean"])
        ]

    @property
    def unit(self) -> str:
        """What an effect is a number of, in a few words."""
        return "share of the gap"

    def grid(self) -> Grid:
        """Values and labels of the heat map [rows columns]: the last dimension is the columns, the others the rows.

        Of several forms of prompt it is the most frequent one.
        """
        if FORM in self.data.dims:
            return self.groups()[0][1].grid()
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
        """The report: a map of the cells (where there are positions, of each form of prompt), and the strongest ones."""
        return _page(self)

    @property
    def caption(self) -> str:
        """What is drawn: which pairs, what the signs mean, what intervals are over, the metric at both ends."""
        attrs = self.data.attrs
        n = self.data.sizes.get("example", 1)
        which = f"{n} pairs. " if n > 1 else ""
        if "form" in attrs:
            which = f"{n} of {attrs['form_of']} pairs, those of the form “{attrs['form']}”. "
        signs = f"{legend(self.grid())} {self.undecided}".strip() if len(self.dims) >= 2 else self.undecided
        over = (
            "" if self.undecided else f"{str(attrs['intervals'])[:1].upper()}{str(attrs['intervals'])[1:]}."
        )
        said = " ".join(part for part in (signs, over) if part)
        return f"{which}{said} 1 is the whole way from the corrupted end to the clean one ({self.ends_in_words})."

    @property
    def doubt(self) -> str:
        """That the two ends lie the wrong way round, in words; "" where they do not."""
        return doubt(self.data.attrs)

    @property
    def undecided(self) -> str:
        """That there are too few examples for any cell to be told from zero, in words; "" where there are enough."""
        shown = self.data["mean"].notnull() & ~self.data["known_zero"]
        if not bool(shown.any()) or bool(self.data["q"].where(shown).notnull().any()):
            return ""
        n = int(self.data["n"].where(shown).max())
        pairs = "1 pair" if n == 1 else f"{n} pairs"
        if n >= FEWEST:
            return (
                f"With {pairs} and {int(shown.sum())} cells no effect can be told from zero, however large it is, once it "
                "is corrected for so many: nothing is marked as significant or not."
            )
        return (
            f"With {pairs} no effect can be told from zero, however large it is (at least {FEWEST} are needed): there are "
            "no intervals, and nothing is marked as significant or not."
        )

    @property
    def ends_in_words(self) -> str:
        """The metric at both ends."""
        attrs = self.data.attrs
        clean, corrupted = attrs["clean_metric"], attrs["corrupted_metric"]
        return f"{attrs['metric']}: clean {clean:.3f}, corrupted {corrupted:.3f}"

    @property
    def about(self) -> str:
        """What was patched into what, on which form of prompt where it is one of several."""
        return about(self.data.attrs, self.data.sizes.get("example", 1))

    def headline(self) -> str:
        """What came out, in a sentence: the strongest cell that is told from zero, or that none is."""
        frame, n = self.to_pandas(), self.data.sizes.get("example", 1)
        told: list[Any] = [("", frame, n)]
        if FORM in self.data.dims:
            told = [(label, frame[frame[FORM] == label], len(rows)) for label, rows in forms(self.data)]
        return finding_of(told, self.site, self.data.attrs, self.dims)

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
        data, provenance = storage.load(Path(path))
        return cls(by_form(data, provenance.seed), provenance)

    def _label(self, dim: str, index: int) -> str:
        if dim == "position" and "token" in self.data.coords:
            return show_token(str(self.data["token"].values[index]))
        return html.escape(said(dim, str(self.data[dim].values[index])))

    def _name(self, index: Sequence[int]) -> str:
        place = ", ".join(
            f"{dim} {said(dim, str(self.data[dim].values[i]))}"
            for dim, i in zip(map(str, self.data["mean"].dims), index, strict=True)
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
        attrs, n = self.data.attrs, self.data.sizes.get("example", 1)
        pairs = f"{n} pair{'s' * (n != 1)}"
        lines = [
            self.headline() + ".",
            f"{self.about} · {attrs['network']} · {attrs['behaviour']} · {pairs} · {self.ends_in_words}",
            *([] if self.undecided else [str(attrs["intervals"])]),
            *([self.doubt] if self.doubt else []),
        ]
        if FORM in self.data.dims:
            lines.append(f"{self.data.sizes[FORM]} forms of prompt, each by itself: groups(), sel(form=...)")
        return "\n".join(lines + [f"not finite: {name}" for name in self.not_finite[:5]])

    def _strongest(self, n: int) -> pd.DataFrame:
        """`top` for people: parts in words, runs of layers as one, without columns that say nothing."""
        table = runs_of_layers(self.to_pandas(), self.dims, n)
        table = table.drop(columns=empty_columns(table))
        words = {dim: table[dim].map(in_words) for dim in self.dims if dim in PARTS}
        return table.assign(**words, **({FORM: table[FORM].map(clipped)} if FORM in table else {}))

    def __repr__(self) -> str:
        return f"{self._summary()}\n{self._strongest(8).to_string(index=False, float_format='%.3f')}"

    def _repr_html_(self) -> str:
        headline, *lines = self._summary().split("\n")
        if len(self.dims) == 1:
            return display(
                headline, lines, picture=small_bars(self._bars(), self.unit), provenance=self.provenance
            )
        picture, small = "", False
        if self.dims:
            told = self.groups() if FORM in self.data.dims else [("", self)]
            sizes = np.cumsum([form.data["mean"].size for _, form in told[:_FORMS]])
            small, several = sizes[0] <= _MANY, max(1, int((sizes <= 1.4 * _MANY).sum()))
            rest = not_drawn([(label, form.data.sizes["example"]) for label, form in told[several:]])
            for label, form in told[:several]:
                n = form.data.sizes.get("example", 1)
                picture += f"<div><small>{n} pairs: {html.escape(label)}</small></div>" if label else ""
                picture += grid_picture(form.grid())
            picture += f"<div><small>{html.escape(rest)}</small></div>" if rest else ""
        table = None if small else self._strongest(5)
        return display(headline, lines, table, picture, provenance=self.provenance)


def _page(effects: Effects) -> Page:
    """The page of effects: maps (or bars), the strongest cells, how they were made."""
    attrs = effects.data.attrs
    told = effects.groups() if FORM in effects.data.dims else [("", effects)]
    maps: list[Block] = []
    heard: list[str] = []  # said once, under the first form of which it holds
    for label, form in told[:DRAWN] if effects.dims else ():
        caption = form.caption
        for sentence in filter(None, heard):
            caption = caption.replace(f"{sentence} ", "")
        maps.append(Figure(form.plot("" if label else None), caption))
        heard += [legend(form.grid())] * (len(effects.dims) >= 2) + [form.undecided]
    if left := not_drawn([(label, form.data.sizes["example"]) for label, form in told[DRAWN:]]):
        maps.append(Text((left,)))
    lead = ""
    if len(told) > 1:
        lead = (
            f"The {effects.data.sizes['example']} pairs have {len(told)} forms. Position 5 of one is not position 5 of "
            "another, so nothing is averaged over them: each form has its own map, the most frequent first, and its effects "
            f"are shares of its own gap.{_by_span(effects)}"
        )
    sections = [Section("map", "Effects", maps, lead)] if maps else []
    notes = [str(attrs[name]) for name in ("where", "notes") if attrs.get(name)]
    pairs = f"{(n := effects.data.sizes.get('example', 1))} pair{'s' * (n != 1)}"
    return result_page(
        f"{effects.about}, in {attrs['network']} on “{attrs['behaviour']}”: {pairs}, {effects.ends_in_words}.",
        f"Cutaway · {_kicker(effects)}",
        f"{effects.headline()}.",
        [*sections, Section("strongest", "Strongest cells", [_table(effects, len(told) > 1)])],
        effects.provenance,
        lead=" ".join([example_of(attrs, n), *notes, effects.doubt]).strip(),
    )


def _kicker(effects: Effects) -> str:
    if effects.direction.startswith("ablate"):
        return "ablation"
    by_dim = {"sender": "path patching", "first": "pairs of parts", "cell": "planned interventions"}
    of_kind = "attribution patching" if effects.data.attrs.get("estimated") else "activation patching"
    return next((words for dim, words in by_dim.items() if dim in effects.dims), of_kind)


def _by_span(effects: Effects) -> str:
    spans = str(effects.data.attrs.get("spans", ""))
    if not spans:
        return ""
    return f" To average over all pairs, sweep by span in place of position (spans: {spans})."


def _table(effects: Effects, several: bool) -> Table:
    top: Any = runs_of_layers(effects.to_pandas(), effects.dims, _ROWS)
    figures = [c for c in ("mean", "low", "high", "q", "n") if c in top and top[c].notna().any()]
    places = [c for c in (FORM, *effects.dims, "token") if c in top]
    rows = tuple(
        (
            *(said(c, str(row[c])) for c in places),
            *("–" if row[c] != row[c] else f"{row[c]:.3g}" for c in figures),
        )
        for row in top.to_dict("records")
    )
    unit = "Effects as shares of the gap between clean and corrupted prompts" + (
        " of that form." if several else "."
    )
    run = any(" to " in str(row.get("layer", "")) for row in top.to_dict("records"))
    caption = unit + (
        " Layers that do alike are one row: its figures are those of the strongest." if run else ""
    )
    heads = ["pairs" if c == "n" else c for c in figures]
    return Table((*places, *heads), rows, caption, frozenset(range(len(places), len(places) + len(figures))))
