"""The result: which roles each part was found to have, with the three witnesses of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.algorithms.roles.candidates import ANSWER, LOOKUP, MOVER, READER, ROLES, SUPPRESSION
from cutaway.algorithms.roles.telling import RoleTest
from cutaway.claims import Claim
from cutaway.errors import BadInput, did_you_mean
from cutaway.figures import Grid, grid_picture, heatmap
from cutaway.network.parts import Part, in_words
from cutaway.reports import Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.trials import percent

#: Roles that are part of another one.
_IMPLIED_BY = {ANSWER: (MOVER, LOOKUP, SUPPRESSION), READER: (MOVER,)}


@dataclass(frozen=True, eq=False)
class PartRoles:
    """What kind of work each part does in answering.

    Attributes:
        cases: the name of the prompts.
        variables: whose pairs were used.
        parts: names of the parts that were asked.
        tests: every role that a part may have by its score, with its other witnesses and the verdict, part by part.
        pairs: of each variable the number of discovery and of held-out pairs.
        limits: what was asked for.
        notes: what was left out, and why.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "roles"

    cases: str
    variables: tuple[str, ...]
    parts: tuple[str, ...]
    tests: tuple[RoleTest, ...]
    pairs: tuple[tuple[int, int], ...]
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    @property
    def claims(self) -> tuple[Claim, ...]:
        """One for each role that was tested."""
        return tuple(test.claim for test in self.tests)

    def of(self, part: Part | str, *, supported: bool = True) -> tuple[str, ...]:
        """The roles of a part, those that are supported; or all that were tested. `BadInput` for one that was not asked."""
        name = str(Part.of(part))
        if name not in self.parts:
            raise BadInput(f"{name} was not asked.", did_you_mean(name, self.parts))
        found = [t.role for t in self.tests if t.part == name and (t.claim.supported or not supported)]
        return tuple(dict.fromkeys(found))

    def sentences(self, part: Part | str | None = None, *, every: bool = False) -> tuple[str, ...]:
        """What is supported, in plain words: of one part, or of all.

        every: also what another sentence about the part says already: who moves or looks up the answer writes it, and who
        moves a word reads it.
        """
        if part is not None:
            self.of(part)
        wanted = self.parts if part is None else (str(Part.of(part)),)
        said = [t for t in self.tests if t.part in wanted and t.claim.supported]
        has = {(t.part, t.role) for t in said}
        return tuple(
            f"{t.sentence}." for t in said
            if every or not any((t.part, role) in has for role in _IMPLIED_BY.get(t.role, ()))
        )  # fmt: skip

    def neurons(self, part: Part | str) -> tuple[str, ...]:
        """The neurons that are named for an MLP; none where no role of it named any."""
        self.of(part)
        named = [name for t in self.tests if t.part == str(Part.of(part)) for name in t.neurons]
        return tuple(dict.fromkeys(named))

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        partial = "" if self.complete else "Partial, stopped before the end: "
        told = {name: self.of(name) for name in self.parts}
        some = [f"{in_words(name)} ({', '.join(found)})" for name, found in told.items() if found]
        if not some:
            return f"{partial}Of none of {len(self.parts)} parts is a role shown"
        more = f" and {len(some) - 6} more" if len(some) > 6 else ""
        return (
            f"{partial}Of {len(some)} of {len(self.parts)} parts a role is shown: {', '.join(some[:6])}{more}"
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each role that was tested."""
        rows = [
            {
                "part": t.part, "role": t.role, "variable": t.variable, "place": t.place, "verdict": t.claim.verdict,
                "score": t.score.value, "chance": t.chance.value, "weights": t.weights.value, "effect": t.effect.value,
                "effect_low": t.effect.ends()[0], "effect_high": t.effect.ends()[1],
                "control": float("nan") if t.control is None else t.control.value, "neurons": list(t.neurons),
                "sentence": t.sentence,
            }
            for t in self.tests
        ]  # fmt: skip
        columns = ["part", "role", "variable", "place", "verdict", "score", "chance", "weights", "effect", "effect_low",
                   "effect_high", "control", "neurons", "sentence"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def grid(self) -> Grid:
        """Part by role: what the intervention takes away, of roles that were tested."""
        table = np.full((len(self.parts), len(ROLES)), np.nan)
        notes = np.full(table.shape, "", dtype=object)
        for test in self.tests:
            at = self.parts.index(test.part), ROLES.index(test.role)
            if np.isnan(table[at]) or test.claim.supported:
                table[at], notes[at] = test.effect.value, test.claim.verdict
        words = [in_words(name) for name in self.parts]
        return Grid(
            table, words, list(ROLES), "part", "role", notes=notes, unit="share of the variable's effect"
        )

    def plot(self) -> Any:
        """A heat map, part by role: what the intervention on it takes away; empty where the score does not show it."""
        return heatmap(self.grid(), title="What parts do")

    def page(self) -> Page:
        """The map, every role with its witnesses, and the claims."""
        head = (
            "part",
            "role",
            "about",
            "by score",
            "by chance",
            "by weights",
            "by intervention",
            "elsewhere",
            "verdict",
        )
        rows = [
            (
                in_words(t.part), t.role, t.place, percent(t.score.value), percent(t.chance.value), percent(t.weights.value),
                percent(t.effect.value), "–" if t.control is None else percent(t.control.value), t.claim.verdict,
            )
            for t in self.tests
        ]  # fmt: skip
        caption = "Each role that a part may have by its score; empty where the score does not show it."
        table = Table(head, tuple(rows), "Three witnesses of each role.", frozenset(range(3, 8)))
        blocks: list[Section] = [Section("roles", "What parts do", [Figure(self.plot(), caption), table])]
        if said := self.sentences():
            blocks.insert(0, Section("story", "In words", [Text(said)]))
        if self.notes:
            blocks.append(Section("notes", "What was left out", [Text(self.notes)]))
        about = f"{len(self.parts)} parts of {self.provenance.network} on “{self.cases}”."
        return result_page(
            about, "Cutaway · roles", f"{self.headline}.", blocks, self.provenance, claims=self.claims
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, *[name for name in self.__dataclass_fields__ if name != "provenance"])

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        table = self.to_pandas()[["part", "role", "place", "verdict", "score", "weights", "effect"]].head(16)
        return f"PartRoles({self.headline})\n{table.to_string(index=False, float_format='%.2f')}"[:1900]

    def _repr_html_(self) -> str:
        table = self.to_pandas()[["part", "role", "place", "verdict", "score", "weights", "effect"]].head(12)
        return display_result(self, list(self.sentences()[:8]), table, grid_picture(self.grid()))
