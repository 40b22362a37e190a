"""Variables that no part carries by itself: several parts of one span exchanged together, tested on held-out pairs.

Only for a variable of which no single place is found that carries it and nothing else. At every span the strongest parts are
joined one after another, by what each brings alone on discovery pairs; the fewest of them that do about as well as the best
are tested on held-out pairs, for every variable, beside as many other parts of the same span and values shuffled between
pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.carried.exchanging import At, Moved, VariableExchange
from cutaway.algorithms.carried.limits import CarriedLimits
from cutaway.algorithms.carried.telling import ALONE, ONLY, OPEN, SEVERAL, TestedPlace
from cutaway.behaviours.cases import LAST
from cutaway.claims import Claim, Control, Evidence
from cutaway.errors import BadBehaviour
from cutaway.results import Work
from cutaway.statistics import Estimate, sign_flip_p
from cutaway.trials import claim_of, inside, percent, with_interval

if TYPE_CHECKING:
    from cutaway.algorithms.carried.searching import CarriedFindings, CarriedQuestion

#: So many parts are joined at most, and so many sets of others stand beside them.
MOST, OTHERS = 6, 5


@dataclass(frozen=True)
class SpreadVariable:
    """A variable that several parts carry together, of which none does alone.

    Attributes:
        variable: its name.
        span: where.
        parts: names of the parts, the strongest first.
        share: what they bring together on discovery pairs, of the variable's effect.
        largest: the most that one of them brings alone there.
        held: together on held-out pairs.
        others: what they bring of other variables on held-out pairs.
        random: the most that as many other parts of the same span bring together there; None where there are no others.
        claim: do they carry it together?
    """

    variable: str
    span: str
    parts: tuple[str, ...]
    share: Estimate
    largest: float
    held: Estimate
    others: dict[str, Estimate]
    random: Estimate | None
    claim: Claim

    @property
    def words(self) -> str:
        """What is spread over what, in words."""
        where = "the last token" if self.span == LAST else self.span
        return f"{self.variable} is spread over {', '.join(self.parts)} at {where}: together {percent(self.held.value)}"


def spread_over(
    asked: CarriedQuestion, found: CarriedFindings, told: Mapping[str, Sequence[TestedPlace]], work: Work
) -> list[SpreadVariable]:
    """The variables that are spread over several parts. told: what each place was found to be on held-out pairs.

    Places that bring several variables are where all is put together, and not among them. Raises `Stopped`.
    """
    spread = []
    for name, moved in found.moved.items():
        if any(one.verdict in (ALONE, ONLY, OPEN) for one in told[name]):
            continue
        if not moved.scale.told or moved.result.interrupted:
            continue
        meeting = {one.at for one in told[name] if one.verdict == SEVERAL}
        joined = _joined(asked, found, name, meeting, work)
        if joined is not None:
            made = _tested(asked, found, name, *joined, meeting, work)
            if made is not None:
                spread.append(made)
    return spread


def _joined(
    asked: CarriedQuestion, found: CarriedFindings, name: str, meeting: Collection[At], work: Work
) -> tuple[tuple[At, ...], Estimate] | None:
    """The fewest parts of a span that bring more than the limit together on discovery pairs; None where none do."""
    moved, limits = found.moved[name], asked.limits
    sets: list[tuple[At, ...]] = []
    for span in dict.fromkeys(span for _, span in asked.places):
        here = _strongest(moved, asked.places, span, meeting)
        if (
            sum(share for _, share in here) >= limits.carries
        ):  # else they would have to bring more than the sum of each
            sets += [tuple(at for at, _ in here[:size]) for size in range(2, len(here) + 1)]
    if not sets:
        return None
    together = _exchanged(
        asked, found.pairs[name].discovery, sets, work, f"exchanging {name} at several parts"
    )
    if together is None or together.result.interrupted:
        return None
    shares = [together.estimate(i) for i in range(len(sets))]
    enough = [i for i, share in enumerate(shares) if share.above(limits.carries)]
    if not enough:
        return None
    best = max(enough, key=lambda i: shares[i].value)
    # of sets that do as well as the best of the same span the smallest
    same = [
        i for i in enough if sets[i][0][1] == sets[best][0][1] and shares[i].value >= 0.9 * shares[best].value
    ]
    chosen = min(same, key=lambda i: len(sets[i]))
    return sets[chosen], shares[chosen]


def _strongest(
    moved: Moved, places: Sequence[At], span: str, meeting: Collection[At]
) -> list[tuple[At, float]]:
    """The parts of a span that bring most by themselves, with their shares; not those that bring nothing or less."""
    size = np.nan_to_num(moved.shares.mean(1), nan=-np.inf)
    here = [
        i
        for i, at in enumerate(places)
        if at[1] == span and at not in meeting and moved.there[i] and size[i] > 0
    ]
    return [(places[i], float(size[i])) for i in sorted(here, key=lambda i: -size[i])[:MOST]]


def _exchanged(
    asked: CarriedQuestion, pairs: object, sets: Sequence[tuple[At, ...]], work: Work, label: str
) -> Moved | None:
    """Sets of parts exchanged together; None where the two prompts of the pairs are answered alike."""
    try:
        return VariableExchange.of(asked.net, pairs, sets, work).run(work, label)  # type: ignore[arg-type]
    except BadBehaviour:
        return None


def _tested(
    asked: CarriedQuestion, found: CarriedFindings, name: str, parts: tuple[At, ...], share: Estimate,
    meeting: Collection[At], work: Work,
) -> SpreadVariable | None:  # fmt: skip
    """The parts on held-out pairs, for every variable and beside others; None where the variable has no effect there."""
    span = parts[0][1]
    beside = _beside(asked, parts, meeting)
    held: dict[str, Moved] = {}
    for other, one in found.pairs.items():
        sets = [parts, *(beside if other == name else [])]
        moved = _exchanged(asked, one.held, sets, work, f"testing several parts for {other}")
        if moved is not None and not moved.result.interrupted:
            held[other] = moved
    if name not in held:
        return None
    own = held[name].estimate(0)
    randoms = [held[name].estimate(i + 1) for i in range(len(beside))]
    best = max(randoms, key=lambda one: one.value) if randoms else None
    alone = [found.moved[name].estimate(asked.places.index(at)).value for at in parts]
    others = {other: moved.estimate(0) for other, moved in held.items() if other != name}
    shuffled = _shuffled(held[name], asked.seed)
    names = tuple(str(part) for part, _ in parts)
    claim = _claim(asked, name, parts, own, others, best, shuffled, max(alone), found)
    return SpreadVariable(name, span, names, share, max(alone), own, others, best, claim)


def _beside(asked: CarriedQuestion, parts: tuple[At, ...], meeting: Collection[At]) -> list[tuple[At, ...]]:
    """Sets of as many other parts of the same span, drawn at random; none of where all variables are put together."""
    rng = np.random.default_rng([asked.seed, 33])
    rest = [at for at in asked.places if at[1] == parts[0][1] and at not in parts and at not in meeting]
    size = min(len(parts), len(rest))
    drawn: dict[frozenset[At], tuple[At, ...]] = {}
    for _ in range(4 * OTHERS if size else 0):
        some = tuple(rest[int(i)] for i in rng.choice(len(rest), size, replace=False))
        drawn.setdefault(frozenset(some), some)
    return list(drawn.values())[:OTHERS]


def _shuffled(moved: Moved, seed: int) -> float:
    """How likely the held-out share is where the two values are exchanged at random."""
    return float(sign_flip_p(moved.shares[0], moved.signs, seed=seed))


def _claim(
    asked: CarriedQuestion, name: str, parts: tuple[At, ...], own: Estimate, others: Mapping[str, Estimate],
    best: Estimate | None, shuffled: float, largest: float, found: CarriedFindings,
) -> Claim:  # fmt: skip
    limits: CarriedLimits = asked.limits
    listed = ", ".join(part.words for part, _ in parts)
    where = "the last token" if parts[0][1] == LAST else parts[0][1]
    evidence = [
        Evidence(
            "Exchanged together", own, None, limits.carries, own.above(limits.carries),
            f"On {own.n} held-out pairs they bring {with_interval(own)} of what exchanging {name} does together (required: "
            f"more than {percent(limits.carries)}); on discovery pairs none brings more than {percent(largest)} alone.",
            "of the variable's effect",
        )
    ]  # fmt: skip
    for other, share in others.items():
        evidence.append(Evidence(
            f"Nothing of {other}", share, None, limits.nothing,
            inside(share, -limits.nothing, limits.nothing) or None,
            f"Of {other} they bring {with_interval(share)} (required: less than {percent(limits.nothing)} either way).",
            "of another variable's effect",
        ))  # fmt: skip
    controls = [
        Control("Shuffled values", None, "less", shuffled <= limits.alpha,
                f"With the two values of {name} exchanged at random as much is brought with p = {shuffled:.2g}."),
        *found.controls[name],
    ]  # fmt: skip
    if best is not None:
        controls.append(Control(
            "As many other parts", best, "less", own.above(best.value) is True,
            f"The best of {OTHERS} sets of as many other parts of the same span brings {percent(best.value)}.",
            "of the variable's effect",
        ))  # fmt: skip
    caps = [] if asked.controls else ["No controls were run."]
    if best is None:
        caps.append("There are no other parts at this span to hold beside them.")
    return claim_of(
        f"In {asked.net.name} {name} is carried by {listed} at {where} together",
        evidence,
        controls,
        caps=caps,
    )
