"""Group tests of what screening drops: nothing of weight hides in a group, as the sum of single effects and patching by hand
say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.explanations import SearchLimits
from cutaway.explanations.groups import SMALL, GroupTests, LetGo, let_go
from cutaway.explanations.singles import PartScreening, estimated, screened, single_effects
from cutaway.explanations.sizes import WHOLE, Sizes, priced
from cutaway.network import Network
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.results.meter import Meter, metered
from cutaway.trials import Bench
from cutaway.trials.ends import ends_kept
from cutaway.trials.scale import GapScale


@dataclass
class Additive:
    """A bench on which effects add up; parts of `twins` are lost only where all of them are corrupted.

    Attributes:
        each: part -> its effect.
        twins: parts that stand in for one another.
        n: examples.
        runs: sets that were run.
    """

    each: dict[Part, float]
    twins: frozenset[Part] = frozenset()
    n: int = 10
    runs: list[frozenset[Part]] = field(default_factory=list)

    @property
    def chosen(self) -> np.ndarray:
        return np.arange(self.n)

    @property
    def scale(self) -> GapScale:
        return GapScale(np.zeros(self.n), np.ones(self.n))

    def restore(self, sets: Any, _label: str = "") -> np.ndarray:
        self.runs += [frozenset(s) for s in sets]
        return np.array([[sum(self.each[p] for p in s)] * self.n for s in sets])

    def remove(self, sets: Any, _label: str = "") -> np.ndarray:
        gone = [0.5 if self.twins and self.twins <= frozenset(s) else 0.0 for s in sets]
        return 1 - self.restore(sets) - np.array(gone)[:, None]


PARTS = [Part("mlp", layer) for layer in range(70)]


def on_trial(
    bench: Additive, most: int = 10_000, sampled: int = 3, seed: int = 0
) -> tuple[LetGo, GroupTests]:
    parts: Any = list(bench.each)
    few: Any = replace(bench, n=4)
    tests = GroupTests(bench, few, most)  # type: ignore[arg-type]
    drawn = [parts[i] for i in np.random.default_rng(seed).permutation(len(parts))]
    return let_go(tests, parts, drawn, sampled), tests


def together(bench: Additive, parts: Any) -> float:
    return abs(sum(bench.each[p] for p in parts))


@given(
    st.lists(st.floats(-0.02, 0.02), min_size=1, max_size=70),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_what_is_dropped_is_small_together_and_every_part_is_somewhere(
    effects: list[float], seed: int
) -> None:
    bench = Additive(dict(zip(PARTS, effects, strict=False)))
    found, _ = on_trial(bench, seed=seed)
    assert sorted([*found.dropped, *found.sampled, *found.singly]) == sorted(bench.each)
    assert found.settled
    assert together(bench, found.dropped) <= SMALL + 1e-9
    assert together(bench, [*found.dropped, *found.sampled]) <= SMALL + 1e-9


@given(st.permutations(range(70)), st.floats(0.011, 3.0))
@settings(max_examples=60, deadline=None)
def test_two_parts_that_hide_one_another_and_one_that_does_not_are_found(
    order: list[int], size: float
) -> None:
    one, other, third = (PARTS[i] for i in order[:3])
    bench = Additive(dict.fromkeys(PARTS, 0.0) | {one: size, other: -size, third: 0.3})
    found, tests = on_trial(bench)
    assert set(found.singly) == {one, other, third}
    assert found.settled
    assert tests.tried < 2 * len(PARTS)


@given(st.permutations(range(70)))
@settings(max_examples=30, deadline=None)
def test_parts_that_stand_in_for_one_another_are_not_both_dropped(order: list[int]) -> None:
    twins = frozenset(PARTS[i] for i in order[:2])
    bench = Additive(dict.fromkeys(PARTS, 0.0), twins)
    found, _ = on_trial(bench)
    assert found.settled
    assert twins & set(found.singly)


@given(st.integers(0, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_no_more_groups_are_tried_than_may_be_and_what_is_not_told_is_said(most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bench = Additive(dict(zip(PARTS, rng.normal(0, 0.02, len(PARTS)), strict=True)))
    found, tests = on_trial(bench, most)
    assert sum(tests.cost(on_all) for _, on_all in tests.effects) <= most
    assert all(frozenset([part]) in {group for group, _ in tests.effects} for part in found.singly)
    assert found.settled is False or together(bench, found.dropped) <= SMALL + 1e-9
    assert found.settled or most < 60 or together(bench, found.dropped) > 0


def test_parts_of_no_weight_take_the_checks_alone() -> None:
    found, tests = on_trial(Additive(dict.fromkeys(PARTS, 1e-5)))
    assert not found.singly
    assert tests.tried == 1 + 1 + 7  # all, without the sample, and one for every digit of a number below 70


@pytest.fixture(scope="module")
def tales() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def agreement(tales: Network) -> Behaviour:
    return cutaway.behaviour("agreement", tales, n=64)


def by_hand(net: Network, bench: Bench, parts: list[Part], back: bool) -> np.ndarray:
    """The metric with these parts holding the other side's values, in one plain run with edits."""
    base, other = (
        (bench.ends.corrupted, bench.ends.clean) if back else (bench.ends.clean, bench.ends.corrupted)
    )

    def edit(part: Part) -> cutaway.Edit:
        assert part.site is not None
        kept = other.kept[part.site]
        at = (slice(None), slice(None)) if part.index is None else (slice(None), slice(None), part.index)

        def change(value: torch.Tensor) -> torch.Tensor:
            value[at] = kept[at]
            return value

        return cutaway.Apply(str(part.site), change)

    run = net.run(base.tokens, edits=[edit(part) for part in parts], logits=bench.ends.positions[:, None])
    assert run.logits is not None
    return bench.ends.score(run.logits[:, 0], torch.arange(bench.behaviour.n)).double().numpy()


