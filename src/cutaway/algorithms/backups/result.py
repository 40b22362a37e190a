"""The result: which parts stand in for which, and what is left when part after part is removed."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.algorithms.backups.telling import NOT_SHOWN
from cutaway.claims import Claim
from cutaway.figures import Bar, bars, small_bars
from cutaway.network.parts import in_words
from cutaway.reports import Block, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.trials import percent

_FIGURES = (
    "discovery", "grows", "low", "high", "q", "after", "back", "before", "others", "direct_before", "direct_after", "beside",
)  # fmt: skip
_UNIT = "of what all parts bring"


@dataclass(frozen=True, eq=False)
class Backups:
    """Parts whose effect grows when others are removed. Shares are of what all parts bring.

    Attributes:
        behaviour: its name.
        removed, part, how: of each growth that was tested: the parts that were removed (joined by ` + `), the part whose
            effect grew, and in which way parts were removed.
        discovery: the growth on discovery pairs.
        grows, low, high: on held-out pairs, by how much more is lost without the part once the others are removed.
        q: of that, corrected for all that were tested.
        after: what is lost without the part then.
        back: what is lost without the others once the part is removed.
        before, others: what is lost without the part alone, and without the others alone.
        direct_before, direct_after: what the part does directly, before and after.
        beside: the growth on average when other parts of the kind are removed in place of the first; NaN: not run.
        verdict: what it is found to be: wakes, make up for each other, not shown.
        words: the same in words.
        chain, chain_how, chain_removed, left, left_low, left_high, growing: part after part removed on discovery pairs:
            which chain, in which way, all that is removed by now, what is left, and the parts whose effect grew by that.
        parts: names of all parts tried.
        effects: [ways parts] what removing each alone loses on discovery pairs.
        ways: of removing.
        pairs: discovery and held-out pairs.
        claims: one for each growth that was tested; or one that nothing stands out.
        limits: what was asked for.
        notes: what was left out, and why.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "backups"

    behaviour: str
    removed: tuple[str, ...]
    part: tuple[str, ...]
    how: tuple[str, ...]
    discovery: np.ndarray
    grows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    q: np.ndarray
    after: np.ndarray
    back: np.ndarray
    before: np.ndarray
    others: np.ndarray
    direct_before: np.ndarray
    direct_after: np.ndarray
    beside: np.ndarray
    verdict: tuple[str, ...]
    words: tuple[str, ...]
    chain: tuple[int, ...]
    chain_how: tuple[str, ...]
    chain_removed: tuple[str, ...]
    left: np.ndarray
    left_low: np.ndarray
    left_high: np.ndarray
    growing: tuple[str, ...]
    parts: tuple[str, ...]
    effects: np.ndarray
    ways: tuple[str, ...]
    pairs: tuple[int, int]
    claims: tuple[Claim, ...]
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    def found(self) -> list[tuple[str, str]]:
        """What is shown: (parts removed, part that stands in), the most grown first, each once."""
        order = np.argsort(-self.grows, kind="stable").tolist()
        shown = [(self.removed[i], self.part[i]) for i in order if self.verdict[i] != NOT_SHOWN]
        return list(dict.fromkeys(shown))

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        partial = "" if self.complete else "Partial, stopped before the end: "
        said = [
            words for words, verdict, claim in zip(self.words, self.verdict, self.claims, strict=False)
            if verdict != NOT_SHOWN and claim.supported
        ]  # fmt: skip
        unique = list(dict.fromkeys(said))
        more = f"; and {len(unique) - 3} more" if len(unique) > 3 else ""
        text = "; ".join(unique[:3]) + more
        return partial + (
            text[:1].upper() + text[1:] or "Of no part is it shown that it stands in for others"
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each growth that was tested: figures on held-out pairs, and what it is found to be."""
        names = ("removed", "part", "how", *_FIGURES, "verdict")
        return pd.DataFrame({name: list(getattr(self, name)) for name in names})

    def chains(self) -> pd.DataFrame:
        """One row for each step of removing part after part, on discovery pairs."""
        names = ("chain", "chain_how", "chain_removed", "left", "left_low", "left_high", "growing")
        return pd.DataFrame({name.removeprefix("chain_"): list(getattr(self, name)) for name in names})

    def _bars(self) -> list[Bar]:
        return [
            Bar(
                html.escape(f"{_named(self.part[i])} without {_named(self.removed[i])}"), float(self.grows[i]),
                float(self.low[i]), float(self.high[i]), self.verdict[i] == NOT_SHOWN,
            )
            for i in range(len(self.part))
        ]  # fmt: skip

    def plot(self) -> Any:
        """Bars: by how much the effect of a part grows when others are removed; of nothing tested the effects alone."""
        if self.part:
            return bars(self._bars(), title="Growth of the effect", unit=_UNIT)
        alone = [
            Bar(html.escape(in_words(name)), float(value), float("nan"), float("nan"), True)
            for name, value in zip(self.parts, self.effects[0], strict=True)
        ]
        alone.sort(key=lambda bar: -abs(bar.value))
        return bars(alone[:16], title="Removed alone; nothing grows", unit=_UNIT)

    def page(self) -> Page:
        """Growths, chains of removals, and the claims with their tests."""
        caption = (
            f"By how much more is lost by removing a part once others are removed, on {self.pairs[1]} held-out pairs, in "
            "shares of what all parts bring."
        )
        blocks: list[Block | Section] = [
            Section("growth", "What grows", [Figure(self.plot(), caption), self._table()])
        ]
        lines = [
            (str(i), _named(row["removed"]), row["how"], percent(row["left"]), _named(row["growing"]) or "–")
            for i, row in zip(self.chain, self.chains().to_dict("records"), strict=True)
        ]
        table = Table(
            ("chain", "removed", "by", "left", "grows then"),
            tuple(lines),
            "On discovery pairs.",
            frozenset({3}),
        )
        blocks.append(Section("chains", "Part after part removed", [table]))
        if self.notes:
            blocks.append(Section("notes", "What was left out", [Text(self.notes)]))
        about = f"{len(self.parts)} parts, on “{self.behaviour}”, in {self.provenance.network}."
        return result_page(
            about,
            "Cutaway · what stands in for what",
            f"{self.headline}.",
            blocks,
            self.provenance,
            claims=self.claims,
        )

    def _table(self) -> Table:
        figures = ("grows", "after", "back", "before", "others", "direct_before", "direct_after", "beside")
        lines = [
            (
                _named(row["removed"]), in_words(row["part"]), row["how"],
                *("–" if np.isnan(row[name]) else percent(float(row[name])) for name in figures), row["verdict"],
            )
            for row in self.to_pandas().to_dict("records")
        ]  # fmt: skip
        head = (
            "removed", "part", "by", "grows", "lost then", "others, without it", "it alone", "others alone",
            "direct before", "direct after", "others removed", "found",
        )  # fmt: skip
        return Table(
            head, tuple(lines), "Held-out pairs." if lines else "Nothing stood out.", frozenset(range(3, 11))
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, *(name for name in self.__dataclass_fields__ if name != "provenance"))

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        table = self.to_pandas()[["removed", "part", "how", "grows", "low", "high", "verdict"]]
        shown = table.head(8).to_string(index=False, float_format="%.2f") if len(table) else ""
        return f"Backups({self.headline})\n{shown}"[:1900]

    def _repr_html_(self) -> str:
        lines = [f"{claim.verdict}: {claim.statement}." for claim in self.claims[:4]]
        picture = small_bars(self._bars(), _UNIT) if self.part else ""
        return display_result(self, lines, self.to_pandas().head(8), picture)


def _named(parts: str) -> str:
    """Several parts for people: `head 0.1, MLP 0`."""
    return ", ".join(in_words(name) for name in parts.split(" + ")) if parts else ""
