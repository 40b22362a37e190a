"""The result: what two behaviours share."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.claims import Claim
from cutaway.figures import Grid, grid_picture, heatmap
from cutaway.network.parts import in_words
from cutaway.reports import Block, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.trials import percent

_ROWS = 24
_UNIT = "of the gap lost"


@dataclass(frozen=True, eq=False)
class SharedParts:
    """Which parts matter for two behaviours, and what one loses by what the other uses. Shares are of the gap of each.

    Attributes:
        behaviours: the names of both.
        parts: names of the parts that were removed.
        effect, q: [2 parts] what each behaviour loses without each part, on discovery pairs, and its significance, corrected
            for all parts of both.
        held, held_low, held_high: [2 parts] the same on held-out pairs, where a part stood out for either; else NaN.
        matter: [2 parts] does it matter for each?
        correlation: of both effects over all parts, with both ends of its interval [3]; NaN where there is none.
        left: [2 3] what is left of each without all that matters for the other, with both ends.
        beside: [2] what random sets of the size and kinds leave on average; NaN: not run.
        pairs: of each behaviour the number of discovery and of held-out pairs.
        claims: that they share parts; and, of each, that it is spared by what the other uses.
        limits: what was asked for.
        notes: what was left out, and why.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "shared-parts"

    behaviours: tuple[str, str]
    parts: tuple[str, ...]
    effect: np.ndarray
    q: np.ndarray
    held: np.ndarray
    held_low: np.ndarray
    held_high: np.ndarray
    matter: np.ndarray
    correlation: np.ndarray
    left: np.ndarray
    beside: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    claims: tuple[Claim, ...]
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    @property
    def shared(self) -> list[str]:
        """Names of the parts that matter for both."""
        return [
            name for name, both in zip(self.parts, (self.matter.sum(0) == 2).tolist(), strict=True) if both
        ]

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        partial = "" if self.complete else "Partial, stopped before the end: "
        one, other = self.behaviours
        if not self.shared:
            return f"{partial}No part is shown to matter both for “{one}” and for “{other}”"
        named = ", ".join(in_words(name) for name in self.shared[:4])
        more = f" and {len(self.shared) - 4} more" if len(self.shared) > 4 else ""
        return f"{partial}“{one}” and “{other}” both use {named}{more}"

    @property
    def sentences(self) -> list[str]:
        """What is shared, how far effects go together, and what is left across, in sentences."""
        told = [f"{self.headline}."]
        r, low, high = self.correlation
        if np.isfinite(r):
            told.append(
                f"Over {len(self.parts)} parts the effects on both correlate by {r:.2f} ({low:.2f} to {high:.2f})."
            )
        for which in (0, 1):
            if np.isfinite(self.left[which, 0]):
                random = (
                    ""
                    if np.isnan(self.beside[which])
                    else f"; without random sets {percent(float(self.beside[which]))}"
                )
                told.append(
                    f"Without what matters for “{self.behaviours[1 - which]}” {percent(float(self.left[which, 0]))} of "
                    f"“{self.behaviours[which]}” is left{random}."
                )
        return told

    def to_pandas(self) -> pd.DataFrame:
        """One row for each part: effects on both, on both halves, and whether it matters for each."""
        columns: dict[str, Any] = {"part": list(self.parts)}
        for which, name in enumerate(("one", "other")):
            for what in ("effect", "q", "held", "held_low", "held_high", "matter"):
                columns[f"{name}_{what}"] = getattr(self, what)[which]
        return pd.DataFrame(columns)

    def grid(self) -> Grid:
        """Effects of the strongest parts on both behaviours."""
        size = np.abs(self.effect).max(0)
        rows = sorted(np.argsort(-size, kind="stable")[:_ROWS].tolist())
        blank = np.full((len(rows), 2), np.nan)
        notes = np.full((len(rows), 2), "", dtype=object)
        return Grid(
            self.effect.T[rows], [html.escape(in_words(self.parts[r])) for r in rows],
            [html.escape(name) for name in self.behaviours], "part", "behaviour", blank, blank.copy(), self.q.T[rows],
            np.zeros((len(rows), 2), bool), notes, _UNIT,
        )  # fmt: skip

    def plot(self) -> Any:
        """A heat map: what each behaviour loses without each part, on discovery pairs."""
        return heatmap(self.grid(), title="What each behaviour loses without each part")

    def page(self) -> Page:
        """A map, what was tested, and the claims."""
        caption = f"Discovery pairs: {self.pairs[0][0]} and {self.pairs[1][0]}. The strongest {_ROWS} parts at most."
        content: list[Block] = [Figure(self.plot(), caption), Text(tuple(self.sentences)), self._table()]
        blocks: list[Block | Section] = [Section("parts", "Parts", content)]
        about = f"{len(self.parts)} parts, “{self.behaviours[0]}” and “{self.behaviours[1]}”, in {self.provenance.network}."
        return result_page(
            about,
            "Cutaway · what two behaviours share",
            f"{self.headline}.",
            blocks,
            self.provenance,
            claims=self.claims,
        )

    def _table(self) -> Table:
        rows = [i for i in range(len(self.parts)) if np.isfinite(self.held[:, i]).any()]
        lines = [
            (
                in_words(self.parts[i]),
                *(percent(float(self.held[w, i])) for w in (0, 1)),
                _uses(self.matter[:, i]),
            )
            for i in rows
        ]
        return Table(
            ("part", *self.behaviours, "matters for"), tuple(lines), "Held-out pairs.", frozenset({1, 2})
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, *(name for name in self.__dataclass_fields__ if name != "provenance"))

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        return f"SharedParts({' '.join(self.sentences)})"[:1900]

    def _repr_html_(self) -> str:
        return display_result(self, self.sentences[1:], self.to_pandas().head(8), grid_picture(self.grid()))


def _uses(matter: np.ndarray) -> str:
    return {(True, True): "both", (True, False): "the first", (False, True): "the second"}.get(
        (bool(matter[0]), bool(matter[1])), "not shown"
    )
