from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutaway.errors import BadInput, NotFinite
from cutaway.statistics import benjamini_hochberg, sign_flip_p


def test_benjamini_hochberg_by_hand() -> None:
    # Benjamini and Hochberg (1995), table of 15 p-values: at 0.05 the first four are rejected.
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    q = benjamini_hochberg(p)
    assert (q <= 0.05).sum() == 4
    assert q[3] == pytest.approx(0.0095 * 15 / 4)
    assert q[-1] == 1.0
    shuffled = np.random.default_rng(0).permutation(15)
    np.testing.assert_allclose(
        benjamini_hochberg(np.array(p)[shuffled].reshape(3, 5)), q[shuffled].reshape(3, 5)
    )


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)))
def test_benjamini_hochberg_against_the_definition(p: np.ndarray) -> None:
    q = benjamini_hochberg(p)
    order = np.sort(p)
    for i, value in enumerate(p):
        ranks = [(order[j] * len(p) / (j + 1)) for j in range(len(p)) if order[j] >= value]
        assert q[i] == pytest.approx(min(1.0, *ranks) if len(ranks) > 1 else min(1.0, ranks[0]))


@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.integers(-20, 20).map(float)))
def test_sign_flips_against_brute_force(values: np.ndarray) -> None:
    sums = [abs(np.dot(signs, values)) for signs in itertools.product([1, -1], repeat=len(values))]
    expected = np.mean([s >= abs(values.sum()) - 1e-9 for s in sums])
    assert float(sign_flip_p(values)) == pytest.approx(expected)


def test_random_sign_flips_agree_with_all_of_them_and_sides_add_up() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, 12)
    exact = float(sign_flip_p(values))
    assert float(sign_flip_p(values, n=4000)) == pytest.approx(exact, abs=0.02)
    assert (
        float(sign_flip_p(values, alternative="greater"))
        < 0.5
        < float(sign_flip_p(values, alternative="less"))
    )


def test_sign_flip_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 4)
    values = rng.normal(0, 1, (12, 500))[labels] + rng.normal(0, 1, (48, 500))
    assert 0.02 <= (sign_flip_p(values, labels) <= 0.05).mean() <= 0.08
    assert (sign_flip_p(values) <= 0.05).mean() > 0.15  # what ignoring the clusters would do


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)))
def test_benjamini_hochberg_against_scipy(p: np.ndarray) -> None:
    adjusted = scipy.stats.false_discovery_control(p.ravel()).reshape(p.shape)
    np.testing.assert_allclose(benjamini_hochberg(p), adjusted)


def test_bad_input() -> None:
    with pytest.raises(NotFinite):
        sign_flip_p([math.inf, 1.0])
    for bad in (1.2, -0.1, math.nan):
        with pytest.raises(BadInput, match="p-value"):
            benjamini_hochberg([bad])
    assert benjamini_hochberg([]).shape == (0,)
