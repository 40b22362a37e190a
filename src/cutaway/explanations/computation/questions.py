"""The five questions that the field asks of a mechanism, each answered from claims, or said not to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cutaway.explanations.computation.claimed import claims_of
from cutaway.reports import Said

if TYPE_CHECKING:
    from cutaway.claims import Claim
    from cutaway.explanations.computation.claimed import ToldComputation

COMPUTATION = "What computation is the network performing?"
NEURONS = "Which neurons implement which sub-function?"
CIRCUITS = "What circuits support it?"
FEATURES = "How are the features represented?"
INTENDED = "Is it the intended objective?"
NOT_SHOWN = "Not shown"


class ExplainedWhere(Protocol):
    """What an explanation of where a behaviour is has to say beside it."""

    @property
    def claim(self) -> Claim: ...  # noqa: D102

    @property
    def features(self) -> Any: ...  # noqa: D102


def answers(told: ToldComputation, where: ExplainedWhere | None = None) -> tuple[Said, ...]:
    """Question by question; a question of which no claim speaks is answered by “not shown”, with the reason."""
    return (
        _algorithm(told),
        _neurons(told),
        _beside(
            _from(told, CIRCUITS, "passing", "no places were found between which a variable moves"),
            None if where is None else where.claim,
        ),
        _beside(
            _from(told, FEATURES, "carried", "no part was asked what it carries"),
            None if where is None or where.features is None else where.features.claim,
        ),
        _from(told, INTENDED, "intended", "the intended computation was not stated (intended=, feared=)"),
    )


def _from(told: ToldComputation, question: str, stage: str, otherwise: str) -> Said:

    if stage not in told.results:
        why = dict(told.missing).get(stage, otherwise)
        return Said(f"{NOT_SHOWN}: {why}.", head=question)
    claims = claims_of(told.results[stage])
    best = _best(claims)
    if best is None:
        return Said(f"{NOT_SHOWN}: nothing is claimed.", stage, head=question)
    more = [claim for claim in claims if claim.supported and claim is not best]
    text = ". ".join(claim.statement.rstrip(".") for claim in [best, *more[:2]])
    return Said(f"{text}.", stage, best.verdict, question)


def _beside(said: Said, claim: Claim | None) -> Said:
    """An answer, and what an explanation of where it is claims beside it."""
    if claim is None:
        return said
    if said.verdict is None:
        return Said(f"{claim.statement.rstrip('.')}.", "tests", claim.verdict, said.head)
    return Said(
        f"{said.text} {claim.statement.rstrip('.')} ({claim.verdict}).", said.anchor, said.verdict, said.head
    )


def _best(claims: tuple[Claim, ...]) -> Claim | None:
    """The claim that answers: a supported one, else a refuted one, else the first."""
    for verdict in ("supported", "refuted", "inconclusive"):
        for claim in claims:
            if claim.verdict == verdict:
                return claim
    return None


def _algorithm(told: ToldComputation) -> Said:
    """What was proposed and tested, or that none of it is supported."""
    proposed: Any = told.results.get("proposed")
    if proposed is None:
        return _from(told, COMPUTATION, "proposed", "no algorithm was tested (depth “algorithm” does)")
    steps = " ".join(proposed.sentences) if proposed.claim.supported else ""
    said = proposed.headline.rstrip(".")
    text = f"{said}. {steps}" if proposed.claim.supported else f"{NOT_SHOWN}: {said[0].lower()}{said[1:]}."
    return Said(text.strip(), "proposed", proposed.claim.verdict, COMPUTATION)


def _neurons(told: ToldComputation) -> Said:
    """The neurons behind the roles of MLPs, and what these roles are."""
    roles: Any = told.results.get("roles")
    if roles is None:
        why = dict(told.missing).get("roles", "the parts' roles were not asked for")
        return Said(f"{NOT_SHOWN}: {why}.", head=NEURONS)
    named = [test for test in roles.tests if test.neurons and test.claim.supported]
    if named:
        text = " ".join(f"{test.sentence.rstrip('.')}." for test in named[:3])
        return Said(text, "roles", "supported", NEURONS)
    known = roles.sentences()
    beside = f" Of whole parts it is: {' '.join(known[:2])}" if known else ""
    return Said(
        f"{NOT_SHOWN} for neurons: no role of an MLP was found for which a few of them stand.{beside}",
        "roles",
        None,
        NEURONS,
    )
