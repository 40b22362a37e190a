"""The verb `computation`: every stage in order, on the same prompts, within one budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.algorithms import Algorithm
from cutaway.algorithms.exchanges import AnswerChoices, CaseExchange, run_exchanges
from cutaway.behaviours.cases import Case, Cases
from cutaway.errors import BadBehaviour, BadInput, CutawayError, Stopped
from cutaway.explanations.computation.asking import NOTHING_STATED, StatedComputation, stated
from cutaway.explanations.computation.depth import ComputationSize, ComputationStage, check_depth, stages_of
from cutaway.explanations.computation.example import TaskExample
from cutaway.explanations.computation.parts import WHOLE, strongest
from cutaway.explanations.computation.result import Computation
from cutaway.explanations.computation.stages import RUN, ComputationQuestion
from cutaway.network.parts import Part, parts_of
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.statistics import Estimate, proportion

if TYPE_CHECKING:
    from cutaway.network import Network

#: Variables that are exchanged unless others are named, and parts of a large network that are asked.
MOST_VARIABLES, MOST_PARTS = 3, 24
#: Pairs of each variable in each half.
PAIRS = 24
_NOT_REACHED = "not reached: the work was stopped before"


@strict
def computation(
    net: Network,
    cases: Cases,
    *,
    depth: str = "algorithm",
    variables: Sequence[str] | None = None,
    parts: Sequence[Part | str] | None = None,
    n: int = PAIRS,
    intended: Algorithm | None = None,
    feared: Sequence[Algorithm | str] = (),
    shifted: Cases | None = None,
    controls: bool = True,
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> Computation:
    """Tell what a network computes to answer prompts whose variables are known: what each part carries, how variables move
    from part to part, what kind of work each part does, what takes over where one is gone, which words matter from outside,
    and as which algorithm; each a verb of its own with its tests and controls.

    Args:
        net: the network.
        cases: prompts whose variables are known.
        depth: "what" for what parts carry and do, "algorithm" for an algorithm that is proposed and tested, too.
        variables: free ones to exchange; default the first three that change the answer by themselves.
        parts: that are asked; default all of a network with at most 40, else the 24 that stand out by a gradient.
        n: pairs of each variable in each half.
        intended: the algorithm that it ought to compute (`cutaway.algorithm`); default the answers that the cases call
            right, where something is feared.
        feared: algorithms that it ought not to compute, or `number=other_number` for the right answer of one variable taken
            for another.
        shifted: prompts of another distribution, on which the intended computation is asked for again.
        controls: run the controls of every stage.
        force: go on where the network does not do the task; nothing can be supported then.
        seed: of everything that is drawn.
        work: hears of the price and of progress, and may stop it; stages that are finished come back then.

    Returns:
        A `Computation`. What a stage could not find, or was not reached, is in `missing` with the reason.

    Raises:
        UnknownOption: for another depth.
        BadInput: for what are no cases, or variables or parts that are not there.
        BadBehaviour: where no variable changes the answer by itself.
        NotPerformed: where the network answers by none of the variables, unless `force`.
    """
    require_cases(cases)
    return tell(
        net, cases, depth=depth, variables=variables, parts=parts, n=n, wanted=stated(cases, intended, feared, shifted),
        controls=controls, force=force, seed=seed, work=work,
    )  # fmt: skip


def tell(
    net: Network,
    cases: Cases,
    *,
    depth: str,
    variables: Sequence[str] | None = None,
    parts: Sequence[Part | str] | None = None,
    first: Sequence[Part] = (),
    n: int = PAIRS,
    wanted: StatedComputation = NOTHING_STATED,
    controls: bool = True,
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> Computation:
    """`computation`, of a network of which it is known already that some parts matter (`first`), which are asked, too."""
    began = time.monotonic()
    require_cases(cases)
    if check_depth(depth) == "where":
        raise BadInput(
            "Depth “where” is what cutaway.explain finds.", 'Use depth="what" or depth="algorithm".'
        )
    stages = stages_of(depth, bool(wanted))
    with working(work).interruptible() as work:
        names = _variables(net, cases, variables, seed)
        given = () if parts is None else tuple(Part.of(part) for part in parts)
        size = _size(net, cases, len(names), len(given), n)
        _announce(net, cases, depth, wanted, size, work)
        right = _accuracy(net, cases, work)
        if given:
            asked_parts, chosen = given, f"Asked were {len(given)} parts, named by whoever asked."
        else:
            asked_parts, chosen = strongest(net, cases, names, MOST_PARTS, first, seed, work)
        asked = ComputationQuestion(net, cases, names, asked_parts, size, wanted, controls, force, seed)
        missing, seconds, complete = _run(asked, stages, work)
    results = {stage.name: asked.found[stage.name] for stage in stages if stage.name in asked.found}
    return Computation(
        cases.name, depth, TaskExample.of(net, cases), right, results, missing, chosen, seconds, complete,
        Provenance.of(net, cases.hash, seed, time.monotonic() - began), _notes(cases, variables, names),
    )  # fmt: skip


def require_cases(cases: Any) -> None:
    """Raises `BadInput` for what are no cases."""
    if not isinstance(cases, Cases):
        raise BadInput(f"{cases!r:.60} are no cases.", "Make them: cutaway.cases(net, frames, ...).")


def _run(
    asked: ComputationQuestion, stages: Sequence[ComputationStage], work: Work
) -> tuple[tuple[tuple[str, str], ...], dict[str, float], bool]:
    """Each stage in turn; what one cannot find is said, and does not keep the others from being asked."""
    missing: list[tuple[str, str]] = []
    seconds: dict[str, float] = {}
    complete = True
    for number, stage in enumerate(stages):
        began = time.monotonic()
        try:
            work.step(stage.doing, number, len(stages))
            asked.found[stage.name] = found = RUN[stage.name](asked, replace(work, part=work.part))
            complete = complete and getattr(found, "complete", True)
        except Stopped:
            missing.append((stage.name, f"{_NOT_REACHED} “{stage.doing}”"))
            complete = False
        except CutawayError as error:
            if stage.name == "carried":
                raise
            missing.append((stage.name, error.problem.rstrip(".")))
        seconds[stage.name] = round(time.monotonic() - began, 2)
    return tuple(missing), seconds, complete


def _variables(net: Network, cases: Cases, variables: Sequence[str] | None, seed: int) -> tuple[str, ...]:
    """The variables that are exchanged: those that were named, or the first that change the answer by themselves."""
    if variables is not None:
        named = (variables,) if isinstance(variables, str) else tuple(variables)
        for name in named:
            cases.require_free(name)
        return named
    half = cases.halves()[0]
    found: list[str] = []
    for name in cases.free:
        try:
            half.telling(net, name, n=4, seed=seed)
        except BadBehaviour:
            continue
        found.append(name)
    if not found:
        raise BadBehaviour(
            f"No variable of {cases.name!r} changes the answer by itself.",
            "Give prompts in which one varies while the others stay, and the answer with it.",
        )
    return tuple(found[:MOST_VARIABLES])


def _notes(cases: Cases, asked: Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...]:
    left = [] if asked is not None else [name for name in cases.free if name not in names]
    more = (f"Not exchanged: {', '.join(left)}.",) if left else ()
    return (*cases.notes, *more)


def _accuracy(net: Network, cases: Cases, work: Work) -> Estimate:
    """Of the held-out prompts, how many the network answers right, among all answers that are right in some case."""
    held, choices = cases.halves()[1], AnswerChoices.of(cases)
    plain = [CaseExchange(case, {}, _right(case), _right(case)) for case in held]
    said = run_exchanges(net, plain, {}, choices, work, "answering plain prompts")
    return proportion(sum(token in one.wanted for token, one in zip(said, plain, strict=True)), len(held))


def _right(case: Case) -> frozenset[int]:
    return frozenset(ids[0] for _, ids in case.answers)


def priced_computation(net: Network, cases: Cases, depth: str, wanted: StatedComputation) -> float:
    """Forward-equivalents that telling what is computed is expected to take, of all stages."""
    size = _size(net, cases, min(MOST_VARIABLES, max(1, len(cases.free))), 0, PAIRS)
    return sum(stage.forwards(size) for stage in stages_of(depth, bool(wanted)))


def _size(net: Network, cases: Cases, variables: int, parts: int, n: int) -> ComputationSize:
    """How much is asked. parts: of those that were named; 0 where none were."""
    every = len(parts_of(net))
    large = every > WHOLE
    return ComputationSize(
        n, variables, parts or (MOST_PARTS if large else every), max(1, len(cases.spans)), large
    )


def _announce(
    net: Network, cases: Cases, depth: str, wanted: StatedComputation, size: ComputationSize, work: Work
) -> None:
    """Say what the stages are expected to take."""
    told = [(stage.doing, stage.forwards(size)) for stage in stages_of(depth, bool(wanted))]
    rows = [list(case.ids) for case in cases.cases[:16]]
    announce(net, rows, work, "telling what is computed", told, rows=size.pairs, least=told[0][1] / 4)
