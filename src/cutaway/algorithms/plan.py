"""What a test runs, drawn before anything is run, so that its price is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.algorithms.exchanges import (
    AnswerChoices,
    CaseExchange,
    Pairs,
    Predictions,
    draw_exchanges,
    first_tokens,
    pool_of,
    price_of,
    run_exchanges,
)
from cutaway.algorithms.limits import AlgorithmLimits
from cutaway.algorithms.model import Algorithm
from cutaway.algorithms.places import Places, places_of, said, shams
from cutaway.behaviours.cases import Cases
from cutaway.errors import BadInput, CutawayError, Stopped, did_you_mean
from cutaway.network.memory import numbers_of
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network

Where = Mapping[str, Places]
#: What a group of runs is for: "plain", "variable", "joint", "rival", "apart", "sham" or "random", then which.
Key = tuple[str | int, ...]


@dataclass(frozen=True, eq=False)
class Contestant:
    """An algorithm with its places.

    Attributes:
        algorithm: what it computes.
        where: the places of its variables.
        predicts: what it predicts.
        agrees: the share of held-out prompts to which it gives the right answers.
    """

    algorithm: Algorithm
    where: Where
    predicts: Predictions
    agrees: float


@dataclass(frozen=True, eq=False)
class ExchangeGroup:
    """Exchanges that are run together.

    Attributes:
        key: what for.
        exchanges: of the same variables.
        where: the places of these.
        twin: are they run in the network with random weights?
    """

    key: Key
    exchanges: Sequence[CaseExchange]
    where: Where
    twin: bool = False

    def content(self) -> list[Any]:
        """All that its answers depend on beside the network."""
        places = [[name, said(places), *(p.basis for p in places)] for name, places in self.where.items()]
        rows = [[e.base.ids, e.base.answer_pos, sorted(e.base.spans.items()),
                 [(name, case.ids) for name, case in e.sources.items()]] for e in self.exchanges]  # fmt: skip
        return [places, rows]


@dataclass(frozen=True, eq=False)
class AlgorithmPlan:
    """All that is run.

    Attributes:
        main: the algorithm that is tested.
        rivals: what it is held against.
        cases: held-out ones.
        choices: among which the answer is read.
        groups: in the order in which they are run.
        notes: what cannot be run.
    """

    main: Contestant
    rivals: tuple[Contestant, ...]
    cases: Cases
    choices: AnswerChoices
    groups: tuple[ExchangeGroup, ...]
    notes: tuple[str, ...]

    def __getitem__(self, key: Key) -> ExchangeGroup | None:
        """The group of a key; None where there is none."""
        return next((group for group in self.groups if group.key == key), None)

    def price(self, net: Network) -> list[tuple[str, float]]:
        """Forward-equivalents, by what they are for."""
        parts: dict[str, float] = {}
        for group in self.groups:
            label = _LABELS[str(group.key[0])]
            parts[label] = parts.get(label, 0.0) + price_of(net, group.exchanges, group.where)
        return list(parts.items())

    def least(self, net: Network) -> float:
        """Those after which there is something to keep."""
        return sum(
            price_of(net, g.exchanges, g.where) for g in self.groups if g.key[0] in ("plain", "variable")
        )

    def run(self, net: Network, twin: Network | None, work: Work) -> tuple[dict[Key, list[int]], bool]:
        """What the network says in each group, and whether all of them were run.

        Raises `Stopped` where there is nothing to keep.
        """
        told: dict[Key, list[int]] = {}
        for group in self.groups:
            subject = twin if group.twin else net
            if subject is None:
                continue
            label = _LABELS[str(group.key[0])]
            try:
                told[group.key] = work.once(
                    f"{label} {group.key}",
                    lambda group=group, subject=subject, label=label: run_exchanges(
                        subject, group.exchanges, group.where, self.choices, work, label
                    ),
                    lambda tokens: {"tokens": np.array(tokens)},
                    lambda kept: kept["tokens"].tolist(),
                    lambda group=group, subject=subject: [subject.hash, self.choices.tokens, group.content()],
                )
            except Stopped:
                if group.key[0] in ("plain", "variable"):
                    raise
                return told, False
        return told, True


_LABELS = {
    "plain": "plain prompts", "variable": "exchanging variables", "joint": "exchanging all at once", "rival": "rivals",
    "apart": "rivals", "sham": "other places", "random": "random weights",
}  # fmt: skip


def contestant(
    net: Network, algorithm: Algorithm, where: Any, cases: Cases, held: Cases, choices: AnswerChoices
) -> Contestant:
    """An algorithm with its places, once all of it fits the network and the cases.

    Raises `BadInput`, or what the network says of a place that it does not have.
    """
    algorithm.require(cases)
    if not isinstance(where, Mapping) or not where:
        raise BadInput(
            f"The places of {algorithm.name!r} are {where!r:.60}.",
            f'Give {{variable: place}}, e.g. {{"{algorithm.variables[0]}": "a0.h0@last"}}.',
        )
    for name in where:
        if name not in algorithm.variables:
            raise BadInput(
                f"{algorithm.name!r} has no variable {name!r:.60}.", did_you_mean(name, algorithm.variables)
            )
    places = {name: places_of(where[name]) for name in algorithm.variables if name in where}
    for place in dict.fromkeys(p for several in places.values() for p in several):
        place.require(net, cases.cases)
        if place.basis is not None:
            _require_width(net, place)
    predicts = Predictions(algorithm, choices)
    agrees = predicts.require_answers(held)
    for name in places:
        predicts.require_varying(name, held)
    return Contestant(algorithm, places, predicts, agrees)


def _require_width(net: Network, place: Any) -> None:
    site, part = place.site(net), place.named
    width = numbers_of(net, site, 1)
    if part is not None and part.kind == "head":
        width //= net.heads(part.layer or 0) or 1
    if place.basis.shape[1] != width:
        raise BadInput(
            f"The subspace at {place.part} is of {place.basis.shape[1]} dimensions; that place has {width}.",
            "Give rows [k d] of the value at that place.",
        )


def rivals_of(
    net: Network, rivals: Any, main: Contestant, cases: Cases, held: Cases, choices: AnswerChoices
) -> tuple[Contestant, ...]:
    """The rivals with their places; those without any have the algorithm's, for variables of the same names."""
    several = [rivals] if isinstance(rivals, Algorithm) else rivals
    if isinstance(several, str | Mapping) or not hasattr(several, "__iter__"):
        raise BadInput(f"rivals={rivals!r:.60} are no algorithms.", "Give a list of algorithms.")
    found = []
    for rival in several:
        algorithm, where = rival if isinstance(rival, tuple) and len(rival) == 2 else (rival, None)
        if not isinstance(algorithm, Algorithm):
            raise BadInput(
                f"A rival is {rival!r:.60}.", "Give an algorithm, or a pair of one and {variable: place}."
            )
        if where is None:
            where = {name: places for name, places in main.where.items() if name in algorithm.variables}
            if not where:
                raise BadInput(
                    f"{algorithm.name!r} has none of the variables {', '.join(main.where)}.",
                    "Give a pair of the rival and the places of its own variables.",
                )
        found.append(contestant(net, algorithm, where, cases, held, choices))
    return tuple(found)


