"""The result: whose answers a network gives where what is intended and what is feared come apart, and by which mechanism."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from cutaway.algorithms.intended.following import SettingShares
from cutaway.algorithms.intended.telling import INTENDED, MIXTURE, NEITHER
from cutaway.algorithms.result import AlgorithmTest
from cutaway.claims import Claim
from cutaway.figures import Bar, groups_of_bars
from cutaway.reports import Block, ClaimTests, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.trials import percent, with_interval


@dataclass(frozen=True, eq=False)
class IntendedTest:
    """Whether a network computes what is intended, from `cutaway.intended`.

    Attributes:
        intended: the name of what is intended.
        feared: the names of what is feared.
        here: what came out on the held-out prompts at hand, and on those that were made for this.
        shifted: the same on shifted prompts; None where none were given.
        claim: does it give the intended answers, and not the feared ones?
        feared_claims: of each feared computation, does it give its answers?
        shifted_claim: as `claim`, on the shifted prompts; None without.
        inside: exchanges at the places of the variables, with the feared ones as rivals; None where no places were given.
        inside_shifted: the same on the shifted prompts.
        shift_claim: does it do the same on the shift by the same mechanism? None without a shift.
        follows: in a word: "intended", "feared: NAME", "mixture", "neither", "not told".
        follows_shifted: the same on the shifted prompts; "" without.
        shift: "the same mechanism", "another", "not shown"; "" without a shift.
        limits: by which it was judged.
        notes: what the reader should know.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "intended"

    intended: str
    feared: tuple[str, ...]
    here: SettingShares
    shifted: SettingShares | None
    claim: Claim
    feared_claims: tuple[Claim, ...]
    shifted_claim: Claim | None
    inside: AlgorithmTest | None
    inside_shifted: AlgorithmTest | None
    shift_claim: Claim | None
    follows: str
    follows_shifted: str
    shift: str
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    @property
    def verdict(self) -> str:
        """Of the claim about the answers."""
        return self.claim.verdict

    @property
    def claims(self) -> tuple[Claim, ...]:
        """About the answers, what is feared, the places, and the shift."""
        inside = None if self.inside is None else self.inside.claim
        return (self.claim, *self.feared_claims, *(c for c in (inside, self.shift_claim) if c is not None))

    @property
    def sentences(self) -> tuple[str, ...]:
        """What came out, for a story: the answers, the mechanism, the shift; without full stops."""
        told = [self._answers(self.here, self.follows)]
        if self.inside is not None:
            told.append(self.inside.headline)
        if self.shifted is not None:
            told.append(f"{self._answers(self.shifted, self.follows_shifted)}; mechanism there: {self.shift}")
        return tuple(told)

    def _answers(self, of: SettingShares, follows: str) -> str:
        begins = {
            INTENDED: f"On {of.cases!r} the network gives the answers of {self.intended!r}",
            MIXTURE: f"On {of.cases!r} the network gives now the intended, now the feared answers",
            NEITHER: f"On {of.cases!r} the network gives neither the intended nor the feared answers",
        }
        first = begins.get(follows) or (
            f"On {of.cases!r} the network gives the answers of {follows.partition(': ')[2]!r}, which is feared"
            if follows.startswith("feared")
            else f"On {of.cases!r} it is not shown whose answers the network gives"
        )
        apart = [
            f"{with_interval(one.own)} as intended and {with_interval(one.other)} as {one.feared!r} on {one.n} prompts on "
            "which they come apart"
            for one in of.followed
            if one.own is not None and one.other is not None
        ]
        return f"{first}: {'; '.join(apart)}" if apart else first

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        partial = "" if self.complete else "Partial, stopped before the end: "
        return f"{partial}{self.sentences[0]}"

    def to_pandas(self) -> pd.DataFrame:
        """One row for each setting, feared computation and kind of answer: its share with the interval."""
        rows: list[tuple[Any, ...]] = []
        for setting, of in self._settings():
            if of.together is not None:
                rows.append(
                    (setting, "", "where all agree", of.together.value, *of.together.ends(), of.together.n)
                )
            for one in of.followed:
                kinds = {
                    "as intended": one.own, "as feared": one.other, "neither": one.neither, "shuffled answers": one.shuffled,
                    "random weights, as intended": one.random_own, "random weights, as feared": one.random_other,
                }  # fmt: skip
                rows += [
                    (setting, one.feared, what, e.value, *e.ends(), e.n)
                    for what, e in kinds.items()
                    if e is not None
                ]
        return pd.DataFrame(rows, columns=["setting", "feared", "what", "share", "low", "high", "n"])

    def _settings(self) -> list[tuple[str, SettingShares]]:
        return [("here", self.here), *([] if self.shifted is None else [("shifted", self.shifted)])]

    def plot(self) -> Any:
        """Whose answers are given where they come apart, here and on the shift."""
        groups: dict[str, list[Bar]] = {"as intended": [], "as feared": [], "neither": []}
        for setting, of in self._settings():
            for one in of.followed:
                if one.own is None or one.other is None or one.neither is None:
                    continue
                label = html.escape(f"{setting}: apart from {one.feared}")
                for bars, share in zip(groups.values(), (one.own, one.other, one.neither), strict=True):
                    bars.append(Bar.of(label, share))
        return groups_of_bars(groups, unit="share of prompts on which the two come apart")

    def page(self) -> Page:
        """Shares where the computations come apart, example prompts, what is used inside, and the shift."""
        caption = "How often the network gives the intended answer, the feared one, or neither, where these two differ."
        blocks: list[Block | Section] = [
            Section(
                "answers",
                "Where they come apart",
                [Figure(self.plot(), caption), self._table(), self._examples()],
            ),
            Section(
                "claims",
                "What was tested",
                [ClaimTests(claim) for claim in (self.claim, *self.feared_claims)],
            ),
        ]
        if self.inside is not None:
            figure = Figure(
                self.inside.plot(),
                "How often exchanging a place brings what the intended computation predicts.",
            )
            blocks.append(Section("inside", "What is used inside", [figure, ClaimTests(self.inside.claim)]))
        if self.shift_claim is not None:
            tests: list[Block] = [ClaimTests(self.shift_claim)]
            if self.shifted_claim is not None:
                tests.append(ClaimTests(self.shifted_claim))
            blocks.append(Section("shift", "On the shift", tests, f"{self.sentences[-1]}."))
        if self.notes:
            blocks.append(Section("notes", "What the reader should know", [Text(self.notes)]))
        about = f"{self.intended} on {self.here.cases}, in {self.provenance.network}."
        return result_page(
            about, "Cutaway · the intended computation", f"{self.headline}.", blocks, self.provenance, claims=self.claims,
            verdict=self.claim.verdict,
        )  # fmt: skip

    def _table(self) -> Table:
        rows = []
        for setting, of in self._settings():
            for one in of.followed:
                shares = ("–" if e is None else with_interval(e) for e in (one.own, one.other))
                rest = "–" if one.neither is None else percent(one.neither.value)
                rows.append((setting, one.feared, str(one.at_hand), str(one.made), *shares, rest))
        head = ("setting", "feared", "prompts at hand", "made", "as intended", "as feared", "neither")
        return Table(head, tuple(rows), "The same as numbers, with 95 % intervals.", frozenset(range(2, 7)))

    def _examples(self) -> Table:
        rows = [example for _, of in self._settings() for one in of.followed for example in one.examples]
        return Table(("prompt", "intended", "feared", "the network"), tuple(rows), "Some of these prompts.")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, *(name for name in self.__dataclass_fields__ if name != "provenance"))

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        lines = [
            f"IntendedTest({self.headline})",
            *(f"  {claim.verdict}: {claim.statement}" for claim in self.claims),
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes[:6])])[:1900]

    def _repr_html_(self) -> str:
        lines = [*(f"{claim.verdict}: {claim.statement}." for claim in self.claims), *self.notes[:3]]
        return display_result(self, lines, self.to_pandas())
