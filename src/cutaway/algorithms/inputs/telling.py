"""What may be said of an attribution: whether it tells on which variables an answer rests, and where it misleads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cutaway.algorithms.inputs.agreeing import FEWEST_VARIABLES
from cutaway.algorithms.inputs.limits import InputLimits
from cutaway.claims import Claim, Control, Evidence
from cutaway.statistics import Estimate
from cutaway.trials import claim_of, percent, with_interval

#: How an attribution may mislead.
TOO_MUCH = "a large share, and its exchange changes nothing"
TOO_LITTLE = "a small share, and its exchange changes much"


@dataclass(frozen=True)
class RankEstimates:
    """How far shares and effects have the same order, as means over prompts.

    Attributes:
        own: Spearman's correlation; None where no prompt has variables enough.
        elsewhere: the same with the variables' tokens moved to other places of the prompt.
        over_elsewhere: the difference of the two.
        random: the same with the attributions of a network with random weights; None where there is none.
        over_random: the difference, on the prompts that it was asked.
    """

    own: Estimate | None
    elsewhere: Estimate | None = None
    over_elsewhere: Estimate | None = None
    random: Estimate | None = None
    over_random: Estimate | None = None


def misleading(
    shares: Mapping[str, Estimate | None], effects: Mapping[str, Estimate | None], limits: InputLimits
) -> dict[str, str]:
    """Variables of which an attribution says the contrary of what their exchange does, told by whole intervals."""
    found: dict[str, str] = {}
    for name, share in shares.items():
        effect = effects.get(name)
        if share is None or effect is None:
            continue
        if share.above(limits.large) and effect.above(limits.nothing) is False:
            found[name] = TOO_MUCH
        elif share.above(limits.small) is False and effect.above(limits.matters):
            found[name] = TOO_LITTLE
    return found


def claim_about_inputs(
    net: str,
    words: str,
    cases: str,
    ranks: RankEstimates,
    misled: Mapping[str, str],
    shares: Mapping[str, Estimate | None],
    effects: Mapping[str, Estimate | None],
    limits: InputLimits,
    caps: Sequence[str],
) -> Claim:
    """Does an attribution tell on which variables the answer rests?"""
    evidence, own = [], ranks.own
    caps = list(caps)
    if own is None:
        caps.append(
            f"No prompt has {FEWEST_VARIABLES} variables that were exchanged: there is no order to compare."
        )
        evidence.append(Evidence("The same order", passed=None, sentence="There is no order to compare."))
    else:
        evidence.append(Evidence(
            "The same order", own, None, limits.agrees, own.above(limits.agrees),
            f"Over {own.n} prompts, the rank correlation between a variable's share of the attribution and what its "
            f"exchange does is {own} (required: more than {limits.agrees:g}).", "rank correlation",
        ))  # fmt: skip
        if own.n < limits.prompts:
            caps.append(f"Only {own.n} prompts were compared, fewer than {limits.prompts}.")
    told = "; ".join(_misled(name, how, shares, effects) for name, how in misled.items())
    evidence.append(Evidence(
        "No variable misleads", None, float(len(misled)), 0.0, not misled,
        told or "No variable has a large share while its exchange changes nothing, or a small one while it changes much.",
        "variables",
    ))  # fmt: skip
    return claim_of(
        f"In {net} {words} tells on which variables of {cases!r} the answer rests",
        evidence,
        _controls(ranks),
        (),
        caps,
    )


def _misled(
    name: str, how: str, shares: Mapping[str, Estimate | None], effects: Mapping[str, Estimate | None]
) -> str:
    share, effect = shares[name], effects[name]
    assert share is not None
    assert effect is not None
    return f"{name}: {how} ({with_interval(share)} of the attribution, {with_interval(effect)} of the largest effect)"


def _controls(ranks: RankEstimates) -> list[Control]:
    found = []
    if ranks.elsewhere is not None and ranks.over_elsewhere is not None:
        found.append(Control(
            "Spans moved elsewhere", ranks.elsewhere, "less", ranks.over_elsewhere.above(0.0) is True,
            f"With each variable's tokens moved to another place of the prompt the correlation is {ranks.elsewhere}; its "
            f"own is ahead by {ranks.over_elsewhere}.", "rank correlation",
        ))  # fmt: skip
    if ranks.random is not None and ranks.over_random is not None:
        found.append(Control(
            "Random weights", ranks.random, "less", ranks.over_random.above(0.0) is True,
            f"The attribution of the same architecture with fresh weights has a correlation of {ranks.random} with what the "
            f"exchanges do in this network; its own is ahead by {ranks.over_random}.", "rank correlation",
        ))  # fmt: skip
    else:
        found.append(
            Control("Random weights", None, "less", None, "No network with random weights was asked.")
        )
    return found


def verdict_sentence(words: str, ranks: RankEstimates, misled: Mapping[str, str]) -> str:
    """The comparison in one sentence, for a story."""
    if ranks.own is None:
        return (
            f"{words[:1].upper()}{words[1:]} could not be held against exchanges: fewer than three variables"
        )
    wrong = f", and misleads about {', '.join(misled)}" if misled else ", and misleads about no variable"
    return (
        f"{words[:1].upper()}{words[1:]} orders the variables as exchanging them does with a rank correlation of "
        f"{ranks.own}{wrong}"
    )


def percent_of(share: Estimate | None) -> str:
    """A share with its interval in percent; a dash where there is none."""
    if share is None:
        return "–"
    return percent(share.value) if share.interval is None else with_interval(share)
