"""The result: what passes from place to place, drawn over the tokens, and what may be said of each variable."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.algorithms.passing.judging import PASSES, in_words
from cutaway.algorithms.passing.routes import ANSWER
from cutaway.algorithms.places import ALL, VariablePlace
from cutaway.claims import Claim
from cutaway.errors import BadInput, did_you_mean
from cutaway.figures.circuit import Dot, EdgeLine, circuit_figure, circuit_svg
from cutaway.reports import Block, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.trials import percent

_UNIT = "of the variable's effect"
_COLUMNS = ("share", "low", "high", "held", "held_low", "held_high", "lost", "lost_low", "lost_high", "q")
_MORE = ("elsewhere", "alike", "frames", "agree", "verdict")


@dataclass(frozen=True, eq=False)
class VariablePassing:
    """How each variable moves from place to place. Shares are of the effect of exchanging the variable itself.

    Attributes:
        cases: the name of the prompts.
        variables: those that were exchanged.
        variable, sender, receiver: of each edge; the receiver `answer` is the logits.
        share, low, high: what passes on discovery pairs: only the receiver is changed, by what the sender's exchange brings
            with the named places between them held; for the answer the sender is exchanged and all later named places held.
        held, held_low, held_high: the same on held-out pairs.
        lost, lost_low, lost_high: what of the sender's effect is lost there when the receiver is held; NaN for the answer.
        q: of `held`, corrected for all edges of all variables.
        elsewhere, alike: what passes on average to the same part at other spans, and to others of its kind; NaN: not run.
        frames, agree: held-out sentence frames, and in how many the mean is above what is asked.
        verdict: what each edge is found to be.
        place_variable, place, alone, alone_low, alone_high: of each place what exchanging it brings on held-out pairs.
        spans: names of spans from left to right.
        sentences: what each edge that passes says, in words; "" for others.
        pairs: of each variable the number of discovery and of held-out pairs.
        claims: one for each variable.
        limits: what was asked for.
        notes: what was left out, and why.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "passing"

    cases: str
    variables: tuple[str, ...]
    variable: tuple[str, ...]
    sender: tuple[str, ...]
    receiver: tuple[str, ...]
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    held: np.ndarray
    held_low: np.ndarray
    held_high: np.ndarray
    lost: np.ndarray
    lost_low: np.ndarray
    lost_high: np.ndarray
    q: np.ndarray
    elsewhere: np.ndarray
    alike: np.ndarray
    frames: np.ndarray
    agree: np.ndarray
    verdict: tuple[str, ...]
    place_variable: tuple[str, ...]
    place: tuple[str, ...]
    alone: np.ndarray
    alone_low: np.ndarray
    alone_high: np.ndarray
    spans: tuple[str, ...]
    sentences: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    claims: tuple[Claim, ...]
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    def edges(self, variable: str | None = None) -> list[tuple[str, str]]:
        """Sender and receiver of the edges along which a variable passes (every variable by default), the most first."""
        chosen = self.variables if variable is None else (self._known(variable),)
        order = np.argsort(-self.held, kind="stable").tolist()
        found = [i for i in order if self.verdict[i] == PASSES and self.variable[i] in chosen]
        return list(dict.fromkeys((self.sender[i], self.receiver[i]) for i in found))

    def reading(self, variable: str | None = None) -> list[str]:
        """What passes, in sentences, the largest share first."""
        chosen = self.variables if variable is None else (self._known(variable),)
        order = np.argsort(-self.held, kind="stable").tolist()
        return [f"{self.sentences[i]}." for i in order if self.sentences[i] and self.variable[i] in chosen]

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
        partial = "" if self.complete else "Partial, stopped before the end: "
        told = []
        for variable, claim in zip(self.variables, self.claims, strict=True):
            ways = [f"{in_words(s)} to {in_words(r)}" for s, r in self.edges(variable)]
            if claim.supported:
                more = f" and {len(ways) - 3} more" if len(ways) > 3 else ""
                told.append(f"{variable} passes from {', '.join(ways[:3])}{more}")
        return partial + ("; ".join(told) or "Of no variable is it shown along which places it passes")

    def to_pandas(self) -> pd.DataFrame:
        """One row for each variable, sender and receiver: shares, intervals, what is lost, controls, frames, verdict."""
        names = ("variable", "sender", "receiver", *_COLUMNS, *_MORE)
        return pd.DataFrame({name: list(getattr(self, name)) for name in names})

    def top(self, n: int = 12) -> pd.DataFrame:
        """The rows with the largest shares on held-out pairs."""
        return (
            self.to_pandas()
            .sort_values("held", ascending=False, kind="stable")
            .head(n)
            .reset_index(drop=True)
        )

    def plot(self, variable: str | None = None) -> Any:
        """The drawing of a variable's way: tokens below, layers upward. Default: the first variable."""
        chosen = self.variables[0] if variable is None else self._known(variable)
        dots, lines, rows = self._layout(chosen)
        figure = circuit_figure(
            dots, lines, [html.escape(span) for span in self.spans], rows, _UNIT, html.escape(f"How {chosen} passes")
        )  # fmt: skip
        tested = [
            [in_words(self.sender[i]), in_words(self.receiver[i]), self.verdict[i], _known(self.held[i])]
            for i, variable in enumerate(self.variable)
            if variable == chosen
        ]
        places = [
            [in_words(p), "", "", None]
            for v, p in zip(self.place_variable, self.place, strict=True)
            if v == chosen
        ]
        figure.update_layout(
            meta={"head": ["from", "to", "found", "held-out"], "rows": tested or places, "more": 0}
        )
        return figure

    def _layout(self, variable: str) -> tuple[list[Dot], list[EdgeLine], list[tuple[float, str]]]:
        """Dots and lines of a variable's drawing: spans across, layers up; a place of all tokens stands at the left."""
        places = [name for v, name in zip(self.place_variable, self.place, strict=True) if v == variable]
        edges = [i for i, v in enumerate(self.variable) if v == variable and self.verdict[i] == PASSES]
        read = [VariablePlace.parse(name) for name in places]
        layers = [
            0 if place.named is None or place.named.layer is None else place.named.layer for place in read
        ]
        top = 2.0 + max(layers, default=0)
        used = {name for i in edges for name in (self.sender[i], self.receiver[i])}
        dots = [
            Dot(html.escape(f"“{span}”"), html.escape(span), float(x), 0.0)
            for x, span in enumerate(self.spans)
        ]
        count: dict[tuple[float, float], int] = {}
        number: dict[str, int] = {}
        for name, place, layer in zip(places, read, layers, strict=True):
            x = -0.4 if place.span == ALL else float(self.spans.index(place.span))
            y = 1.0 + layer + (0.45 if place.named is not None and place.named.kind == "mlp" else 0.0)
            beside = count[x, y] = count.get((x, y), -1) + 1
            number[name] = len(dots)
            words = "all tokens" if place.named is None else place.named.words
            dots.append(Dot(html.escape(words), html.escape(place.words), x + 0.22 * beside, y, name in used))
        number[ANSWER] = len(dots)
        dots.append(Dot("the answer", "the answer", float(len(self.spans) - 1), top))
        lines = [
            EdgeLine(number[self.sender[i]], number[self.receiver[i]], float(self.held[i])) for i in edges
        ]
        rows = [(0.0, "tokens"), *((1.0 + i, f"layer {i}") for i in range(int(top) - 1)), (top, "answer")]
        return dots, lines, rows

    def page(self) -> Page:
        """A drawing, the reading and all edges of every variable, and the claims with their tests."""
        blocks: list[Block | Section] = []
        for number, (variable, claim) in enumerate(zip(self.variables, self.claims, strict=True)):
            found, held = self.pairs[number]
            caption = (
                f"Spans of the prompt across, layers upward; lines are edges along which {variable} passes, as wide as what "
                f"passes on {held} held-out pairs ({found} pairs for discovery)."
            )
            content: list[Block] = [Figure(self.plot(variable), caption)]
            if told := self.reading(variable):
                content.append(Text(tuple(told)))
            content.append(self._table(variable))
            blocks.append(Section(f"variable-{number}", variable, content, f"{claim.statement}."))
        if self.notes:
            blocks.append(Section("notes", "What was left out", [Text(self.notes)]))
        about = f"{len(self.variable)} edges between named places, of “{self.cases}”, in {self.provenance.network}."
        return result_page(
            about,
            "Cutaway · how variables pass",
            f"{self.headline}.",
            blocks,
            self.provenance,
            claims=self.claims,
        )

    def _table(self, variable: str) -> Table:
        frame = self.to_pandas()
        rows = (
            frame.loc[frame["variable"] == variable].sort_values("held", ascending=False).to_dict("records")
        )
        figures = ("share", "held", "lost", "elsewhere", "alike")
        lines = [
            (
                in_words(row["sender"]), in_words(row["receiver"]),
                *("–" if np.isnan(row[name]) else percent(float(row[name])) for name in figures),
                f"{int(row['agree'])} of {int(row['frames'])}", row["verdict"],
            )
            for row in rows
        ]  # fmt: skip
        head = (
            "from",
            "to",
            "discovery",
            "held-out",
            "lost if held",
            "other spans",
            "other parts",
            "frames",
            "found",
        )
        caption = "What passes, as a share of the effect of exchanging the variable itself."
        return Table(head, tuple(lines), caption, frozenset(range(2, 7)))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, *(name for name in self.__dataclass_fields__ if name != "provenance"))

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        table = self.top(8)[["variable", "sender", "receiver", "held", "lost", "verdict"]]
        return f"VariablePassing({self.headline})\n{table.to_string(index=False, float_format='%.2f')}"[:1900]

    def _repr_html_(self) -> str:
        lines = [f"{claim.verdict}: {claim.statement}." for claim in self.claims]
        picture = circuit_svg(*self._layout(self.variables[0])) if self.variables else ""
        return display_result(self, lines, self.top(8), picture)


def _known(value: float) -> float | None:
    return float(value) if value == value else None
