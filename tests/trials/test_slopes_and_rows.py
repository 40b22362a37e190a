"""A bench for some of its examples, and what one gradient says of every part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.trials import Bench, Limits, PartSet, put_to_test
from cutaway.trials.looks import looks_at
from cutaway.trials.slopes import slopes
from cutaway.trials.spread import spread


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pairs(net: Network) -> Behaviour:
    return cutaway.behaviour("pronoun", net, n=48).discovery


def test_some_rows_give_the_numbers_of_the_whole_and_are_not_run_twice(
    net: Network, pairs: Behaviour, count_rows
) -> None:
    bench = Bench.of(net, pairs)
    some = bench.on([9, 2, 5])
    sets = [[Part("head", 2, 1)], [Part("mlp", 0), Part("head", 0, 3)]]
    first = some.keep_only(sets), some.remove(sets), some.restore(sets)
    whole = bench.keep_only(sets), bench.remove(sets), bench.restore(sets)
    for few, all_of_them in zip(first, whole, strict=True):
        np.testing.assert_array_equal(few, all_of_them[:, [2, 5, 9]])
    with count_rows(net) as rows:
        bench.first(7).remove(sets)
    assert rows.linear == 0
    np.testing.assert_array_equal(some.scale.whole, bench.scale.whole[[2, 5, 9]])


def test_some_rows_are_those_of_the_pairs_alone(net: Network, pairs: Behaviour) -> None:
    rows = spread(pairs.template, 6)
    alone, some = Bench.of(net, pairs.take(rows)), Bench.of(net, pairs).first(6)
    assert some.chosen.tolist() == rows
    sets = [[Part("head", 2, 3)]]
    np.testing.assert_allclose(some.keep_only(sets), alone.keep_only(sets), atol=1e-4)
    assert some.scale.gap == pytest.approx(alone.scale.gap, abs=1e-5)


def test_from_others_agrees_with_the_whole(net: Network, pairs: Behaviour) -> None:
    bench, sets = Bench.of(net, pairs), [[Part("head", 2, 1)], []]
    whole, some = bench.keep_only_from_others(sets), bench.first(10).keep_only_from_others(sets)
    assert whole is not None
    assert some is not None
    at = {row: i for i, row in enumerate(whole[1].tolist())}
    np.testing.assert_array_equal(some[0], whole[0][:, [at[row] for row in some[1].tolist()]])


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_what_is_spread_takes_as_many_of_each_as_there_can_be(labels: list[str], n: int) -> None:
    rows = spread(labels, n)
    assert rows == sorted(set(rows))
    assert len(rows) == min(n, len(labels))
    counts = {label: sum(labels[row] == label for row in rows) for label in set(labels)}
    for label, count in counts.items():
        assert count == labels.count(label) or count >= max(counts.values()) - 1


def moved(part: Part, where: torch.Tensor, share: float) -> cutaway.Edit:
    """An edit that takes a part `share` of the way to other values of its site."""
    assert part.site is not None
    at = (slice(None), slice(None)) if part.index is None else (slice(None), slice(None), part.index)

    def change(value: torch.Tensor) -> torch.Tensor:
        value[at] = value[at] + share * (where[at] - value[at])
        return value

    return cutaway.Apply(str(part.site), change)


@pytest.mark.parametrize("back", [False, True])
def test_slopes_against_finite_differences(net: Network, pairs: Behaviour, back: bool) -> None:
    """A small step from what a part holds towards what it would get, made in plain runs."""
    bench, rows, step = Bench.of(net, pairs).on([0, 3]), [0, 3], 1e-2
    head, mlp, gone = Part("head", 2, 1), Part("mlp", 1), [Part("head", 0, 1), Part("mlp", 0)]
    asked = [head, mlp, gone[0]]
    found = slopes(bench, gone, asked, back)
    assert found is not None
    base, other = (
        (bench.ends.corrupted, bench.ends.clean) if back else (bench.ends.clean, bench.ends.corrupted)
    )

    def metric(part: Part, share: float) -> np.ndarray:
        edits = [moved(p, other.kept[p.site][rows], 1.0) for p in gone if p.site is not None]
        assert part.site is not None
        goal = base if part in gone else other
        edits.append(moved(part, goal.kept[part.site][rows], share))
        run = net.run(base.tokens[rows], edits=edits, logits=bench.ends.positions[rows][:, None])
        assert run.logits is not None
        return bench.ends.score(run.logits[:, 0], torch.tensor(rows)).double().numpy()

    for part, slope in zip(asked, found, strict=True):
        difference = (metric(part, step) - metric(part, 0.0)) / step / bench.scale.gap
        np.testing.assert_allclose(slope, difference, atol=0.02, rtol=0.1)


def test_random_sets_are_compared_on_some_examples_and_the_set_is_measured_on_all(
    net: Network, pairs: Behaviour
) -> None:
    bench, members = Bench.of(net, pairs), (Part("mlp", 0), Part("mlp", 2), Part("head", 2, 3))
    candidate = PartSet(members, bench.parts)
    few = put_to_test(bench, candidate, Limits(random=6, random_on=5))
    all_of_them = put_to_test(bench, candidate, Limits(random=6, random_on=99))
    assert (few.n, few.n_random, all_of_them.n_random) == (pairs.n, 5, pairs.n)
    assert few.kept == all_of_them.kept
    assert few.left == all_of_them.left
    own = bench.first(5).scale
    by_hand = own.shares(bench.first(5).keep_only([members]))[0]
    assert few.kept_gain is not None
    assert few.kept_gain.value == pytest.approx(by_hand - np.mean(few.kept_random), abs=1e-9)


def test_looks_share_the_error_rate() -> None:
    for n, first in [(64, 64), (65, 64), (128, 64), (1000, 30), (7, 64)]:
        looks = looks_at(n, first, 0.05)
        assert looks[-1][0] == n
        assert [size for size, _ in looks] == sorted({size for size, _ in looks})
        assert sum(1 - level for _, level in looks) == pytest.approx(0.05)


def test_more_is_looked_at_only_where_few_do_not_decide(net: Network, pairs: Behaviour) -> None:
    bench = Bench.of(net, pairs)
    nothing = PartSet((Part("head", 1, 0),), bench.parts)
    early = put_to_test(bench, nothing, Limits(random=6), first=8)
    assert (early.n, early.looks, early.level) == (8, 1, 0.975)  # it keeps nothing: that is plain at once
    assert early.kept.interval is not None
    assert early.kept.interval.level == 0.975
    names = "a0.h0 a0.h1 a0.h3 a2.h1 a2.h3 m0 m1 m2 m3".split()
    undecided = PartSet(tuple(map(Part.parse, names)), bench.parts)
    open_to_the_end = Limits(random=6, kept=1e-4, excess=1e9, left=1.0, from_others=1.0)
    late = put_to_test(bench, undecided, open_to_the_end, first=8)
    assert (late.n, late.looks, late.level) == (pairs.n, 2, 0.975)
