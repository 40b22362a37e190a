"""From what the network said in each exchange to figures with intervals, controls and claims."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from cutaway.algorithms.exchanges import CaseExchange, clusters_of
from cutaway.algorithms.limits import AlgorithmLimits
from cutaway.algorithms.places import said
from cutaway.algorithms.plan import AlgorithmPlan, Contestant, Key
from cutaway.algorithms.result import Apart, RivalTest, VariableTest
from cutaway.behaviours.cases import Case
from cutaway.claims import Claim, Control, Evidence
from cutaway.statistics import Estimate, mean_of, share_of
from cutaway.trials import claim_of, percent, with_interval

#: What stands for exchanging all that there is: the answer of the other prompt.
EVERYTHING = "the other prompt's answer"
Told = Mapping[Key, Sequence[int]]


def reaches(estimate: Estimate, limit: float) -> bool | None:
    """Is the whole interval at a limit or above it (True), below it (False), or neither (None)?"""
    if estimate.interval is None:
        return None
    if estimate.interval.low >= limit:
        return True
    return False if estimate.interval.high < limit else None


class Judge:
    """All figures of a test.

    plan: what was run. told: what the network said. limits: by which it is judged.
    """

    def __init__(self, plan: AlgorithmPlan, told: Told, limits: AlgorithmLimits) -> None:
        self.plan, self.told, self.limits = plan, told, limits
        self._plain = {id(case): token for case, token in zip(plan.cases, told[("plain",)], strict=True)}
        group = plan[("plain",)]
        assert group is not None
        self.plain = self._share(group.exchanges, told[("plain",)])

    @property
    def performs(self) -> bool:
        """Does the network give right answers often enough that something can be said?"""
        return self.plain.value >= self.limits.performs

    def _clusters(self, exchanges: Sequence[CaseExchange]) -> list[Hashable]:
        return clusters_of(exchanges, self.plan.cases)

    def _share(self, exchanges: Sequence[CaseExchange], told: Sequence[int]) -> Estimate:
        right = [token in e.wanted for e, token in zip(exchanges, told, strict=True)]
        return share_of(right, self._clusters(exchanges))

    def _of(self, key: Key) -> Estimate | None:
        """The accuracy of a group; None where it was not run."""
        group = self.plan[key]
        return None if group is None or key not in self.told else self._share(group.exchanges, self.told[key])

    def joint(self) -> Estimate | None:
        """The accuracy with all variables exchanged at once; None where that was not run."""
        return self._of(("joint",))

    def follows(self, who: Contestant) -> Estimate:
        """How often the network gives an algorithm's answer to a plain prompt."""
        right = [self._plain[id(case)] in (who.predicts.tokens(case, {}) or ()) for case in self.plan.cases]
        plain = [CaseExchange(case, {}, frozenset(), frozenset()) for case in self.plan.cases]
        return share_of(right, self._clusters(plain))

    def variable(self, name: str) -> VariableTest:
        """A variable's figures."""
        key, places = ("variable", name), self.plan.main.where[name]
        group = self.plan[key]
        assert group is not None
        pairs = list(zip(group.exchanges, self.told[key], strict=True))
        parts: dict[bool, Estimate | None] = {}
        for changes in (True, False):
            some = [(e, t) for e, t in pairs if e.changes is changes]
            parts[changes] = self._share([e for e, _ in some], [t for _, t in some]) if some else None
        moved = [self._plain[id(e.base)] in e.wanted for e in group.exchanges if e.changes]
        step = self.plan.main.algorithm.by_name.get(name)
        shams: dict[str, Estimate] = {}
        for other in self.told:
            if other[:2] == ("sham", name) and (share := self._of(other)) is not None:
                shams[str(other[2])] = share
        return VariableTest(
            name, "" if step is None else step.meaning, () if step is None else step.reads, said(places),
            " and ".join(place.words for place in places),
            tuple(sorted({i for place in places for i in place.tokens(self.plan.cases.cases[0])})),
            self._share(group.exchanges, self.told[key]), parts[True],
            parts[False], sum(moved) / len(moved) if moved else 0.0, shams,
            {other: self._beside(name, other) for other in (*self._others(name), EVERYTHING)},
            self._of(("random", name)),
        )  # fmt: skip

    def _others(self, name: str) -> list[str]:
        """Variables whose values may be what a variable's place carries: steps, and inputs with a place."""
        main = self.plan.main
        return [other for other in main.algorithm.variables
                if other != name and (other in main.algorithm.by_name or other in main.where)]  # fmt: skip

    def _beside(self, name: str, other: str) -> Apart:
        """A variable's predictions beside another variable's, or the source's own answer, for exchanges of its place."""
        predicts = self.plan.main.predicts

        def tokens(base: Case, source: Case) -> frozenset[int] | None:
            return (
                predicts.tokens(source, {}) if other == EVERYTHING else predicts.tokens(base, {other: source})
            )

        key = ("variable", name)
        group = self.plan[key]
        assert group is not None
        rows = [(e, e.wanted, tokens(e.base, e.sources[name]), t)
                for e, t in zip(group.exchanges, self.told[key], strict=True)]  # fmt: skip
        return self._apart(rows)

    def _apart(
        self, rows: Sequence[tuple[CaseExchange, frozenset[int] | None, frozenset[int] | None, int]]
    ) -> Apart:
        """Two predictions on the exchanges on which they differ; rows: exchange, the two, what the network said."""
        some = [(e, a, b, t) for e, a, b, t in rows if a is not None and b is not None and a != b]
        if not some:
            return Apart(0)
        clusters = self._clusters([e for e, _, _, _ in some])
        own, other = ([t in p for p, t in pairs] for pairs in
                      ([(a, t) for _, a, _, t in some], [(b, t) for _, _, b, t in some]))  # fmt: skip
        ahead = mean_of([float(x) - float(y) for x, y in zip(own, other, strict=True)], clusters)
        return Apart(len(some), share_of(own, clusters), share_of(other, clusters), ahead)

    # claims -----------------------------------------------------------------------------------------------------

    def caps(self, tests: Sequence[VariableTest], complete: bool) -> list[str]:
        """Why nothing may be supported here."""
        caps = []
        if not self.performs:
            caps.append(
                f"The network gives a right answer to {percent(self.plain.value)} of the plain prompts, fewer than "
                f"{percent(self.limits.performs)}: what it does not do cannot be said to be computed in this way."
            )
        if not complete:
            caps.append("Stopped before all controls and rivals were run.")
        for test in tests:
            n = 0 if test.changing is None else test.changing.n
            if n < self.limits.changing:
                caps.append(
                    f"Only {n} exchanges of {test.name!r} change the answer, fewer than {self.limits.changing}."
                )
        if tests and all(test.others[EVERYTHING].n < self.limits.differ for test in tests):
            caps.append(
                "Every variable that was exchanged gives the other prompt's answer: an algorithm that gives the answer at "
                "once would pass as well. Give a place for a variable that is computed before the last."
            )
        return caps

    def _evidence(self, name: str, estimate: Estimate, sentence: str, of: str = "of exchanges") -> Evidence:
        """A share that must reach the limit, where the network does the task at all."""
        passed = reaches(estimate, self.limits.accuracy) if self.performs else None
        return Evidence(name, estimate, None, self.limits.accuracy, passed, sentence, of)

    def _plain_evidence(self, who: Contestant, follows: Estimate) -> list[Evidence]:
        found = [
            Evidence(
                "Plain prompts", self.plain, None, self.limits.performs, True if self.performs else None,
                f"The network gives a right answer to {with_interval(self.plain)} of held-out prompts.", "of prompts",
            )
        ]  # fmt: skip
        if who.agrees < 1:
            what = (
                f"The algorithm gives other answers than the cases to {percent(1 - who.agrees)} of the prompts; the "
                f"network gives the algorithm's to {with_interval(follows)}."
            )
            found.append(
                self._evidence("The algorithm's answers to plain prompts", follows, what, "of prompts")
            )
        return found

    def claim(
        self, follows: Estimate, tests: Sequence[VariableTest], joint: Estimate | None,
        rivals: Sequence[RivalTest], notes: Sequence[str], complete: bool, controlled: bool,
    ) -> Claim:  # fmt: skip
        """Does the network run the algorithm?"""
        evidence = self._plain_evidence(self.plan.main, follows)
        for test in tests:
            parts = [f"{with_interval(e)} of those that {what} the answer" for e, what in
                     ((test.changing, "change"), (test.leaving, "leave")) if e is not None]  # fmt: skip
            evidence.append(self._evidence(
                f"Exchanging {test.name}", test.accuracy,
                f"With {test.words} taken from another prompt the answer is the algorithm's in "
                f"{with_interval(test.accuracy)} of exchanges: {', '.join(parts)}.",
            ))  # fmt: skip
        if joint is not None:
            what = f"With all of them taken from different prompts it is in {with_interval(joint)}."
            evidence.append(self._evidence("Exchanging all at once", joint, what))
        for rival in rivals:
            if rival.apart.n >= self.limits.differ and rival.apart.ahead is not None:
                better = rival.apart.ahead.above(0.0)
                evidence.append(Evidence(
                    f"Beside {rival.name}", rival.apart.ahead, None, 0.0, True if better and self.performs else None,
                    f"On {rival.apart.n} prompts and exchanges on which {rival.name!r} predicts something else, the "
                    f"network does what the algorithm says in {with_interval(_sure(rival.apart.own))}, and what the rival "
                    f"says in {with_interval(_sure(rival.apart.other))}.", "ahead",
                ))  # fmt: skip
        controls = [control for test in tests for control in self._controls(test)]
        caps = self.caps(tests, complete)
        if not controlled:
            caps.append("Other places and random weights were not asked for.")
        where = "; ".join(f"{test.name} in {test.words}" for test in tests)
        statement = f"The network computes {self.plan.main.algorithm.name!r}, with {where}."
        return claim_of(statement, evidence, controls, notes, caps)

    def _controls(self, test: VariableTest) -> list[Control]:
        """What must do worse than the variable at its place."""
        found = []
        if test.shams:
            place, best = max(test.shams.items(), key=lambda item: item[1].value)
            found.append(Control(
                f"Other places for {test.name}", best, "less", test.accuracy.above(best.value) is True,
                f"At {place}, the best of {len(test.shams)} other places, the same exchange gives the predicted answer "
                f"in {percent(best.value)}.", "of exchanges",
            ))  # fmt: skip
        enough = {name: a for name, a in test.others.items() if a.n >= self.limits.differ}
        if enough:
            name, worst = min(enough.items(), key=lambda item: _sure(item[1].ahead).value)
            asked = "exchanging everything" if name == EVERYTHING else f"exchanging {name!r}"
            found.append(Control(
                f"Another variable at the place of {test.name}", worst.other, "less", _sure(worst.ahead).above(0.0) is True,
                f"Where {asked} would give another answer, the network gives it in "
                f"{percent(_sure(worst.other).value)}, and that of {test.name!r} in {percent(_sure(worst.own).value)}.",
                f"of {worst.n} exchanges",
            ))  # fmt: skip
        if test.random is not None:
            found.append(Control(
                f"Random weights, {test.name}", test.random, "less", test.accuracy.above(test.random.value) is True,
                f"With random weights the predicted answer is given in {percent(test.random.value)}.", "of exchanges",
            ))  # fmt: skip
        return found

    def rival(self, number: int, complete: bool) -> RivalTest | None:
        """A rival's figures and verdict; None where not all of it was run."""
        rival, main = self.plan.rivals[number], self.plan.main
        keys = [("rival", number, name) for name in rival.where]
        if any(key not in self.told for key in keys):
            return None
        rows: dict[Hashable, Any] = {}
        for case in self.plan.cases:
            plain = CaseExchange(case, {}, frozenset(), frozenset())
            both = (main.predicts.tokens(case, {}), rival.predicts.tokens(case, {}))
            rows[id(case)] = (plain, *both, self._plain[id(case)])
        for name, places in rival.where.items():
            if main.where.get(name) != places:
                continue
            for key in (("variable", name), ("rival", number, name), ("apart", number, name)):
                group = self.plan[key]
                for e, token in (
                    zip(group.exchanges, self.told[key], strict=True) if group and key in self.told else ()
                ):
                    both = (main.predicts.tokens(e.base, e.sources), rival.predicts.tokens(e.base, e.sources))
                    rows[name, id(e.base), id(e.sources[name])] = (e, *both, token)
        apart = self._apart(list(rows.values()))
        shares = {name: _sure(self._of(("rival", number, name))) for name in rival.where}
        places = {name: said(several) for name, several in rival.where.items()}
        follows = self.follows(rival)
        claim = self._rival_claim(rival, shares, places, follows, apart, complete)
        return RivalTest(rival.algorithm.name, follows, shares, places, apart, claim)

    def _rival_claim(
        self, rival: Contestant, shares: Mapping[str, Estimate], places: Mapping[str, str], follows: Estimate,
        apart: Apart, complete: bool,
    ) -> Claim:  # fmt: skip
        evidence = self._plain_evidence(rival, follows)
        for name, share in shares.items():
            what = f"With {places[name]} exchanged the answer is the rival's in {with_interval(share)} of exchanges."
            evidence.append(self._evidence(f"Exchanging {name}", share, what))
        if apart.n >= self.limits.differ and apart.other is not None:
            what = (
                f"On {apart.n} prompts and exchanges on which the two predict something else the network does what the "
                f"rival says in {with_interval(apart.other)}, and what the algorithm says in "
                f"{with_interval(_sure(apart.own))}."
            )
            evidence.append(self._evidence(f"Beside {self.plan.main.algorithm.name}", apart.other, what))
        caps = [
            "Its controls were not run; test it by itself to have it supported.",
            *self.caps((), complete),
        ]
        statement = f"The network computes {rival.algorithm.name!r}, with {_listed(places)}."
        return claim_of(statement, evidence, caps=caps)


def _listed(places: Mapping[str, str]) -> str:
    return "; ".join(f"{name} in {place}" for name, place in places.items())


def _sure(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate
