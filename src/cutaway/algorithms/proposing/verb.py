"""The verb: from what parts carry to one algorithm, and from that to a test on prompts that had no part in proposing it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cutaway.algorithms.carried import CarriedVariables, carried
from cutaway.algorithms.exchanges import AnswerChoices, pool_of, share_before
from cutaway.algorithms.places import Places, said
from cutaway.algorithms.proposing.assembling import AssembledAlgorithm, chosen_places, holding
from cutaway.algorithms.proposing.describing import alike_note, considered_of, steps_of
from cutaway.algorithms.proposing.known import KnownTask, known_task, others
from cutaway.algorithms.proposing.limits import ProposalLimits
from cutaway.algorithms.proposing.result import ProposedAlgorithm, TriedPlace
from cutaway.algorithms.proposing.rivals import ConsideredRival, plausible, usable
from cutaway.algorithms.proposing.rules import KnownRow, rows_of
from cutaway.algorithms.proposing.searching import DiscoveryBench, PlannedSearch
from cutaway.algorithms.proposing.telling import none_shown
from cutaway.algorithms.result import AlgorithmTest
from cutaway.algorithms.testing import EXCHANGES, examine_algorithm
from cutaway.behaviours.cases import Cases
from cutaway.errors import BadInput, Stopped
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network

_STOPPED = "It was stopped before the end."


@strict
def propose_algorithm(
    net: Network,
    cases: Cases,
    carried: CarriedVariables | None = None,
    *,
    n: int = EXCHANGES,
    limits: ProposalLimits | None = None,
    controls: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> ProposedAlgorithm:
    """Propose what a network computes on cases, from what its parts carry, and test it on held-out prompts.

    On discovery prompts every variable, free and derived, and the answer itself is exchanged at the places that have
    most to do with what it is computed from. Where the answer is then what the cases say of a prompt with the variable
    set so, the variable is taken to live there. These places become the steps of one algorithm, in the order of the
    network: a variable at its first place and at its last, a derived variable where it is computed, the answer where
    all is put together. Other algorithms are made beside it: by way of a variable that was found nowhere, or that the
    cases do not use; straight, without one that was found; the answer at once; another variable of like values in the
    place of the right one; places turned; without regard to a variable; always the same answer.

    The proposed algorithm alone is then tested as by `test_algorithm`, the others as its rivals, on prompts that had no part
    in choosing it. None of them may be supported; that is said.

    Args:
        net: the network.
        cases: prompts whose variables are known; derived variables are those of which it is asked whether they are computed.
        carried: what parts carry, of the same cases; found here where it is not given.
        n: exchanges of each variable on held-out prompts.
        limits: what must be reached.
        controls: run other places and random weights; without them nothing is supported.
        seed: of everything that is drawn.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for what are no cases, for a table of other cases or of another network.
        BadBehaviour: where no variable changes the answer, or answers cannot be told apart.
        NotPerformed: where the network answers by none of the variables.
        Stopped: where it is stopped before anything was tried.
    """
    began, limits = time.monotonic(), ProposalLimits() if limits is None else limits
    _check(net, cases, carried, n, limits)
    choices = AnswerChoices.of(cases)
    with working(work).interruptible() as work:
        found = _carried(net, cases, controls, seed, work) if carried is None else carried
        asked = _Asked.of(net, cases, found, choices, n, limits, controls, seed)
        made = asked.run(work)
    return asked.result(made, (*cases.notes, *choices.notes), began)


def _carried(net: Network, cases: Cases, controls: bool, seed: int, work: Work) -> CarriedVariables:
    return carried(net, cases, controls=controls, seed=seed, work=work)


def _check(
    net: Network, cases: object, found: CarriedVariables | None, n: int, limits: ProposalLimits
) -> None:
    if not isinstance(cases, Cases):
        raise BadInput(
            f"propose_algorithm takes cases, not {cases!r:.60}.", "Make them by cutaway.cases(...)."
        )
    if not isinstance(limits, ProposalLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give ProposalLimits(...), or leave them out.")
    if not 1 <= n <= 1_000_000:
        raise BadInput(f"n={n} exchanges are asked for.", f"Ask for at least one; {EXCHANGES} are usual.")
    if found is None:
        return
    if not isinstance(found, CarriedVariables):
        raise BadInput(
            f"{found!r:.60} is no table of what parts carry.", "Give what cutaway.carried(net, cases) gives."
        )
    if found.provenance.behaviour_hash != cases.hash:
        raise BadInput(
            "The table of what parts carry is of other cases.",
            "Make it of these: cutaway.carried(net, cases).",
        )
    if found.provenance.network_hash != net.hash:
        raise BadInput(
            f"The table of what parts carry is of {found.provenance.network}.", "Make it of this network."
        )


@dataclass(eq=False)
class _Found:
    """What came out, as far as it was run.

    Attributes:
        tried: variables at places on discovery prompts.
        made: the algorithm; None where none holds.
        figures: of its steps on discovery prompts.
        rivals: the others that stand beside it.
        test: on held-out prompts.
        complete: was all of it run?
        notes: what cannot be tested.
    """

    tried: list[TriedPlace]
    made: AssembledAlgorithm | None
    figures: Mapping[str, TriedPlace]
    rivals: Sequence[ConsideredRival]
    test: AlgorithmTest | None
    complete: bool
    notes: list[str]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is asked, planned as far as it is known before anything is run."""

    net: Network
    cases: Cases
    bench: DiscoveryBench
    task: KnownTask
    others: Sequence[KnownTask]
    rows: Sequence[KnownRow]
    carried: CarriedVariables
    n: int
    limits: ProposalLimits
    controls: bool
    seed: int

    @classmethod
    def of(
        cls, net: Network, cases: Cases, found: CarriedVariables, choices: AnswerChoices, n: int, limits: ProposalLimits,
        controls: bool, seed: int,
    ) -> _Asked:  # fmt: skip
        """The task as the cases say it, and the ways beside it."""
        rows = rows_of(cases, seed)
        task = known_task(cases, found.variables, rows)
        first = cases.halves()[0]
        bench = DiscoveryBench(net, first, choices, pool_of(first, limits.tried, seed), limits, seed)
        beside = others(cases, task, rows)
        return cls(net, cases, bench, task, beside, rows, found, n, limits, controls, seed)

    def run(self, work: Work) -> _Found:
        """Try, put together, test; as far as it is not stopped. Raises `Stopped` where nothing was tried."""
        out = _Found([], None, {}, (), None, False, [])
        rows = [list(case.ids) for case in self.bench.cases.cases[:16]]
        plan = self._plan()
        searching = sum(one.price for one in plan) + self.bench.price_of_plain
        announce(self.net, rows, work, "looking for variables", searching, rows=self.limits.tried)
        self.bench.ask(work)
        try:
            for search in self._plan():
                search.run(work, out.tried)
            self._assemble(out, work)
            if out.made is not None:
                announce(self.net, rows, work, "testing what is proposed", self._testing(out), rows=self.n)
                out.test = self._tested(out, work)
            out.complete = out.test is None or out.test.complete
        except Stopped:
            if not out.tried:
                raise
        return out

    def _plan(self) -> list[PlannedSearch]:
        own = PlannedSearch.of(self.bench, self.task, self.carried)
        return [own, *(PlannedSearch.of(self.bench, one, self.carried, [one.by]) for one in self.others)]

    def _assemble(self, out: _Found, work: Work) -> None:
        """The algorithm that the places make; of several ways the one of which most steps are found."""
        best: tuple[int, float] = (0, 0.0)
        ways = [
            self.task,
            *(one for one in self.others if any(t.taken and t.variable == one.by for t in out.tried)),
        ]
        own = set(self.task.variables)
        for way in ways:
            if way is not self.task and self._said_already(way, out.tried):
                continue
            alone = [name for name in way.free if self.bench.alone(way.algorithm(), name)]
            tried = [one for one in out.tried if one.variable in own or one.variable == way.by]
            made, figures = holding(self.bench, way, chosen_places(way, tried, alone), work)
            if made is None:
                continue
            score = (len(made.where), min(one.accuracy.value for one in figures.values()))
            if score > best:
                best, out.made, out.figures = score, made, figures
        if out.made is not None and self.limits.rivals:
            same = {name for name, _ in self.alike}
            beside = [one for one in self.others if one.by not in same]
            rivals = plausible(out.made, beside, out.tried, self.rows)
            out.rivals, out.notes = usable(
                self.net, rivals, self.cases, self.bench.choices, self.n, self.seed, int(self.limits.rivals)
            )

    def _said_already(self, way: KnownTask, tried: Sequence[TriedPlace]) -> bool:
        """Is a variable that the cases leave aside found only where one that they use is found, too?"""
        there = {one.place for one in tried if one.taken and one.variable == way.by}
        return there <= {one.place for one in tried if one.taken and one.variable in self.task.variables}

    def _testing(self, out: _Found) -> float:
        """Forward-equivalents of the test, before it is drawn."""
        assert out.made is not None
        limits, held = self.limits, len(self.cases.halves()[1])
        each = {name: 1 + share_before(self.net, at) for name, at in out.made.where.items()}
        own = self.n * sum(each.values())
        joint = self.n * (1 + sum(one - 1 for one in each.values())) if len(each) > 1 else 0.0
        beside = sum(
            (self.n + (2 * limits.differ if out.made.where.get(name) == at else 0)) * (1 + share_before(self.net, at))
            for rival in out.rivals for name, at in rival.where.items()
        )  # fmt: skip
        turns = (limits.sham + 1) if self.controls else 0
        return held + own + joint + beside + turns * min(limits.control, self.n) * sum(each.values())

    def _tested(self, out: _Found, work: Work) -> AlgorithmTest:
        assert out.made is not None
        rivals = [(one.algorithm, {name: list(at) for name, at in one.where.items()}) for one in out.rivals]
        where = {name: list(at) for name, at in out.made.where.items()}
        return examine_algorithm(
            self.net, self.cases, out.made.algorithm, where, rivals=rivals, n=self.n, limits=self.limits,
            controls=self.controls, seed=self.seed, work=work,
        )  # fmt: skip

    def result(self, out: _Found, notes: Sequence[str], began: float) -> ProposedAlgorithm:
        """Put together what came out."""
        told = [*notes, *out.notes, *(alike_note(a, b) for a, b in self.alike)]
        caps = [] if out.complete else [_STOPPED]
        claim = (
            none_shown(self.net.name, out.tried, self.limits.taken, caps)
            if out.test is None
            else out.test.claim
        )
        if out.test is not None:
            told += [note for note in out.test.notes if "is not told apart: it predicts" not in note]
        where: Mapping[str, Places] = {} if out.made is None else out.made.where
        beside = considered_of(self.cases, out.made, out.rivals, out.test, self.limits, self.rows)
        return ProposedAlgorithm(
            self.cases.name, "" if out.made is None else out.made.algorithm.name,
            "" if out.made is None else str(out.made.algorithm), steps_of(out.made, out.figures, out.test),
            {name: said(at) for name, at in where.items()}, out.test, beside, tuple(out.tried), self.alike, claim,
            self.limits.to_dict(), tuple(dict.fromkeys(told)), out.complete,
            Provenance.of(self.net, self.cases.hash, self.seed, time.monotonic() - began),
        )  # fmt: skip

    @cached_property
    def alike(self) -> tuple[tuple[str, str], ...]:
        """Variables that the cases leave aside and one that they use, whose exchanges always predict the same."""
        found = []
        for way in self.others:
            algorithm = way.algorithm()
            for name in self.task.free:
                if name not in algorithm.inputs and name not in way.roots(way.by):
                    continue
                if self.bench.same_as(self.task.algorithm(), name, algorithm, way.by):
                    found.append((way.by, name))
        return tuple(found)
