"""The verb: from the places of a variable to the edges along which it passes, tested on held-out pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.algorithms.carried import CarriedVariables
from cutaway.algorithms.carried import carried as find_carried
from cutaway.algorithms.carried.answering import answers_by
from cutaway.algorithms.carried.pairs import VariablePairs, pairs_of
from cutaway.algorithms.passing.judging import PASSES, PassingEdge, claim_about, edges_of, sentence
from cutaway.algorithms.passing.limits import PassingLimits
from cutaway.algorithms.passing.naming import PlacesOf, carrying, named_places, other_receivers
from cutaway.algorithms.passing.result import VariablePassing
from cutaway.algorithms.passing.routes import ANSWER, Edge, PassingBench, PassingRoutes, may_pass
from cutaway.algorithms.places import VariablePlace
from cutaway.behaviours import Performance, performance, refusal
from cutaway.behaviours.cases import Cases
from cutaway.effects.summary import FEWEST
from cutaway.errors import BadBehaviour, BadInput, CutawayError, NotPerformed, Stopped
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.statistics import Estimate
from cutaway.trials.scale import NO_GAP

if TYPE_CHECKING:
    from cutaway.network import Network

_STOPPED = "It was stopped before the end."


@strict
def passing(
    net: Network,
    cases: Cases,
    carried: CarriedVariables | None = None,
    *,
    places: Mapping[str, Sequence[str | VariablePlace]] | Sequence[str | VariablePlace] | None = None,
    n: int = 24,
    limits: PassingLimits | None = None,
    controls: bool = True,
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> VariablePassing:
    """Say how a variable moves from place to place: what a sender brings through a receiver, position by position.

    For every pair of places of a variable of which the one is computed before the other: the variable's value is exchanged
    at the sender alone, the named places between the two are held at their own values, and what the receiver becomes is put
    into the prompt as it is. What the answer then changes passes along this edge, as a share of what exchanging the variable
    does; 0 where all of it takes other ways. Beside it, what is lost of the sender's effect when the receiver is held; and
    what reaches the answer with all later named places held. (Path patching, Wang et al. 2022; Goldowsky-Dill et al. 2023;
    between places of one variable, on pairs that differ in it alone.) Words may stand at other tokens in each sentence
    frame: places go by spans, shares are over all frames, and it is counted in how many an edge is found.

    Supported: the network answers by the variable on held-out pairs; along the named edges more than a tenth of its effect
    passes, in three of four frames, and more than to the same part at other spans and to others of its kind; and the same
    architecture with fresh weights does not answer by it.

    Args:
        net: the network.
        cases: prompts whose variables are known.
        carried: what `cutaway.carried` found; without it and without `places` it is run first, with the same n and seed.
        places: by variable, or for all of them, where it is, as `a1.h0@last`. Those of a derived variable are looked at for
            each free one that it follows.
        n: pairs of each variable in each half.
        limits: what must be reached.
        controls: other spans, other parts, random weights; without them nothing is supported.
        force: go on with variables by which the network does not answer.
        seed: of the pairs, the controls and the sign flips.
        work: hears of the price and of progress, and may stop it; the variables that are finished come back then.

    Raises:
        BadInput: for what are no cases, no place, too few pairs; where both `carried` and `places` are given.
        BadBehaviour: where there is no place of any variable, or no variable changes the answer.
        NotPerformed: where the network answers by none of the variables, unless `force`.
    """
    began, work = time.monotonic(), working(work)
    if not isinstance(cases, Cases):
        raise BadInput(f"{cases!r:.60} are no cases.", "Make them: cutaway.cases(net, frames, ...).")
    if n < FEWEST:
        raise BadInput(f"With n={n} pairs no share can be told from zero.", f"Give at least {FEWEST}.")
    limits = PassingLimits() if limits is None else limits
    if not isinstance(limits, PassingLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give PassingLimits(...), or leave them out.")
    if carried is not None and places is not None:
        raise BadInput("Both `carried` and `places` say where the variables are.", "Give one of them.")
    if carried is not None and not isinstance(carried, CarriedVariables):
        raise BadInput(f"{carried!r:.60} is no result of carried.", "Give what cutaway.carried gave.")
    with work.interruptible() as work:
        notes: list[str] = list(cases.notes)
        if places is None:
            if carried is None:
                carried = find_carried(net, cases, n=n, controls=controls, force=force, seed=seed, work=work)
            places, more = carrying(carried, cases, limits.most)
            notes += more
            if not places:
                raise BadBehaviour(
                    f"In {net.name} no part at any span is shown to carry a variable, so none passes between them.",
                    "Name places: places={'gender': ['m0@name', 'a1.h0@last']}.",
                )
        where, more = named_places(net, cases, places, limits.most)
        study = _PassingStudy(net, cases, where, n, limits, controls, force, seed)
        notes += more
        return study.run(notes, began, work)


class _PassingStudy:
    """What is asked, and what has been found so far."""

    def __init__(
        self, net: Network, cases: Cases, where: PlacesOf, n: int, limits: PassingLimits, controls: bool, force: bool,
        seed: int,
    ) -> None:  # fmt: skip
        self.net, self.cases, self.where, self.n = net, cases, where, n
        self.limits, self.controls, self.force, self.seed = limits, controls, force, seed
        self.others: dict[tuple[str, str, str], tuple[list[str], list[str]]] = {}
        self.edges: dict[str, list[Edge]] = {}
        self.found: dict[str, tuple[PassingRoutes, PassingRoutes]] = {}
        self.performed: dict[str, Performance] = {}
        self.fresh: dict[str, Performance] = {}

    def run(self, notes: list[str], began: float, work: Work) -> VariablePassing:
        """Prepare, announce, run both halves of each variable, judge."""
        quiet = replace(work, listener=None)
        pairs, more = pairs_of(self.net, self.cases, list(self.where), self.n, self.seed)
        notes += more
        ready = self._ready(pairs, notes, quiet)
        self._announce(ready, work)
        complete = True
        try:
            for one, benches in ready:
                self._exchange(one, benches, work)
            if self.controls:
                self._random_weights([one for one, _ in ready], notes, work)
        except Stopped:
            if not self.found:
                raise
            complete = False
        return self._result([one for one, _ in ready], notes, complete, began)

    def _ready(
        self, pairs: Sequence[VariablePairs], notes: list[str], work: Work
    ) -> list[tuple[VariablePairs, tuple[PassingBench, PassingBench]]]:
        ready = []
        refused: NotPerformed | None = None
        for one in pairs:
            done = performance(self.net, one.held, work=work)
            if not answers_by(done, one.one_sided) and not self.force:
                refused = refused or refusal(self.net, one.held, done)
                notes.append(
                    f"It is not shown to answer by {one.variable!r}, which is left out: {'; '.join(done.missed)}."
                )
                continue
            self.performed[one.variable] = done
            places = self.where[one.variable]
            edges = [(s, r) for s in places for r in places if may_pass(self.net, list(self.cases), s, r)]
            extra = self._receivers(one.variable, edges) if self.controls else []
            self.edges[one.variable] = edges
            further = [r for _, r in extra]
            halves = [
                PassingBench.of(self.net, half, one.variable, places, further, self.n, self.seed, work)
                for half in self.cases.halves()
            ]
            ready.append((one, (halves[0], halves[1])))
        if not ready:
            raise refused or BadBehaviour("No variable is left.", "Look at the prompts.")
        return ready

    def _receivers(self, variable: str, edges: Sequence[Edge]) -> list[Edge]:
        """The edges to other receivers, and which belong to which."""
        extra: list[Edge] = []
        for number, (sender, receiver) in enumerate(edges):
            kinds = other_receivers(
                self.net, self.cases, self.where[variable], receiver, self.limits.sham, self.seed + number
            )
            named = []
            for some in kinds:
                there = [place for place in some if place.site(self.net).rank > sender.site(self.net).rank]
                named.append([str(place) for place in there])
                extra += [(sender, place) for place in there]
            self.others[variable, str(sender), str(receiver)] = (named[0], named[1])
        return list({(str(s), str(r)): (s, r) for s, r in extra}.values())

    def _extra(self, variable: str) -> list[Edge]:
        return self._receivers(variable, self.edges[variable]) if self.controls else []

    def _announce(
        self, ready: Sequence[tuple[VariablePairs, tuple[PassingBench, PassingBench]]], work: Work
    ) -> None:
        if not work.priced:
            return
        first = second = fresh = 0.0
        for one, (bench, held) in ready:
            first += bench.price(self.edges[one.variable])
            second += held.price([*self.edges[one.variable], *self._extra(one.variable)])
            fresh += 2.0 * one.held.n if self.controls else 0.0
        stages = [("discovery pairs", first), ("held-out pairs", second), ("controls", fresh)]
        behaviour = ready[0][0].held
        announce(
            self.net,
            behaviour.clean_ids,
            work,
            "how variables pass",
            stages,
            least=(first + second) / len(ready),
        )

    def _exchange(self, one: VariablePairs, benches: tuple[PassingBench, PassingBench], work: Work) -> None:
        name, edges = one.variable, self.edges[one.variable]
        first = benches[0].run(edges, work, f"passing {name}")
        second = benches[1].run([*edges, *self._extra(name)], work, f"testing {name} on held-out pairs")
        self.found[name] = (first, second)

    def _random_weights(self, pairs: Sequence[VariablePairs], notes: list[str], work: Work) -> None:
        try:
            fresh = self.net.randomized(self.seed, examine=False)
            for one in pairs:
                self.fresh[one.variable] = performance(fresh, one.held, work=work)
        except Stopped:
            raise
        except CutawayError as error:
            notes.append(f"Fresh weights could not be tried. {error.problem}")

    def _result(
        self, pairs: Sequence[VariablePairs], notes: Sequence[str], complete: bool, began: float
    ) -> VariablePassing:
        limits, names = self.limits, [one.variable for one in pairs if one.variable in self.found]
        wanted = {
            name: [
                *((str(s), str(r)) for s, r in self.edges[name]),
                *((str(s), ANSWER) for s in self.where[name]),
            ]
            for name in names
        }
        judged = edges_of(self.found, wanted, self.others, limits, self.seed)
        claims = []
        for one in pairs:
            if one.variable not in self.found:
                continue
            caps = [] if complete else [_STOPPED]
            if not self.controls:
                caps.append("No controls were run.")
            elif complete and one.variable not in self.fresh:
                caps.append("No network with fresh weights was tried.")
            if not all(routes.bench.scale.told for routes in self.found[one.variable]):
                caps.append(NO_GAP)
            mine = [edge for edge in judged if edge.variable == one.variable]
            claims.append(claim_about(
                self.net.name, one.variable, mine, self.performed.get(one.variable), one.one_sided,
                self.fresh.get(one.variable), limits, caps,
            ))  # fmt: skip
        spans = sorted(
            self.cases.spans, key=lambda span: np.mean([_start(case, span) for case in self.cases])
        )
        return VariablePassing(
            self.cases.name, tuple(names), **_columns(judged), **self._alone(names), spans=tuple(spans),
            pairs=tuple((one.discovery.n, one.held.n) for one in pairs if one.variable in self.found),
            claims=tuple(claims), limits=limits.to_dict(), notes=tuple(notes), complete=complete,
            provenance=Provenance.of(self.net, self.cases.hash, self.seed, time.monotonic() - began),
        )  # fmt: skip

    def _alone(self, names: Sequence[str]) -> dict[str, Any]:
        """What exchanging each place brings, on held-out pairs."""
        rows = [
            (name, str(place), self.found[name][1].alone(str(place)))
            for name in names
            for place in self.where[name]
        ]
        ends = _ends([share for *_, share in rows])
        variables, places = tuple(name for name, *_ in rows), tuple(place for _, place, _ in rows)
        return {
            "place_variable": variables,
            "place": places,
            "alone": ends[0],
            "alone_low": ends[1],
            "alone_high": ends[2],
        }


def _start(case: Any, span: str) -> int:
    return VariablePlace("m0", span).tokens(case)[0]


def _ends(estimates: Sequence[Estimate | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and both ends [k], NaN where there is none."""
    rows = [(np.nan,) * 3 if one is None else (one.value, *one.ends()) for one in estimates]
    table = np.array(rows, float).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _columns(judged: Sequence[PassingEdge]) -> dict[str, Any]:
    """The edges as columns of the result."""
    columns: dict[str, Any] = {
        name: tuple(getattr(one, name) for one in judged) for name in ("variable", "sender", "receiver")
    }
    for name, field in (("", "discovery"), ("held", "held"), ("lost", "lost")):
        value, low, high = _ends([getattr(one, field) for one in judged])
        columns |= {name or "share": value, f"{name}_low".lstrip("_"): low, f"{name}_high".lstrip("_"): high}
    for which, name in enumerate(("elsewhere", "alike")):
        columns[name] = np.array(
            [np.nan if one.beside[which] is None else one.beside[which] for one in judged], float
        )
    return columns | {
        "q": np.array([one.q for one in judged], float),
        "frames": np.array([one.frames for one in judged], float),
        "agree": np.array([one.agree for one in judged], float),
        "verdict": tuple(one.verdict for one in judged),
        "sentences": tuple(sentence(one) if one.verdict == PASSES else "" for one in judged),
    }
