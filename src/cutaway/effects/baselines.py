"""The two ends of the scale: the metric on clean and on corrupted prompts, and what is kept of both runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.effects.finite import require_finite
from cutaway.errors import BadBehaviour, BadInput
from cutaway.network.items import without_logits
from cutaway.network.memory import are_square, rows_at_once
from cutaway.network.recent import LOGITS, Recent, recent
from cutaway.network.sites import Site
from cutaway.results import Work, working
from cutaway.sweeps import Experiment, Rules, base_run, run_beside, run_for_sweep

if TYPE_CHECKING:
    from cutaway.behaviours import Answers, Behaviour, Metric, Prompts
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens
    from cutaway.sweeps.record import Record

#: What counts as no gap: as a share of the largest metric, which is taken as no less than `LEAST_SCALE`.
LEAST_GAP, LEAST_SCALE = 1e-5, 1e-3
#: With fewer templates they are not drawn as a whole.
MIN_CLUSTERS = 4
#: With fewer templates no sign-flip test of whole templates can survive a correction over a hundred cells.
MIN_SIGNS = 14


@dataclass(frozen=True)
class Side:
    """One side of the pairs as it runs without any edit.

    Attributes:
        tokens: the prompts, n rows.
        metric: [n], by the clean answers.
        logits: [n v] at the answer position.
        kept: the sites that were asked for, [n p ...]. They are shared with later questions: write into a copy.
    """

    tokens: Tokens
    metric: np.ndarray
    logits: Tensor
    kept: dict[Site, Tensor]

    def take(self, rows: Sequence[int]) -> Side:
        """The same for some of the rows."""
        index = list(rows)
        kept = {site: value[index] for site, value in self.kept.items()}
        return Side(self.tokens[index], self.metric[index], self.logits[index], kept)


@dataclass(frozen=True)
class Baselines:
    """Both sides and the distance between them.

    Attributes:
        clean, corrupted: the sides.
        metric: what is measured.
        answers: what it is measured by, with the clean logits where the metric refers to them.
        positions: [n] where the metric reads logits, row-relative.
        gap: mean difference of clean and corrupted metric, the unit of every effect.
    """

    clean: Side
    corrupted: Side
    metric: Metric
    answers: Answers
    positions: Tensor
    gap: float

    def take(self, rows: Sequence[int]) -> Baselines:
        """The same for some of the pairs; the gap stays that of all."""
        index = list(rows)
        sides, answers = (
            (self.clean.take(index), self.corrupted.take(index)),
            self.answers[torch.tensor(index)],
        )
        return Baselines(*sides, self.metric, answers, self.positions[index], self.gap)

    def normalise(self, metric: np.ndarray) -> np.ndarray:
        """Metric [... n] -> share of the gap, each example against its own corrupted baseline: 0 corrupted, 1 clean."""
        return (metric - self.corrupted.metric) / self.gap

    def score(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Metric [k] of logits [k v] at the answer position of the examples `rows` [k]."""
        return self.metric(logits, self.answers[rows])

    def experiment(self, net: Network, base: Side, sources: Mapping[Site, Tensor], **more: Any) -> Experiment:
        """A sweep on one side's prompts: the metric, where it reads, and the tokens that it reads if they are few."""
        vocabulary = read_few(self.metric, self.answers)
        placed = None if vocabulary is None else self.answers.within(vocabulary)
        score_few = None if placed is None else lambda logits, rows: self.metric(logits, placed[rows])
        more |= {"vocabulary": vocabulary, "score_few": score_few}
        return Experiment(net, base.tokens, self.positions, self.score, sources, **more)


def behaviour_of(
    net: Network,
    behaviour: Behaviour | str | None,
    seed: int,
    prompts: Prompts | None = None,
    verb: str = "This",
) -> Behaviour:
    """The behaviour that is given, the one of that name, made with this seed, or that of two prompts.

    Raises `BadInput` where both or neither are given, and for two prompts that lack one of their three parts.
    """
    given = [] if prompts is None else prompts.given
    if behaviour is None and prompts is not None and given:
        return prompts.behaviour(net, verb)
    if behaviour is None:
        raise BadInput(
            f"{verb} needs a behaviour, or two prompts of yours.",
            f"Call {verb}(net, behaviour), or {verb}(net, clean='...', corrupted='...', answers=(' right', ' wrong')).",
        )
    if given:
        raise BadInput(
            f"{verb} was given a behaviour, and {' and '.join(given)} beside it.",
            "Give either a behaviour or two prompts with their answers.",
        )
    return make_behaviour(behaviour, net, seed=seed) if isinstance(behaviour, str) else behaviour


