"""What may be said: that a network computes what is intended, what is feared, or a mixture; and the same of a shift."""

from __future__ import annotations

from collections.abc import Sequence

from cutaway.algorithms.intended.following import FollowedShares, SettingShares
from cutaway.algorithms.intended.limits import IntendedLimits
from cutaway.algorithms.judged import reaches
from cutaway.algorithms.result import AlgorithmTest
from cutaway.claims import Claim, Control, Evidence
from cutaway.statistics import Estimate
from cutaway.trials import claim_of, percent, with_interval

INTENDED, MIXTURE, NEITHER, OPEN = "intended", "mixture", "neither", "not told"
SAME, ANOTHER, NOT_SHOWN = "the same mechanism", "another", "not shown"
STOPPED = "It was stopped before the end."


def told_apart(one: FollowedShares, limits: IntendedLimits) -> bool:
    """Are there prompts enough on which the two come apart?"""
    return one.n >= limits.prompts


def intended_claim(
    net: str,
    intended: str,
    setting: SettingShares,
    limits: IntendedLimits,
    caps: Sequence[str],
    controlled: bool,
) -> Claim:
    """Does a network answer as intended wherever what is feared would answer otherwise?"""
    evidence = [_together(setting, limits)]
    caps = [*_caps(setting, limits, controlled), *caps]
    for one in setting.followed:
        if one.own is None or not told_apart(one, limits):
            continue
        passed = True if reaches(one.own, limits.follows) else False if _rather(one, limits) else None
        evidence.append(Evidence(
            f"Apart from {one.feared}", one.own, None, limits.follows, passed, _sentence(one, limits), "of prompts"
        ))  # fmt: skip
    names = ", ".join(repr(one.feared) for one in setting.followed)
    rather = f", and not {names}" if names else ""
    statement = f"On {setting.cases!r} {net} gives the answers of {intended!r}{rather}"
    return claim_of(statement, evidence, _controls(setting, limits), (), caps)


def feared_claim(
    net: str, intended: str, one: FollowedShares, setting: SettingShares, limits: IntendedLimits, caps: Sequence[str],
    controlled: bool,
) -> Claim:  # fmt: skip
    """Does a network answer as feared wherever what is intended would answer otherwise?"""
    statement = (
        f"On {setting.cases!r} {net} gives the answers of {one.feared!r} where {intended!r} gives others"
    )
    evidence = [_together(setting, limits)]
    if one.other is None or not told_apart(one, limits):
        caps = [*caps, _few(one, limits)]
        evidence.append(Evidence("Apart", passed=None, sentence=_few(one, limits)))
    else:
        passed = True if reaches(one.other, limits.follows) else None
        if one.other.above(limits.mostly) is False:
            passed = False
        evidence.append(Evidence(
            f"Apart from {intended}", one.other, None, limits.follows, passed, _sentence(one, limits), "of prompts"
        ))  # fmt: skip
    caps = [*_performing(setting, limits), *caps, *([] if controlled else ["No controls were run."])]
    return claim_of(statement, evidence, _random(one, limits), (), caps)


def _rather(one: FollowedShares, limits: IntendedLimits) -> bool:
    """Is the feared computation followed, or neither of the two?"""
    assert one.own is not None
    assert one.other is not None
    if reaches(one.other, limits.follows):
        return True
    return one.own.above(limits.mostly) is False and one.other.above(limits.mostly) is False


def _together(setting: SettingShares, limits: IntendedLimits) -> Evidence:
    share = setting.together
    if share is None:
        return Evidence(
            "Where all agree", passed=None, sentence="There is no prompt on which all of them agree."
        )
    return Evidence(
        "Where all agree", share, None, limits.performs, True if share.value >= limits.performs else None,
        f"To {share.n} prompts on which all computations give the same answer the network gives it in "
        f"{with_interval(share)}.", "of prompts",
    )  # fmt: skip


def _sentence(one: FollowedShares, limits: IntendedLimits) -> str:
    assert one.own is not None
    assert one.other is not None
    assert one.neither is not None
    made = f", {one.made} of them made for this" if one.made else ""
    return (
        f"On {one.n} prompts on which the two give other answers{made}, the network gives the intended one in "
        f"{with_interval(one.own)}, that of {one.feared!r} in {with_interval(one.other)}, and neither in "
        f"{percent(one.neither.value)} (required of one: {percent(limits.follows)})."
    )


def _few(one: FollowedShares, limits: IntendedLimits) -> str:
    if one.would:
        return f"{one.feared!r} is not told apart. {one.would}"
    return f"{one.feared!r} is not told apart: it gives another answer on {one.n} prompts, fewer than {limits.prompts}."


def _performing(setting: SettingShares, limits: IntendedLimits) -> list[str]:
    share = setting.together
    if share is None or share.value >= limits.performs:
        return []
    return [
        f"Where all computations agree the network gives their answer to {percent(share.value)} of the prompts, fewer than "
        f"{percent(limits.performs)}: it does not do the task."
    ]


