"""Exchanges: a prompt in which a variable has the value that it has in another, and the answer that must follow."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.model import Algorithm
from cutaway.algorithms.places import Places
from cutaway.behaviours.cases import Case, Cases
from cutaway.errors import BadBehaviour, BadInput, did_you_mean
from cutaway.network.memory import rows_at_once
from cutaway.network.pricing import until
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network, Run

#: The share of exchanges that change the answer, where there are as many; the others must leave it.
CHANGED = 0.75
#: So many times as many pairs of prompts are looked at as exchanges are wanted.
_POOL = 8
#: Pairs (base, source) of prompts whose words stand at the same tokens.
Pairs = Sequence[tuple[Case, Case]]
#: With so many templates or more, intervals are over templates.
_TEMPLATES = 4


@dataclass(frozen=True, eq=False)
class AnswerChoices:
    """The answers among which the network's is read, by their first tokens.

    Attributes:
        tokens: the different first tokens, in order.
        by_text: the first tokens of each answer; several where the prompt before it decides how it is cut.
        notes: which answers share a first token.
    """

    tokens: tuple[int, ...]
    by_text: Mapping[str, frozenset[int]]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, cases: Cases) -> AnswerChoices:
        """Those of cases. Raises `BadBehaviour` where all begin with the same token, so that none is told from another."""
        by_text: dict[str, set[int]] = {}
        by_token: dict[int, dict[str, None]] = {}
        for text, ids in cases.choices:
            by_text.setdefault(text, set()).add(ids[0])
            by_token.setdefault(ids[0], {})[text] = None
        if len(by_token) < 2:
            names = ", ".join(map(repr, list(by_text)[:4]))
            raise BadBehaviour(
                f"The answers of {cases.name!r} cannot be told apart: {names} begin with one token.",
                "Give answers that differ in their first token.",
            )
        shared = [f"{' and '.join(map(repr, texts))} begin with the same token and count as one answer." for
                  texts in by_token.values() if len(texts) > 1]  # fmt: skip
        return cls(tuple(by_token), {text: frozenset(ids) for text, ids in by_text.items()}, tuple(shared))

    def of_texts(self, texts: Sequence[str]) -> frozenset[int] | None:
        """The first tokens of answers; None where one is the answer to no prompt."""
        if any(text not in self.by_text for text in texts):
            return None
        return frozenset().union(*(self.by_text[text] for text in texts))

    def most_likely(self, logits: Tensor) -> list[int]:
        """The token of the choices with the highest logit: [n v] -> n tokens."""
        chosen = torch.tensor(self.tokens, device=logits.device)
        return chosen[logits[:, chosen].argmax(-1)].tolist()


@dataclass(frozen=True, eq=False)
class CaseExchange:
    """A base prompt with variables set to what they are in other prompts.

    Attributes:
        base: the prompt that is run.
        sources: for each variable the prompt that its value comes from; none for a plain prompt.
        wanted: the first tokens of the answers that the algorithm predicts.
        before: of those that it gives without the exchange.
    """

    base: Case
    sources: Mapping[str, Case]
    wanted: frozenset[int]
    before: frozenset[int]

    @property
    def changes(self) -> bool:
        """Does the exchange change the answer?"""
        return self.wanted != self.before


class Predictions:
    """What an algorithm predicts for exchanges between cases, each case computed once.

    algorithm: whose. choices: among which the answers are.
    """

    def __init__(self, algorithm: Algorithm, choices: AnswerChoices) -> None:
        self.algorithm, self.choices = algorithm, choices
        self._values: dict[int, tuple[Case, dict[str, Any]]] = {}

    def values(self, case: Case) -> dict[str, Any]:
        """The value of every variable in a case."""
        if id(case) not in self._values:
            self._values[id(case)] = (case, self.algorithm.run(case.values))
        return self._values[id(case)][1]

    def tokens(self, base: Case, sources: Mapping[str, Case]) -> frozenset[int] | None:
        """First tokens of the predicted answers; None where one is the answer to no prompt, so that it cannot be read."""
        given = {name: self.values(source)[name] for name, source in sources.items()}
        return self.choices.of_texts(self.algorithm.answers(base.values, given))

    def exchange(self, base: Case, sources: Mapping[str, Case]) -> CaseExchange | None:
        """The exchange with its prediction; None where that cannot be read."""
        wanted, before = self.tokens(base, sources), self.tokens(base, {})
        return None if wanted is None or before is None else CaseExchange(base, sources, wanted, before)

    def require_answers(self, cases: Cases) -> float:
        """The share of cases whose right answers these are.

        Raises `BadInput` where the algorithm's answers are never among those of the cases.
        """
        agree, readable = 0, 0
        for case in cases:
            texts = self.algorithm.answers(case.values)
            found = self.choices.of_texts(texts)
            readable += found is not None
            agree += found is not None and found == first_tokens(case)
        if not readable:
            texts = self.algorithm.answers(cases.cases[0].values)
            raise BadInput(
                f"{self.algorithm.name!r} answers {texts[0]!r:.40}, which is the answer to none of the prompts.",
                did_you_mean(texts[0], self.choices.by_text, show=repr),
            )
        return agree / len(cases)

    def require_varying(self, variable: str, cases: Cases) -> None:
        """Raises `BadInput` where a variable has the same value in every case."""
        first = next(iter(cases))
        value = self.values(first)[variable]
        if all(same(self.values(case)[variable], value) for case in cases):
            raise BadInput(
                f"The variable {variable!r} of {self.algorithm.name!r} is {value!r:.40} in every held-out prompt.",
                "Give prompts in which it varies, or no place for it.",
            )


def same(a: Any, b: Any) -> bool:
    """Are two values of a variable the same, whatever they are?"""
    try:
        return bool(np.all(a == b)) and np.shape(a) == np.shape(b)
    except (TypeError, ValueError):
        return a is b


def first_tokens(case: Case) -> frozenset[int]:
    """The first tokens of a case's right answers."""
    return frozenset(ids[0] for _, ids in case.answers)