def planned(
    net: Network,
    main: Contestant,
    rivals: tuple[Contestant, ...],
    held: Cases,
    choices: AnswerChoices,
    n: int,
    limits: AlgorithmLimits,
    controls: bool,
    twin: bool,
    seed: int,
) -> AlgorithmPlan:
    """All exchanges, drawn. Raises `BadInput` where none of a variable can be predicted."""
    plain = [CaseExchange(case, {}, first_tokens(case), first_tokens(case)) for case in held]
    pool = pool_of(held, n, seed)
    groups = [ExchangeGroup(("plain",), plain, {})]
    notes: list[str] = []
    groups += [ExchangeGroup(("variable", name), _drawn(main, name, pool, n, seed + i), {name: places})
               for i, (name, places) in enumerate(main.where.items())]  # fmt: skip
    own = list(groups[1:])
    if len(main.where) > 1:
        together = draw_exchanges(main.predicts, list(main.where), pool, n, seed + 50)
        if together:
            groups.append(ExchangeGroup(("joint",), together, main.where))
    for i, rival in enumerate(rivals):
        for j, (name, places) in enumerate(rival.where.items()):
            drawn = _drawn(rival, name, pool, n, seed + 100 * (i + 1) + j)
            groups.append(ExchangeGroup(("rival", i, name), drawn, {name: places}))
            if main.where.get(name) == places:
                apart = _apart(main, rival, name, pool, limits.differ, seed + 100 * (i + 1) + j)
                if apart:
                    groups.append(ExchangeGroup(("apart", i, name), apart, {name: places}))
    if controls:
        groups += _others(net, main, own, held, limits, seed, notes)
    if twin:
        groups += [
            ExchangeGroup(("random", str(g.key[1])), spread(g.exchanges, limits.control), g.where, twin=True)
            for g in own
        ]
    return AlgorithmPlan(main, rivals, held, choices, tuple(groups), tuple(notes))


