"""The verb: which parts two behaviours share, and what removing what one uses leaves of the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.backups.limits import SharedLimits
from cutaway.algorithms.backups.shared import SharedParts
from cutaway.algorithms.backups.verb import halves_of, removable
from cutaway.behaviours import Behaviour, Performance, performance, refusal
from cutaway.behaviours.cases import Cases
from cutaway.claims import Claim, Control, Evidence
from cutaway.effects.baselines import Resampling
from cutaway.effects.question import chosen
from cutaway.errors import BadInput, CutawayError, Stopped
from cutaway.network.listing import listing
from cutaway.network.parts import Part, in_order
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.statistics import Estimate, benjamini_hochberg, sign_flip_p, statistic_of
from cutaway.sweeps import plan_cells, write_of
from cutaway.sweeps.metered import forwards_of
from cutaway.trials import PartSet, claim_of, percent, performs, with_interval
from cutaway.trials.bench import Bench

if TYPE_CHECKING:
    from cutaway.network import Network

_STOPPED = "It was stopped before the end."
#: Of the parts so many are expected to be tested, for the price.
_EXPECTED = 0.2


@strict
def shared_parts(
    net: Network,
    one: Behaviour | Cases | str,
    other: Behaviour | Cases | str,
    *,
    parts: Sequence[Part | str] | None = None,
    n: int = 24,
    limits: SharedLimits | None = None,
    controls: bool = True,
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> SharedParts:
    """Say what two behaviours share: the parts that matter for both, and what one loses by what the other uses.

    Each part is removed alone (it gets its value in the corrupted prompt of the pair) on discovery pairs of both behaviours.
    What stands out is tested on held-out pairs of both; it is told how far effects on the two go together, over all parts;
    and all parts that matter for the one are removed at once, on held-out pairs of the other, beside random sets of as many
    parts of each kind. (Merullo et al. 2024, *Circuit Component Reuse Across Tasks in Transformer Language Models*.)

    Supported that they share parts: both behaviours are performed; each named part matters for both, its whole interval
    above a twentieth of the gap; and the same architecture with fresh weights performs neither.

    Args:
        net: the network.
        one, other: pairs, the name of a built-in behaviour, or cases (of which the first variable that changes the answer is
            taken).
        parts: which are removed; default all heads (or attentions), mixers and MLPs.
        n: pairs of each half of each behaviour.
        limits: what must be reached.
        controls: random sets, random weights; without them nothing is supported.
        force: go on where a behaviour is not performed.
        seed: of pairs, random sets and sign flips.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for what is no behaviour, or too few pairs.
        NotFound: for a part that the network does not have.
        BadBehaviour: where there is no gap, or the prompts of a pair differ in length.
        NotPerformed: where one is not performed, unless `force`.
    """
    began, work = time.monotonic(), working(work)
    limits = SharedLimits() if limits is None else limits
    if not isinstance(limits, SharedLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give SharedLimits(...), or leave them out.")
    every = removable(net)
    wanted = chosen(parts, every, every, Part.of, "part")
    halves = [halves_of(net, given, None, n, seed) for given in (one, other)]
    with work.interruptible() as work:
        quiet = replace(work, listener=None)
        done = [performance(net, held, work=quiet) for _, held in halves]
        for (_, held), performed in zip(halves, done, strict=True):
            if not performed.does_it and not force:
                raise refusal(net, held, performed)
        benches = [[Bench.of(net, half, seed, quiet, wanted) for half in both] for both in halves]
        study = _Sharing(net, benches, wanted, done, limits, controls, seed)
        study.announce(work)
        study.benches = [[replace(bench, work=work) for bench in both] for both in benches]
        study.run(work)
        return study.result(began)


@dataclass(eq=False)
class _Sharing:
    """What is asked, and what has been found so far; two of everything, one for each behaviour."""

    net: Network
    benches: list[list[Bench]]
    parts: tuple[Part, ...]
    done: list[Performance]
    limits: SharedLimits
    controls: bool
    seed: int
    complete: bool = True
    lost: list[np.ndarray] = field(default_factory=list)
    q: list[np.ndarray] = field(default_factory=list)
    tested: list[Part] = field(default_factory=list)
    held: list[dict[Part, Estimate]] = field(default_factory=lambda: [{}, {}])
    matter: list[list[Part]] = field(default_factory=lambda: [[], []])
    left: list[Estimate | None] = field(default_factory=lambda: [None, None])
    beside: list[float] = field(default_factory=lambda: [float("nan")] * 2)
    less: list[Estimate | None] = field(default_factory=lambda: [None, None])
    together: Estimate | None = None
    fresh: list[Control] = field(default_factory=list)

    def announce(self, work: Work) -> None:
        """Say what is about to be run: each part removed on both, tests, sets, fresh weights."""
        if not work.priced:
            return
        each = []
        for found, held in self.benches:
            ends = found.ends
            experiment = ends.experiment(self.net, ends.clean, ends.corrupted.kept)
            cells = [(write_of(part),) for part in self.parts]
            plan = plan_cells(experiment, cells, base=ends.clean.metric, time_it=False)
            each.append((forwards_of(plan.job), held.behaviour.n / found.behaviour.n))
        search = sum(price for price, _ in each)
        tests = sum(price * share for price, share in each) * max(_EXPECTED, min(1.0, 3 / len(self.parts)))
        pairs = sum(held.behaviour.n for _, held in self.benches)
        stages = [("each part on both", search), ("held-out pairs", tests)]
        if self.controls:
            stages += [("random sets", 0.5 * pairs * self.limits.random), ("fresh weights", 2.0 * pairs)]
        rows = self.benches[0][0].behaviour.clean_ids
        announce(self.net, rows, work, "what two behaviours share", stages, least=search or 1.0)

    def run(self, work: Work) -> None:
        """Search, test, remove the parts of one on the other, and the controls; as far as it is not stopped."""
        sets = [[part] for part in self.parts]
        for found, _ in self.benches:
            self.lost.append(_lost(found, found.remove(sets, "removing each part")))
        p = np.concatenate(
            [self._p(each, found) for each, (found, _) in zip(self.lost, self.benches, strict=True)]
        )
        self.q = np.split(benjamini_hochberg(p), 2)
        try:
            self._test()
            self.together = self._correlation()
            self._across()
            if self.controls:
                self.fresh = [self._random_weights(held, work) for _, held in self.benches]
        except Stopped:
            self.complete = False

    def _p(self, each: np.ndarray, bench: Bench) -> np.ndarray:
        """Significance of each part's effect [parts]; 1 where nothing changes."""
        p = np.ones(len(each))
        there = each.any(1)
        if there.any():
            signs = Resampling.of(bench.behaviour.template).signs
            p[there] = sign_flip_p(each[there].T, signs, seed=self.seed)
        return p

    def _test(self) -> None:
        standing: list[list[Part]] = []
        for each, q in zip(self.lost, self.q, strict=True):
            mean = each.mean(1)
            order = np.argsort(-mean, kind="stable")
            out = [int(i) for i in order if mean[i] >= self.limits.stands_out and q[i] <= self.limits.alpha]
            standing.append([self.parts[i] for i in out[: int(self.limits.most)]])
        self.tested = list(in_order({*standing[0], *standing[1]}))
        metrics = [
            held.remove([[part] for part in self.tested], "testing parts")
            if self.tested
            else np.zeros((0, 0))
            for _, held in self.benches
        ]
        each = [
            _lost(held, metric)
            for (_, held), metric in zip(self.benches, metrics, strict=True)
            if len(metric)
        ]
        if not each:
            return
        p = np.concatenate([self._p(some, held) for some, (_, held) in zip(each, self.benches, strict=True)])
        for which, q in enumerate(np.split(benjamini_hochberg(p), 2)):
            scale = self.benches[which][1].scale
            for part, metric, told in zip(self.tested, metrics[which], q, strict=True):
                share = self.held[which][part] = scale.difference(scale.whole, metric)
                if share.above(self.limits.matters) and told <= self.limits.alpha:
                    self.matter[which].append(part)

    def _across(self) -> None:
        """Remove what matters for one on held-out pairs of the other, beside random sets."""
        rng = np.random.default_rng([self.seed, 61])
        for which in (0, 1):
            members, bench = self.matter[1 - which], self.benches[which][1]
            if not members:
                continue
            alike = (
                PartSet(tuple(members), self.parts).like_it(rng, int(self.limits.random))
                if self.controls
                else []
            )
            metric = bench.remove(
                [members, *(some.members for some in alike)], "removing what the other uses"
            )
            self.left[which] = bench.scale.share(metric[0])
            if alike:
                self.beside[which] = float(bench.scale.shares(metric[1:]).mean())
                self.less[which] = bench.scale.difference(metric[1:].mean(0), metric[0])

    def _correlation(self) -> Estimate | None:
        """How far the effects on both go together over the parts, with an interval over parts. None for few parts."""
        if len(self.parts) < 4:
            return None
        x, y = (each.mean(1) for each in self.lost)
        if not (x.std() and y.std()):
            return None

        def weighted(w: np.ndarray) -> np.ndarray:
            total = w.sum(1, keepdims=True)
            dx, dy = x - (w @ x)[:, None] / total, y - (w @ y)[:, None] / total
            with np.errstate(invalid="ignore", divide="ignore"):
                r = (w * dx * dy).sum(1) / np.sqrt((w * dx**2).sum(1) * (w * dy**2).sum(1))
            return r[:, None]

        return statistic_of(weighted, len(x), seed=self.seed, scale="correlation")[0]

    def _random_weights(self, held: Bench, work: Work) -> Control:
        name, expected, what = (
            f"Random weights: {held.behaviour.name}",
            "not performed",
            "The same architecture with fresh weights",
        )
        try:
            done = performance(self.net.randomized(self.seed, examine=False), held.behaviour, work=work)
        except Stopped:
            raise
        except CutawayError as error:
            return Control(name, None, expected, None, f"{what}: could not be tried. {error.problem}")
        text = f"{what}: {percent(done.accuracy.value)} of held-out prompts right."
        return Control(name, done.accuracy, expected, None if done.does_it else True, text, "answers right")

    @property
    def both(self) -> list[Part]:
        """The parts that matter for both."""
        return [part for part in self.tested if all(part in some for some in self.matter)]

    def claims(self) -> tuple[Claim, ...]:
        """That they share parts; and of each behaviour, that it is spared by what the other uses."""
        caps = [] if self.complete else [_STOPPED]
        if not self.controls:
            caps.append("No controls were run.")
        for some in self.benches:
            caps += [cap for bench in some for cap in bench.scale.caps if cap not in caps]
        names = [held.behaviour.name for _, held in self.benches]
        begin = [performs(done) for done in self.done]
        evidence = list(begin)
        for part in self.both:
            for which in (0, 1):
                share = self.held[which][part]
                evidence.append(Evidence(
                    f"{part.words}: {names[which]}", share, None, self.limits.matters, True,
                    f"Without {part.words} “{names[which]}” loses {with_interval(share)} of its gap on held-out pairs "
                    f"(required: more than {percent(self.limits.matters)}).", "of the gap lost",
                ))  # fmt: skip
        if not self.both:
            evidence.append(Evidence("Shared", passed=None, sentence="No part is shown to matter for both."))
        listed = listing(self.both) if self.both else "some part"
        statement = f"In {self.net.name} “{names[0]}” and “{names[1]}” both use {listed}"
        return (claim_of(statement, evidence, self.fresh, (), caps), *self._spared(names, begin, caps))

    def _spared(self, names: list[str], begin: list[Evidence], caps: list[str]) -> list[Claim]:
        claims = []
        for which in (0, 1):
            left, less, members = self.left[which], self.less[which], self.matter[1 - which]
            if left is None:
                continue
            text = (
                f"Without what matters for “{names[1 - which]}” ({listing(members)}) {with_interval(left)} of the gap of "
                f"“{names[which]}” is left on held-out pairs (required: more than {percent(self.limits.spared)})."
            )
            if less is not None:
                text += f" Random sets of its size and kinds leave {percent(self.beside[which])}: {with_interval(less)} more"
            test = Evidence(
                "Left",
                left,
                None,
                self.limits.spared,
                left.above(self.limits.spared),
                text,
                "of the gap left",
            )
            statement = (
                f"In {self.net.name} “{names[which]}” is spared by removing what “{names[1 - which]}” uses"
            )
            claims.append(claim_of(statement, [*begin, test], self.fresh, (), caps))
        return claims

    def result(self, began: float) -> SharedParts:
        """Put together what was measured."""
        names = tuple(held.behaviour.name for _, held in self.benches)
        held = np.full((2, len(self.parts), 3), np.nan)
        for which in (0, 1):
            for part, share in self.held[which].items():
                held[which, self.parts.index(part)] = (share.value, *share.ends())
        across = [(one.value, *one.ends()) if one is not None else (np.nan,) * 3 for one in self.left]
        r = self.together
        return SharedParts(
            (names[0], names[1]), tuple(map(str, self.parts)),
            effect=np.stack([each.mean(1) for each in self.lost]), q=np.stack(self.q),
            held=held[..., 0], held_low=held[..., 1], held_high=held[..., 2],
            matter=np.array([[part in some for part in self.parts] for some in self.matter]),
            correlation=np.array((np.nan,) * 3 if r is None else (r.value, *r.ends()), float),
            left=np.array(across, float), beside=np.array(self.beside, float),
            pairs=tuple((found.behaviour.n, held.behaviour.n) for found, held in self.benches),
            claims=self.claims(), limits=self.limits.to_dict(), notes=(), complete=self.complete,
            provenance=Provenance.of(
                self.net, "+".join(held.behaviour.hash for _, held in self.benches), self.seed, time.monotonic() - began
            ),
        )  # fmt: skip


def _lost(bench: Bench, metric: np.ndarray) -> np.ndarray:
    """What is lost in each pair [sets n], in units of the mean gap."""
    return (bench.scale.whole - metric) / bench.scale.gap
