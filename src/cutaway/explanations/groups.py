"""Which parts can be let go together: groups of them patched at once, which is causal where a gradient only estimates.

A group that moves the metric by at most a hundredth of the gap, restored in the corrupted run and corrupted in the clean
one, is let go; another is halved, down to single parts, which are then patched like those that stand out. Halves follow the
ranking: parts that do the same work rank alike and stay together, so that losing all of them is seen; and the weak half of a
group mostly goes at once. What goes is tried together at the end; where it is not small although no single part stands out,
the shortest beginning of it without which it is small is patched singly. Parts of opposite sign hide one another in a group:
therefore parts are numbered, and those whose number has a certain binary digit are tried together, too, for every digit. Two
numbers differ in a digit, so two parts, or three, cannot hide one another everywhere, as far as effects add up; four can.
Where such a group is not small although no single part of it is found by halving, many small effects add up, and it may go.

Dorfman 1943, "The Detection of Defective Members of Large Populations".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cutaway.network.parts import Part
from cutaway.trials import Bench

#: What is let go moves the metric by at most this share of the gap.
SMALL = 0.01


@dataclass
class GroupTests:
    """Groups that were patched at once, in both directions, and how many more may be.

    Attributes:
        bench: whose examples are run.
        few: the same for some of them, which most groups are tried on.
        most: groups that may be tried on few; a single part is one, too, and one on all examples counts as many as it costs.
        effects: the larger of both effects of every group that was tried, a share of the gap, and whether on all.
    """

    bench: Bench
    few: Bench
    most: int
    effects: dict[tuple[frozenset[Part], bool], float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """How many more may be tried on few."""
        return self.most - sum(self.cost(on_all) for _, on_all in self.effects)

    @property
    def tried(self) -> int:
        """How many different groups were."""
        return len({group for group, _ in self.effects})

    def cost(self, on_all: bool) -> float:
        """Of trying one group."""
        return len(self.bench.chosen) / len(self.few.chosen) if on_all else 1.0

    def small(self, groups: Sequence[Sequence[Part]], on_all: bool = False) -> list[bool | None]:
        """Of each group whether it moves the metric by at most `SMALL`; None where no more may be tried."""
        asked = [(frozenset(group), on_all) for group in groups]
        new = [one for one in dict.fromkeys(asked) if one[0] and one not in self.effects]
        new = new[: max(0, int(self.left / self.cost(on_all)))]
        if new:
            bench = self.bench if on_all else self.few
            found = larger_effects(bench, [group for group, _ in new])
            self.effects |= dict(zip(new, found.tolist(), strict=True))
        known = {(frozenset[Part](), on_all): 0.0} | self.effects
        return [known[one] <= SMALL if one in known else None for one in asked]


def larger_effects(bench: Bench, sets: Sequence[frozenset[Part] | Sequence[Part]]) -> np.ndarray:
    """What restoring each set brings back, or corrupting it loses, whichever is larger in size: [sets], in shares."""
    restored = bench.scale.shares(bench.restore(sets, "restoring groups of parts"))
    lost = 1.0 - bench.scale.shares(bench.remove(sets, "corrupting groups of parts"))
    return np.maximum(np.abs(restored), np.abs(lost))


@dataclass(frozen=True)
class LetGo:
    """What group tests say of parts.

    Attributes:
        dropped: those that are not patched one by one, in the order of the ranking; where tests ran out, also those of
            groups that were not small.
        sampled: further ones that could be dropped, drawn at random to be patched singly.
        singly: those that could not be dropped: each was patched.
        settled: do those that are dropped move the metric by at most `SMALL` together, on all examples; and on few, with the
            sampled ones, all together and, for every digit, those whose number has it (or of these halving finds none
            that is not small: many small effects add up there)?
    """

    dropped: tuple[Part, ...]
    sampled: tuple[Part, ...]
    singly: tuple[Part, ...]
    settled: bool


@dataclass(frozen=True)
class _Check:
    """A group that must be small.

    Attributes:
        group: the parts.
        on_all: on all examples, or on few?
        digit: are they those whose number has a digit, and not all that go?
    """

    group: list[Part]
    on_all: bool = False
    digit: bool = False


def let_go(tests: GroupTests, ranked: Sequence[Part], drawn: Sequence[Part], sampled: int) -> LetGo:
    """Which of these parts can be let go.

    ranked: the parts, the likeliest to matter first. drawn: the same in a random order, of which the first `sampled` that
    are let go are the sample.
    """
    singly = set(_halved(tests, [list(ranked)], len(_digits(ranked)) + 1 + tests.cost(on_all=True)))
    spread: list[list[Part]] = []
    while True:
        gone = [part for part in ranked if part not in singly]
        sample = [part for part in drawn if part not in singly][:sampled]
        dropped = [part for part in gone if part not in set(sample)]
        digits = [_Check(group, digit=True) for group in _digits(gone) if group not in spread]
        verdict, check = _first_failing(tests, [_Check(gone), _Check(dropped, True), *digits])
        more = [] if check is None else _halved(tests, [check.group])
        if check is not None and not more and check.digit:
            spread.append(check.group)  # many small effects add up, and nobody hides behind another
            continue
        more = more or ([] if check is None else _beginning(tests, check))
        if not more:
            break
        singly |= set(more)
    told = tuple(part for part in ranked if part in singly)
    return LetGo(tuple(dropped), tuple(sample), told, verdict is True)


def _first_failing(tests: GroupTests, checks: Sequence[_Check]) -> tuple[bool | None, _Check | None]:
    """Are all groups small (None where tests ran out before that was told), and the first that is not."""
    for on_all in (False, True):
        some = [check for check in checks if check.on_all is on_all]
        for first, last in ((0, 1), (1, len(some))):  # that of all parts before those of digits
            verdicts = tests.small([check.group for check in some[first:last]], on_all)
            for check, small in zip(some[first:last], verdicts, strict=True):
                if small is not True:
                    return small, None if small is None else check
    return True, None


def _halved(tests: GroupTests, groups: list[list[Part]], reserve: float = 0) -> list[Part]:
    """The single parts that halving groups that are not small leads to; of what could no more be tried, none.

    reserve: so many tests are left over.
    """
    singly: list[Part] = []
    while groups and tests.left - reserve >= 1:
        verdicts = tests.small(groups[: int(tests.left - reserve)])
        halves: list[list[Part]] = []
        for group, small in zip(groups, verdicts, strict=False):
            if small is False and len(group) > 1:
                halves += [group[: len(group) // 2], group[len(group) // 2 :]]
            elif small is False:
                singly += group
        groups = halves
    return singly


def _digits(parts: Sequence[Part]) -> list[list[Part]]:
    """For every binary digit of their numbers the parts that have it.

    >>> [[str(p) for p in group] for group in _digits([Part("mlp", layer) for layer in range(4)])]
    [['m1', 'm3'], ['m2', 'm3']]
    """
    return [
        [p for i, p in enumerate(parts) if i >> digit & 1]
        for digit in range(max(0, len(parts) - 1).bit_length())
    ]


def _beginning(tests: GroupTests, check: _Check) -> list[Part]:
    """Of a group that is not small though its halves are, the shortest beginning without which it is, each part of which is
    then tried; nothing where there are not tests enough for that.
    """
    group, low, high = check.group, 0, len(check.group)
    while high - low > 1:
        middle = (low + high) // 2
        (small,) = tests.small([group[middle:]], check.on_all)
        if small is None:
            return []
        low, high = (low, middle) if small else (middle, high)
    if high > tests.left:
        return []
    tests.small([[part] for part in group[:high]])
    return group[:high]