def _others(
    net: Network, main: Contestant, own: Sequence[ExchangeGroup], held: Cases, limits: AlgorithmLimits, seed: int,
    notes: list[str],
) -> list[ExchangeGroup]:  # fmt: skip
    """Some of each variable's exchanges at other places; `notes` hears of those that there are not."""
    taken = [place for places in main.where.values() for place in places]
    groups = []
    for i, group in enumerate(own):
        name, some = str(group.key[1]), spread(group.exchanges, limits.control)
        places = main.where[name]
        found = shams(net, places, taken, held.cases, limits.sham, seed + i)
        if len(found) < limits.sham:
            notes.append(_few(name, places, len(found)))
        for number, other in enumerate(found, 1):
            drawn = any(place.basis is not None for place in other)
            label = f"{said(other)}, random {number}" if drawn else said(other)
            groups.append(ExchangeGroup(("sham", name, label), some, {name: other}))
    return groups


def _few(name: str, places: Places, found: int) -> str:
    if not found:
        return f"There is no other place like {said(places)} at which {name!r} could be exchanged in vain."
    return f"There {'is' if found == 1 else 'are'} only {found} other place{'s' * (found > 1)} like {said(places)}."


def spread(exchanges: Sequence[CaseExchange], n: int) -> list[CaseExchange]:
    """At most n of them, evenly over all."""
    step = max(1.0, len(exchanges) / n)
    return [exchanges[int(i * step)] for i in range(min(n, len(exchanges)))]


def _drawn(of: Contestant, name: str, pool: Pairs, n: int, seed: int) -> list[CaseExchange]:
    found = draw_exchanges(of.predicts, [name], pool, n, seed)
    if not found:
        raise BadInput(
            f"No answer that {of.algorithm.name!r} gives with {name!r} exchanged is the answer to any prompt.",
            "Give more cases, or an algorithm whose answers are among theirs.",
        )
    return found


def _apart(
    main: Contestant, rival: Contestant, name: str, pool: Pairs, n: int, seed: int
) -> list[CaseExchange]:
    """Exchanges on which the two predict something else."""

    def differ(exchange: CaseExchange) -> bool:
        other = rival.predicts.tokens(exchange.base, exchange.sources)
        return other is not None and other != exchange.wanted

    return draw_exchanges(main.predicts, [name], pool, 2 * n, seed, differ)


def twin_of(
    net: Network, main: Contestant, held: Cases, limits: AlgorithmLimits, seed: int
) -> tuple[Network | None, str]:
    """The network with random weights, or why there is none."""
    size = sum(parameter.numel() for parameter in net.model.parameters())
    none = "No network with random weights stands beside"
    if size > limits.largest:
        return None, f"{none}: {size:,} parameters are more than {limits.largest:,.0f}."
    try:
        twin = net.randomized((7_000 + seed) % 2**31)
        for place in {place for places in main.where.values() for place in places}:
            place.require(twin, held.cases)
    except Stopped:
        raise
    except CutawayError as error:
        return None, f"{none}: {error.problem}"
    return twin, ""
