"""Which variable lives where, on discovery prompts: each variable exchanged at each place at which something was carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.carried import CarriedVariables
from cutaway.algorithms.exchanges import (
    AnswerChoices,
    CaseExchange,
    Pairs,
    Predictions,
    clusters_of,
    draw_exchanges,
    first_tokens,
    price_of,
    run_exchanges,
)
from cutaway.algorithms.model import Algorithm
from cutaway.algorithms.places import ALL, Places, VariablePlace, said
from cutaway.algorithms.proposing.known import KnownTask
from cutaway.algorithms.proposing.limits import ProposalLimits
from cutaway.algorithms.proposing.result import TriedPlace
from cutaway.behaviours.cases import Cases
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.statistics import Estimate, share_of

if TYPE_CHECKING:
    from cutaway.network import Network

#: Of parts that stand out so many are tried at every token, too.
_EVERYWHERE = 4
#: Pairs on which predictions are compared.
_COMPARED = 96


@dataclass(frozen=True, eq=False)
class DiscoveryBench:
    """What is needed to try a place on discovery prompts.

    Attributes:
        net: the network.
        cases: the discovery half.
        choices: among which the answer is read.
        pool: pairs of prompts whose words stand at the same tokens.
        limits: what must be reached.
        seed: of the drawing.
        plain: what the network says to each prompt without any exchange, by `id` of the case.
    """

    net: Network
    cases: Cases
    choices: AnswerChoices
    pool: Pairs
    limits: ProposalLimits
    seed: int
    plain: dict[int, int] = field(default_factory=dict)

    @property
    def price_of_plain(self) -> float:
        """Forward-equivalents of asking every prompt without an exchange."""
        return float(len(self.cases))

    def ask(self, work: Work) -> None:
        """Ask every prompt without an exchange. Raises `Stopped`."""
        rows = [CaseExchange(case, {}, first_tokens(case), first_tokens(case)) for case in self.cases]
        told = run_exchanges(self.net, rows, {}, self.choices, work, "plain prompts")
        self.plain.update({id(e.base): token for e, token in zip(rows, told, strict=True)})

    def drawn(self, algorithm: Algorithm, variable: str) -> list[CaseExchange]:
        """Exchanges of a variable; none where fewer change the answer than tell anything.

        Those that change the answer are such that the network's answer without the exchange would not count.
        """

        def moves(exchange: CaseExchange) -> bool:
            return not exchange.changes or self.plain.get(id(exchange.base)) not in exchange.wanted

        predicts = Predictions(algorithm, self.choices)
        made = draw_exchanges(predicts, [variable], self.pool, self.limits.tried, self.seed, moves)
        return made if sum(e.changes for e in made) >= min(self.limits.telling, self.limits.tried) else []

    def price(self, exchanges: Sequence[CaseExchange], variable: str, places: Places) -> float:
        """Forward-equivalents of trying a variable at a place."""
        return price_of(self.net, exchanges, {variable: places})

    def tried(
        self, exchanges: Sequence[CaseExchange], variable: str, called: str, places: Places, work: Work
    ) -> TriedPlace:
        """The accuracy of a variable at a place. Raises `Stopped`."""
        told = run_exchanges(
            self.net, exchanges, {variable: places}, self.choices, work, f"trying {called} at {said(places)}"
        )
        pairs = list(zip(exchanges, told, strict=True))
        accuracy = self._share(pairs)
        changing = self._share([(e, t) for e, t in pairs if e.changes])
        taken = min(accuracy.value, changing.value) >= self.limits.taken
        return TriedPlace(called, said(places), accuracy, changing, taken)

    def _share(self, pairs: Sequence[tuple[CaseExchange, int]]) -> Estimate:
        some = [e for e, _ in pairs]
        return share_of([token in e.wanted for e, token in pairs], clusters_of(some, self.cases))

    def alone(self, algorithm: Algorithm, name: str) -> bool:
        """Does exchanging a variable always predict the other prompt's answer?"""
        predicts = Predictions(algorithm, self.choices)
        return all(
            predicts.tokens(base, {name: source}) == predicts.tokens(source, {})
            for base, source in self.pool[:_COMPARED]
        )

    def same_as(self, algorithm: Algorithm, name: str, other: Algorithm, its: str) -> bool:
        """Does exchanging a variable of one algorithm always predict what exchanging one of another does?"""
        one, two = Predictions(algorithm, self.choices), Predictions(other, self.choices)
        return all(
            one.tokens(base, {name: source}) == two.tokens(base, {its: source})
            for base, source in self.pool[:_COMPARED]
        )


