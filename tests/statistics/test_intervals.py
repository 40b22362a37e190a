from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutaway.errors import BadInput, NotFinite
from cutaway.statistics import (
    Estimate,
    mean_of,
    means_of,
    proportion,
    ratio_of,
    share_of,
    sign_flip_p,
    statistic_of,
    t_quantile,
)
from cutaway.statistics.levels import degrees

finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@pytest.mark.parametrize(
    ("n", "clusters"), [(10, None), (40, None), (120, 12)], ids=["few examples", "examples", "clusters"]
)
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(n: int, clusters: int | None) -> None:
    rng = np.random.default_rng(0)
    labels = None if clusters is None else np.repeat(np.arange(clusters), n // clusters)
    trials, hits = 600, 0
    for _ in range(trials):
        values = rng.normal(1.0, 1.0, n)
        if labels is not None:
            values = values + rng.normal(0, 1.0, clusters)[labels]
        interval = mean_of(values, labels).interval
        assert interval is not None
        hits += 1.0 in interval
    assert 0.91 <= hits / trials <= 0.985


def test_ignoring_clusters_would_be_overconfident() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(10), 20)
    values = rng.normal(0, 1, 10)[labels] + rng.normal(0, 0.1, 200)
    alone, together = mean_of(values).interval, mean_of(values, labels).interval
    assert alone is not None
    assert together is not None
    assert together.width > 2.5 * alone.width


def test_many_equals_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4, 3))
    labels = [i % 7 for i in range(30)]
    many = means_of(values, labels)
    assert many.shape == (4, 3)
    for index in np.ndindex(4, 3):
        one = mean_of(values[(slice(None), *index)], labels)
        other = many[index]
        assert one.interval is not None
        assert other.interval is not None
        assert math.isclose(one.value, other.value)
        assert math.isclose(one.interval.low, other.interval.low)
        assert math.isclose(one.interval.high, other.interval.high)


def test_many_cells_are_computed_in_chunks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(9, 50))
    whole = sign_flip_p(values, n=300)
    monkeypatch.setattr("cutaway.statistics.significance.CELLS_AT_ONCE", 7)
    np.testing.assert_allclose(whole, sign_flip_p(values, n=300))


@given(hnp.arrays(np.float64, st.integers(2, 30), elements=finite), st.floats(-50, 50), st.floats(0.01, 100))
def test_an_interval_holds_its_mean_and_moves_with_the_unit(
    values: np.ndarray, shift: float, unit: float
) -> None:
    first, moved, turned = mean_of(values), mean_of(unit * values + shift), mean_of(-values)
    assert first.interval is not None
    assert moved.interval is not None
    assert turned.interval is not None
    slack = 1e-6 * (1 + np.abs(values).max()) * (1 + unit) + 1e-6 * abs(shift)
    assert first.interval.low - slack <= values.mean() <= first.interval.high + slack
    assert moved.interval.low == pytest.approx(unit * first.interval.low + shift, abs=slack)
    assert moved.interval.high == pytest.approx(unit * first.interval.high + shift, abs=slack)
    assert turned.interval.low == pytest.approx(-first.interval.high, abs=slack)
    assert first.n == len(values)


@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 99))
def test_clusters_of_one_size_are_students_t_on_their_means(count: int, size: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(count, size))
    got = mean_of(values.ravel(), np.repeat(np.arange(count), size)).interval
    assert got is not None
    means = values.mean(1)
    expected = scipy.stats.t.interval(0.95, count - 1, means.mean(), scipy.stats.sem(means))
    assert (got.low, got.high) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12))
def test_degrees_of_freedom_are_the_traces_of_bell_and_mccaffrey(sizes: list[int]) -> None:
    c = np.array(sizes, float)
    p = c / c.sum()
    centred = np.eye(len(c)) - np.outer(np.ones(len(c)), p)
    form = np.diag((p / (1 - p)) ** 2) @ centred @ np.diag(1 / c) @ centred.T
    assert degrees(c) == pytest.approx(max(1.0, np.trace(form) ** 2 / np.trace(form @ form)), rel=1e-6)


