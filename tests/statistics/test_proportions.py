from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cutaway.errors import BadInput
from cutaway.statistics import log_binomial_tail, proportion


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (95, 100, 0.8882, 0.9785),
        (9, 10, 0.5958, 0.9821),
        (50, 100, 0.4038, 0.5962),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_known_values(k: int, n: int, low: float, high: float) -> None:
    got = proportion(k, n)
    assert got.interval is not None
    assert got.interval.method == "wilson"
    assert got.interval.low == pytest.approx(low, abs=6e-5)
    assert got.interval.high == pytest.approx(high, abs=6e-5)
    assert (got.interval.low == 0) == (k == 0)
    assert (got.interval.high == 1) == (k == n)


@given(st.integers(1, 200), st.data())
def test_wilson_holds_its_own_value_and_is_symmetric(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    one, other = proportion(k, n), proportion(n - k, n)
    assert one.interval is not None
    assert other.interval is not None
    assert 0 <= one.interval.low <= one.value <= one.interval.high <= 1
    assert one.interval.low == pytest.approx(1 - other.interval.high, abs=1e-9)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="5 of 3"):
        proportion(5, 3)


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.data())
def test_binomial_tails_against_scipy(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    upper, lower = log_binomial_tail(n, k, p), log_binomial_tail(n, k, p, "lower")
    assert upper == pytest.approx(scipy.stats.binom.logsf(k - 1, n, p), rel=1e-8, abs=1e-9)
    assert lower == pytest.approx(scipy.stats.binom.logcdf(k, n, p), rel=1e-8, abs=1e-9)


def test_binomial_tails_do_not_underflow_and_may_be_empty() -> None:
    assert log_binomial_tail(100_000, 100_000, 0.5) == pytest.approx(100_000 * math.log(0.5))
    assert log_binomial_tail(10, 11, 0.5) == -math.inf
    assert log_binomial_tail(10, -1, 0.5, "lower") == -math.inf
    assert log_binomial_tail(10, 3, 0.0) == -math.inf
    assert log_binomial_tail(10, 10, 1.0) == 0.0
