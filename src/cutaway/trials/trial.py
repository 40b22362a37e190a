"""A candidate on trial: kept alone and removed, beside random candidates of its size; and what that says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.claims import Evidence
from cutaway.network.parts import Part
from cutaway.results import brief
from cutaway.statistics import Estimate
from cutaway.trials.bench import Bench
from cutaway.trials.candidate import Candidate, PartSet
from cutaway.trials.judging import inside, percent, with_interval
from cutaway.trials.limits import Limits
from cutaway.trials.looks import looks_at
from cutaway.trials.scale import GapScale

if TYPE_CHECKING:
    from cutaway.behaviours import Performance

HALF = 0.5
#: With fewer other sets there is nothing to compare with, even where all are tried.
_FEWEST = 3
#: Ends that differ by a smaller share of the largest metric have no gap.
_SAME = 1e-5
PERFORMS = "Performs it"


@dataclass(frozen=True)
class Trial:
    """What happened on held-out data. Shares of the gap: 0 = everything replaced, 1 = nothing replaced.

    Attributes:
        kept: with only the candidate (the rest replaced).
        left: without it.
        restored: its clean values put into the corrupted run; None where that was not tried.
        kept_random: `kept` of each random candidate.
        left_random: `left` of each random candidate.
        kept_gain: `kept` less the random candidates' mean; None where there are none.
        left_gain: the random candidates' mean less `left`.
        kept_p: share of candidates (random ones and the found one) that keep at least as well, to within `limits.sham`.
        left_p: share of them that leave at most as much.
        sham: largest change, in shares, when its own values are written over themselves; None where that was not tried.
        from_others: `kept` when the rest is taken from other prompts instead (0 is everything replaced so); None where no
            other prompt has the same length and template.
        n: held-out examples.
        gap: the unit of all shares, in units of the metric.
        caps: why nothing may be supported on this scale.
        exhausted: were all other sets of its size and kinds tried?
        looks: how often it was looked at, each time at more examples.
        level: of the intervals: higher where several looks were planned.
        n_random: held-out examples on which it was compared with random candidates; 0 in files of earlier versions: all.
    """

    kept: Estimate
    left: Estimate
    restored: Estimate | None
    kept_random: tuple[float, ...]
    left_random: tuple[float, ...]
    kept_gain: Estimate | None
    left_gain: Estimate | None
    kept_p: float | None
    left_p: float | None
    sham: float | None
    from_others: Estimate | None
    n: int
    gap: float = float("nan")
    caps: tuple[str, ...] = ()
    exhausted: bool = False
    n_random: int = 0
    looks: int = 1
    level: float = 0.95

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        each = vars(self).items()
        return {name: value.to_dict() if isinstance(value, Estimate) else value for name, value in each}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Trial:
        """The inverse of `to_dict`."""
        estimates = ("kept", "left", "restored", "kept_gain", "left_gain")
        read = {name: None if data[name] is None else Estimate.from_dict(data[name]) for name in estimates}
        others = data.get("from_others")  # of earlier versions a bare figure
        bare = isinstance(others, int | float)
        others = Estimate(float(others), None, data["n"]) if bare else others and Estimate.from_dict(others)
        read["from_others"] = others
        lists = {name: tuple(data.get(name, ())) for name in ("kept_random", "left_random", "caps")}
        gap = float("nan") if data.get("gap") is None else data["gap"]
        return cls(**{**data, **read, **lists, "gap": gap})

    def breaks_anyway(self, limits: Limits) -> bool:
        """Does removing random candidates of this size break the behaviour, too (on average no more is left than is asked)?

        Then comparing removals cannot tell the candidate from another, and the comparison is a note instead of a test.
        """
        return bool(self.left_random) and mean(self.left_random) <= limits.left


def fit(shares: np.ndarray) -> np.ndarray:
    """How near a share is to the whole: 1 at 1, less on either side.

    >>> fit(np.array([0.9, 1.1, 0.0])).round(3).tolist()
    [0.9, 0.9, 0.0]
    """
    return 1.0 - np.abs(1.0 - shares)


def put_to_test(
    bench: Any, candidate: Candidate, limits: Limits, seed: int = 0, first: int | None = None
) -> Trial:
    """Keep a candidate alone and remove it on this bench's (held-out) data, beside random ones like it.

    Args:
        bench: the kind of bench that the candidate runs on. A set of parts is also restored, written over itself, and kept
            with the rest taken from other prompts.
        candidate: what is tested.
        limits: what it must reach.
        seed: of the random candidates.
        first: of sets of parts, so many examples are looked at first, and more only where these leave a test undecided; the
            level of the intervals is then such that all looks together err at most as often as one would (`looks`). Default:
            all at once.
    """
    if first is None or not isinstance(bench, Bench) or not isinstance(candidate, PartSet):
        return _trial(bench, candidate, limits, seed)
    trial = None
    for number, (size, level) in enumerate(looks_at(len(bench.chosen), first, limits.alpha)):
        some = replace(bench.first(size), level=level)
        if not some.scale.told and size < len(bench.chosen):
            continue
        trial = replace(_trial(some, candidate, limits, seed), looks=number + 1, level=level)
        tests = evidence_of(trial, candidate, limits)
        if all(test.passed for test in tests) or any(test.passed is False for test in tests):
            break
    assert trial is not None
    return trial


def _trial(bench: Any, candidate: Candidate, limits: Limits, seed: int) -> Trial:
    scale: GapScale = bench.scale
    alike = candidate.like_it(np.random.default_rng(seed), limits.random)
    some = _some(bench, limits)
    beside: GapScale = some.scale
    own_kept, own_left = candidate.keep(bench)[0], candidate.remove(bench)[0]
    kept, left = candidate.keep(some, alike), candidate.remove(some, alike)
    kept_shares, left_shares = beside.shares(kept), beside.shares(left)
    more: dict[str, Any] = {"restored": None, "sham": None, "from_others": None}
    if isinstance(bench, Bench) and isinstance(candidate, PartSet):
        more = _more(bench, candidate) | {"exhausted": len(alike) == candidate.others}
    return Trial(
        kept=scale.share(own_kept),
        left=scale.share(own_left),
        kept_random=tuple(kept_shares[1:].tolist()),
        left_random=tuple(left_shares[1:].tolist()),
        kept_gain=beside.difference(kept[0], kept[1:].mean(0)) if alike else None,
        left_gain=beside.difference(left[1:].mean(0), left[0]) if alike else None,
        kept_p=_rank(fit(kept_shares[1:]) >= fit(kept_shares[:1]) - limits.sham) if alike else None,
        left_p=_rank(left_shares[1:] <= left_shares[0] + limits.sham) if alike else None,
        n=len(scale.whole),
        n_random=len(beside.whole),
        gap=scale.gap,
        caps=scale.caps,
        **more,
    )


def _some(bench: Any, limits: Limits) -> Any:
    """The bench for the examples on which random candidates are compared: all where few have no gap that is told."""
    few = bench.first(max(2, limits.random_on)) if isinstance(bench, Bench) else bench
    return few if few.scale.told else bench


def _rank(as_good: np.ndarray) -> float:
    """The share of candidates that do as well, the found one counted."""
    return (1 + int(as_good.sum())) / (len(as_good) + 1)


def _more(bench: Bench, candidate: PartSet) -> dict[str, Any]:
    members, scale = candidate.members, bench.scale
    change = np.abs(bench.sham(members)[0] - scale.whole).max() / abs(scale.gap)
    restored = scale.share(bench.restore([members])[0])
    return {"restored": restored, "sham": float(change), "from_others": resampled(bench, members)}


def resampled(bench: Bench, members: Iterable[Part]) -> Estimate | None:
    """The share that a set keeps when all other parts hold what they hold on *other* prompts: 0 where all hold that.

    Parts whose values are alike on both prompts of a pair, and so are never changed by the pair's own, are changed by these.
    None where no other prompt has the same length and template, or where such values leave the network as it is.
    """
    found = bench.keep_only_from_others([tuple(members), ()])
    if found is None:
        return None
    (kept, nothing), rows = found
    whole, clusters = bench.ends.clean.metric[rows], bench.behaviour.clusters
    drawn = None if clusters is None else [clusters[row] for row in rows]
    if abs(whole.mean() - nothing.mean()) < _SAME * max(1e-3, float(np.abs([whole, nothing]).max())):
        return None
    return GapScale(nothing, whole, drawn, bench.level).share(kept)


def evidence_of(
    trial: Trial, candidate: Candidate, limits: Limits, unit: str = "components"
) -> list[Evidence]:
    """Every test of a trial with its figure, its limit and whether it passed (None: it cannot tell).

    unit: what the candidate's size counts, for people.
    """
    share = candidate.size / candidate.total
    small = share <= limits.largest
    tests = [
        Evidence(
            "Kept alone", trial.kept, None, limits.kept, inside(trial.kept, limits.kept, limits.excess),
            f"With every other component replaced, {with_interval(trial.kept)} of the gap is kept; required: "
            f"{percent(limits.kept)} to {percent(limits.excess)}.", "of the gap kept",
        ),
        Evidence(
            "Removed", trial.left, None, limits.left, inside(trial.left, float("-inf"), limits.left),
            f"With the set replaced and all else untouched, {with_interval(trial.left)} of the gap is left; required: at "
            f"most {percent(limits.left)}.", "of the gap left",
        ),
        _kept_beside_random(trial, limits, small),
    ]  # fmt: skip
    if not trial.breaks_anyway(limits):
        tests.append(_removed_beside_random(trial))
    if trial.from_others is not None:
        tests.append(from_other_prompts(trial.from_others, limits))
    tests.append(
        Evidence(
            "Small", None, share, limits.largest, True if small else None,
            f"{candidate.size} of {candidate.total} {unit}; a set with more than {percent(limits.largest)} of them would "
            "explain nothing.", f"of all {unit}",
        )
    )  # fmt: skip
    return tests


def performs(performance: Performance) -> Evidence:
    """The first test of every claim: is the behaviour performed on held-out prompts?"""
    sentence = f"On held-out prompts: {performance.sentence}"
    figure = (performance.accuracy, None, performance.asked)
    return Evidence(PERFORMS, *figure, performance.passed, sentence, "answers right")


def from_other_prompts(kept: Estimate, limits: Limits) -> Evidence:
    """Is enough kept with the rest taken from other prompts? Too little leaves it open, as the claim is about pairs."""
    enough = inside(kept, limits.from_others, float("inf"))
    sentence = (
        f"With every other component given the value that it has on another prompt, {with_interval(kept)} is kept (0 % "
        f"is where all components are given such values); required: at least {percent(limits.from_others)}."
    )
    if enough is False:
        sentence += (
            " So components outside the set take part, too, by what is alike in both prompts of a pair."
        )
    elif enough is None:
        sentence += " The interval leaves open whether others take part, too, by what is alike in both prompts of a pair."
    passed = True if enough else None
    return Evidence(
        "Kept alone, with other prompts’ values",
        kept,
        None,
        limits.from_others,
        passed,
        sentence,
        "of the gap kept",
    )


def _kept_beside_random(trial: Trial, limits: Limits, small: bool) -> Evidence:
    """Few random candidates may keep as much, and on average they keep less. Of a small network there may be fewer others
    than a small p takes: then all of them are tried, and none may do as well.

    Those of the size of nearly everything are nearly the candidate itself: that they do as well refutes nothing.
    """
    name = "Kept alone, beside random sets"
    if trial.kept_gain is None or trial.kept_p is None:
        return Evidence(name, sentence="There is no other set of this size to compare with.")
    above = trial.kept_gain.above(0.0)
    there = len(trial.kept_random)
    none_as_good = trial.exhausted and there >= _FEWEST and trial.kept_p < 1.5 / (there + 1)
    passed = True if above and (trial.kept_p <= limits.random_p or none_as_good) else None
    if passed is None and small and (above is False or trial.kept_p > HALF):
        passed = False
    sentence = (
        f"{with_interval(trial.kept_gain)} of the gap more than random sets of the same size and kinds keep (their mean: "
        f"{percent(mean(trial.kept_random))}); {_as_good(trial.kept_p, trial.kept_random)} do as well "
        f"(p = {trial.kept_p:.3f}; required: at most {limits.random_p:g})."
    )
    if none_as_good and trial.kept_p > limits.random_p:
        sentence += " These are all the sets of this size and kinds that there are, and none does as well."
    return Evidence(name, trial.kept_gain, None, 0.0, passed, sentence, "of the gap more")


def _removed_beside_random(trial: Trial) -> Evidence:
    """On average random sets leave more. No rank is asked: a random set may break the behaviour by hitting a part of it."""
    name = "Removed, beside random sets"
    if trial.left_gain is None or trial.left_p is None:
        return Evidence(name, sentence="There is no other set of this size to compare with.")
    sentence = (
        f"{with_interval(trial.left_gain)} of the gap less than random sets of the same size and kinds leave (their mean: "
        f"{percent(mean(trial.left_random))}); {_as_good(trial.left_p, trial.left_random)} leave as little."
    )
    return Evidence(name, trial.left_gain, None, 0.0, trial.left_gain.above(0.0), sentence, "of the gap less")


def mean(values: tuple[float, ...]) -> float:
    """The mean of some figures."""
    return sum(values) / len(values)


def _as_good(p: float, random: tuple[float, ...]) -> str:
    return f"{round(p * (len(random) + 1)) - 1} of {len(random)}"