def test_skewed_examples_pull_the_interval_to_their_long_side() -> None:
    values = np.random.default_rng(3).exponential(size=12)
    got, plain = (
        mean_of(values).interval,
        scipy.stats.t.interval(0.95, 11, values.mean(), scipy.stats.sem(values)),
    )
    assert got is not None
    assert got.high - values.mean() > plain[1] - values.mean()
    assert values.mean() - got.low < values.mean() - plain[0]


def test_one_example_or_one_cluster_has_no_interval() -> None:
    assert mean_of([3.0]).interval is None
    assert mean_of([3.0, 4.0, 5.0], ["a", "a", "a"]).interval is None
    assert ratio_of([1.0], [2.0]) == Estimate(0.5, None, 1)
    assert "no interval" in str(mean_of([3.0]))


@given(st.integers(3, 40), st.integers(0, 99))
def test_fiellers_ends_are_the_shares_at_which_the_rest_is_just_not_told_from_zero(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    below = rng.normal(3, 0.5, n)
    above = 0.7 * below + rng.normal(0, 0.4, n)
    got = ratio_of(above, below).interval
    assert got is not None
    for end in (got.low, got.high):
        assert scipy.stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05, rel=1e-6)


def test_shares_have_wilsons_interval_and_clusters_count_for_fewer() -> None:
    right = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1, 1])
    assert share_of(right) == proportion(8, 10)
    alone, together = share_of(right).interval, share_of(right, list("aabbccddee")).interval
    assert alone is not None
    assert together is not None
    assert together.width > alone.width
    perfect = share_of(np.ones(20), np.arange(20) // 4).interval
    assert perfect is not None
    assert perfect.high == pytest.approx(1.0)
    assert perfect.low < 0.84
    assert share_of(np.ones(20), np.zeros(20)).interval is None
    with pytest.raises(BadInput, match="right or wrong"):
        share_of([0.5, 1.0])


def test_a_perfect_score_has_no_interval_of_width_zero() -> None:
    right = np.ones(30)

    def accuracy(weights: np.ndarray) -> np.ndarray:
        return (weights @ right[:, None]) / weights.sum(1, keepdims=True)

    share, other = statistic_of(accuracy, 30, scale="share")[0], statistic_of(accuracy, 30)[0]
    assert share.interval is not None
    assert share.interval.low == pytest.approx(0.878, abs=0.01)
    assert other.interval is not None
    assert other.interval.width == 0.0


def test_a_statistic_of_clusters_has_the_interval_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 5)
    values = rng.normal(size=12)[labels] + rng.normal(size=60)
    drawn = statistic_of(lambda w: (w @ values[:, None]) / w.sum(1, keepdims=True), 60, labels, 4000)[0]
    known = mean_of(values, labels).interval
    assert drawn.interval is not None
    assert known is not None
    assert drawn.interval.width == pytest.approx(known.width, rel=0.05)


def test_ratio() -> None:
    rng = np.random.default_rng(0)
    below = rng.normal(4, 1, 200)
    got = ratio_of(0.8 * below + rng.normal(0, 0.1, 200), below)
    assert got.interval is not None
    assert 0.8 in got.interval
    assert got.interval.width < 0.02
    spanning = ratio_of(rng.normal(0, 1, 50), rng.normal(0, 1, 50))
    assert spanning.interval is None
    with pytest.raises(BadInput, match="mean is zero"):
        ratio_of([1.0, 1.0], [1.0, -1.0])


@pytest.mark.parametrize(
    ("df", "value"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)]
)
def test_t_quantiles(df: int, value: float) -> None:
    assert t_quantile(0.975, df) == pytest.approx(value, rel=0.01)
    assert t_quantile(0.025, df) == pytest.approx(-value, rel=0.01)


