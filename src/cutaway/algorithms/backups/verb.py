"""The verb: remove parts one after another, see whose effect grows by it, and test that on held-out pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.algorithms.backups.growing import RemovalStep, Removed, begin_with, once_each, removals
from cutaway.algorithms.backups.limits import BackupLimits
from cutaway.algorithms.backups.removing import REMOVALS, Removal, RemovalBench
from cutaway.algorithms.backups.result import Backups
from cutaway.algorithms.backups.telling import TestedBackup, claims_of, verdict_on
from cutaway.behaviours import Behaviour, Performance, performance, refusal
from cutaway.behaviours.cases import Cases
from cutaway.claims import Control
from cutaway.effects.baselines import behaviour_of
from cutaway.effects.question import chosen
from cutaway.effects.summary import FEWEST
from cutaway.errors import BadBehaviour, BadInput, CutawayError, SiteUnavailable, Stopped
from cutaway.network.parts import Part, parts_of
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.statistics import Estimate, benjamini_hochberg
from cutaway.sweeps.metered import forwards_of
from cutaway.trials import percent
from cutaway.trials.scale import NO_GAP
from cutaway.trials.spread import spread

if TYPE_CHECKING:
    from cutaway.network import Network

_STOPPED = "It was stopped before the end."
#: Growths that are expected to be tested, for the price.
_EXPECTED = 0.5


@strict
def backups(
    net: Network,
    behaviour: Behaviour | Cases | str,
    parts: Sequence[Part | str] | None = None,
    *,
    variable: str | None = None,
    how: Sequence[Removal] = REMOVALS,
    n: int = 24,
    limits: BackupLimits | None = None,
    controls: bool = True,
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> Backups:
    """Say which parts stand in for which: remove one part, and see whose effect grows; remove that one, too, and so on.

    A part is backed up where removing another one loses little as long as it is there, and much once it is not: the loss of
    removing both goes beyond the sum of the two (McGrath et al. 2023, *The Hydra Effect*; backup name movers in Wang et al.
    2022). From each of the parts with the largest effects on, part after part is removed, next the one whose effect grew
    most, until nothing grows or the behaviour is lost. What stands out on discovery pairs is tested on held-out pairs. A
    part whose direct effect (by the stream alone, all else held) grows, too, *wakes*; where it does not, both act all the
    time and *make up for each other*.

    Supported: the behaviour is performed; on held-out pairs the growth, what is lost by the part then, and what is lost by
    the others once it is gone, are all more than a tenth of what all parts bring; the effect grows less when other parts of
    the kind are removed; and the same architecture with fresh weights does not perform the behaviour.

    Args:
        net: the network.
        behaviour: pairs, the name of a built-in behaviour, or cases.
        parts: which may be removed; default all heads (or attentions), mixers and MLPs.
        variable: of cases, the one whose pairs are taken; default the first that changes the answer.
        how: ways of removing: "mean" (of the part over prompts and tokens), "resample" (its value in the other prompt of the
            pair). What only wakes at silence is not found by "resample", and where a mean still says something, not
            by "mean".
        n: pairs of each half.
        limits: what must be reached.
        controls: other parts removed, random weights; without them nothing is supported.
        force: go on where the behaviour is not performed.
        seed: of pairs, controls and sign flips.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for another way of removing, too few pairs or parts.
        NotFound: for a part that the network does not have.
        BadBehaviour: where there is no gap, or pairs differ in length and parts are to be removed by resampling.
        NotPerformed: where the behaviour is not performed, unless `force`.
    """
    began, work = time.monotonic(), working(work)
    limits = BackupLimits() if limits is None else limits
    if not isinstance(limits, BackupLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give BackupLimits(...), or leave them out.")
    ways: tuple[Any, ...] = (
        (how,) if isinstance(how, str) else tuple(how) if isinstance(how, Sequence) else ()
    )
    if not ways or any(not isinstance(one, str) or one not in REMOVALS for one in ways):
        raise BadInput(
            f"how={how!r:.60} is no way of removing.", 'Write how=["mean", "resample"], or one of them.'
        )
    every = removable(net)
    wanted = chosen(parts, every, every, Part.of, "part")
    if len(wanted) < 2:
        raise BadInput(
            "With one part there is no other that could stand in for it.", "Name two parts or more."
        )
    halves = halves_of(net, behaviour, variable, n, seed)
    with work.interruptible() as work:
        quiet = replace(work, listener=None)
        done = performance(net, halves[1], work=quiet)
        if not done.does_it and not force:
            raise refusal(net, halves[1], done)
        study = _BackupStudy(net, halves, wanted, every, limits, controls, seed)
        study.prepare(tuple(dict.fromkeys(ways)), quiet)
        study.announce(work)
        study.run(work)
        return study.result(done, began)


def removable(net: Network) -> tuple[Part, ...]:
    """All parts that can be removed. Raises `SiteUnavailable` where there are none."""
    every = parts_of(net)
    if not every:
        raise SiteUnavailable(
            f"{net.name} has no part whose output was certified.", "Look at net.certificate."
        )
    return every


def halves_of(
    net: Network, given: Any, variable: str | None, n: int, seed: int
) -> tuple[Behaviour, Behaviour]:
    """At most n discovery and n held-out pairs of a behaviour, a name of one, or cases.

    Raises `BadInput` for what is none of these, or too few, `BadBehaviour` where there are too few pairs.
    """
    if isinstance(n, bool) or n < FEWEST:
        raise BadInput(f"With n={n!r} pairs nothing can be told from zero.", f"Give at least {FEWEST}.")
    if isinstance(given, Cases):
        found = _of_cases(net, given, variable, n, seed)
    else:
        if variable is not None:
            raise BadInput("Only cases have variables.", "Leave `variable` out.")
        if not isinstance(given, Behaviour | str):
            raise BadInput(f"{given!r:.60} is no behaviour.", "Give one, its name, or cases.")
        whole = behaviour_of(net, given, seed)
        found = tuple(half.take(spread(list(half.template), n)) for half in (whole.discovery, whole.held_out))
    if few := [half.n for half in found if half.n < FEWEST]:
        raise BadBehaviour(
            f"A half has {few[0]} pairs.", f"Give a behaviour with at least {FEWEST} in each half."
        )
    return found[0], found[1]


def _of_cases(net: Network, cases: Cases, variable: str | None, n: int, seed: int) -> tuple[Behaviour, ...]:
    if variable is not None and not isinstance(variable, str):
        raise BadInput(f"{variable!r:.60} is no variable.", f"Give one of {', '.join(cases.free)}.")
    for name in cases.free if variable is None else (variable,):
        try:
            return tuple(half.behaviour(net, name, n=n, seed=seed) for half in cases.halves())
        except BadBehaviour:
            if variable is not None:
                raise
    raise BadBehaviour(f"No variable of {cases.name!r} changes the answer by itself.", "Give other prompts.")


@dataclass(eq=False)
class _BackupStudy:
    """What is asked, and what has been found so far."""

    net: Network
    halves: tuple[Behaviour, Behaviour]
    parts: tuple[Part, ...]
    every: tuple[Part, ...]
    limits: BackupLimits
    controls: bool
    seed: int
    benches: dict[str, RemovalBench] = field(default_factory=dict)
    alone: dict[str, dict[Part, np.ndarray]] = field(default_factory=dict)
    starts: list[Part] = field(default_factory=list)
    chains: list[tuple[str, list[RemovalStep]]] = field(default_factory=list)
    tested: list[TestedBackup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fresh: Control | None = None
    complete: bool = True

    def prepare(self, ways: Sequence[Removal], work: Work) -> None:
        """Remove and restore each part alone on discovery pairs, and choose where removing begins."""
        singles = {}
        for how in ways:
            bench = RemovalBench.of(self.net, self.halves[0], self.every, how, work)
            metric = bench.without([[part] for part in self.parts], work, f"removing each ({how})")
            self.benches[how], self.alone[how] = bench, dict(zip(self.parts, metric, strict=True))
            singles[how] = 1.0 - bench.scale.shares(metric)
        first = self.benches[ways[0]]
        if self.halves[0].aligned:
            singles["restored"] = self._restored(first, work)
        self.starts = begin_with(singles, self.parts, self.limits)
        self.effects = np.stack([singles[how] for how in ways])

    def _restored(self, bench: RemovalBench, work: Work) -> np.ndarray:
        """What each part's clean value brings into the corrupted prompts: mean share of the gap [parts]."""
        ends, corrupted = bench.ends, bench.ends.corrupted
        turned = replace(
            bench, values=ends.clean.kept, ends=replace(ends, clean=corrupted), empty=ends.clean.metric
        )
        metric = turned.without([[part] for part in self.parts], work, "restoring each")
        return (metric.mean(1) - corrupted.metric.mean()) / ends.gap

    def announce(self, work: Work) -> None:
        """Say what is about to be run: part after part from each start on, the held-out ends, the controls."""
        if not work.priced:
            return
        pairs = [(a, b) for a in self.starts for b in self.parts if b != a]
        search = sum(forwards_of(bench.plan(pairs).job) for bench in self.benches.values()) if pairs else 0.0
        held = self.halves[1].n
        each = 2.0 + 0.7 * (3 + (2 * self.limits.random if self.controls else 0))
        stages = [("removing after removing", search), ("held-out pairs", _EXPECTED * held * each)]
        stages += [("controls", 2.0 * held if self.controls else 0.0)]
        announce(
            self.net, self.halves[0].clean_ids, work, "what stands in for what", stages, least=search or 1.0
        )

    def run(self, work: Work) -> None:
        """Remove part after part, test what stood out, and run the controls; as far as it is not stopped."""
        standing = []
        try:
            for how, bench in self.benches.items():
                chains, found = removals(bench, self.alone[how], self.starts, self.limits, self.seed, work)
                self.chains += [(how, steps) for steps in chains]
                kept = once_each(found, self.limits.most)
                if len(found) > 2 * self.limits.most:
                    self.notes.append(
                        f"More growths stood out ({how}) than the {self.limits.most} that were tested."
                    )
                standing += [(how, removed, part, _of(found, removed, part)) for removed, part in kept]
            if standing:
                self._test(standing, work)
            if self.controls:
                self.fresh = self._random_weights(work)
        except Stopped:
            if not self.chains:
                raise
            self.complete = False

    def _test(self, standing: Sequence[tuple[str, tuple[Part, ...], Part, Estimate]], work: Work) -> None:
        held = {
            how: RemovalBench.of(self.net, self.halves[1], self.every, self.benches[how].how, work)
            for how in dict.fromkeys(how for how, *_ in standing)
        }
        rng = np.random.default_rng([self.seed, 51])
        done: list[tuple[Any, ...]] = []
        for how, removed, part, discovery in standing:
            bench = held[how]
            sham = self._others(removed, part, rng) if self.controls else []
            sets = [(part,), removed, (*removed, part)]
            for other in sham:
                sets += [(other, *removed[1:]), (other, *removed[1:], part)]
            metric = bench.without(sets, work, "testing on held-out pairs")
            one = Removed(bench, *metric[:3])
            beside = [
                Removed(bench, metric[0], a, b) for a, b in zip(metric[3::2], metric[4::2], strict=True)
            ]
            direct = [bench.directly(some, part, work) for some in ((), removed)]
            done.append((how, removed, part, discovery, one, beside, direct))
        q = benjamini_hochberg([row[4].p(self.seed) for row in done]).tolist()
        for row, significance in zip(done, q, strict=True):
            self.tested.append(self._tested(row, significance))

    def _tested(self, row: tuple[Any, ...], q: float) -> TestedBackup:
        """What was measured of one growth, judged."""
        how, removed, part, discovery, one, beside, direct = row
        scale, nothing = one.bench.scale, np.zeros(one.bench.behaviour.n)
        before, after = (scale.difference(value, nothing) for value in direct)
        wakes = scale.difference(direct[1], direct[0])
        mean = np.mean([other.grown for other in beside], axis=0) if beside else None
        return TestedBackup(
            removed, part, how, discovery, one, q, before, after, wakes,
            None if mean is None else float(mean.mean() / scale.gap),
            None if mean is None else scale.difference(one.grown, mean),
            verdict_on(one, wakes, q, self.limits),
        )  # fmt: skip

    def _others(self, removed: Sequence[Part], part: Part, rng: np.random.Generator) -> list[Part]:
        """Other parts of the kind of the first that was removed."""
        alike = [one for one in self.parts if one.kind == removed[0].kind and one not in (*removed, part)]
        return [alike[int(i)] for i in rng.permutation(len(alike))[: int(self.limits.random)]]

    def _random_weights(self, work: Work) -> Control:
        name, expected = "Random weights", "not performed"
        try:
            done = performance(self.net.randomized(self.seed, examine=False), self.halves[1], work=work)
        except Stopped:
            raise
        except CutawayError as error:
            return Control(name, None, expected, None, f"Fresh weights could not be tried. {error.problem}")
        text = f"The same architecture with fresh weights is right on {percent(done.accuracy.value)} of held-out prompts"
        text += (
            ": it performs the behaviour, too, and is no control."
            if done.does_it
            else ": it has nothing to back up."
        )
        return Control(name, done.accuracy, expected, None if done.does_it else True, text, "answers right")

    def result(self, done: Performance, began: float) -> Backups:
        """Put together what was measured, and say what may be said."""
        caps = [] if self.complete else [_STOPPED]
        if not self.controls:
            caps.append("No controls were run.")
        if not all(bench.scale.told for bench in self.benches.values()):
            caps.append(NO_GAP)
        tried = len(self.benches) * len(self.starts) * (len(self.parts) - 1)
        name = self.halves[1].name
        claims = claims_of(self.net.name, name, self.tested, tried, done, self.fresh, self.limits, caps)
        steps = [(i, how, step) for i, (how, chain) in enumerate(self.chains) for step in chain]
        left = _table([step.left for *_, step in steps])
        return Backups(
            name, **_columns(self.tested),
            chain=tuple(i for i, *_ in steps), chain_how=tuple(how for _, how, _ in steps),
            chain_removed=tuple(_joined(step.removed) for *_, step in steps),
            left=left[:, 0], left_low=left[:, 1], left_high=left[:, 2],
            growing=tuple(_joined(step.growing) for *_, step in steps),
            parts=tuple(map(str, self.parts)), effects=self.effects, ways=tuple(self.benches),
            pairs=(self.halves[0].n, self.halves[1].n), claims=claims, limits=self.limits.to_dict(),
            notes=tuple(self.notes), complete=self.complete,
            provenance=Provenance.of(self.net, self.halves[1].hash, self.seed, time.monotonic() - began),
        )  # fmt: skip


