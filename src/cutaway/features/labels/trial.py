"""All labels of one index on trial: fitted, matched with controls, scored, judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cutaway.claims import Evidence
from cutaway.features.labels.exam import (
    NEAREST,
    LabelExam,
    LabelScores,
    Predictor,
    balanced_accuracy,
    exam_of,
    scored,
)
from cutaway.features.labels.fitting import ActiveRows, TraitSets, fitted
from cutaway.features.labels.labelers import Labeler, LabelerPredictor
from cutaway.features.labels.result import FeatureLabel, OtherLabel
from cutaway.features.labels.splitting import TextSplit
from cutaway.features.labels.taking import SayTrial, effects, examples, window_ranks
from cutaway.features.labels.traits import TokenTrait
from cutaway.results import Work
from cutaway.statistics import Estimate, benjamini_hochberg
from cutaway.trials.judging import verdict_of

if TYPE_CHECKING:
    from cutaway.features.index import FeatureIndex
    from cutaway.features.sets import FeatureSet
    from cutaway.network import Network

#: False discoveries that are let pass; standard errors from the middle to the end of an interval; examples for a labeler.
_RATE, _REACH, _SHOWN = 0.05, 1.96, 20
#: Features that are correlated with a control at once.
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class ChosenLabel:
    """What was chosen for one feature.

    Attributes:
        text, form, f1: of the label; "" where there is none.
        predict: from it.
        others: the best of other forms.
        values: of its set, where it has one.
    """

    text: str
    form: str
    f1: float
    predict: Predictor
    others: tuple[OtherLabel, ...]
    values: NDArray[np.int64]


class LabelTrial:
    """The stages in order: `fit`, `match`, `ask`, `score`, `take_away`, `labels`."""

    def __init__(
        self, index: FeatureIndex, which: Sequence[int], active: ActiveRows, split: TextSplit,
        traits: Sequence[TokenTrait], seed: int, work: Work,
    ) -> None:  # fmt: skip
        self.index, self.which, self.active, self.split = index, list(which), active, split
        self.traits, self.seed, self.work = traits, seed, work
        self.chosen: list[ChosenLabel] = []
        self.twins: list[tuple[str, ChosenLabel, LabelExam] | None] = [None] * len(self.which)
        self.scores: list[LabelScores | None] = []
        self.shuffled: list[tuple[int, Estimate | None]] = []
        self.controls: list[Estimate | None] = []
        self.causal: dict[int, Estimate] = {}

    def fit(self, allowed: Any) -> None:
        """Find the best label of every feature on the training texts."""
        self.chosen = _chosen(fitted(self.active, self.split.train, self.traits, allowed, self.work))

    def match(self, control: FeatureIndex) -> None:
        """For every feature the control's most correlated with it on the training texts, labelled in the same way."""
        best = _most_alike(self.active, control, self.split.train, self.work)
        every = sorted({int(b) for b in best if b >= 0})
        if not every:
            return
        active = ActiveRows.of(control.matrix(every))
        labels = _chosen(
            fitted(active, self.split.train, [t for t in self.traits if t.form != "say"], None, self.work)
        )
        near = _near(control, every, active)
        place = {number: i for i, number in enumerate(every)}
        for g, b in enumerate(best.tolist()):
            if b >= 0:
                exam = exam_of(place[b], active, self.split.test, near(place[b]), self.index.rows, self.seed)
                self.twins[g] = control.names[b], labels[place[b]], exam

    def ask(self, labeler: Labeler) -> None:
        """Have every feature labelled in words, from examples in training texts; what was found before stays beside it."""
        for g, number in enumerate(self.which):
            rows, values = self.active.of_feature(g)
            known = self.split.train[rows]
            strongest = rows[known][np.argsort(-values[known], kind="stable")[:_SHOWN]]
            if not len(strongest):
                continue
            text = str(labeler.label(self.index.shown(number, strongest)))
            before = self.chosen[g]
            others = (
                (OtherLabel(before.text, before.form, before.f1), *before.others)
                if before.text
                else before.others
            )
            predict = LabelerPredictor(labeler, text, self.index)
            self.chosen[g] = ChosenLabel(text, "words", float("nan"), predict, others, np.zeros(0, np.int64))
            self.work.step("asking for labels", g + 1, len(self.which))

    def score(self) -> None:
        """Score every label on the other texts, for its own feature, for another, and the control's for the control."""
        near = _near(self.index, self.which, self.active)
        exams = [
            exam_of(g, self.active, self.split.test, near(g), self.index.rows, self.seed)
            for g in range(len(self.which))
        ]
        partner = self._partners(exams)
        for g, label in enumerate(self.chosen):
            own = scored(label.predict, exams[g], self.seed) if label.text else None
            other = (
                balanced_accuracy(label.predict, exams[partner[g]], self.seed)
                if own and partner[g] >= 0
                else None
            )
            self.scores.append(own)
            self.shuffled.append((partner[g], other))
            twin = self.twins[g]
            self.controls.append(
                None if twin is None else balanced_accuracy(twin[1].predict, twin[2], self.seed)
            )
            self.work.step("scoring labels", g + 1, len(self.chosen))

    def _partners(self, exams: Sequence[LabelExam]) -> list[int]:
        """For every feature another that can be examined, and is none of those that are nearest to it; -1 where none is."""
        fit = [g for g, exam in enumerate(exams) if exam.positive.any() and not exam.positive.all()]
        near = self.index.nearest.which
        drawn = np.random.default_rng(self.seed + 1).permutation(len(fit)).tolist()
        place = {fit[d]: i for i, d in enumerate(drawn)}
        found = []
        for g, number in enumerate(self.which):
            begin, close = place.get(g, 0), set(near[number].tolist())
            turn = (
                (fit[drawn[(begin + step) % len(fit)]] for step in range(1, len(fit) + 1))
                if fit
                else iter(())
            )
            found.append(next((o for o in turn if o != g and self.which[o] not in close), -1))
        return found

    def take_away(self, net: Network, source: FeatureSet, most: int) -> tuple[str, ...]:
        """Measure what taking features away does to what they are said to say; remarks on what was left out."""
        said = [
            g for g, label in enumerate(self.chosen) if label.form == "say" and self.scores[g] is not None
        ]
        ranked = sorted(said, key=lambda g: -self._accuracy(g))
        if source.source is not None and source.source.normed:
            return (
                ('What labels "say X" do was not measured: what these features write depends on the row.',)
                if said
                else ()
            )
        ranks = window_ranks(self.index.rows, self.seed)
        trials = [self._say_trial(g, ranks) for g in ranked[:most]]
        found = effects(net, source, trials, self.index.rows, self.seed, self.work)
        self.causal = {g: e for g, e in zip(ranked, found, strict=False) if e is not None}
        left = len(said) - len(trials)
        return (
            (
                f'Of {left} labels "say X" it was not measured what taking the feature away does (causal={most}).',
            )
            if left
            else ()
        )

    def _accuracy(self, g: int) -> float:
        scores = self.scores[g]
        return 0.0 if scores is None else scores.balanced_accuracy.value

    def _say_trial(self, g: int, ranks: NDArray[np.int64]) -> SayTrial:
        trait = next(t for t in self.traits if t.form == "say")
        after = self.index.rows.beside(1)
        tokens = {int(after[np.nonzero(trait.values == v)[0][0]]) for v in self.chosen[g].values.tolist()}
        rows, values = self.active.of_feature(g)
        inside = np.isin(rows, self.split.test, assume_unique=True)
        taken = examples(rows[inside], self.index.rows, ranks, [self.seed, 7, g])
        return SayTrial(self.which[g], tuple(sorted(tokens)), rows[inside][taken], values[inside][taken])

    def labels(self) -> tuple[FeatureLabel, ...]:
        """The labels, judged."""
        q = self._adjusted()
        known = self.active.among(self.split.train).counts
        return tuple(self._label(g, float(q[g]), int(known[g])) for g in range(len(self.which)))

    def _adjusted(self) -> NDArray[np.float64]:
        """[G] adjusted p-values that a label is no better for its own feature than for another; one where none is told."""
        p = np.ones(len(self.which))
        for g, (own, (_, other)) in enumerate(zip(self.scores, self.shuffled, strict=True)):
            mine, theirs = (own.balanced_accuracy if own else None), other
            if mine and theirs and mine.interval and theirs.interval:
                error = math.hypot(mine.interval.width, theirs.interval.width) / (2 * _REACH)
                z = (mine.value - theirs.value) / max(error, 1e-12)
                p[g] = 0.5 * math.erfc(z / math.sqrt(2))
        return benjamini_hochberg(p)

    def _label(self, g: int, q: float, known: int) -> FeatureLabel:
        chosen, own, (partner, other) = self.chosen[g], self.scores[g], self.shuffled[g]
        twin, number = self.twins[g], self.which[g]
        better = None
        if own and other and own.balanced_accuracy.interval and other.interval:
            better = own.balanced_accuracy.interval.low > other.interval.high and q <= _RATE
        test = Evidence(
            "better than for another feature", own.balanced_accuracy if own else None, passed=better or None
        )
        causal = self.causal.get(g)
        return FeatureLabel(
            self.index.names[number], number, chosen.text, chosen.form, chosen.f1,
            (known, int(self.active.counts[g]) - known), own, other,
            self.index.names[self.which[partner]] if partner >= 0 and other is not None else "", 0.5, self.controls[g],
            "" if twin is None else twin[0], "" if twin is None else twin[1].text, causal,
            "causal" if causal is not None and causal.above(0.0) else "correlational", q, verdict_of([test]),
            chosen.others,
        )  # fmt: skip


