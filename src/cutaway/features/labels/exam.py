"""Labels on trial, on texts that were not used to make them: tokens where a feature is active beside others where it is not,
half of these hard: a feature near to it is active there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cutaway.features.labels.fitting import ActiveRows
from cutaway.statistics import Estimate, statistic_of

if TYPE_CHECKING:
    from cutaway.features.index.token_rows import TokenRows

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
#: Tokens of each side of an exam at most; tokens on either side of an example that belong to it; resamples of an interval.
EACH, AROUND, _RESAMPLES = 50, 8, 200
#: How many of the nearest features make hard negatives.
NEAREST = 5


@dataclass(frozen=True, eq=False)
class LabelExam:
    """Examples of one feature.

    Attributes:
        rows: [m] tokens on trial.
        truth: [m] the activation at each; 0 where the feature is not active.
        hard: how many of those that are not active are hard.
        text: [m] which text each is of.
        around: [m 2c + 1] the rows around each within its window; -1 where there is none.
        active: [m 2c + 1] whether the feature is active there.
        other: [m] a row near each active one at which the feature is not; -1 where there is none, or it is not active.
    """

    rows: Rows
    truth: Floats
    hard: int
    text: Rows
    around: Rows
    active: NDArray[np.bool_]
    other: Rows

    @property
    def positive(self) -> NDArray[np.bool_]:
        """[m] is the feature active?"""
        return self.truth > 0


@dataclass(frozen=True)
class LabelScores:
    """How well a label predicts, on texts not seen; intervals are over texts.

    Attributes:
        balanced_accuracy: mean share of active tokens that it predicts, and of others that it does not.
        auc: how often an active token is predicted to be stronger than another, ties counting half.
        correlation: of the predicted activation with the true one.
        detection: balanced accuracy, of whether a few tokens hold an active one; None where all do.
        fuzzing: balanced accuracy, of whether a marked token is the active one or another near it; None where none is near.
        examples: how many tokens were on trial.
        hard: how many of the negative ones were hard.
        texts: of how many texts.
    """

    balanced_accuracy: Estimate
    auc: Estimate
    correlation: Estimate
    detection: Estimate | None
    fuzzing: Estimate | None
    examples: int
    hard: int
    texts: int


#: The activation that a label predicts at rows [...], 0 where it predicts none.
Predictor = Callable[[Rows], Floats]


def exam_of(
    feature: int,
    active: ActiveRows,
    test: Rows,
    near: Sequence[Rows],
    rows: TokenRows,
    seed: int,
    each: int = EACH,
) -> LabelExam:
    """Draw the examples of one feature.

    active: of all features. test: the rows that may be used, ascending. near: rows at which the nearest features are active.
    """
    rng = np.random.default_rng([seed, feature])
    own, values = active.of_feature(feature)
    within = np.isin(own, test, assume_unique=True)
    mine, strength = own[within], values[within]
    taken = np.sort(rng.permutation(len(mine))[:each])
    close = np.unique(np.concatenate([np.zeros(0, np.int64), *near]))
    close = close[np.isin(close, test, assume_unique=True) & ~np.isin(close, own, assume_unique=True)]
    few = min(each, max(1, len(test) - len(mine))) if len(test) > len(mine) else 0
    hard = rng.permutation(close)[: few // 2]
    drawn = test[rng.integers(0, len(test), 4 * few + 8)] if few else np.zeros(0, np.int64)
    drawn = drawn[~np.isin(drawn, own) & ~np.isin(drawn, hard)]
    drawn = np.array(list(dict.fromkeys(drawn.tolist()))[: few - len(hard)], np.int64)
    chosen = np.concatenate([mine[taken], hard, drawn])
    truth = np.concatenate([strength[taken].astype(np.float64), np.zeros(len(hard) + len(drawn))])
    around = rows_around(chosen, rows)
    on = np.isin(around, own)
    return LabelExam(
        chosen, truth, len(hard), rows.texts[chosen], around, on, _others(around, on, truth > 0, rng)
    )


def rows_around(chosen: Rows, rows: TokenRows) -> Rows:
    """[m 2c + 1] the rows at the tokens around each; -1 beyond the window, and where a token does not count."""
    at = rows.counted[chosen][:, None] + np.arange(-AROUND, AROUND + 1)
    window = rows.window[chosen][:, None]
    inside = (at >= rows.starts[window]) & (at < rows.starts[window + 1])
    found = np.minimum(np.searchsorted(rows.counted, at), max(0, len(rows) - 1))
    return np.where(inside & (rows.counted[found] == at), found, -1)


def _others(
    around: Rows, on: NDArray[np.bool_], positive: NDArray[np.bool_], rng: np.random.Generator
) -> Rows:
    """For each active token one near it, at random, that is not."""
    may = (around >= 0) & ~on & positive[:, None]
    drawn = np.where(may, rng.random(around.shape), -1.0).argmax(1) if around.size else np.zeros(0, np.int64)
    return np.where(may.any(1), around[np.arange(len(around)), drawn], -1)


def scored(predict: Predictor, exam: LabelExam, seed: int) -> LabelScores | None:
    """The scores of a label; None where nothing is active, or nothing else."""
    y = exam.positive
    if not y.any() or y.all():
        return None
    said = predict(exam.rows)
    near = np.where(exam.around >= 0, predict(np.maximum(exam.around, 0)), 0.0)
    holds, says = np.asarray(exam.active.any(1)), np.asarray((near > 0).any(1))
    fuzzed = exam.other >= 0
    marked = np.concatenate([said[y] > 0, predict(exam.other[fuzzed]) > 0])
    right = np.concatenate([np.ones(int(y.sum()), bool), np.zeros(int(fuzzed.sum()), bool)])
    of = np.concatenate([exam.text[y], exam.text[fuzzed]])
    shares = _shares(lambda w: np.stack([_balanced(w, said > 0, y), _auc(w, said, y)], 1), exam.text, seed)
    return LabelScores(
        shares[0], shares[1], _correlated(said, exam.truth, exam.text, seed),
        _told(says, holds, exam.text, seed),
        _told(marked, right, of, seed),
        len(exam.rows), exam.hard, len(np.unique(exam.text)),
    )  # fmt: skip


def balanced_accuracy(predict: Predictor, exam: LabelExam, seed: int) -> Estimate | None:
    """This score alone."""
    return _told(predict(exam.rows) > 0, exam.positive, exam.text, seed)


def _told(said: NDArray[np.bool_], truth: NDArray[np.bool_], text: Rows, seed: int) -> Estimate | None:
    """Balanced accuracy; None where there is only one kind."""
    if not truth.any() or truth.all():
        return None
    return _shares(lambda w: _balanced(w, said, truth)[:, None], text, seed)[0]


def _shares(statistic: Callable[[Floats], Floats], text: Rows, seed: int) -> list[Estimate]:
    return list(statistic_of(statistic, len(text), text.tolist(), _RESAMPLES, seed, scale="share"))


def _correlated(said: Floats, truth: Floats, text: Rows, seed: int) -> Estimate:
    return statistic_of(
        lambda w: _correlation(w, said, truth)[:, None], len(text), text.tolist(), _RESAMPLES, seed,
        scale="correlation",
    )[0]  # fmt: skip


def _balanced(w: Floats, said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Floats:
    """[b] of weighted examples; NaN where one of the two kinds is missing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        hit = (w @ (said & truth)) / (w @ truth.astype(np.float64))
        passed = (w @ (~said & ~truth)) / (w @ (~truth).astype(np.float64))
    return (hit + passed) / 2


def _auc(w: Floats, said: Floats, truth: NDArray[np.bool_]) -> Floats:
    above = np.sign(said[truth][:, None] - said[~truth][None]) / 2 + 0.5
    ones, zeros = w[:, truth], w[:, ~truth]
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((ones @ above) * zeros).sum(1) / (ones.sum(1) * zeros.sum(1))


def _correlation(w: Floats, x: Floats, y: Floats) -> Floats:
    """[b] Pearson's; 0 where a prediction never changes."""
    n = w.sum(1)
    mx, my = w @ x / n, w @ y / n
    vx, vy = w @ x**2 / n - mx**2, w @ y**2 / n - my**2
    scale = np.sqrt(np.maximum(vx, 0) * np.maximum(vy, 0))
    told = scale > 1e-12 * max(1e-300, float(np.abs(x).max() * np.abs(y).max()))
    return np.where(told, (w @ (x * y) / n - mx * my) / np.where(told, scale, 1.0), 0.0)
