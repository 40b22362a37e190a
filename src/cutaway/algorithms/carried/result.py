"""The result: what each part at each span carries, and what may be said of each variable."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.algorithms.carried.spread import SpreadVariable
from cutaway.algorithms.carried.telling import ALONE, NOT_SHOWN, ONLY
from cutaway.claims import Claim
from cutaway.errors import BadInput, did_you_mean
from cutaway.figures import Grid, grid_picture, heatmap
from cutaway.network.parts import in_words
from cutaway.reports import Block, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.trials import percent

#: So many parts have a row in a map: those with the largest shares, in the order of the network.
_ROWS = 24
_STRONGEST = 12
_UNIT = "share of the variable's effect"


@dataclass(frozen=True, eq=False)
class CarriedVariables:
    """Which variable each part carries at each span.

    Shares are of the effect of exchanging the variable itself: 0 is nothing, 1 as if the variable had been exchanged. All
    arrays lie over [variables parts spans]; NaN is what was not measured.

    Attributes:
        cases: the name of the prompts.
        variables: those that were exchanged.
        parts: names of the parts.
        spans: where in the prompt.
        share, low, high: on discovery pairs, with the ends of the interval.
        q: significance of the share, corrected for all parts, spans and variables.
        known_zero: nothing can change there.
        held, held_low, held_high: the same on held-out pairs, at the places that stood out for any variable.
        held_q: significance there, corrected for all places that were tested, at the places that stood out for this one.
        verdict: of the places that stood out for this variable: what they are found to be; else "".
        pairs: of each variable the number of discovery and of held-out pairs.
        claims: one for each variable.
        limits: what was asked for.
        notes: what these prompts cannot tell, and what was left out.
        complete: was all of it run?
        provenance: what is needed to repeat it.
        spread: variables of which no single place was found, and several parts of a span bring them together.
    """

    kind: ClassVar[str] = "carried-variables"

    cases: str
    variables: tuple[str, ...]
    parts: tuple[str, ...]
    spans: tuple[str, ...]
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    q: np.ndarray
    known_zero: np.ndarray
    held: np.ndarray
    held_low: np.ndarray
    held_high: np.ndarray
    held_q: np.ndarray
    verdict: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    claims: tuple[Claim, ...]
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance
    spread: tuple[SpreadVariable, ...] = ()

    def carriers(self, variable: str | None = None, *, alone: bool = True) -> list[str]:
        """Names of the places (`a1.h0@last`) that carry a variable, the strongest first; of every variable by default.

        alone: only those that carry no other, as far as others were exchanged. Raises `BadInput` for another variable.
        """
        chosen = self.variables if variable is None else (self._known(variable),)
        frame = self.to_pandas()
        wanted = frame["verdict"].isin((ALONE, ONLY)) if alone else ~frame["verdict"].isin(("", NOT_SHOWN))
        there = frame.loc[wanted & frame["variable"].isin(chosen)].sort_values("held", ascending=False)
        return list(dict.fromkeys(f"{row['part']}@{row['span']}" for row in there.to_dict("records")))

    def claim(self, variable: str) -> Claim:
        """The claim about a variable. Raises `BadInput` for another one."""
        return self.claims[self.variables.index(self._known(variable))]

    def _known(self, variable: str) -> str:
        if variable not in self.variables:
            raise BadInput(f"{variable!r:.60} was not exchanged.", did_you_mean(variable, self.variables))
        return variable

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        said = [
            f"{variable} by {', '.join(_at(name) for name in self.carriers(variable)[:2])}"
            for variable, claim in zip(self.variables, self.claims, strict=True)
            if claim.supported
        ]
        said += [one.words for one in self.spread if one.claim.supported]
        if said:
            return f"{self._partial}What carries a variable: {'; '.join(said)}"
        several = "" if len(self.variables) == 1 else f" of {len(self.variables)}"
        return f"{self._partial}Of no variable{several} is it shown which part carries it"

    @property
    def _partial(self) -> str:
        return "" if self.complete else "Partial, stopped before the end: "

    def to_pandas(self) -> pd.DataFrame:
        """One row for each part, span and variable: share, interval and significance on discovery pairs, the same on
        held-out pairs, verdict.
        """
        shape = self.share.shape
        index = np.indices(shape).reshape(3, -1)
        names = (self.variables, self.parts, self.spans)
        columns: dict[str, Any] = {
            what: [of[i] for i in index[axis]]
            for axis, (what, of) in enumerate(zip(("variable", "part", "span"), names, strict=True))
        }
        for name in (
            "share",
            "low",
            "high",
            "q",
            "known_zero",
            "held",
            "held_low",
            "held_high",
            "held_q",
            "verdict",
        ):
            columns[name] = getattr(self, name).ravel()
        return pd.DataFrame(columns)

    def top(self, n: int = _STRONGEST) -> pd.DataFrame:
        """The rows with the largest shares on discovery pairs, those that were tested first."""
        frame = self.to_pandas()
        tested = frame["verdict"] != ""
        order = np.lexsort((-frame["share"].fillna(-np.inf).to_numpy(), ~tested.to_numpy()))
        return frame.iloc[order[:n]].reset_index(drop=True)

    def plot(self, variable: str | None = None) -> Any:
        """A heat map of one variable, part by span: shares on discovery pairs. Default: the first variable."""
        chosen = self.variables[0] if variable is None else self._known(variable)
        return heatmap(self.grid(chosen), title=html.escape(f"What carries {chosen}"))

    def grid(self, variable: str) -> Grid:
        """Values and labels of the map of a variable: the parts with the largest shares, in the order of the network."""
        number = self.variables.index(self._known(variable))
        size = np.nan_to_num(np.abs(self.share[number])).max(1)
        rows = sorted(np.argsort(-size, kind="stable")[:_ROWS].tolist())
        chosen = {
            name: getattr(self, name)[number][rows]
            for name in ("share", "low", "high", "q", "known_zero", "held")
        }
        notes = [
            ["" if np.isnan(held) else f"{held:+.3f} on held-out pairs" for held in line]
            for line in chosen["held"]
        ]
        return Grid(
            chosen["share"], [html.escape(in_words(self.parts[r])) for r in rows], [html.escape(s) for s in self.spans],
            "part", "span", chosen["low"], chosen["high"], chosen["q"], chosen["known_zero"].astype(bool),
            np.array(notes, dtype=object), _UNIT,
        )  # fmt: skip

    def page(self) -> Page:
        """A map and the strongest places of every variable, and the claims with their tests."""
        blocks: list[Block | Section] = []
        for number, (variable, claim) in enumerate(zip(self.variables, self.claims, strict=True)):
            found, held = self.pairs[number]
            caption = (
                f"{found} pairs that differ in {variable} alone, and in what is derived from it: each part's value at a "
                "span is taken from the other prompt. 0: nothing changes; 1: the answer changes as if the variable had been "
                f"exchanged. Tested again on {held} held-out pairs."
            )
            if len(self.parts) > _ROWS:
                caption += f" The {_ROWS} parts with the largest shares, of {len(self.parts)}."
            content: list[Block] = [Figure(self.plot(variable), caption), self._table(variable)]
            content += self._together(variable)
            blocks.append(Section(f"variable-{number}", variable, content, f"{claim.statement}."))
        if self.notes:
            blocks.append(Section("notes", "What these prompts cannot tell", [Text(self.notes)]))
        about = (
            f"{len(self.parts)} parts at {', '.join(self.spans)}, {len(self.variables)} variables of “{self.cases}”, in "
            f"{self.provenance.network}."
        )
        return result_page(
            about,
            "Cutaway · what each part carries",
            f"{self.headline}.",
            blocks,
            self.provenance,
            claims=(*self.claims, *(one.claim for one in self.spread)),
        )

    def _together(self, variable: str) -> list[Block]:
        """The parts that bring a variable together, where none does alone."""
        mine = [one for one in self.spread if one.variable == variable]
        if not mine:
            return []
        others = [v for v in self.variables if v != variable]
        rows = []
        for one in mine:
            beside = (one.others.get(v) for v in others)
            figures = [
                one.largest,
                one.share.value,
                one.held.value,
                *(math.nan if b is None else b.value for b in beside),
            ]
            told = ["–" if math.isnan(figure) else percent(figure) for figure in figures]
            random = "–" if one.random is None else percent(one.random.value)
            rows.append(
                (f"{', '.join(map(in_words, one.parts))} at {one.span}", *told, random, one.claim.verdict)
            )
        head = (
            "together",
            "one alone, at most",
            "discovery",
            "held-out",
            *others,
            "as many others",
            "verdict",
        )
        caption = (
            "Parts that bring the variable together, none of which does alone; and of the other variables."
        )
        return [Table(head, tuple(rows), caption, frozenset(range(1, len(head) - 1)))]

    def _table(self, variable: str) -> Table:
        frame = self.to_pandas()
        rows = frame.loc[(frame["variable"] == variable) & (frame["verdict"] != "")]
        rows = rows.sort_values("held", ascending=False)
        others = [v for v in self.variables if v != variable]
        lines = [self._line(row, others) for row in rows.to_dict("records")]
        head = ("place", "discovery", "held-out", *others, "carries")
        caption = "Places that stood out; their shares of the other variables, too, on held-out pairs."
        if not lines:
            caption = "No place stands out."
        return Table(head, tuple(lines), caption, frozenset(range(1, 3 + len(others))))

    def _line(self, row: Any, others: list[str]) -> tuple[str, ...]:
        where = self.parts.index(row["part"]), self.spans.index(row["span"])
        beside = (self.held[self.variables.index(v)][where] for v in others)
        figures = (row["share"], row["held"], *beside)
        told = tuple("–" if np.isnan(figure) else percent(float(figure)) for figure in figures)
        return (_at(f"{row['part']}@{row['span']}"), *told, row["verdict"])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = [name for name in self.__dataclass_fields__ if name != "provenance"]
        return described(self, *names)

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        table = self.top(8)[["variable", "part", "span", "share", "held", "verdict"]]
        return f"CarriedVariables({self.headline})\n{table.to_string(index=False, float_format='%.2f')}"[
            :1900
        ]

    def _repr_html_(self) -> str:
        lines = [f"{claim.verdict}: {claim.statement}." for claim in self.claims]
        return display_result(self, lines, self.top(8), grid_picture(self.grid(self.variables[0])))


def _at(place: str) -> str:
    """A place for people: `head 1.0 at last`."""
    part, _, span = place.partition("@")
    return f"{in_words(part)} at {span}"
