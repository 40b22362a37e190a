"""The verb `test_algorithm`: does a network compute what an algorithm says, in the places named for its variables?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.algorithms.exchanges import AnswerChoices
from cutaway.algorithms.judged import EVERYTHING, Judge
from cutaway.algorithms.limits import AlgorithmLimits
from cutaway.algorithms.model import Algorithm
from cutaway.algorithms.plan import AlgorithmPlan, contestant, planned, rivals_of, twin_of
from cutaway.algorithms.result import AlgorithmTest, RivalTest, VariableTest
from cutaway.behaviours.cases import Case, Cases
from cutaway.errors import BadInput
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict_as, working
from cutaway.trials import percent

if TYPE_CHECKING:
    from cutaway.network import Network

#: Exchanges of each variable.
EXCHANGES = 200


@strict_as("test_algorithm")
def examine_algorithm(
    net: Network,
    cases: Cases,
    algorithm: Algorithm,
    where: Mapping[str, Any],
    *,
    rivals: Sequence[Any] = (),
    n: int = EXCHANGES,
    limits: AlgorithmLimits | None = None,
    controls: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> AlgorithmTest:
    """Test whether a network computes an algorithm, by interchange interventions on held-out prompts (Geiger et al. 2021).

    For each variable with a place: in one prompt the place gets the value that it has in another, and the network's most
    likely answer (of those that are right in some case, by their first tokens) is held against what the algorithm gives with
    the variable set to its value there. Three in four exchanges change the answer, where there are as many; the others must
    leave it. Where several variables have places, all are exchanged at once, too, each from another prompt.

    Beside it stand the same exchanges at other places of the same kind, the values of other variables of the algorithm, the
    network with random weights, and rivals. Supported only where every variable's whole interval is at
    `limits.accuracy` or above, every control does worse, and so does every rival that predicts something else often enough;
    refuted where a whole interval is below it. Where the network does not do the task, neither.

    Args:
        net: the network.
        cases: prompts whose variables are known; tested on their held-out half.
        algorithm: made by `cutaway.algorithm`.
        where: the place of each variable that is tested, by its name: "a1.h0@last", "m0@S + m1@S", places, or a list.
        rivals: other algorithms, at the same places where they have variables of the same names; or pairs of one and its own
            places by variable.
        n: exchanges of each variable.
        limits: what must be reached.
        controls: run other places and random weights.
        seed: of everything that is drawn.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for an algorithm that reads what is not there or fails, a variable that never varies, a place or a span
            that is not there.
        BadBehaviour: for answers that cannot be told apart, or no two prompts whose words stand at the same tokens.
        Stopped: where it is stopped before every variable was exchanged; later, what is finished is given.
    """
    limits = AlgorithmLimits() if limits is None else limits
    _check(cases, algorithm, n)
    with working(work).interruptible() as work:
        ready = ReadyAlgorithmTest.of(
            net, cases, cases.halves()[1], algorithm, where, rivals, n, limits, controls, seed
        )
        return ready.run(work)


@dataclass(frozen=True, eq=False)
class ReadyAlgorithmTest:
    """A test whose exchanges are drawn, not yet run.

    Attributes:
        net: the network.
        cases: whose answers are told apart.
        plan: all that is run.
        twin: the network with random weights; None where there is none.
        limits: by which it is judged.
        controls: were controls asked for?
        seed: of all that was drawn.
        notes: why there is no twin.
        began: when it was made.
    """

    net: Network
    cases: Cases
    plan: AlgorithmPlan
    twin: Network | None
    limits: AlgorithmLimits
    controls: bool
    seed: int
    notes: tuple[str, ...]
    began: float

    @classmethod
    def of(
        cls, net: Network, cases: Cases, held: Cases, algorithm: Algorithm, where: Mapping[str, Any], rivals: Sequence[Any],
        n: int, limits: AlgorithmLimits, controls: bool, seed: int,
    ) -> ReadyAlgorithmTest:  # fmt: skip
        """A test on some of the cases, `held`. Raises what `test_algorithm` raises."""
        began, choices = time.monotonic(), AnswerChoices.of(cases)
        main = contestant(net, algorithm, where, cases, held, choices)
        others = rivals_of(net, rivals, main, cases, held, choices)
        twin, why = twin_of(net, main, held, limits, seed) if controls else (None, "")
        plan = planned(net, main, others, held, choices, n, limits, controls, twin is not None, seed)
        return cls(net, cases, plan, twin, limits, controls, seed, (why,) if why else (), began)

    def run(self, work: Work) -> AlgorithmTest:
        """Say what it takes, run it, and judge. Raises `Stopped` where nothing is finished."""
        net, plan, main = self.net, self.plan, self.plan.main
        rows = [list(case.ids) for case in plan.cases.cases[:16]]
        announce(net, rows, work, "testing", plan.price(net), rows=sum(len(g.exchanges) for g in plan.groups),
                 least=plan.least(net))  # fmt: skip
        told, complete = plan.run(net, self.twin, work)
        judge = Judge(plan, told, self.limits)
        follows, tests = judge.follows(main), tuple(judge.variable(name) for name in main.where)
        found = [judge.rival(i, complete) for i in range(len(plan.rivals))]
        rivalling = tuple(rival for rival in found if rival is not None)
        joint = judge.joint()
        notes = _notes(plan, tests, rivalling, self.limits, self.notes)
        claim = judge.claim(follows, tests, joint, rivalling, notes, complete, self.controls)
        return AlgorithmTest(
            main.algorithm.name, self.cases.name, str(main.algorithm), _example(net, plan.cases.cases[0]), judge.plain,
            follows, main.agrees, tests, joint, rivalling, claim, len(plan.cases), complete, tuple(notes),
            Provenance.of(net, self.cases.hash, self.seed, time.monotonic() - self.began),
        )  # fmt: skip


def _check(cases: Any, algorithm: Any, n: int) -> None:
    if not isinstance(cases, Cases):
        raise BadInput(f"test_algorithm takes cases, not {cases!r:.60}.", "Make them by cutaway.cases(...).")
    if not isinstance(algorithm, Algorithm):
        raise BadInput(
            f"test_algorithm takes an algorithm, not {algorithm!r:.60}.",
            "Make one by cutaway.algorithm(...).",
        )
    if not 1 <= n <= 1_000_000:
        raise BadInput(f"n={n} exchanges are asked for.", "Ask for at least one; 200 are usual.")


def _notes(
    plan: AlgorithmPlan, tests: Sequence[VariableTest], rivals: Sequence[RivalTest], limits: AlgorithmLimits,
    more: Sequence[str],
) -> list[str]:  # fmt: skip
    notes = [*more, *plan.choices.notes, *plan.notes, *plan.cases.notes]
    if plan.main.agrees < 1:
        notes.append(
            f"The algorithm gives the right answers of the cases to {percent(plan.main.agrees)} of the held-out prompts."
        )
    without = [s.name for s in plan.main.algorithm.steps if s.name not in plan.main.where]
    if without:
        notes.append(f"No place was given for {', '.join(without)}: nothing is said of where they live.")
    for test in tests:
        few = {name: a.n for name, a in test.others.items() if a.n < limits.differ}
        apart = few.pop(EVERYTHING, None)
        if apart is not None:
            most = f"all but {apart}" if apart else "all"
            notes.append(
                f"In {most} of its exchanges {test.name!r} gives the other prompt's answer: a place that holds all "
                "that decides the answer passes as well."
            )
        alike = [f"{name!r} ({n})" for name, n in few.items()]
        if alike:
            notes.append(
                f"At the place of {test.name!r}, exchanges of few or none tell it from {', '.join(alike)}: which of them "
                "lives there is not tested."
            )
        if test.unmoved > 0.1:
            notes.append(
                f"Of the exchanges of {test.name!r} that change the answer, {percent(test.unmoved)} would count without any "
                "exchange, because the answer given before is among the new ones or the network was wrong."
            )
    for rival in rivals:
        if rival.apart.n < limits.differ:
            notes.append(
                f"{rival.name!r} is not told apart: it predicts something else on {rival.apart.n} prompts and exchanges, "
                f"fewer than {limits.differ}."
            )
    return list(dict.fromkeys(notes))


def _example(net: Network, case: Case) -> tuple[tuple[str, str], ...]:
    """The tokens of a prompt, and the spans that each is in."""
    spans = {name: range(*span) for name, span in case.spans.items()}
    return tuple(
        (token, ", ".join(name for name, span in spans.items() if i in span))
        for i, token in enumerate(net.token_strings(case.ids))
    )
