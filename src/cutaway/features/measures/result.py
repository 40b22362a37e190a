"""What measuring a dictionary gives: every figure beside its controls, with the two claims that rest on them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.claims import Claim
from cutaway.features.measures.assembling import MeasuredDictionary, PredictionEnds
from cutaway.features.measures.stability import SeedStability
from cutaway.figures import Bar, bars
from cutaway.reports import Figure, KeyFigure, Page, Section, display_result, result_page, table_of
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.statistics import Estimate


@dataclass(frozen=True, eq=False)
class DictionaryMeasures:
    """A dictionary measured on texts that none of its controls was made of.

    Attributes:
        dictionary: what it is, in words.
        dictionary_hash: of its numbers.
        reads, writes: the sites.
        measured: the dictionary first, then everything beside it.
        ahead: how much less of the variance it leaves unexplained than the best of the comparable ones beside it.
        ahead_divergence: how much smaller the divergence of predictions is than the smallest of theirs, in nats; None where
            there are no predictions.
        ends: predictions with the value as it is and with nothing of it; None where there are none.
        first: squared error at the first token of each text over the squared distance from the mean of the others that is
            usual for these; None where no text begins with an ordinary token.
        stability: what it shares with dictionaries of other seeds.
        firing: [F] share of the tokens on which each latent fires.
        tokens, texts: on which it was measured.
        fitted: tokens of other texts, of which the controls were made.
        claim: does it reconstruct better than what stands beside it?
        recovering: are its latents the data's, or those of its seed?
        notes: what was left out, and why.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "dictionary-measures"

    dictionary: str
    dictionary_hash: str
    reads: str
    writes: str
    measured: tuple[MeasuredDictionary, ...]
    ahead: Estimate
    ahead_divergence: Estimate | None
    ends: PredictionEnds | None
    first: float | None
    stability: tuple[SeedStability, ...]
    firing: np.ndarray
    tokens: int
    texts: int
    fitted: int
    claim: Claim
    recovering: Claim
    notes: tuple[str, ...]
    provenance: Provenance

    @property
    def itself(self) -> MeasuredDictionary:
        """The dictionary that is measured."""
        return self.measured[0]

    def __getitem__(self, name: str) -> MeasuredDictionary:
        """What is measured, by its name. Raises `KeyError`."""
        return {m.name: m for m in self.measured}[name]

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        return self.claim.statement

    def to_pandas(self) -> pd.DataFrame:
        """One row for the dictionary and for each of what stands beside it."""
        rows = []
        for m in self.measured:
            row: dict[str, Any] = {"name": m.name, "role": m.role, "latents": m.latents, "l0": m.l0}
            for name in ("fvu", "excess", "cosine", "loss", "divergence", "divergence_excess", "recovered_zero",
                         "recovered_mean"):  # fmt: skip
                figure: Estimate | None = getattr(m, name)
                row[name] = float("nan") if figure is None else figure.value
                if name in ("fvu", "excess", "divergence"):
                    ends = (float("nan"),) * 2 if figure is None else figure.ends()
                    row[f"{name}_low"], row[f"{name}_high"] = ends
            rows.append(
                row | {"silent": m.silent, "dead": m.dead, "dense": m.dense, "comparable": m.comparable}
            )
        return pd.DataFrame(rows)

    def plot(self) -> Any:
        """What each leaves unexplained."""
        return bars([Bar.of(m.name, m.fvu) for m in self.measured], unit="fraction of variance unexplained")

    def page(self) -> Page:
        """Reconstruction and predictions beside the controls, stability, and how often latents fire."""
        who = "A dictionary" if self.dictionary == self._where else self.dictionary
        return result_page(
            f"{who} at {self._where}, on {self.tokens:,} tokens of {self.texts} texts.", "Cutaway · features",
            self.headline + ".", self._sections(), self.provenance, verdict=self.claim.verdict,
            claims=[self.claim, self.recovering], lead=f"{self.recovering.statement}.", key_figures=self._keys(),
        )  # fmt: skip

    @property
    def _where(self) -> str:
        return self.reads if self.reads == self.writes else f"{self.reads} to {self.writes}"

    def _keys(self) -> list[KeyFigure]:
        figures = [("of the variance ahead of the best beside it", self.ahead)]
        if self.ahead_divergence is not None:
            figures.append(("nats of divergence ahead of the best", self.ahead_divergence))
        figures += [(f"of the latents shared with {s.sibling}", s.shared) for s in self.stability[:2]]
        return [
            KeyFigure(label, f"{of.value:.3f}", "{:.3f} to {:.3f}".format(*of.ends()))
            for label, of in figures
        ]

    def _sections(self) -> list[Section]:
        shown = self.to_pandas()
        left = _table(shown, ["name", "latents", "l0", "fvu", "excess", "excess_low", "excess_high", "cosine", "silent",
                              "dead", "dense"])  # fmt: skip
        caption = (
            "What each leaves unexplained (squared error over squared distance from the mean), with intervals over texts. "
            "Every control was made of other texts than these."
        )
        first = "" if self.first is None else (
            f" At the first token of each text, which is left out of everything else here, its squared error is "
            f"{self.first:.3g} times the variance of the others."
        )  # fmt: skip
        sections = [Section("left", "What is left unexplained", [
            Figure(self.plot(), caption),
            table_of(left, f"The same as numbers. Dead: fires on none of these tokens; dense: on more than a tenth.{first}"),
        ])]  # fmt: skip
        if self.ends is not None:
            sections.append(self._predictions(shown))
        if self.stability:
            sections.append(self._seeds())
        sections.append(Section("firing", "How often latents fire", [table_of(self.densities(), "Latents by the share of "
            "tokens on which they fire.")]))  # fmt: skip
        if self.notes:
            table = table_of(pd.DataFrame({"what": self.notes}), "Left out.")
            sections.append(Section("notes", "What is not here", [table]))
        return sections

    def _predictions(self, shown: pd.DataFrame) -> Section:
        ends = self.ends
        assert ends is not None
        kept = shown[shown["role"] != "random weights"]
        table = _table(kept, ["name", "loss", "divergence", "divergence_low", "divergence_high", "recovered_zero",
                              "recovered_mean"])  # fmt: skip
        pictured = [Bar.of(m.name, m.divergence) for m in self.measured if m.divergence is not None]
        said = (
            f"The network's own loss is {ends.clean} nats a token; with the value set to zero it is {ends.zero}, with "
            f"its mean in its place {ends.mean}. These two are what the shares of loss kept are shares of. Where the first "
            f"token's value is replaced, too, the divergence is {ends.divergence_first}."
        )
        caption = (
            "How far predictions move where the reconstruction stands in the place of the value, at all tokens but the "
            "first of each text."
        )
        figure = Figure(bars(pictured, unit="KL divergence, nats"), caption)
        return Section("predictions", "What becomes of predictions", [figure, table_of(table, said)])

    def _seeds(self) -> Section:
        rows = [(s.sibling, s.shared.value, *s.shared.ends(), s.chance, s.excess) for s in self.stability]
        frame = pd.DataFrame(rows, columns=["with", "shared", "from", "to", "by chance", "beyond chance"])
        caption = (
            "Share of the latents that fire with a partner of cosine 0.7 or more in the best one-to-one match; by chance: "
            "of directions drawn at random with the same second moments."
        )
        return Section("seeds", "Which latents come again with another seed", [table_of(frame, caption)])

    def densities(self) -> pd.DataFrame:
        """How many latents fire how often: share of tokens, latents, and their share."""
        edges = [0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
        names = ["never", "up to 0.01 %", "to 0.1 %", "to 1 %", "to 10 %", "more than 10 %"]
        at = np.where(self.firing == 0, 0, 1 + np.searchsorted(edges[1:-1], self.firing))
        counts = np.bincount(at, minlength=len(names))
        return pd.DataFrame(
            {"of the tokens": names, "latents": counts, "share": counts / max(1, len(self.firing))}
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(
            self, "kind", "dictionary", "dictionary_hash", "reads", "writes", "measured", "ahead", "ahead_divergence",
            "ends", "first", "stability", "tokens", "texts", "fitted", "claim", "recovering", "notes",
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return display_result(self, [self.dictionary], self.to_pandas())

    save = save_fields

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DictionaryMeasures:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        return load_fields(cls, path)


def _table(frame: Any, columns: list[str]) -> pd.DataFrame:
    """Some columns, in words; what there is not is empty."""
    chosen = pd.DataFrame(frame[columns]).rename(columns=_WORDS).astype(object)
    return chosen.where(chosen.notna(), "")


_WORDS = {
    "l0": "fire on a token", "fvu": "unexplained", "excess": "more than this one",
    "excess_low": "from", "excess_high": "to",
    "cosine": "cosine", "silent": "tokens with none", "divergence": "divergence",
    "divergence_low": "from", "divergence_high": "to",
    "recovered_zero": "loss kept, of zero", "recovered_mean": "loss kept, of the mean",
}  # fmt: skip