def _chosen(sets: Sequence[TraitSets]) -> list[ChosenLabel]:
    """Of every feature the best label, the best of each other form, and of another mark where it is of a mark."""
    score = np.stack([s.score for s in sets])
    found = []
    for g in range(score.shape[1]):
        order = np.argsort(-score[:, g], kind="stable")
        best = sets[int(order[0])]
        if not np.isfinite(score[order[0], g]):
            found.append(ChosenLabel("", "", float("nan"), _nothing, (), np.zeros(0, np.int64)))
            continue
        others: dict[str, OtherLabel] = {}
        mine = () if best.trait.form == "mark" else (best.trait.form,)  # two marks may be one in these texts
        for i in order[1:].tolist():
            s = sets[i]
            if np.isfinite(score[i, g]) and s.trait.form not in (*mine, *others):
                others[s.trait.form] = OtherLabel(s.text(g), s.trait.form, float(s.f1[g]))
        found.append(
            ChosenLabel(
                best.text(g),
                best.trait.form,
                float(best.f1[g]),
                _SetPredictor(best, g),
                tuple(others.values()),
                best.of(g),
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class _SetPredictor:
    """Predicts one feature from one trait's sets."""

    sets: TraitSets
    feature: int

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.sets.predict(self.feature, rows)


def _nothing(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.zeros(rows.shape)


def _near(index: FeatureIndex, which: Sequence[int], active: ActiveRows) -> Any:
    """For each feature the rows at which those nearest to it are active."""
    near, place = index.nearest.which, {number: g for g, number in enumerate(which)}

    def rows(g: int) -> list[NDArray[np.int64]]:
        close = [int(n) for n in near[which[g]][:NEAREST] if n >= 0]
        return [active.of_feature(place[n])[0] if n in place else index.entries(n)[0] for n in close]

    return rows


def _most_alike(
    active: ActiveRows, control: FeatureIndex, train: NDArray[np.bool_], work: Work
) -> NDArray[np.int64]:
    """[G] the control feature most correlated with each on the training rows; -1 where none is ever active with it."""
    from scipy.sparse import csc_array  # half a second of import, for who asks only

    known, n = active.among(train), int(train.sum())
    other = ActiveRows.of(control.matrix()).among(train)
    beside = csc_array(
        (other.values.astype(np.float64), other.rows, other.starts), shape=(other.n, other.size)
    ).tocsr()
    mine = csc_array((known.values.astype(np.float64), known.rows, known.starts), shape=(known.n, known.size))
    mean = [np.asarray(m.sum(0)).ravel() / n for m in (mine, beside)]
    square = [np.asarray(m.multiply(m).sum(0)).ravel() / n for m in (mine, beside)]
    spread = [np.sqrt(np.maximum(s - m**2, 1e-300)) for s, m in zip(square, mean, strict=True)]
    best = np.full(known.size, -1, np.int64)
    for begin in range(0, known.size, _BLOCK):
        part = slice(begin, min(begin + _BLOCK, known.size))
        products = (mine[:, part].T @ beside).toarray()
        r = (products / n - mean[0][part, None] * mean[1][None]) / (spread[0][part, None] * spread[1][None])
        r = np.where(products > 0, r, -np.inf)
        found = r.argmax(1)
        best[part] = np.where(np.isfinite(r.max(1)), found, -1)
        work.step("matching controls", part.stop, known.size)
    return best
