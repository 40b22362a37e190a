from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutaway.errors import BadInput, NotFinite
from cutaway.statistics import Estimate, bootstrap, bootstrap_many, bootstrap_ratio, sign_flip_p, t_quantile

finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@pytest.mark.parametrize(
    ("n", "clusters"), [(10, None), (40, None), (120, 12)], ids=["few examples", "examples", "clusters"]
)
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(n: int, clusters: int | None) -> None:
    rng = np.random.default_rng(0)
    labels = None if clusters is None else np.repeat(np.arange(clusters), n // clusters)
    trials, hits = 600, 0
    for trial in range(trials):
        values = rng.normal(1.0, 1.0, n)
        if labels is not None:
            values = values + rng.normal(0, 1.0, clusters)[labels]
        interval = bootstrap(values, labels, n_boot=500, seed=trial).interval
        assert interval is not None
        hits += 1.0 in interval
    assert 0.91 <= hits / trials <= 0.985


def test_ignoring_clusters_would_be_overconfident() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(10), 20)
    values = rng.normal(0, 1, 10)[labels] + rng.normal(0, 0.1, 200)
    alone, together = bootstrap(values).interval, bootstrap(values, labels).interval
    assert alone is not None
    assert together is not None
    assert together.width > 2.5 * alone.width


def test_many_equals_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4, 3))
    labels = [i % 7 for i in range(30)]
    many = bootstrap_many(values, labels, seed=5)
    assert many.shape == (4, 3)
    for index in np.ndindex(4, 3):
        one = bootstrap(values[(slice(None), *index)], labels, seed=5)
        other = many[index]
        assert one.interval is not None
        assert other.interval is not None
        assert math.isclose(one.value, other.value)
        assert math.isclose(one.interval.low, other.interval.low)
        assert math.isclose(one.interval.high, other.interval.high)


def test_many_cells_are_computed_in_chunks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(9, 50))
    whole = bootstrap_many(values, n_boot=200)
    monkeypatch.setattr("cutaway.statistics.resampling.CELLS_AT_ONCE", 7)
    monkeypatch.setattr("cutaway.statistics.significance.CELLS_AT_ONCE", 7)
    parts = bootstrap_many(values, n_boot=200)
    np.testing.assert_allclose(whole.low, parts.low)
    np.testing.assert_allclose(sign_flip_p(values, n=300), sign_flip_p(values, n=300))


@given(hnp.arrays(np.float64, st.integers(2, 30), elements=finite), st.integers(0, 5))
def test_bootstrap_is_a_function_of_the_seed_and_stays_within_the_data(values: np.ndarray, seed: int) -> None:
    first, second = bootstrap(values, n_boot=100, seed=seed), bootstrap(values, n_boot=100, seed=seed)
    assert first == second
    assert first.interval is not None
    slack = 1e-9 * (1 + np.abs(values).max())
    assert values.min() - slack <= first.interval.low <= first.interval.high <= values.max() + slack
    assert first.n == len(values)


def test_one_example_or_one_cluster_has_no_interval() -> None:
    assert bootstrap([3.0]).interval is None
    assert bootstrap([3.0, 4.0, 5.0], ["a", "a", "a"]).interval is None
    assert bootstrap_ratio([1.0], [2.0]) == Estimate(0.5, None, 1)
    assert "no interval" in str(bootstrap([3.0]))


def test_ratio() -> None:
    rng = np.random.default_rng(0)
    below = rng.normal(4, 1, 200)
    got = bootstrap_ratio(0.8 * below + rng.normal(0, 0.1, 200), below)
    assert got.interval is not None
    assert 0.8 in got.interval
    assert got.interval.width < 0.02
    spanning = bootstrap_ratio(rng.normal(0, 1, 50), rng.normal(0, 1, 50))
    assert spanning.interval is None
    with pytest.raises(BadInput, match="mean is zero"):
        bootstrap_ratio([1.0, 1.0], [1.0, -1.0])


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
        bootstrap_many([[1.0, 2.0], [math.nan, 1.0]])
    with pytest.raises(BadInput, match="no example"):
        bootstrap([])
    with pytest.raises(BadInput, match="one label for each"):
        bootstrap([1.0, 2.0], ["a"])
    with pytest.raises(BadInput, match="bootstrap_many"):
        bootstrap([[1.0], [2.0]])
    with pytest.raises(BadInput, match="level"):
        bootstrap([1.0, 2.0], level=95)
