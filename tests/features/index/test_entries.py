"""Columns put together from parts, on random sparse matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.features.index.entries import Entries, blocks_of, merged, of_rows, some_features
from cutaway.features.index.together import joined_sums, nearest, sums_of
from cutaway.results import Work


def sparse(rng: np.random.Generator, n: int, size: int, share: float) -> np.ndarray:
    return np.where(rng.random((n, size)) < share, rng.standard_normal((n, size)), 0).astype(np.float32)


def entries_of(dense: np.ndarray, half: bool = False) -> Entries:
    at, feature = np.nonzero(dense)
    return of_rows(at, feature, dense[at, feature], dense.shape[1], half)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(1, 9),
    st.integers(1, 30),
)
def test_merged_parts_are_the_whole(seed: int, lengths: list[int], size: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [sparse(rng, n, size, 0.4) for n in lengths]
    whole = np.concatenate(parts)
    before = np.cumsum([0, *lengths])
    counts = (whole != 0).sum(0)
    held = [entries_of(part) for part in parts]
    blocks = []
    for first, end in blocks_of(counts, most):
        cut = (some_features(e, first, end) for e in held)
        moved = (
            Entries(e.starts, e.rows + np.uint32(at), e.values)
            for e, at in zip(cut, before[:-1], strict=True)
        )
        blocks.append((first, merged(moved, counts[first:end], False)))
    assert [first for first, _ in blocks] == [first for first, _ in blocks_of(counts, most)]
    assert np.array_equal(np.concatenate([b.matrix(len(whole)).toarray() for _, b in blocks], 1), whole)
    assert all(len(b.rows) <= most or b.size == 1 for _, b in blocks)
    for first, block in blocks:
        for i in range(block.size):
            rows, values = block.of(i)
            assert rows.tolist() == np.nonzero(whole[:, first + i])[0].tolist()
            assert np.array_equal(values, whole[rows, first + i])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 8), st.integers(0, 9), st.integers(1, 20))
def test_sums_and_nearest_by_blocks_are_those_of_the_whole(
    seed: int, n: int, size: int, k: int, most: int
) -> None:
    dense = sparse(np.random.default_rng(seed), n, size, 0.3)
    whole = entries_of(dense)
    cut = blocks_of(np.diff(whole.starts), most)
    blocks = [(first, some_features(whole, first, end)) for first, end in cut]
    sums = joined_sums([sums_of(block, n) for _, block in blocks])
    exact = dense.astype(np.float64)
    np.testing.assert_allclose(sums.total, exact.sum(0), atol=1e-9)
    np.testing.assert_allclose(sums.squares, (exact**2).sum(0), atol=1e-9)
    for i in range(size):
        active = exact[exact[:, i] != 0, i]
        assert sums.maxima[i] == (active.max() if len(active) else 0)
        assert sums.minima[i] == (active.min() if len(active) else 0)
    found = nearest([(first, lambda b=block: b) for first, block in blocks], sums, k, Work(), "")
    assert found.which.shape == (size, min(k, size - 1))
    on = dense != 0
    for i in range(size):
        there = found.which[i] >= 0
        others = [j for j in range(size) if j != i and (on[:, i] & on[:, j]).any()]
        assert there.sum() == min(len(others), found.which.shape[1])
        spread = exact.std(0)
        r = [
            0.0 if spread[i] * spread[j] < 1e-12 else float(((exact[:, i] - exact[:, i].mean()) * exact[:, j]).mean())
            / (spread[i] * spread[j]) for j in others
        ]  # fmt: skip
        np.testing.assert_allclose(
            found.correlation[i][there], sorted(r, reverse=True)[: there.sum()], atol=1e-7
        )
        for j, both, close in zip(
            found.which[i][there], found.both[i][there], found.jaccard[i][there], strict=True
        ):
            assert both == (on[:, i] & on[:, j]).sum()
            assert close == pytest.approx(both / (on[:, i] | on[:, j]).sum())


def test_what_is_too_small_for_half_precision_stays_an_entry() -> None:
    dense = np.array([[1e-9, -1e-12, 0.0, 3.0]], np.float32)
    kept = entries_of(dense, half=True)
    assert kept.values.dtype == np.float16
    assert (kept.values != 0).all()
    assert kept.values[1] < 0
    assert len(kept.values) == 3