def _of(
    found: dict[tuple[tuple[Part, ...], Part], Removed], removed: tuple[Part, ...], part: Part
) -> Estimate:
    """The growth on discovery pairs, in whichever order it was found."""
    members = {*removed, part}
    return next(one.grows for (some, other), one in found.items() if {*some, other} == members)


def _joined(parts: Sequence[Part]) -> str:
    return " + ".join(map(str, parts))


def _table(estimates: Sequence[Estimate]) -> np.ndarray:
    """Value and both ends of each [k 3]."""
    return np.array([(one.value, *one.ends()) for one in estimates], float).reshape(-1, 3)


def _columns(tested: Sequence[TestedBackup]) -> dict[str, Any]:
    """What was tested, as columns of the result."""
    grows = _table([one.held.grows for one in tested])
    plain = {
        "discovery": [one.discovery for one in tested], "after": [one.held.after for one in tested],
        "back": [one.held.back for one in tested], "before": [one.held.before for one in tested],
        "others": [one.held.lost_by_others for one in tested],
        "direct_before": [one.direct_before for one in tested], "direct_after": [one.direct_after for one in tested],
    }  # fmt: skip
    columns: dict[str, Any] = {
        name: np.array([one.value for one in some], float) for name, some in plain.items()
    }
    columns |= {"grows": grows[:, 0], "low": grows[:, 1], "high": grows[:, 2]}
    columns["q"] = np.array([one.q for one in tested], float)
    columns["beside"] = np.array([np.nan if one.beside is None else one.beside for one in tested], float)
    columns |= {
        name: tuple(str(getattr(one, name)) for one in tested) for name in ("part", "how", "verdict", "words")
    }
    return columns | {"removed": tuple(_joined(one.removed) for one in tested)}