def order_of(places: Places) -> tuple[int, int]:
    """Where in the network places are computed, the last of several: (layer, 0 for attention, 1 behind it).

    >>> from cutaway.algorithms.places import places_of
    >>> order_of(places_of("a1.h0@last + m0@S")) < order_of(places_of("m1@last"))
    True
    """
    orders = []
    for place in places:
        part = place.named
        orders.append((1 << 30, 1) if part is None else _order(part))
    return max(orders)


def _order(part: Part) -> tuple[int, int]:
    return (part.layer or 0, 0 if part.kind in ("head", "attention", "mixer") else 1)


@dataclass(frozen=True, eq=False)
class PlaceChoice:
    """The places that a variable is tried at.

    Attributes:
        single: one part at a span each.
        together: several parts that stand out at a span, tried where no single one does.
    """

    single: tuple[Places, ...]
    together: tuple[Places, ...] = ()


def choice_of(found: CarriedVariables, roots: Sequence[str], limits: ProposalLimits) -> PlaceChoice:
    """Places with the largest effects of the variables that something is computed from; those that stand out before others.

    Only what was found on discovery prompts is looked at.
    """
    numbers = [found.variables.index(root) for root in roots if root in found.variables]
    if not numbers:
        return PlaceChoice(())
    size = np.nan_to_num(np.abs(found.share[numbers])).max(0)
    stands = (found.verdict[numbers] != "").any(0)
    never = (found.known_zero[numbers] | np.isnan(found.share[numbers])).all(0)
    rank = np.where(never, -1.0, size + 1e6 * stands).ravel()
    order = [int(i) for i in np.argsort(-rank, kind="stable") if rank[i] > 0][: limits.places]
    at = [divmod(i, len(found.spans)) for i in order]
    names = [(found.parts[p], found.spans[s]) for p, s in at]
    out = [(part, span) for (part, span), (p, s) in zip(names, at, strict=True) if stands[p, s]]
    single = [(VariablePlace(part, span),) for part, span in names]
    parts = list(dict.fromkeys(part for part, _ in out))[:_EVERYWHERE]
    single += [(VariablePlace(part, ALL),) for part in parts]
    together = []
    for span in found.spans:
        here = tuple(VariablePlace(part, at_span) for part, at_span in out if at_span == span)
        together += [here] if len(here) > 1 else []
    return PlaceChoice(tuple(single), tuple(together))


@dataclass(frozen=True, eq=False)
class PlannedSearch:
    """Every variable of a task with its exchanges and the places at which it is tried.

    Attributes:
        bench: where.
        task: whose variables.
        exchanges: of each variable that can be told.
        choices: places of each.
    """

    bench: DiscoveryBench
    task: KnownTask
    exchanges: Mapping[str, list[CaseExchange]]
    choices: Mapping[str, PlaceChoice]

    @classmethod
    def of(
        cls,
        bench: DiscoveryBench,
        task: KnownTask,
        found: CarriedVariables,
        only: Sequence[str] | None = None,
    ) -> PlannedSearch:
        """All variables of a task, or `only` some."""
        algorithm = task.algorithm()
        names = task.variables if only is None else only
        exchanges = {name: bench.drawn(algorithm, name) for name in names}
        choices = {name: choice_of(found, task.roots(name), bench.limits) for name in names}
        outcome = "" if task.outcome is None else task.outcome.name
        if outcome in choices:  # all that is written at the end holds the answer together: that says nothing
            choices[outcome] = replace(choices[outcome], together=())
        return cls(bench, task, {n: e for n, e in exchanges.items() if e}, choices)

    @property
    def price(self) -> float:
        """Forward-equivalents of the single places, and half of those of several together."""
        total = 0.0
        for name, exchanges in self.exchanges.items():
            choice = self.choices[name]
            total += sum(self.bench.price(exchanges, name, places) for places in choice.single)
            total += 0.5 * sum(self.bench.price(exchanges, name, places) for places in choice.together)
        return total

    def run(self, work: Work, tried: list[TriedPlace]) -> None:
        """Every variable at every place, entered as they are tried. Raises `Stopped`."""
        for name, exchanges in self.exchanges.items():
            choice = self.choices[name]
            begin = len(tried)
            for places in choice.single:
                tried.append(self.bench.tried(exchanges, name, name, places, work))
            if not any(one.taken for one in tried[begin:]):
                for places in choice.together:
                    tried.append(self.bench.tried(exchanges, name, name, places, work))
