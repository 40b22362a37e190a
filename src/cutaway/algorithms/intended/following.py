"""Whose answers a network gives to prompts on which two computations come apart."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.exchanges import AnswerChoices, CaseExchange, Predictions, clusters_of, run_exchanges
from cutaway.algorithms.intended.apart import ApartPrompts, SettingPrompts
from cutaway.algorithms.model import Algorithm
from cutaway.behaviours.cases import Case
from cutaway.results import Work
from cutaway.statistics import Estimate, share_of

if TYPE_CHECKING:
    from cutaway.network import Network

#: What a network said: the first token of its answer, by prompt.
Said = Mapping[int, int]


@dataclass(frozen=True)
class FollowedShares:
    """Whose answers a network gives, on prompts on which two computations come apart.

    Attributes:
        feared: the name of the other computation.
        at_hand: how many of the prompts were among the cases.
        made: how many were made.
        all_agree: on how many of the prompts at hand both give the same answers.
        would: which prompts would tell them apart, where there are none.
        own: the share answered as intended; None where there are no such prompts.
        other: the share answered as feared.
        neither: the share of other answers.
        shuffled: how often the intended answers of other prompts were given.
        random_own: the share answered as intended by the network with random weights; None where there is none.
        random_other: by it as feared.
        examples: (prompt, the intended answer, the feared one, the network's).
    """

    feared: str
    at_hand: int
    made: int
    all_agree: int
    would: str
    own: Estimate | None
    other: Estimate | None
    neither: Estimate | None
    shuffled: Estimate | None
    random_own: Estimate | None
    random_other: Estimate | None
    examples: tuple[tuple[str, str, str, str], ...]

    @property
    def n(self) -> int:
        """On how many prompts they come apart."""
        return 0 if self.own is None else self.own.n


@dataclass(frozen=True)
class SettingShares:
    """What came out in one setting: on the prompts at hand, or on shifted ones.

    Attributes:
        cases: what the prompts are called.
        prompts: how many were at hand.
        together: where all computations agree, how often the network gives their answer; None where there are no such.
        followed: for each feared computation.
    """

    cases: str
    prompts: int
    together: Estimate | None
    followed: tuple[FollowedShares, ...]


def say(net: Network, cases: Sequence[Case], choices: AnswerChoices, work: Work, label: str) -> Said:
    """What a network answers to prompts. Raises `Stopped`."""
    plain = [CaseExchange(case, {}, frozenset(), frozenset()) for case in cases]
    said = run_exchanges(net, plain, {}, choices, work, label)
    return {id(case): token for case, token in zip(cases, said, strict=True)}


def shares_of(
    net: Network, setting: SettingPrompts, intended: Algorithm, choices: AnswerChoices, said: Said, random: Said | None,
    seed: int,
) -> SettingShares:  # fmt: skip
    """The shares of one setting."""
    goal = Predictions(intended, choices)
    together = None
    right = [(case, goal.tokens(case, {})) for case in setting.together]
    known = [(case, tokens) for case, tokens in right if tokens is not None]
    if known:
        together = share_of([said[id(c)] in t for c, t in known], _clusters([c for c, _ in known], setting))
    followed = tuple(
        _followed(net, setting, one, goal, Predictions(one.feared, choices), said, random, seed)
        for one in setting.apart
    )
    return SettingShares(setting.cases.name, len(setting.cases), together, followed)


def _followed(
    net: Network, setting: SettingPrompts, one: ApartPrompts, goal: Predictions, feared: Predictions, said: Said,
    random: Said | None, seed: int,
) -> FollowedShares:  # fmt: skip
    rows = [(case, goal.tokens(case, {}), feared.tokens(case, {})) for case in one.cases]
    told = [(case, a, b) for case, a, b in rows if a is not None and b is not None and not a & b]
    counts = (one.feared.name, len(one.at_hand), len(one.made), one.all_agree, one.would)
    if not told:
        return FollowedShares(*counts, None, None, None, None, None, None, ())
    clusters = _clusters([case for case, _, _ in told], setting)

    def share(answers: Sequence[frozenset[int]], by: Said) -> Estimate:
        return share_of([by[id(c)] in a for (c, _, _), a in zip(told, answers, strict=True)], clusters)

    own, other = [a for _, a, _ in told], [b for _, _, b in told]
    neither = share_of([said[id(c)] not in a | b for c, a, b in told], clusters)
    order = np.random.default_rng([seed, 62]).permutation(len(told))
    shuffled = share([own[int(i)] for i in order], said)
    fresh = (None, None) if random is None else (share(own, random), share(other, random))
    examples = tuple(_example(net, case, one.feared, goal.algorithm, said) for case, _, _ in told[:3])
    return FollowedShares(*counts, share(own, said), share(other, said), neither, shuffled, *fresh, examples)


def _example(
    net: Network, case: Case, feared: Algorithm, goal: Algorithm, said: Said
) -> tuple[str, str, str, str]:
    given = " or ".join(net.token_strings([said[id(case)]]))
    return (
        case.text,
        " or ".join(goal.answers(case.values)[:3]),
        " or ".join(feared.answers(case.values)[:3]),
        given,
    )


def _clusters(cases: Sequence[Case], setting: SettingPrompts) -> list[Hashable]:
    plain = [CaseExchange(case, {}, frozenset(), frozenset()) for case in cases]
    return clusters_of(plain, setting.cases)
