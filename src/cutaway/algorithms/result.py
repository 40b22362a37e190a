"""What testing an algorithm gives: for every variable how often the network follows it, beside controls and rivals."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.claims import Claim
from cutaway.figures import Bar, Grid, bars, heatmap, show_token
from cutaway.reports import (
    ClaimTests,
    Figure,
    Page,
    Section,
    Table,
    Text,
    display_result,
    result_page,
    table_of,
)
from cutaway.results import Provenance, brief, described, load_fields, save_fields
from cutaway.statistics import Estimate


@dataclass(frozen=True)
class Apart:
    """Two predictions held against the network on the exchanges on which they differ.

    Attributes:
        n: how many these are.
        own: how often the network does what the first predicts; None where they never differ.
        other: what the second predicts.
        ahead: the first share less the second.
    """

    n: int
    own: Estimate | None = None
    other: Estimate | None = None
    ahead: Estimate | None = None


@dataclass(frozen=True)
class VariableTest:
    """A variable exchanged at its place.

    Attributes:
        name: of the variable.
        meaning: in words; may be empty.
        reads: what it is computed from; empty for an input.
        place: where it is said to live.
        words: the same for people.
        tokens: where that is in the example.
        accuracy: how often the network gives the answer that the algorithm predicts.
        changing: the same of exchanges that change the answer; None where there are none.
        leaving: of those that must leave it.
        unmoved: of those that change the answer, how often the network's answer without the exchange would have counted.
        shams: accuracy with other places exchanged, by place.
        others: beside another variable's values, by name, where the two predict something else.
        random: accuracy in the network with random weights; None where there is none.
    """

    name: str
    meaning: str
    reads: tuple[str, ...]
    place: str
    words: str
    tokens: tuple[int, ...]
    accuracy: Estimate
    changing: Estimate | None
    leaving: Estimate | None
    unmoved: float
    shams: dict[str, Estimate]
    others: dict[str, Apart]
    random: Estimate | None


@dataclass(frozen=True)
class RivalTest:
    """Another algorithm on the same network.

    Attributes:
        name: of the rival.
        plain: how often the network's answer to a plain prompt is the rival's.
        variables: accuracy of the rival's own predictions, by variable.
        where: the places of these.
        apart: the algorithm beside the rival, on prompts and exchanges on which they differ.
        claim: does the network run the rival?
    """

    name: str
    plain: Estimate
    variables: dict[str, Estimate]
    where: dict[str, str]
    apart: Apart
    claim: Claim


@dataclass(frozen=True, eq=False)
class AlgorithmTest:
    """An algorithm tested by interchange interventions on held-out prompts, from `test_algorithm`.

    Attributes:
        algorithm: its name.
        cases: what the prompts are called.
        drawing: the algorithm in lines of text: its steps, and what each reads.
        example: (token, names of spans that hold it) of one prompt.
        plain: how often the network gives a right answer to a plain prompt.
        follows: how often it gives the algorithm's.
        agrees: share of the prompts to which the algorithm gives the right answers.
        variables: each variable that has a place.
        joint: accuracy with all of these exchanged at once, from different prompts; None where there is one.
        rivals: other algorithms.
        claim: does the network run the algorithm?
        prompts: held-out ones.
        complete: was all of it run?
        notes: what the reader should know.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "algorithm-test"

    algorithm: str
    cases: str
    drawing: str
    example: tuple[tuple[str, str], ...]
    plain: Estimate
    follows: Estimate
    agrees: float
    variables: tuple[VariableTest, ...]
    joint: Estimate | None
    rivals: tuple[RivalTest, ...]
    claim: Claim
    prompts: int
    complete: bool
    notes: tuple[str, ...]
    provenance: Provenance

    __repr__ = brief

    def __getitem__(self, name: str) -> VariableTest:
        """The test of a variable. Raises `KeyError`."""
        return {v.name: v for v in self.variables}[name]

    @property
    def verdict(self) -> str:
        """Of the claim."""
        return self.claim.verdict

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        word = {"supported": "runs", "refuted": "does not run"}.get(self.claim.verdict, "is not shown to run")
        low = min(self.variables, key=lambda v: v.accuracy.value)
        more = ", the lowest of its variables" if len(self.variables) > 1 else ""
        return (
            f"The network {word} {self.algorithm!r}: with one variable taken from another prompt, its answer is the "
            f"algorithm's in {100 * low.accuracy.value:.0f} % of exchanges of {low.name!r}{more}"
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each variable, each of its controls, and each variable of each rival: accuracy with its interval."""
        rows: list[tuple[Any, ...]] = []
        for v in self.variables:
            rows.append(_row(self.algorithm, v.name, "its place", v.place, v.accuracy))
            rows += (
                [_row(self.algorithm, v.name, "changes the answer", v.place, v.changing)]
                if v.changing
                else []
            )
            rows += (
                [_row(self.algorithm, v.name, "leaves the answer", v.place, v.leaving)] if v.leaving else []
            )
            rows += [_row(self.algorithm, v.name, "another place", place, e) for place, e in v.shams.items()]
            rows += [_row(self.algorithm, v.name, f"{other}, where it would differ", v.place, a.other)
                     for other, a in v.others.items() if a.other is not None]  # fmt: skip
            rows += [_row(self.algorithm, v.name, "random weights", v.place, v.random)] if v.random else []
        rows += [_row(self.algorithm, "all at once", "its place", "", self.joint)] if self.joint else []
        for rival in self.rivals:
            rows += [
                _row(rival.name, name, "rival", rival.where[name], e) for name, e in rival.variables.items()
            ]
        return pd.DataFrame(
            rows, columns=["algorithm", "variable", "what", "place", "accuracy", "low", "high", "n"]
        )

    def plot(self) -> Any:
        """Interchange accuracy of each variable, its best control, and the rivals."""
        items = []
        for v in self.variables:
            items.append(Bar.of(html.escape(f"{v.name}: {v.words}"), v.accuracy))
            if v.shams:
                place, best = max(v.shams.items(), key=lambda item: item[1].value)
                items.append(Bar.of(html.escape(f"{v.name}: {place} (another place)"), best))
        if self.joint is not None:
            items.append(Bar.of("all at once", self.joint))
        for rival in self.rivals:
            items += [Bar.of(html.escape(f"{rival.name}: {n}"), e) for n, e in rival.variables.items()]
        return bars(items, unit="interchange accuracy")

    def page(self) -> Page:
        """The algorithm drawn beside the prompt, its variables with their controls, and the rivals."""
        lead = (
            f"On {self.prompts} held-out prompts the network gives a right answer in {100 * self.plain.value:.0f} %, and "
            f"the algorithm in {100 * self.agrees:.0f} %."
        )
        return result_page(
            f"{self.algorithm} on {self.cases}.", "Cutaway · algorithm", f"{self.headline}.", self._sections(),
            self.provenance, claims=(self.claim,), verdict=self.claim.verdict, lead=lead,
        )  # fmt: skip

    def _sections(self) -> list[Section]:
        caption = (
            "How often the network, with one variable's place taken from another prompt, gives the answer that the "
            "algorithm predicts."
        )
        sections = [
            Section("algorithm", "The algorithm", [self._drawing(), self._steps(), self._tokens()]),
            Section("variables", "Each variable exchanged", [Figure(self.plot(), caption), self._table()]),
        ]
        if self.rivals:
            blocks: list[Any] = [self._rivals()]
            sections.append(
                Section("rivals", "Rivals", [*blocks, *(ClaimTests(r.claim) for r in self.rivals)])
            )
        if self.notes:
            sections.append(Section("notes", "What the reader should know", [Text(self.notes)]))
        return sections

    def _drawing(self) -> Figure:
        """Tokens below, each variable over those where it lives."""
        values = np.full((len(self.variables), len(self.example)), np.nan)
        for row, v in enumerate(self.variables):
            values[row, list(v.tokens)] = v.accuracy.value
        labels = [html.escape(f"{v.name}: {v.words}") for v in self.variables]
        grid = Grid(
            values, labels, [show_token(t) for t, _ in self.example], "", "", unit="interchange accuracy"
        )
        caption = "Variables over the tokens where they live, those computed first below."
        return Figure(heatmap(grid, span=(0.0, 1.0)), caption)

    def _steps(self) -> Table:
        """What is computed last stands on top."""
        lines = [line.strip() for line in self.drawing.splitlines()[1:]]
        places = {v.name: v.words for v in self.variables}
        rows = []
        for line in reversed(lines):
            name, _, rest = line.partition(" from ")
            reads, _, meaning = rest.partition(": ")
            rows.append((name, reads, meaning, places.get(name, "")))
        inputs = [v for v in self.variables if not v.reads]
        rows += [(v.name, "the prompt", v.meaning, v.words) for v in inputs]
        return Table(
            ("variable", "from", "meaning", "place"), tuple(rows), "Steps upwards, the prompt below."
        )

    def _tokens(self) -> Table:
        head = tuple(show_token(token, escape=False) for token, _ in self.example)
        return Table(
            head, (tuple(spans for _, spans in self.example),), "A prompt, and which spans its tokens are in."
        )

    def _table(self) -> Table:
        return table_of(self.to_pandas(), "The same as numbers.")

    def _rivals(self) -> Table:
        rows = []
        for r in self.rivals:
            own, other = ("" if e is None else f"{e.value:.3f}" for e in (r.apart.own, r.apart.other))
            rows.append((r.name, str(r.apart.n), own, other, r.claim.verdict))
        head = (
            "rival",
            "they differ on",
            "the algorithm is right",
            "the rival is right",
            "verdict of the rival",
        )
        return Table(head, tuple(rows), "On prompts and exchanges on which the two predict something else.")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(
            self, "kind", "algorithm", "cases", "drawing", "plain", "follows", "agrees", "variables", "joint", "rivals",
            "claim", "prompts", "complete", "notes",
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return display_result(self, [self.claim.verdict, *self.notes[:3]], self.to_pandas())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        return save_fields(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AlgorithmTest:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        return load_fields(cls, path)


def _row(algorithm: str, variable: str, what: str, place: str, of: Estimate) -> tuple[Any, ...]:
    return (algorithm, variable, what, place, of.value, *of.ends(), of.n)
