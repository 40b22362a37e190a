"""`Use`: what moving a direction did, and the claim that it is or is not used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.claims import Claim
from cutaway.figures import Comparison, against_random
from cutaway.probes.map.verdict import Finding
from cutaway.reports import Figure, Page, display, result_page
from cutaway.results import Provenance, brief, finite, head, read, save_folder, unpack
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class MoveEffect:
    """One kind of move along one direction.

    Attributes:
        name: flip, project out, erase (LEACE) or add.
        along: the direction, in words.
        strength: of an addition; 1 is the distance of the class means.
        share: mean change of the metric towards the other class, as a share of the classes' difference in the metric (of
            twice its deviation where they do not differ); for add, the change towards class 1.
        others: the same for random and sham directions [r].
        p: share of those that do as much, of random or of sham ones, whichever is larger.
        gap: the classes' difference itself.
        firm: is it beyond its interval?
    """

    name: str
    along: str
    strength: float | None
    share: Estimate
    others: np.ndarray
    p: float
    gap: Estimate
    firm: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"others": self.others.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MoveEffect:
        """The inverse of `to_dict`."""
        shares = {k: Estimate.from_dict(data[k]) for k in ("share", "gap")}
        return cls(**{**data, **shares, "others": np.array(data["others"])})


@dataclass(frozen=True, eq=False)
class Use:
    """The causal tests of one label at one place.

    Attributes:
        label, where: what is probed for, and the place, in words.
        metric: what was measured of the output, in words.
        effects: see `MoveEffect`.
        side: cross-entropy on unrelated text: `base`, `known` (better than a guess among all tokens?), `changes` by
            direction, `random`; None where it was not measured.
        cosines: of each direction with the one that controls the metric (its mean gradient there).
        claim: that the network uses it.
        finding: the verdict on encoding and use together.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "use"

    label: str
    where: str
    metric: str
    effects: tuple[MoveEffect, ...]
    side: Mapping[str, Any] | None
    cosines: Mapping[str, float]
    claim: Claim
    finding: Finding
    provenance: Provenance

    @property
    def verdict(self) -> str:
        """The verdict on encoding and use, in words."""
        return str(self.finding)

    def effect(self, name: str, along: str = "the probe's direction") -> MoveEffect:
        """One effect by name: flip, project out (along a direction) or erase."""
        return next(e for e in self.effects if e.name == name and (name == "erase" or e.along == along))

    def to_pandas(self) -> pd.DataFrame:
        """One row per effect."""
        rows = []
        for e in self.effects:
            low, high = e.share.ends()
            largest = float(np.abs(e.others).max()) if len(e.others) else np.nan
            rows.append(
                {"move": e.name, "along": e.along, "strength": e.strength, "share": e.share.value, "low": low, "high": high,
                 "p": e.p if len(e.others) else np.nan, "largest of others": largest}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Each move beside random and sham directions of the same norm."""
        shown = [e for e in self.effects if e.name != "add"]
        least = next((e.threshold for e in self.claim.evidence if e.threshold is not None), None)
        items = [
            Comparison(
                f"{e.name}: {e.along}", e.share.value, *e.share.ends(e.share.value), e.others.tolist(),
                least if e.name == "flip" else None, True,
            )
            for e in shown
        ]  # fmt: skip
        names = ("random and sham directions of the same norm", "the direction")
        title, unit = f"{self.label} at {self.where}", "share of the classes' difference"
        return against_random(items, title=title, unit=unit, names=names)

    @property
    def headline(self) -> str:
        """Whether the network uses the label there, with the figure of the flip that says so."""
        flips = [e for e in self.effects if e.name == "flip"]
        word = {"supported": "uses", "refuted": "does not use"}.get(self.claim.verdict, "is not shown to use")
        said = f"The network {word} {self.label!r} as it is encoded at {self.where}"
        if not flips:
            return said
        best = max(flips, key=lambda e: abs(e.share.value))
        unit = "the classes' difference" if best.firm else "two standard deviations of the output"
        largest = f" (random directions: at most {np.abs(best.others).max():.2f})" if len(best.others) else ""
        return f"{said}: flipping it along {best.along} moves the output by {best.share} of {unit}{largest}"

    def __str__(self) -> str:
        cosines = ", ".join(f"{name} {value:+.2f}" for name, value in self.cosines.items())
        lines = [f"  metric: {self.metric}", f"  cosine with the direction that controls it: {cosines}"]
        return "\n".join([self.headline, *lines, str(self.claim)])

    __repr__ = brief

    def _repr_html_(self) -> str:
        shown = ([f"metric: {self.metric}"], self.to_pandas(), self.claim._repr_html_())
        return display(self.headline, *shown, self.claim.verdict, self.provenance)

    def page(self) -> Page:
        """The page: every move beside random and sham directions, and the claims."""
        caption = "Each move beside random and sham directions of the same norm (grey)."
        blocks = [Figure(self.plot(), caption)]
        about = f"{self.label} at {self.where}: {self.verdict}. Measured: {self.metric}."
        return result_page(
            about, "Cutaway · use", f"{self.headline}.", blocks, self.provenance,
            claims=self.finding.claims, verdict=self.claim.verdict,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return finite(self._content() | {"provenance": self.provenance.to_dict()})

    def _content(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "provenance"}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        manifest = head("use", self.provenance, **self._content())
        return save_folder(path, manifest, None, {"effects": self.to_pandas()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Use:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        return unpack(cls, read(path, "use")[0].manifest, {})
