"""What proposing gives: the algorithm in words, its test on held-out prompts, and what else it could have been."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from cutaway.algorithms.result import AlgorithmTest
from cutaway.claims import Claim
from cutaway.figures import Bar, bars
from cutaway.reports import Block, ClaimTests, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, brief, described, load_fields, save_fields
from cutaway.statistics import Estimate
from cutaway.trials import percent

#: What becomes of another algorithm.
RULED_OUT, NOT_TOLD_APART, NOT_DECIDED, NOT_TESTED = (
    "ruled out",
    "not told apart",
    "not decided",
    "not tested",
)
_ROWS = 40


@dataclass(frozen=True)
class ProposedStep:
    """A step of the proposed algorithm.

    Attributes:
        name: of the step.
        variable: what it holds.
        reads: what it is computed from.
        place: where it is said to live; "" where no place was found.
        words: the place for people.
        says: the step in a sentence.
        discovery: how often its exchanges went as predicted on discovery prompts; None without a place.
        held: the same on held-out prompts; None where it was not tested.
    """

    name: str
    variable: str
    reads: tuple[str, ...]
    place: str
    words: str
    says: str
    discovery: Estimate | None
    held: Estimate | None


@dataclass(frozen=True)
class TriedPlace:
    """A variable exchanged at a place on discovery prompts.

    Attributes:
        variable: its name.
        place: where.
        accuracy: how often the network gave the predicted answer.
        changing: the same of exchanges that change it.
        taken: was that enough to propose the variable there?
    """

    variable: str
    place: str
    accuracy: Estimate
    changing: Estimate
    taken: bool


@dataclass(frozen=True)
class ConsideredAlgorithm:
    """Another algorithm that could be meant.

    Attributes:
        name: what it does.
        kind: in what it is another: "by way of", "without", "at once", "instead", "ignores", "turned", "constant".
        drawing: its steps, in lines of text.
        where: the places of its steps.
        outcome: "ruled out", "not told apart", "not decided" or "not tested".
        lowest: the least accuracy of its own predictions; None where it was not tested.
        says: what came out, in a sentence.
        would: prompts that would tell it apart, where these do not.
        claim: does the network run it? None where it was not tested.
    """

    name: str
    kind: str
    drawing: str
    where: dict[str, str]
    outcome: str
    lowest: Estimate | None
    says: str
    would: str
    claim: Claim | None


@dataclass(frozen=True, eq=False)
class ProposedAlgorithm:
    """An algorithm proposed from what parts carry, tested on held-out prompts, from `propose_algorithm`.

    Attributes:
        cases: what the prompts are called.
        algorithm: what is proposed, in a few words; "" where nothing came as far as a test.
        drawing: the algorithm in lines of text; "" where there is none.
        steps: each with its place, in the order of the network.
        where: the place of each step that has one, as `test_algorithm` takes it.
        test: on held-out prompts; None where there is nothing to test.
        considered: other algorithms, and what the evidence says of them.
        tried: every variable at every place on discovery prompts.
        alike: pairs of variables of which no exchange tells one from the other.
        claim: does the network compute the proposed algorithm?
        limits: what was asked for.
        notes: what the reader should know.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "proposed-algorithm"

    cases: str
    algorithm: str
    drawing: str
    steps: tuple[ProposedStep, ...]
    where: dict[str, str]
    test: AlgorithmTest | None
    considered: tuple[ConsideredAlgorithm, ...]
    tried: tuple[TriedPlace, ...]
    alike: tuple[tuple[str, str], ...]
    claim: Claim
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    __repr__ = brief

    def __getitem__(self, name: str) -> ProposedStep:
        """A step. Raises `KeyError`."""
        return {step.name: step for step in self.steps}[name]

    @property
    def verdict(self) -> str:
        """Of the claim."""
        return self.claim.verdict

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claim about the proposed algorithm, then one about each other that was tested."""
        return (self.claim, *(one.claim for one in self.considered if one.claim is not None))

    @property
    def ruled_out(self) -> tuple[str, ...]:
        """Names of the algorithms that the evidence rules out."""
        return tuple(one.name for one in self.considered if one.outcome == RULED_OUT)

    @property
    def not_told_apart(self) -> tuple[str, ...]:
        """Names of the algorithms that the evidence cannot tell from the proposed one."""
        return tuple(one.name for one in self.considered if one.outcome == NOT_TOLD_APART)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The algorithm read aloud, a sentence for each step."""
        return tuple(step.says for step in self.steps)

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        part = "" if self.complete else "Partial, stopped before the end: "
        tested = sum(one.outcome != NOT_TESTED for one in self.considered)
        if self.claim.verdict == "supported":
            beside = f", and {len(self.ruled_out)} of {tested} others are ruled out" if tested else ""
            return (
                f"{part}The network computes {self.algorithm}; that is supported on held-out prompts{beside}"
            )
        count = tested + (self.test is not None)
        none = f"{part}None of the algorithms that were considered is supported"
        if self.test is None:
            return f"{none}: no variable was found at a place on discovery prompts"
        several = f", {count} of them tested" if count > 1 else ""
        return f"{none}{several}: the likeliest, {self.algorithm}, is {self.claim.verdict}"

    def to_pandas(self) -> pd.DataFrame:
        """One row for each variable at each place that was tried on discovery prompts."""
        rows = [
            (
                t.variable,
                t.place,
                t.accuracy.value,
                *t.accuracy.ends(),
                t.changing.value,
                t.accuracy.n,
                t.taken,
            )
            for t in self.tried
        ]
        columns = ["variable", "place", "accuracy", "low", "high", "changing", "n", "taken"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self) -> Any:
        """Interchange accuracy of each step on held-out prompts; where nothing was tested, of the best places tried."""
        if self.test is not None:
            return self.test.plot()
        best = sorted(self.tried, key=lambda one: -one.accuracy.value)[:12]
        items = [Bar.of(html.escape(f"{one.variable} at {one.place}"), one.accuracy) for one in best]
        return bars(items, unit="interchange accuracy on discovery prompts")

    def page(self) -> Page:
        """The algorithm read aloud, its test, the others beside it, and every place that was tried."""
        sections: list[Section] = []
        if self.steps:
            sections.append(Section("steps", "The algorithm", [Text(self.sentences), self._steps()]))
        if self.test is not None or self.tried:
            about = "held-out prompts" if self.test is not None else "discovery prompts"
            caption = f"How often exchanging a variable at its place gives the predicted answer on {about}."
            sections.append(Section("test", "Tested", [Figure(self.plot(), caption)]))
        if self.considered:
            blocks: list[Block] = [self._others()]
            blocks += [ClaimTests(one.claim) for one in self.considered if one.claim is not None]
            sections.append(Section("others", "What else it could be", blocks))
        if self.tried:
            sections.append(Section("tried", "Where variables were looked for", [self._tried()]))
        if self.notes:
            sections.append(Section("notes", "What the reader should know", [Text(self.notes)]))
        return result_page(
            f"What is computed on {self.cases}.", "Cutaway · proposed algorithm", f"{self.headline}.", sections,
            self.provenance, claims=(self.claim,), verdict=self.claim.verdict,
        )  # fmt: skip

    def _steps(self) -> Table:
        rows = [
            (
                s.name,
                ", ".join(s.reads) or "nothing",
                s.words or "no place",
                _figure(s.discovery),
                _figure(s.held),
            )
            for s in self.steps
        ]
        head = ("step", "from", "place", "discovery", "held-out")
        return Table(
            head,
            tuple(rows),
            "Share of exchanges after which the answer is the algorithm's.",
            frozenset({3, 4}),
        )

    def _others(self) -> Table:
        rows = [
            (o.name, o.outcome, _figure(o.lowest), f"{o.says} {o.would}".strip()) for o in self.considered
        ]
        head = ("algorithm", "evidence", "its exchanges", "why")
        return Table(
            head, tuple(rows), "Each on what it predicts itself, and beside the proposed one.", frozenset({2})
        )

    def _tried(self) -> Table:
        best = sorted(self.tried, key=lambda one: -one.accuracy.value)[:_ROWS]
        rows = [
            (t.variable, t.place, _figure(t.accuracy), _figure(t.changing), "yes" if t.taken else "")
            for t in best
        ]
        caption = "On discovery prompts; the places that came closest to what was predicted."
        return Table(("variable", "place", "as predicted", "that change the answer", "taken"), tuple(rows), caption,
                     frozenset({2, 3}))  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = [name for name in self.__dataclass_fields__ if name not in ("provenance", "test")]
        return described(self, *names) | {"test": None if self.test is None else self.test.to_dict()}

    save = save_fields
    load = classmethod(load_fields)

    def _repr_html_(self) -> str:
        lines = [f"{self.claim.verdict}: {self.claim.statement}.", *self.sentences[:6]]
        return display_result(self, lines, self.to_pandas().sort_values("accuracy", ascending=False).head(8))


def _figure(of: Estimate | None) -> str:
    return "–" if of is None else percent(of.value)