@pytest.mark.parametrize(
    ("p", "df", "value"),
    [
        (0.9995, 3, 12.924),
        (0.9995, 4, 8.610),
        (0.975, 3, 3.182),
        (0.9995, 10, 4.587),
        (0.9995, 30, 3.646),
        (0.5, 5, 0),
    ],
)
def test_t_quantiles_far_out(p: float, df: int, value: float) -> None:
    assert t_quantile(p, df) == pytest.approx(value, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("df", [1, 2, 7, 29, 30, 400])
def test_t_quantiles_are_those_of_scipy(df: int) -> None:
    for p in (0.0005, 0.025, 0.4, 0.975, 0.9995):
        assert t_quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-12)
    with pytest.raises(BadInput, match="no t quantile"):
        t_quantile(1.0, df)


def test_bad_input() -> None:
    with pytest.raises(NotFinite, match=r"first at \(1, 0\)"):
        means_of([[1.0, 2.0], [math.nan, 1.0]])
    with pytest.raises(BadInput, match="no example"):
        mean_of([])
    with pytest.raises(BadInput, match="one label for each"):
        mean_of([1.0, 2.0], ["a"])
    with pytest.raises(BadInput, match="means_of"):
        mean_of([[1.0], [2.0]])
    with pytest.raises(BadInput, match="level"):
        mean_of([1.0, 2.0], level=95)


def _pearson(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Of weighted examples [b n]: [b 1]; 0 where one never changes."""

    def statistic(w: np.ndarray) -> np.ndarray:
        n = w.sum(1)
        a, b = w @ x / n, w @ y / n
        spread = np.sqrt(np.maximum(w @ x**2 / n - a**2, 0) * np.maximum(w @ y**2 / n - b**2, 0))
        return np.where(spread > 1e-12, (w @ (x * y) / n - a * b) / np.maximum(spread, 1e-12), 0.0)[:, None]

    return statistic


def _predicted(kind: str, groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clusters of five, what is predicted and what is true: both normal, a sparse truth, or two kinds of answer."""
    labels = np.repeat(np.arange(groups), 5)
    true = rng.normal(size=len(labels)) + 0.7 * rng.normal(size=groups)[labels]
    if kind == "normal":
        return labels, true + 0.5 * rng.normal(size=len(labels)), true
    if kind == "sparse":
        return labels, (true + 0.6 * rng.normal(size=len(labels)) > 0).astype(float), np.maximum(0.0, true)
    fires = (true > 0).astype(float)
    return labels, np.where(rng.random(len(labels)) < 0.03, 1 - fires, fires), fires


@pytest.mark.parametrize("groups", [3, 5, 10, 30])
@pytest.mark.parametrize("kind", ["normal", "sparse", "nearly right"])
def test_a_correlation_of_few_clusters_is_held_within_its_scale(kind: str, groups: int) -> None:
    _, x, y = _predicted(kind, 100_000, np.random.default_rng(99))
    true, rng, held, tries = np.corrcoef(x, y)[0, 1], np.random.default_rng(1), 0, 300
    for _ in range(tries):
        labels, x, y = _predicted(kind, groups, rng)
        got = statistic_of(_pearson(x, y), len(x), labels, 200, scale="correlation")[0]
        assert got.interval is not None
        assert -1 <= got.interval.low <= got.value + 1e-9
        assert got.value - 1e-9 <= got.interval.high <= 1
        held += true in got.interval
    # three standard deviations of the count below 95 %
    assert held / tries >= 0.95 - 3 * (0.95 * 0.05 / tries) ** 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_perfect_correlation_has_no_interval_of_width_zero(sign: float) -> None:
    x = np.arange(20) % 2.0
    got = statistic_of(_pearson(x, sign * x), 20, np.arange(20) // 4, scale="correlation")[0]
    assert got.interval is not None
    assert got.value == pytest.approx(sign)
    assert max(got.interval.high, -got.interval.low) == pytest.approx(1.0)
    assert 0.2 < got.interval.width < 1.0


def test_a_correlation_of_one_cluster_or_of_nothing_has_no_interval() -> None:
    x = np.arange(6.0)
    assert statistic_of(_pearson(x, x), 6, np.zeros(6), scale="correlation")[0].interval is None
    nothing = statistic_of(lambda w: np.full((len(w), 1), np.nan), 6, scale="correlation")[0]
    assert nothing.interval is None