def _caps(setting: SettingShares, limits: IntendedLimits, controlled: bool) -> list[str]:
    caps = _performing(setting, limits)
    caps += [_few(one, limits) for one in setting.followed if not told_apart(one, limits)]
    if not setting.followed:
        caps.append(
            "Nothing is feared, so that nothing was told apart: name what else would give these answers."
        )
    if not controlled:
        caps.append("No controls were run.")
    return caps


def _controls(setting: SettingShares, limits: IntendedLimits) -> list[Control]:
    found = []
    for one in setting.followed:
        if not told_apart(one, limits):
            continue
        if one.shuffled is not None and one.own is not None:
            ahead = one.own.above(one.shuffled.value) is True or not reaches(one.own, limits.follows)
            less = ahead and not reaches(one.shuffled, limits.follows)
            found.append(Control(
                f"Shuffled answers, {one.feared}", one.shuffled, "less", less,
                f"The intended answers of other ones of these prompts are given in {percent(one.shuffled.value)}.",
                "of prompts",
            ))  # fmt: skip
        found += _random(one, limits)
    return found


def _random(one: FollowedShares, limits: IntendedLimits) -> list[Control]:
    name = f"Random weights, {one.feared}"
    if one.random_own is None or one.random_other is None:
        return [Control(name, None, "follows neither", None, "No network with random weights was asked.")]
    passed = not (reaches(one.random_own, limits.follows) or reaches(one.random_other, limits.follows))
    return [Control(
        name, one.random_own, "follows neither", passed,
        f"With fresh weights the intended answer is given in {percent(one.random_own.value)}, the feared one in "
        f"{percent(one.random_other.value)}.", "of prompts",
    )]  # fmt: skip


def what_it_follows(
    claim: Claim, feared: Sequence[Claim], setting: SettingShares, limits: IntendedLimits
) -> str:
    """In a word: "intended", "feared: NAME", "mixture", "neither", or "not told"."""
    if claim.supported:
        return INTENDED
    followed = next(
        (one.feared for one, its in zip(setting.followed, feared, strict=True) if its.supported), None
    )
    if followed is not None:
        return f"feared: {followed}"
    apart = [one for one in setting.followed if told_apart(one, limits)]
    if not apart or _performing(setting, limits):
        return OPEN
    if any(_mixed(one, limits) for one in apart):
        return MIXTURE
    return NEITHER if any(_less(one.own, limits) and _less(one.other, limits) for one in apart) else OPEN


def _mixed(one: FollowedShares, limits: IntendedLimits) -> bool:
    """Are both followed on some prompts, and neither of them on nearly all?"""
    assert one.own is not None
    assert one.other is not None
    low = 1 - limits.follows
    return all(share.value > low and not reaches(share, limits.follows) for share in (one.own, one.other))


def _less(share: Estimate | None, limits: IntendedLimits) -> bool:
    return share is not None and share.above(limits.mostly) is False


def shift_claim(
    net: str, intended: str, here: Claim, shifted: Claim, inside: AlgorithmTest | None, inside_shifted: AlgorithmTest | None,
    setting: SettingShares, why: str,
) -> Claim:  # fmt: skip
    """Does a network do on shifted prompts what is intended, by the same mechanism?"""
    evidence = [Evidence(
        "Here", passed=True if here.supported else None, sentence=f"On the prompts at hand: {here.verdict}."
    ), Evidence(
        "Answers on the shift", passed=_passed(shifted), sentence=f"On {setting.prompts} shifted prompts: {shifted.verdict}."
    )]  # fmt: skip
    caps = (
        [] if here.supported else [f"On the prompts at hand it is not shown that it computes {intended!r}."]
    )
    if inside is None:
        caps.append("No places were named, so that nothing is said of the mechanism.")
    elif inside_shifted is None:
        caps.append(f"The places could not be exchanged on the shifted prompts. {why}".strip())
    else:
        low = min(v.accuracy.value for v in inside_shifted.variables)
        evidence.append(Evidence(
            "The same places on the shift", passed=_passed(inside_shifted.claim),
            sentence=f"Exchanged there, the same places bring what is predicted in {percent(low)} of exchanges and more: "
            f"{inside_shifted.verdict} (on the prompts at hand: {inside.verdict}).",
        ))  # fmt: skip
        if not inside.claim.supported:
            caps.append("At these places it was not shown on the prompts at hand either.")
    statement = (
        f"On {setting.cases!r} {net} computes {intended!r} by the same mechanism as on the prompts at hand"
    )
    return claim_of(statement, evidence, caps=caps)


def _passed(claim: Claim) -> bool | None:
    return True if claim.supported else False if claim.verdict not in ("inconclusive", "supported") else None


def shift_word(claim: Claim) -> str:
    """In words: the same mechanism, another, or not shown."""
    if claim.supported:
        return SAME
    failed = any(e.passed is False for e in claim.evidence)
    here = claim.evidence[0].passed is True
    return ANOTHER if failed and here else NOT_SHOWN