def measure(
    net: Network,
    behaviour: Behaviour,
    keep: Sequence[Site] = (),
    work: Work | None = None,
    swept: str = "",
    rules: Rules | None = None,
) -> Baselines:
    """Both sides of a behaviour without any edit, and the named sites of them.

    This is the one place where both ends are run. Logits and sites are kept with the network (`network.recent`), so that a
    second question about the same prompts runs them again only for sites that were not kept before, and no further than
    these.

    swept: the side from which a sweep is about to start; within `sweeps.handing_over` its run is left for the sweep, and the
    other side is run from where its prompts begin to differ. rules: the savings that the sweep may use; default all.

    Raises:
        NotFinite: the logits hold NaN or infinity; the message says where they first appear.
        BadBehaviour: the metric does not differ between clean and corrupted prompts, so nothing can be normalised.
        Stopped: the work was asked to end.
    """
    working(work).check()
    positions, sides, beside = positions_of(behaviour), dict[str, Side](), None
    if swept:
        tokens = _tokens_of(net, behaviour, swept)
        record = run_for_sweep(net, tokens, positions, keep, work)
        sides[swept] = side_of(net, behaviour, swept, keep, work, record=record)
        if record is not None and (rules is None or rules.prefix):
            few = read_few(behaviour.metric, behaviour.answers)
            beside = partial(run_beside, net, tokens, record, vocabulary=few)
    for which in ("clean", "corrupted"):
        if which not in sides:
            sides[which] = side_of(net, behaviour, which, keep, work, beside=beside)
    return ends_of(behaviour, sides["clean"], sides["corrupted"])


def read_few(metric: Metric, answers: Answers) -> Tensor | None:
    """The tokens whose logits a metric reads, LongTensor [k]; None where it may read all."""
    return answers.vocabulary() if metric.few and answers.right.numel() > 0 else None


def side_of(
    net: Network,
    behaviour: Behaviour,
    which: str,
    keep: Sequence[Site] = (),
    work: Work | None = None,
    *,
    record: Record | None = None,
    beside: Callable[..., Record | None] | None = None,
) -> Side:
    """The clean or the corrupted prompts without any edit, and the named sites of them; the metric is not yet there.

    record: their run, which was left for a sweep. beside: runs them, if it can, from where they begin to differ from prompts
    that were run (`sweeps.run_beside`).
    """
    tokens, positions = _tokens_of(net, behaviour, which), positions_of(behaviour)
    ids = behaviour.clean_ids if which == "clean" else behaviour.corrupted_ids
    asked, work = (ids, tuple(behaviour.answer_pos)), working(work)
    run = None if beside is None else lambda: beside(tokens, positions, keep, work=work)
    return _side(net, tokens, asked, positions, keep, f"{which} prompts", work, record, run)


def _tokens_of(net: Network, behaviour: Behaviour, which: str) -> Tokens:
    return behaviour.clean_tokens(net) if which == "clean" else behaviour.corrupted_tokens(net)


def positions_of(behaviour: Behaviour) -> Tensor:
    """Where the metric reads logits, row-relative: LongTensor [n]."""
    return torch.as_tensor(list(behaviour.answer_pos), dtype=torch.long)


def ends_of(behaviour: Behaviour, clean: Side, corrupted: Side) -> Baselines:
    """Two sides whose logits are there, measured, with the gap between them; `BadBehaviour` where there is none."""
    answers = behaviour.answers
    if behaviour.metric.needs == "reference":
        answers = answers.with_reference(clean.logits)
    runs = (clean, corrupted)
    metrics = [behaviour.metric(run.logits, answers).detach().double().cpu().numpy() for run in runs]
    clean, corrupted = (replace(run, metric=metric) for run, metric in zip(runs, metrics, strict=True))
    what = f"The metric {behaviour.metric.name} of {behaviour.name!r}"
    gap = require_gap(clean.metric, corrupted.metric, what)
    return Baselines(clean, corrupted, behaviour.metric, answers, positions_of(behaviour), gap)


def require_gap(clean: np.ndarray, corrupted: np.ndarray, what: str = "The metric") -> float:
    """The gap: mean of the clean metric [n] less that of the corrupted one [n].

    There is none where it is at most 1e-5 of the largest metric (taken as at least 1e-3): that is rounding, and a share of
    it would be noise. A gap that may be chance is a gap all the same; `trials.Scale.told` says so.

    Raises `BadBehaviour` where there is none, with both figures.

    >>> require_gap(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    1.5
    """
    means = float(clean.mean()), float(corrupted.mean())
    gap = means[0] - means[1]
    scale = max(LEAST_SCALE, float(np.abs(clean).max()), float(np.abs(corrupted).max()))
    if not abs(gap) > LEAST_GAP * scale:
        raise BadBehaviour(
            f"{what} is {means[0]:.6g} on the clean prompts and {means[1]:.6g} on the corrupted ones: there is no "
            "difference to explain.",
            "Use pairs whose answers differ, or another metric.",
        )
    return gap


