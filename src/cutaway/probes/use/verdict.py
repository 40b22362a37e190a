"""From effects to the claim that a direction is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.claims import Claim, Control, Evidence
from cutaway.probes.map.verdict import ALPHA, ENCODED, UNUSED, USED
from cutaway.probes.use.result import MoveEffect
from cutaway.statistics import Estimate
from cutaway.trials import any_of

#: Unrelated text may get worse by at most this share of its cross-entropy.
_SIDE = 0.1
#: Fewer groups of prompts than these bear no claim.
_GROUPS = 5


@dataclass(frozen=True)
class UseTerms:
    """What bounds a claim of use.

    Attributes:
        least: the smallest share of the classes' difference in output that counts as use.
        encoding: the verdict on encoding.
        groups: how many groups of prompts it was tested on.
        contrast: the metric is the output's own contrast of the classes.
        answers: it is that of answers given for the classes.
    """

    least: float
    encoding: str
    groups: int
    contrast: bool = False
    answers: bool = False

    def caps(self) -> list[str]:
        """Why nothing may be supported or refuted here; empty where it may."""
        reasons = []
        if self.encoding not in (ENCODED, USED, UNUSED):
            reasons += [f"The verdict on encoding is {self.encoding!r}, so what moves may be something else."]
        if self.groups < _GROUPS:
            few = f"{self.groups} groups of test prompts are too few to bear it"
            reasons += [f"{few}; {_GROUPS} are asked for."]
        return reasons

    def against(self, gap: Estimate) -> list[str]:
        """Does the output prefer the other class's answers?"""
        turned = self.answers and gap.interval is not None and gap.interval.high < 0
        return ["The output goes against the answers: the other class's are preferred."] if turned else []


def judge_use(
    label: str, where: str, metric: str, effects: Sequence[MoveEffect], side: Mapping[str, Any] | None,
    cosines: Mapping[str, float], terms: UseTerms,
) -> Claim:  # fmt: skip
    """Supported where flipping along one of the two directions moves the output towards the other class by at least
    `least` of the difference between the classes, beyond its interval, and more than random and sham directions
    of the same norm do (corrected for trying two directions). Refuted where along both it surely moves it by less.

    Where the metric is the output's own contrast, the classes must differ in it on held-out prompts. Inconclusive where the
    label is not shown to be encoded there, or prompts are few.
    """
    flips = [e for e in effects if e.name == "flip"]
    told = [_flip(e, terms, len(flips)) for e in flips]
    passed = [t for t in told if t.passed]
    best = next((e for e, t in zip(flips, told, strict=True) if t.passed), flips[0])
    controls = [] if side is None else [_unrelated(side, best.along)]
    caps = terms.caps()
    apart = "differ" if flips[0].firm else "do not differ beyond the interval"
    lie = ", ".join(f"{name} {value:+.2f}" for name, value in cosines.items())
    notes = [
        *caps,
        *terms.against(flips[0].gap),
        f"On unedited prompts the classes {apart} in the {metric}: {flips[0].gap}.",
        *(_removal(e) for e in effects if e.name in ("project out", "erase")),
        f"Cosine with the direction that controls the metric: {lie}.",
    ]
    return Claim(
        f"The network uses {label!r} as it is encoded at {where}: moving it there moves the output (the {metric}).",
        any_of(told, controls, caps), tuple(passed or told), tuple(controls), tuple(notes),
    )  # fmt: skip


def _unrelated(side: Mapping[str, Any], along: str) -> Control:
    """Does taking the direction out leave unrelated text alone?"""
    change, most = side["changes"][along], float(np.quantile(np.abs(side["random"]), 0.95))
    fine: bool | None = abs(change) <= max(_SIDE * side["base"], most)
    sentence = (
        f"Projecting {along} out of {side['what']} changes their cross-entropy of {side['base']:.3f} nats by "
        f"{change:+.4f} (random directions: up to {most:.4f})."
    )
    if not side["known"]:
        fine = None
        sentence += " The network does no better there than a guess among all tokens, so this tells nothing."
    return Control("Unrelated text", None, "little change", fine, sentence)


def _flip(e: MoveEffect, terms: UseTerms, tried: int) -> Evidence:
    beyond = e.p <= ALPHA / tried and (e.gap.above(0.0) is True or not terms.contrast)
    interval = e.share.interval
    enough = e.share.value >= terms.least and interval is not None and interval.low > 0
    surely_less = interval is not None and interval.high < terms.least
    passed = True if enough and beyond else False if surely_less else None
    unit = "the classes' difference" if e.firm else "two standard deviations of the metric"
    sentence = (
        f"Moving {e.along} to the other class's mean moves the output by {e.share} of {unit} towards that class; of "
        f"{len(e.others)} random and sham directions of the same norm the largest moves it by "
        f"{np.abs(e.others).max():.3f} (p = {e.p:.3f})."
    )
    return Evidence(f"Flip along {e.along}", e.share, None, terms.least, passed, sentence, f"of {unit}")


def _removal(e: MoveEffect) -> str:
    done = f"Projecting {e.along} out" if e.name == "project out" else f"Erasing the label ({e.along})"
    unit = "the classes' difference" if e.firm else "two standard deviations of the metric"
    return f"{done} moves the output by {e.share} of {unit} (p = {e.p:.3f})."
