"""What fires, against sorting: every rule, ties, rows with few positive numbers, bounds that turn out too high."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cutaway.features.training import selection
from cutaway.features.training.selection import Picked, Rule, kth_largest, lower_bound, nonzero, scan


def by_sorting(pre: Tensor, rule: Rule) -> list[tuple[int, int]]:
    """(row, latent) of what a rule chooses: larger first, then the smaller number (of the whole batch: the earlier row)."""
    n, size = pre.shape
    numbers = pre.tolist()
    if rule.kind == "above":
        assert rule.threshold is not None
        level = rule.threshold.expand(size).tolist()
        return [(r, i) for r in range(n) for i in range(size) if numbers[r][i] > level[i]]
    if rule.kind == "batch":
        every = sorted((-numbers[r][i], r, i) for r in range(n) for i in range(size))[: rule.k * n]
        return sorted((r, i) for value, r, i in every if value < 0)
    found = []
    for r in range(n):
        if rule.kind == "rows":
            best = sorted(range(size), key=lambda i: (-numbers[r][i], i))[: rule.k]
        else:
            width = size // rule.k
            groups = [range(g * width, (g + 1) * width) for g in range(rule.k)]
            best = [min(group, key=lambda i: (-numbers[r][i], i)) for group in groups]
        found += sorted((r, i) for i in best if numbers[r][i] > 0)
    return found


def as_pairs(found: Picked, size: int) -> list[tuple[int, int]]:
    return [(at // size, at % size) for at in found.flat.tolist()]


def identity(pre: Tensor, rule: Rule) -> Picked:
    """The rule on numbers as they are: the encoder is the identity."""
    size = pre.shape[1]
    found = scan(pre, torch.eye(size, dtype=pre.dtype), torch.zeros(size, dtype=pre.dtype), rule)
    assert found is not None
    return found


@st.composite
def questions(draw: st.DrawFn) -> tuple[Tensor, Rule, int]:
    n, k, width = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 40))
    kind = draw(st.sampled_from(["rows", "batch", "groups", "above"]))
    size = k * width if kind == "groups" else k + width - 1
    seed, levels = draw(st.integers(0, 2**31)), draw(st.sampled_from([0, 2, 5]))
    pre = torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pre = pre + draw(st.sampled_from([0.0, 0.0, -2.0, 1.0]))
    if levels:  # few different numbers, so that most are ties
        pre = (pre * levels).round() / levels
    threshold = torch.linspace(-0.5, 0.5, size, dtype=torch.float64) if kind == "above" else None
    return pre, Rule(kind, k, threshold), draw(st.integers(1, n))


@given(questions())
@settings(max_examples=200)
def test_every_rule_is_what_sorting_gives(question: tuple[Tensor, Rule, int]) -> None:
    pre, rule, rows = question
    with mock.patch.multiple(selection, _CHUNK=1, _ROWS=rows):  # several chunks
        found = identity(pre, rule)
    assert as_pairs(found, pre.shape[1]) == by_sorting(pre, rule)
    assert torch.equal(found.values, pre.reshape(-1)[found.flat])


@pytest.mark.parametrize("kind", ["rows", "batch", "groups"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_many_latents(kind: str, dtype: torch.dtype) -> None:
    pre = torch.randn(300, 512, generator=torch.Generator().manual_seed(1), dtype=dtype)
    rule = Rule(kind, 8)  # type: ignore[arg-type]
    assert as_pairs(identity(pre, rule), 512) == by_sorting(pre, rule)


@pytest.mark.parametrize("first", [100.0, 0.01])
def test_a_batch_whose_first_rows_are_unlike_the_rest(first: float) -> None:
    """The bound that they suggest is far too high, or far too low."""
    pre = torch.randn(40, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pre[:10] *= first
    rule = Rule("batch", 5)
    with mock.patch.multiple(selection, _CHUNK=1, _ROWS=10):
        assert as_pairs(identity(pre, rule), 64) == by_sorting(pre, rule)


@pytest.mark.parametrize("kind", ["rows", "batch", "above"])
@pytest.mark.parametrize("threads", [2, 3])
def test_several_threads_find_the_same(kind: str, threads: int) -> None:
    pre = torch.randn(50, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    threshold = torch.linspace(-0.5, 2.5, 64, dtype=torch.float64) if kind == "above" else None
    rule = Rule(kind, 4, threshold)  # type: ignore[arg-type]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with mock.patch.object(selection, "_SHARE", 1):
            found = identity(pre, rule)
    finally:
        torch.set_num_threads(before)
    assert as_pairs(found, 64) == by_sorting(pre, rule)


def test_a_batch_does_not_depend_on_how_it_is_cut() -> None:
    pre = torch.randn(64, 128, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pre = (pre * 3).round()
    results = []
    for rows in (1, 7, 64):
        with mock.patch.multiple(selection, _CHUNK=1, _ROWS=rows):
            results.append(identity(pre, Rule("batch", 6)).flat)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 90))
def test_the_bound_is_one(seed: int, k: int, more: int) -> None:
    """At least k numbers of each row reach it, whatever the number of latents."""
    pre = torch.randn(5, k + more, generator=torch.Generator().manual_seed(seed))
    bound = lower_bound(pre, k)
    assert bool(((pre >= bound[:, None]).sum(1) >= k).all())
    assert bool((bound <= pre.sort(1, descending=True).values[:, k - 1]).all())


def test_rows_with_fewer_positive_numbers_than_k_keep_these() -> None:
    pre = torch.tensor([[-1.0, 2.0, -3.0, 0.0], [-1.0, -2.0, -3.0, -4.0], [1.0, 2.0, 3.0, 4.0]])
    found = identity(pre, Rule("rows", 3))
    assert found.flat.tolist() == [1, 9, 10, 11]
    assert found.values.tolist() == [2.0, 2.0, 3.0, 4.0]


def test_where_most_pass_a_threshold_there_is_no_list() -> None:
    rows, weight, bias = torch.randn(20, 4), torch.randn(30, 4), torch.zeros(30)
    assert scan(rows, weight, bias, Rule("above", threshold=torch.zeros(())), limit=0.2) is None
    assert scan(rows, weight, bias, Rule("above", threshold=torch.full((), 100.0)), limit=0.2) is not None


@given(st.integers(0, 200), st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(0, 10**6))
def test_places_of_what_is_true(n: int, share: float, seed: int) -> None:
    mask = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share
    assert nonzero(mask).tolist() == [i for i, on in enumerate(mask.tolist()) if on]


def test_the_kth_largest() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 4.0]])
    assert kth_largest(values, 2).tolist() == [2.0, 5.0]
    assert float(kth_largest(values[0], 1)) == 3.0