@dataclass(frozen=True)
class Resampling:
    """What the intervals and the significance of a behaviour's effects are taken over.

    Attributes:
        intervals: labels of the examples that are drawn together; None where each is drawn by itself.
        signs: labels of the examples whose signs are flipped together; None likewise.
        sentence: the same in words.

    Intervals draw whole templates again where the behaviour has enough of them. Significance flips the signs of whole
    templates only where there are so many that a small p-value is possible at all; else of single examples, and then it
    speaks of these templates.
    """

    intervals: tuple[str, ...] | None
    signs: tuple[str, ...] | None
    sentence: str

    @classmethod
    def of(cls, templates: Sequence[str]) -> Resampling:
        """The resampling that suits these templates [n]."""
        kinds, n = len(set(templates)), len(templates)
        intervals = tuple(templates) if kinds >= MIN_CLUSTERS else None
        signs = intervals if kinds >= MIN_SIGNS else None
        drawn = f"{kinds} templates ({n} examples)" if intervals else f"{n} examples"
        flipped = "whole templates" if signs else "examples"
        these = "these templates" if kinds > 1 else "this template"
        about = "" if signs or kinds == n else f", so it holds for {these} only"
        said = f"95 % intervals over {drawn}; significance by flipping the signs of {flipped}{about}"
        return cls(intervals, signs, said)


def _side(
    net: Network, tokens: Tokens, asked: tuple[object, ...], positions: Tensor, keep: Sequence[Site], what: str, work: Work,
    record: Record | None = None, run: Callable[[], Record | None] | None = None,
) -> Side:  # fmt: skip
    """One side with kept sites [n p ...] and logits [n v]: what is remembered, and the rest run some rows at a time.

    asked: the prompts and answer positions, by which they are remembered. Where whole base runs are kept
    (`sweeps.keeping_base_runs`), both come from there. record: the run that was left for a sweep. run: gives all of it in a
    way that costs less, or None. The metric is not yet there.
    """
    memory = recent(net)
    if record is not None:
        _remember(memory, asked, keep, record)
    else:
        record = base_run(net, tokens, positions, keep, work)
    logits = memory.get((LOGITS, *asked))
    values = {site: memory.get((site, asked[0])) for site in keep}
    missing = [site for site, value in values.items() if value is None]
    if record is None and run is not None and (logits is None or missing):
        record = run()
        if record is not None:
            _remember(memory, asked, keep, record)
    if record is not None and record.logits is not None:
        require_finite(net, tokens, record.logits, what)
        return Side(tokens, np.zeros(0), record.logits, {site: record.sites[site] for site in keep})
    if logits is None or missing:
        fresh, kept = _run(net, tokens, positions, missing, logits is None, work)
        values |= kept
        for site, value in kept.items():
            memory.keep((site, asked[0]), value)
        if fresh is not None:
            logits = fresh
            memory.keep((LOGITS, *asked), fresh)
    assert logits is not None
    require_finite(net, tokens, logits, what)
    there = {site: value for site, value in values.items() if value is not None}
    return Side(tokens, np.zeros(0), logits, there)


def _remember(memory: Recent, asked: tuple[object, ...], keep: Sequence[Site], record: Record) -> None:
    """Keep the sites and the logits of a run with the network."""
    if record.logits is None:
        return
    for site in keep:
        memory.keep((site, asked[0]), record.sites[site])
    memory.keep((LOGITS, *asked), record.logits)


def _run(
    net: Network, tokens: Tokens, positions: Tensor, keep: Sequence[Site], read: bool, work: Work
) -> tuple[Tensor | None, dict[Site, Tensor]]:
    """Logits [n v] at the answer position (where they are to be read) and kept sites [n p ...]."""
    logits: list[Tensor] = []
    kept: dict[Site, list[Tensor]] = {site: [] for site in keep}
    # whatever is kept: the same prompts give the same bits every time
    size = rows_at_once(net, tokens.size, work, square=are_square(keep))
    last = None if read or any(site.module for site in keep) else max(keep, key=lambda site: site.rank)
    for start in range(0, tokens.n, size):
        work.check()
        rows = torch.arange(start, min(start + size, tokens.n))
        part = tokens[rows.to(tokens.ids.device)]
        run = net.run(part, keep=list(keep), logits=positions[rows][:, None] if read else False, stop_at=last)
        if read:
            if run.logits is None:
                raise without_logits(net)
            logits.append(run.logits[:, 0])
        for site in keep:
            kept[site].append(run[site])
    return torch.cat(logits) if read else None, {site: torch.cat(kept.pop(site)) for site in keep}
