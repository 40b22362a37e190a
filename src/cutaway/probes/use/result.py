"""`Use`: what moving a direction did, and the claim that it is or is not used."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cutaway.claims import Claim, Control, Evidence, Verdict
from cutaway.errors import BadFormat
from cutaway.probes.map.verdict import ALPHA, ENCODED, UNUSED, USED, Finding, with_use
from cutaway.results import Provenance, load_folder, save_folder
from cutaway.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FORMAT = "cutaway-use-1"
#: Unrelated text may get worse by at most this share of its cross-entropy.
_SIDE = 0.1
#: Fewer groups of prompts than these bear no claim.
_GROUPS = 5


@dataclass(frozen=True, eq=False)
class Effect:
    """One kind of move along one direction.

    name: flip, project out, erase (LEACE) or add (with its strength). share: mean change of the metric towards the other
    class, as a share of the classes' difference in the metric (of twice its deviation where they do not differ); for add,
    the change towards class 1. others: [r] the same for random and sham directions. p: share of those that do as much, of
    random or of sham ones, whichever is larger. gap: the classes' difference itself; firm: is it beyond its interval?
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
        return {
            "name": self.name, "along": self.along, "strength": self.strength, "share": self.share.to_dict(),
            "others": self.others.tolist(), "p": self.p, "gap": self.gap.to_dict(), "firm": self.firm,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Effect:
        """The inverse of `to_dict`."""
        shares = {k: Estimate.from_dict(data[k]) for k in ("share", "gap")}
        return cls(**{**data, **shares, "others": np.array(data["others"])})


@dataclass(frozen=True, eq=False)
class Use:
    """The causal tests of one label at one place.

    effects: see `Effect`. side: cross-entropy on unrelated text: `base`, `known` (better than a guess among all
    tokens?), `changes` by direction, `random`; None where it
    was not measured. cosines: of each direction with the one that controls the metric (its mean gradient there).
    claim: that the network uses it. finding: the verdict on encoding and use together.
    """

    label: str
    where: str
    metric: str
    effects: tuple[Effect, ...]
    side: Mapping[str, Any] | None
    cosines: Mapping[str, float]
    claim: Claim
    finding: Finding
    provenance: Provenance

    @classmethod
    def of(
        cls, label: str, where: str, metric: str, effects: Sequence[Effect], side: Mapping[str, Any] | None,
        cosines: Mapping[str, float], claim: Claim, finding: Finding, provenance: Provenance,
    ) -> Use:  # fmt: skip
        """With the finding brought up to date."""
        return cls(
            label,
            where,
            metric,
            tuple(effects),
            side,
            dict(cosines),
            claim,
            with_use(finding, claim),
            provenance,
        )

    @property
    def verdict(self) -> str:
        """The verdict on encoding and use, in words."""
        return str(self.finding)

    def effect(self, name: str, along: str = "the probe's direction") -> Effect:
        """One effect by name: flip, project out (along a direction) or erase."""
        return next(e for e in self.effects if e.name == name and (name == "erase" or e.along == along))

    def to_pandas(self) -> pd.DataFrame:
        """One row per effect."""
        rows = []
        for e in self.effects:
            low, high = (
                (e.share.interval.low, e.share.interval.high) if e.share.interval else (np.nan, np.nan)
            )
            largest = float(np.abs(e.others).max()) if len(e.others) else np.nan
            rows.append(
                {"move": e.name, "along": e.along, "strength": e.strength, "share": e.share.value, "low": low, "high": high,
                 "p": e.p if len(e.others) else np.nan, "largest of others": largest}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Each move beside random and sham directions of the same norm."""
        from cutaway.figures import Comparison, against_random

        shown = [e for e in self.effects if e.name != "add"]
        least = next((e.threshold for e in self.claim.evidence if e.threshold is not None), None)
        items = [
            Comparison(
                f"{e.name}: {e.along}", e.share.value, e.share.interval.low if e.share.interval else e.share.value,
                e.share.interval.high if e.share.interval else e.share.value, e.others.tolist(),
                least if e.name == "flip" else None, True,
            )
            for e in shown
        ]  # fmt: skip
        return against_random(
            items,
            title=f"{self.label} at {self.where}",
            unit="share of the classes' difference",
            names=("random and sham directions of the same norm", "the direction"),
        )

    def __str__(self) -> str:
        cosines = ", ".join(f"{name} {value:+.2f}" for name, value in self.cosines.items())
        lines = [f"{self.label} at {self.where}: {self.verdict}", f"  metric: {self.metric}"]
        return "\n".join(
            [*lines, f"  cosine with the direction that controls it: {cosines}", str(self.claim)]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (
            f"<p>{html.escape(self.label)} at {html.escape(self.where)}: <b>{self.verdict}</b></p>"
            + self.claim._repr_html_()
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "label": self.label, "where": self.where, "metric": self.metric, "effects": [e.to_dict() for e in self.effects],
            "side": self.side, "cosines": dict(self.cosines), "claim": self.claim.to_dict(),
            "finding": self.finding.to_dict(), "provenance": self.provenance.to_dict(),
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, whole or not at all. Raises `SaveFailed`."""
        return save_folder(path, {"format": _FORMAT, **self.to_dict()}, None, {"effects": self.to_pandas()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Use:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        data = load_folder(path).manifest
        if data.get("format") != _FORMAT:
            raise BadFormat(f"{path} does not hold causal tests.", "Give a folder that Use.save wrote.")
        try:
            return cls(
                data["label"], data["where"], data["metric"], tuple(Effect.from_dict(e) for e in data["effects"]),
                data["side"], data["cosines"], Claim.from_dict(data["claim"]), Finding.from_dict(data["finding"]),
                Provenance.from_dict(data["provenance"]),
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise BadFormat(f"The tests in {path} cannot be read: {error!r}.", "Make them again.") from error


@dataclass(frozen=True)
class Limits:
    """What bounds a claim of use. encoding: the verdict on encoding. groups: how many groups of prompts it was tested on.
    own: the metric is the output's own contrast of the classes. answers: it is that of answers given for the classes."""

    encoding: str
    groups: int
    own: bool = False
    answers: bool = False

    def notes(self, gap: Estimate) -> list[str]:
        """Why the claim may not be supported, and what else should be known."""
        out = []
        if self.encoding not in (ENCODED, USED, UNUSED):
            out.append(f"The verdict on encoding is {self.encoding!r}, so what moves may be something else.")
        if self.groups < _GROUPS:
            out.append(
                f"{self.groups} groups of test prompts are too few to bear it; {_GROUPS} are asked for."
            )
        self_against = self.answers and gap.interval is not None and gap.interval.high < 0
        return out + (
            ["The output goes against the answers: the other class's are preferred."] if self_against else []
        )

    @property
    def enough(self) -> bool:
        """May the claim be supported or refuted at all?"""
        return self.encoding in (ENCODED, USED, UNUSED) and self.groups >= _GROUPS


def judge_use(
    label: str, where: str, metric: str, effects: Sequence[Effect], side: Mapping[str, Any] | None,
    cosines: Mapping[str, float], least: float, limits: Limits,
) -> Claim:  # fmt: skip
    """Supported where flipping along one of the two directions moves the output towards the other class by at least
    `least` of the difference between the classes, beyond its interval, and more than random and sham directions
    of the same norm do (corrected for trying two directions). Refuted where along both it surely moves it by less.
    Where the metric is the output's own contrast, the classes must differ in it on held-out prompts. Inconclusive where the
    label is not shown to be encoded there, or prompts are few.
    """
    flips = [e for e in effects if e.name == "flip"]
    told = [_flip(e, least, len(flips), limits.own) for e in flips]
    good = [t for t in told if t.passed]
    evidence = good or told
    if not limits.enough:
        verdict: Verdict = "inconclusive"
    elif good:
        verdict = "supported"
    elif all(t.passed is False for t in told):
        verdict = "refuted"
    else:
        verdict = "inconclusive"
    controls = []
    if side is not None:
        along = next(
            (e.along for e in flips if good and e.name == "flip" and told[flips.index(e)].passed),
            flips[0].along,
        )
        change, most = side["changes"][along], float(np.quantile(np.abs(side["random"]), 0.95))
        fine: bool | None = abs(change) <= max(_SIDE * side["base"], most)
        sentence = (
            f"Projecting {along} out of {side['what']} changes their cross-entropy of {side['base']:.3f} nats by "
            f"{change:+.4f} (random directions: up to {most:.4f})."
        )
        if not side["known"]:
            fine = None
            sentence += (
                " The network does no better there than a guess among all tokens, so this tells nothing."
            )
        controls.append(Control("Unrelated text", None, "little change", fine, sentence))
        if verdict == "supported" and fine is False:
            verdict = "inconclusive"
    first = flips[0]
    apart = "differ" if first.firm else "do not differ beyond the interval"
    notes = [
        *limits.notes(first.gap),
        f"On unedited prompts the classes {apart} in the {metric}: {first.gap}.",
        *(_removal(e) for e in effects if e.name in ("project out", "erase")),
        f"Cosine with the direction that controls the metric: "
        f"{', '.join(f'{name} {value:+.2f}' for name, value in cosines.items())}.",
    ]
    return Claim(
        f"The network uses {label!r} as it is encoded at {where}: moving it there moves the output (the {metric}).",
        verdict, tuple(evidence), tuple(controls), tuple(notes),
    )  # fmt: skip


def _flip(e: Effect, least: float, tried: int, own: bool) -> Evidence:
    beyond = e.p <= ALPHA / tried and (e.gap.above(0.0) is True or not own)
    interval = e.share.interval
    enough = e.share.value >= least and interval is not None and interval.low > 0
    surely_less = interval is not None and interval.high < least
    passed = True if enough and beyond else False if surely_less else None
    unit = "the classes' difference" if e.firm else "two standard deviations of the metric"
    sentence = (
        f"Moving {e.along} to the other class's mean moves the output by {e.share} of {unit} towards that class; of "
        f"{len(e.others)} random and sham directions of the same norm the largest moves it by "
        f"{np.abs(e.others).max():.3f} (p = {e.p:.3f})."
    )
    return Evidence(f"Flip along {e.along}", e.share, None, least, passed, sentence)


def _removal(e: Effect) -> str:
    done = f"Projecting {e.along} out" if e.name == "project out" else f"Erasing the label ({e.along})"
    return f"{done} moves it by {e.share} (p = {e.p:.3f})."
