"""What may be said of a part's role: the sentence, the three witnesses, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.algorithms.roles.candidates import (
    ANSWER,
    BACKUP,
    DUPLICATE,
    ENRICHMENT,
    INDUCTION,
    LOOKUP,
    MOVER,
    PREVIOUS,
    READER,
    SUPPRESSION,
    RoleCandidate,
)
from cutaway.algorithms.roles.half import RoleHalf
from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.witnesses import WeightsWitness
from cutaway.claims import Claim, Control, Evidence
from cutaway.statistics import Estimate, ratio_of
from cutaway.trials import claim_of, percent, with_interval

#: What a part of each role does, behind its name; {place} and {variable} are filled in.
SENTENCES = {
    PREVIOUS: "looks from each token at the one before it, so that what stands there is known one token later",
    DUPLICATE: "looks from a token back at earlier places of the same token: it finds what was there before",
    INDUCTION: "looks at what stands behind earlier places of the present token: it goes on as the text went on before",
    MOVER: "looks from the last token at {place} and copies it into the answer",
    SUPPRESSION: "looks from the last token {place} and takes out of the answer what was about to be said",
    READER: "looks from the last token at {place} and reads {variable} there",
    ENRICHMENT: "adds at {place} what follows from {variable}, which later parts use",
    LOOKUP: "looks up the answer: it turns what has come to the last token into what is said",
    ANSWER: "writes the answer straight into the output",
    BACKUP: "stands in for {place} at the last token: it does more where that is taken away",
}
#: So many neurons are told one by one.
_FEW = 6
#: By which intervention each role is tested.
_DONE = {
    PREVIOUS: "With its attention to {where} knocked out",
    DUPLICATE: "With its attention to {where} knocked out",
    INDUCTION: "With its attention to {where} knocked out",
    MOVER: "With what it brings from {where} taken from the other prompt",
    SUPPRESSION: "With its attention to {where} knocked out, what was about to be said comes back:",
    READER: "With what it brings from {where} taken from the other prompt",
    ENRICHMENT: "With its value at {where} taken from the other prompt",
    LOOKUP: "With its named neurons as they are in the other prompt",
    ANSWER: "With what it writes straight to the output as it is in the other prompt",
    BACKUP: "While {where} is ablated, taking it away costs more than while that is there:",
}


@dataclass(frozen=True)
class RoleEffect:
    """The third witness: what an intervention on held-out pairs takes away.

    Attributes:
        own: as share of the variable's effect.
        beside: the same intervention on other parts, the mean of them; None where there are none.
        ahead: the first less the second, paired.
        others: the other parts, in words.
        named: of what the whole part brings, the share that its named neurons do; None where none are named.
    """

    own: Estimate
    beside: Estimate | None
    ahead: Estimate | None
    others: str
    named: float | None = None


@dataclass(frozen=True)
class RoleTest:
    """One role of one part, tested.

    Attributes:
        part: its name.
        role: the role.
        variable: whose pairs it was tested on.
        place: the span, or other part, that it is about; "" for none.
        sentence: what it says of the part, in plain words.
        score, chance: the first witness and its control, on discovery pairs.
        weights: the second witness: a share, of which half is chance.
        effect: the third witness: what the intervention takes away of the variable's effect on held-out pairs.
        control: the same on other parts; None where there are none.
        neurons: those that are named for it.
        claim: with the verdict.
    """

    part: str
    role: str
    variable: str
    place: str
    sentence: str
    score: Estimate
    chance: Estimate
    weights: Estimate
    effect: Estimate
    control: Estimate | None
    neurons: tuple[str, ...]
    claim: Claim


def effect_of(
    half: RoleHalf, own: np.ndarray, beside: Sequence[np.ndarray], others: str, named: float | None = None,
    rows: np.ndarray | None = None,
) -> RoleEffect:  # fmt: skip
    """The effect of an intervention, by pair as share of the mean effect [n], beside that on other parts.

    rows: the pairs that count [k]; None for all.
    """
    which = np.arange(half.n) if rows is None or len(rows) < 2 else rows

    def share(values: np.ndarray) -> Estimate:
        scale = half.scale
        clusters = scale.clusters if rows is None else None
        return ratio_of((values * scale.gap)[which], (scale.whole - scale.empty)[which], clusters)

    if not len(beside):
        return RoleEffect(share(own), None, None, others, named)
    mean = np.mean(beside, 0)
    return RoleEffect(share(own), share(mean), share(own - mean), others, named)


def sentence_of(one: RoleCandidate, place: str, neurons: Sequence[str] = ()) -> str:
    """What a role says of a part.

    place: what it is about, in words.
    """
    said = SENTENCES[one.role].format(place=place, variable=one.half.variable)
    words = one.part.words
    told = f"{words[:1].upper()}{words[1:]} {said}"
    if neurons:
        few = ", ".join(neurons[:_FEW])
        many = f"{len(neurons)} neurons, {few} before all" if len(neurons) > _FEW else f"neurons {few}"
        told += f", by neuron {few}" if len(neurons) == 1 else f", by {many}"
    return told


def judged(
    one: RoleCandidate, sentence: str, weights: WeightsWitness, effect: RoleEffect, controls: Sequence[Control],
    limits: RoleLimits, caps: Sequence[str],
) -> Claim:  # fmt: skip
    """The claim: three witnesses, the same intervention elsewhere, and the network with random weights."""
    scored = Evidence(
        "By score", one.score, None, None, True,
        f"{percent(one.score.value)} {one.unit}, beside {percent(one.chance.value)} by chance.", "score",
    )  # fmt: skip
    by_weights = Evidence("By weights", weights.figure, None, None, weights.passed, weights.sentence, "share")
    notes = []
    acted = _acted(one, effect, limits)
    if weights.passed is None:
        notes.append("The weights do not show it.")
    if acted.passed is False:
        notes.append("By score it looks so, and the intervention says that nothing comes of it.")
    return claim_of(sentence, [scored, by_weights, acted], [*_beside(effect), *controls], notes, caps)


def _acted(one: RoleCandidate, effect: RoleEffect, limits: RoleLimits) -> Evidence:
    passed: bool | None = effect.own.above(limits.acts)
    interval = effect.own.interval
    if passed is False and not (interval is not None and interval.high < limits.acts):
        passed = None
    done = _DONE[one.role].format(where=one.words)
    lost = f"{with_interval(effect.own)} of what {one.half.variable} does is lost"
    sentence = f"{done} {lost} on {effect.own.n} held-out pairs"
    if effect.named is not None:
        least, most = limits.named, 2 - limits.named
        asked = f"(required: {percent(least)} to {percent(most)})"
        sentence += f", {percent(effect.named)} of what the whole part brings {asked}"
        if passed and not least <= effect.named <= most:
            passed = None
    sentence += f" (required: more than {percent(limits.acts)})."
    return Evidence(
        "By intervention", effect.own, None, limits.acts, passed, sentence, "of the variable's effect"
    )


def _beside(effect: RoleEffect) -> list[Control]:
    if effect.beside is None or effect.ahead is None:
        return [Control("Other parts", None, "less is lost", None, "There is no other part like it.")]
    passed = effect.ahead.above(0.0) is True
    sentence = f"The same on {effect.others} takes away {with_interval(effect.beside)}, which must be less."
    return [
        Control("Other parts", effect.beside, "less is lost", passed, sentence, "of the variable's effect")
    ]
