"""What a growth is found to be on held-out pairs, and what may be claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cutaway.algorithms.backups.growing import Removed
from cutaway.algorithms.backups.limits import BackupLimits
from cutaway.behaviours import Performance
from cutaway.claims import Claim, Control, Evidence
from cutaway.network.listing import listing
from cutaway.network.parts import Part
from cutaway.statistics import Estimate
from cutaway.trials import claim_of, percent, performs, with_interval

#: What a part is found to be of others: it begins to act where they are gone; each makes up for the other; not shown.
WAKES, EITHER, NOT_SHOWN = "wakes", "make up for each other", "not shown"


@dataclass(frozen=True, eq=False)
class TestedBackup:
    """A part whose effect grew when others were removed, tested on held-out pairs.

    Attributes:
        removed: the others.
        part: the part.
        how: in which way parts are removed.
        discovery: by how much more is lost without it than before, on discovery pairs.
        held: what was measured on held-out pairs.
        q: of the growth there, corrected for all that were tested.
        direct_before, direct_after: what it does directly, before and after the others are removed.
        wakes: by how much its direct effect grows.
        beside: the growth, on average, when other parts of the same kind are removed in place of the first; None without.
        more: by how much less that is.
        verdict: what it is found to be.
    """

    removed: tuple[Part, ...]
    part: Part
    how: str
    discovery: Estimate
    held: Removed
    q: float
    direct_before: Estimate
    direct_after: Estimate
    wakes: Estimate
    beside: float | None
    more: Estimate | None
    verdict: str

    @property
    def words(self) -> str:
        """What it is, in words."""
        others = listing(self.removed)
        if self.verdict == WAKES:
            return f"{self.part.words} backs up {others}"
        return f"{others} and {self.part.words} make up for each other"


def verdict_on(held: Removed, wakes: Estimate, q: float, limits: BackupLimits) -> str:
    """What a part is found to be."""
    told = all(one.above(limits.grows) for one in (held.grows, held.after, held.back))
    if not told or q > limits.alpha:
        return NOT_SHOWN
    return WAKES if wakes.above(limits.grows) else EITHER


def claims_of(
    net: str, behaviour: str, tested: Sequence[TestedBackup], tried: int, done: Performance | None, fresh: Control | None,
    limits: BackupLimits, caps: Sequence[str],
) -> tuple[Claim, ...]:  # fmt: skip
    """A claim for each growth that was tested; one that some part backs up another where none stood out."""
    begin = [] if done is None else [performs(done)]
    if not tested:
        statement = f"In {net} a part stands in for another that “{behaviour}” uses"
        sentence = (
            f"Of {tried} removals of one part after another none lets a part's effect grow by {percent(limits.grows)} or "
            "more of what all parts bring, told from zero on discovery pairs."
        )
        return (
            claim_of(statement, [*begin, Evidence("Grows", passed=None, sentence=sentence)], (), (), caps),
        )
    return tuple(_claim(net, behaviour, one, begin, fresh, limits, caps) for one in tested)


def _claim(
    net: str, behaviour: str, one: TestedBackup, begin: Sequence[Evidence], fresh: Control | None, limits: BackupLimits,
    caps: Sequence[str],
) -> Claim:  # fmt: skip
    others, name, held = listing(one.removed), one.part.words, one.held
    told = one.q <= limits.alpha
    figures = (
        (
            "Grows",
            held.grows,
            f"Once {others} is removed, removing {name} loses {with_interval(held.grows)} more than before",
        ),
        ("Then needed", held.after, f"Removing {name} then loses {with_interval(held.after)}"),
        ("Stands in", held.back, f"With {name} removed, removing {others} loses {with_interval(held.back)}"),
    )
    evidence = list(begin)
    for label, figure, text in figures:
        above = figure.above(limits.grows)
        passed = None if above and label == "Grows" and not told else above
        corrected = f"; q = {one.q:.2g}" if label == "Grows" else ""
        sentence = f"{text} of what all parts bring (required: more than {percent(limits.grows)}{corrected})."
        evidence.append(
            Evidence(label, figure, None, limits.grows, passed, sentence, "of what all parts bring")
        )
    controls = [] if fresh is None else [fresh]
    if one.more is not None and one.beside is not None:
        controls.insert(0, Control(
            "Other parts removed", one.more, "grows less", one.more.above(0.0),
            f"With other parts of the same kind removed in place of {one.removed[0].words}, what {name} does grows by "
            f"{percent(one.beside)}: {with_interval(one.more)} less.", "of what all parts bring more",
        ))  # fmt: skip
    way = (
        f"Directly, by the stream alone, {name} does {with_interval(one.direct_before)} before and "
        f"{with_interval(one.direct_after)} after."
    )
    single = (
        f"Alone, removing {others} loses {with_interval(held.lost_by_others)}, removing {name} {with_interval(held.before)} "
        f"(removed by {'the mean' if one.how == 'mean' else 'the value in the other prompt'})."
    )
    return claim_of(f"In {net}, of “{behaviour}”, {one.words}", evidence, controls, [way, single], caps)