def test_what_the_dropped_carry_together_is_what_patching_them_by_hand_does(
    tales: Network, agreement: Behaviour
) -> None:
    bench = Bench.of(tales, agreement.discovery)
    estimates = estimated(bench.first(24))
    assert estimates is not None
    found = screened(bench, estimates, replace(WHOLE, tried=6, sampled=2), 3)
    through = {*found.passed, *found.rescued, *found.sampled}
    dropped = [part for part in bench.parts if part not in through]
    assert len(dropped) == found.dropped >= 4
    low, high = bench.ends.corrupted.metric, bench.ends.clean.metric
    gap = high.mean() - low.mean()
    assert found.restored is not None
    assert found.lost is not None
    restored = (by_hand(tales, bench, dropped, back=True).mean() - low.mean()) / gap
    lost = (high.mean() - by_hand(tales, bench, dropped, back=False).mean()) / gap
    assert found.restored.value == pytest.approx(restored, abs=1e-4)
    assert found.lost.value == pytest.approx(lost, abs=1e-4)
    assert max(abs(restored), abs(lost)) <= SMALL + 1e-4
    assert found.settled
    assert found.restored.interval is not None
    assert found.rescued  # of its 20 components ten matter, and only six pass


def test_a_screening_comes_back_and_one_of_an_earlier_version_says_what_it_knows(
    tales: Network, agreement: Behaviour
) -> None:
    maps: dict[str, cutaway.Effects] = {}
    found = single_effects(Bench.of(tales, agreement.discovery), Sizes(tried=6, sampled=2), 0, maps)
    assert found is not None
    assert PartScreening.from_dict(found.to_dict()) == found
    assert f"{found.dropped} that were dropped bring back" in found.sentence
    assert f"({found.groups} were tried)" in found.sentence
    later = ("rescued", "groups", "restored", "lost", "settled")
    old = PartScreening.from_dict({k: v for k, v in found.to_dict().items() if k not in later})
    assert (old.groups, old.restored, old.rescued) == (0, None, ())
    assert "others drawn at random" in old.sentence
    assert "groups" not in old.sentence
    assert PartScreening.from_dict(old.to_dict()) == old
    bare = replace(found, sampled=(), settled=False)
    assert "at random" not in bare.sentence
    assert "not tests enough" in bare.sentence


def test_a_rescued_part_is_in_the_maps_with_its_own_effect(tales: Network, agreement: Behaviour) -> None:
    maps: dict[str, cutaway.Effects] = {}
    every: dict[str, cutaway.Effects] = {}
    bench = Bench.of(tales, agreement.discovery)
    found = single_effects(bench, Sizes(tried=6, sampled=2), 0, maps)
    single_effects(bench, WHOLE, 0, every)
    assert found is not None
    heads = [part for part in found.rescued if part.kind == "head"]
    assert heads
    for part in heads:
        at = (part.layer, part.index)
        assert maps["z, restore"].mean.values[at] == pytest.approx(
            every["z, restore"].mean.values[at], abs=1e-5
        )


def test_the_price_of_screening_includes_the_groups(tales: Network, agreement: Behaviour) -> None:
    sizes, limits = Sizes(tried=6, sampled=2), SearchLimits()
    bench = Bench.of(tales, agreement.discovery)
    with ends_kept(tales, agreement, Work()), metered(Meter()) as meter:
        single_effects(bench, sizes, 0, {})

    def alone(sizes: Sizes) -> float:
        return dict(priced(tales, agreement, sizes, limits, False).parts)["each part alone"]

    assert 0.6 < alone(sizes) / meter.forwards < 1.6
    assert alone(replace(sizes, groups=0)) < 0.8 * alone(sizes)