def pool_of(cases: Cases, n: int, seed: int) -> Pairs:
    """The pairs of prompts among which n exchanges of each variable are looked for. Raises `BadBehaviour` for none."""
    return cases.crossed(_POOL * n, seed=seed)


def draw_exchanges(
    of: Predictions,
    variables: Sequence[str],
    pool: Pairs,
    n: int,
    seed: int,
    keep: Callable[[CaseExchange], bool] = lambda _: True,
) -> list[CaseExchange]:
    """At most n exchanges of variables, each from a prompt of its own where there are several.

    Three in four change the answer, where there are as many. keep: which are wanted.
    """
    changing, leaving = round(CHANGED * n), n - round(CHANGED * n)
    found: dict[bool, list[CaseExchange]] = {True: [], False: []}
    for base, others in _groups(pool, len(variables), np.random.default_rng([seed, 32])):
        if len(found[True]) >= n and len(found[False]) >= leaving:
            break
        made = of.exchange(base, dict(zip(variables, others, strict=True)))
        if made is not None and keep(made):
            found[made.changes].append(made)
    stay = found[False][:leaving]
    return [*found[True][: max(changing, n - len(stay))], *stay]


def _groups(pool: Pairs, sources: int, rng: np.random.Generator) -> Iterator[tuple[Case, list[Case]]]:
    """Bases with as many sources whose words stand at the same tokens, in random order."""
    if sources == 1:
        for i in rng.permutation(len(pool)):
            yield pool[i][0], [pool[i][1]]
        return
    by_base: dict[int, tuple[Case, list[Case]]] = {}
    for base, source in pool:
        by_base.setdefault(id(base), (base, []))[1].append(source)
    several = [(base, others) for base, others in by_base.values() if len(others) >= 2]
    for _ in range(len(pool) if several else 0):
        base, others = several[int(rng.integers(len(several)))]
        drawn = rng.choice(len(others), size=sources, replace=len(others) < sources)
        yield base, [others[int(i)] for i in drawn]


def clusters_of(exchanges: Sequence[CaseExchange], cases: Cases) -> list[Hashable]:
    """What intervals are over: templates where the cases have four or more, else base prompts."""
    if len({case.template for case in cases}) >= _TEMPLATES:
        return [exchange.base.template for exchange in exchanges]
    return [exchange.base.ids for exchange in exchanges]


def share_before(net: Network, places: Places) -> float:
    """Forward-equivalents of a source run that ends behind the last of these places."""
    return until(net, [place.site(net) for place in places])


def price_of(net: Network, exchanges: Sequence[CaseExchange], where: Mapping[str, Places]) -> float:
    """Forward-equivalents of running exchanges at places."""
    if not exchanges:
        return 0.0
    each = 1 + sum(share_before(net, where[name]) for name in exchanges[0].sources)
    return each * len(exchanges)


def run_exchanges(
    net: Network,
    exchanges: Sequence[CaseExchange],
    where: Mapping[str, Places],
    choices: AnswerChoices,
    work: Work,
    label: str,
) -> list[int]:
    """What the network says in each exchange: its most likely first token among the choices.

    Each variable is exchanged at its places; all exchanges are of the same variables. Raises `Stopped`.
    """
    order = sorted(range(len(exchanges)), key=lambda i: len(exchanges[i].base.ids))
    said = [0] * len(exchanges)
    widest = max((len(e.base.ids) for e in exchanges), default=1)
    rows = rows_at_once(
        net, widest, work, kept=sum(len(places) for places in where.values()) * (net.d_model or 64)
    )
    for begin in range(0, len(order), rows):
        some = order[begin : begin + rows]
        for i, token in zip(some, _batch(net, [exchanges[i] for i in some], where, choices), strict=True):
            said[i] = token
        work.step(label, begin + len(some), len(order))
    return said


def _batch(
    net: Network, exchanges: Sequence[CaseExchange], where: Mapping[str, Places], choices: AnswerChoices
) -> list[int]:
    bases = [exchange.base for exchange in exchanges]
    edits = []
    for name in exchanges[0].sources:
        run = _source(net, [exchange.sources[name] for exchange in exchanges], where[name])
        edits += [place.edit(net, bases, run) for place in where[name]]
    at = torch.tensor([[base.answer_pos] for base in bases])
    logits = net.run([list(base.ids) for base in bases], edits=edits, logits=at).logits
    assert logits is not None
    return choices.most_likely(logits[:, 0])


def _source(net: Network, cases: Sequence[Case], places: Places) -> Run:
    """The source prompts run as far as the last of the places."""
    sites = list(dict.fromkeys(place.site(net) for place in places))
    return net.run([list(case.ids) for case in cases], keep=sites, logits=False)
