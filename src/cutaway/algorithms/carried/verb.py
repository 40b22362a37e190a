"""The verb: exchange one variable at a time, part by part, find what stands out, test it, and say what carries what."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cutaway.algorithms.carried.answering import answered
from cutaway.algorithms.carried.exchanging import At
from cutaway.algorithms.carried.limits import CarriedLimits
from cutaway.algorithms.carried.pairs import pairs_of, spans_of
from cutaway.algorithms.carried.result import CarriedVariables
from cutaway.algorithms.carried.searching import (
    CarriedFindings,
    CarriedQuestion,
    ReadyVariable,
    ready,
    tested_of,
)
from cutaway.algorithms.carried.spread import SpreadVariable, spread_over
from cutaway.algorithms.carried.tables import CarriedTables
from cutaway.algorithms.carried.telling import claim_about
from cutaway.behaviours.cases import Cases
from cutaway.effects.question import chosen
from cutaway.effects.summary import FEWEST
from cutaway.errors import BadInput, SiteUnavailable, Stopped
from cutaway.network.parts import Part, parts_of
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.trials.scale import NO_GAP

if TYPE_CHECKING:
    from cutaway.network import Network

#: Of the places that are tried so many are expected to stand out, and at least so many: for the price.
_EXPECTED, _AT_LEAST = 0.1, 3
_STOPPED = "It was stopped before the end."


@strict
def carried(
    net: Network,
    cases: Cases,
    variables: Sequence[str] | None = None,
    *,
    parts: Sequence[Part | str] | None = None,
    spans: Sequence[str] | None = None,
    n: int = 24,
    limits: CarriedLimits | None = None,
    controls: bool = True,
    force: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> CarriedVariables:
    """Say what each part carries: exchange one variable of the prompt at a time, and see which part brings its effect.

    For every free variable that changes the answer, pairs of prompts are made that differ in it alone. Each part's value at
    each span is taken from the other prompt of the pair: 0 where nothing changes, 1 where the answer changes as if the
    variable itself had been exchanged. Places that stand out on discovery pairs, corrected for all parts, spans and
    variables, are tested on held-out pairs, and there for every other variable, too: a part that carries one variable brings
    nothing of the others; one that carries what they are joined to (the answer) brings all of them.

    Supported: the network answers by the variable on held-out pairs; the named places bring more than a fifth of its effect,
    and nothing of the other variables; with the values shuffled between prompts no place stands out, and the same
    architecture with fresh weights does not answer by it.

    Args:
        net: the network.
        cases: prompts whose variables are known (`cutaway.behaviours.cases`).
        variables: free ones to exchange; default all that change the answer by themselves.
        parts: of which the values are exchanged, one at a time; default all heads (or attentions), mixers and MLPs.
        spans: where in the prompt; default every named span that all prompts have, and the last token.
        n: pairs of each variable in each half.
        limits: what must be reached.
        controls: shuffled values and random weights; without them nothing is supported.
        force: go on with variables by which the network does not answer.
        seed: of the pairs, the shuffling and the sign flips.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for what are no cases, a variable or span that is not there, fewer pairs than can tell anything.
        NotFound: for a part that the network does not have.
        BadBehaviour: where no variable changes the answer by itself.
        NotPerformed: where the network answers by none of the variables, unless `force`.
    """
    began, work = time.monotonic(), working(work)
    if not isinstance(cases, Cases):
        raise BadInput(
            f"{cases!r:.60} are no cases.", "Make them: cutaway.behaviours.cases.cases(net, frames, ...)."
        )
    if n < FEWEST:
        raise BadInput(f"With n={n} pairs no share can be told from zero.", f"Give at least {FEWEST}.")
    limits = CarriedLimits() if limits is None else limits
    if not isinstance(limits, CarriedLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give CarriedLimits(...), or leave them out.")
    asked = CarriedQuestion(net, _places(net, cases, parts, spans), limits, controls, force, seed)
    with work.interruptible() as work:
        quiet = replace(work, listener=None)
        pairs, notes = pairs_of(net, cases, variables, n, seed)
        search, more = ready(asked, pairs, quiet)
        _announce(asked, search, work)
        found = CarriedFindings.of(asked, search, work)
        spread, unfinished = _spread(asked, found, work)
    return _result(asked, cases, found, spread, (*cases.notes, *notes, *more, *unfinished), began)


def _places(
    net: Network, cases: Cases, parts: Sequence[Part | str] | None, spans: Sequence[str] | None
) -> tuple[At, ...]:
    known = parts_of(net)
    if not known:
        raise SiteUnavailable(
            f"{net.name} has no attention head, mixer or MLP whose output was certified.",
            "Look at net.certificate.",
        )
    wanted = chosen(parts, known, known, Part.of, "part")
    return tuple((part, span) for part in wanted for span in spans_of(cases, spans))


def _spread(
    asked: CarriedQuestion, found: CarriedFindings, work: Work
) -> tuple[tuple[SpreadVariable, ...], tuple[str, ...]]:
    """The variables that several parts carry together, where no single one does; and why it is not known."""
    if not found.complete:
        return (), ()
    try:
        return tuple(spread_over(asked, found, tested_of(asked, found), work)), ()
    except Stopped:
        return (), ("It was stopped before several parts together were looked at.",)


def _announce(asked: CarriedQuestion, search: Sequence[ReadyVariable], work: Work) -> None:
    """Say what is about to be run: the sweeps, both prompts of the held-out pairs, the places that are expected there."""
    sweeps = sum(one.exchange.forwards for one in search)
    places = len(asked.places)
    tested = min(places, len(search) * min(asked.limits.most, max(_AT_LEAST, round(_EXPECTED * places))))
    held = sum(one.pairs.held.n for one in search)
    share = held / max(1, sum(one.pairs.discovery.n for one in search))
    stages = [
        ("each part at each span", sweeps),
        ("testing on held-out pairs", 4.0 * held + share * sweeps * tested / places),
        ("controls", 2.0 * held if asked.controls else 0.0),
    ]
    behaviour = search[0].pairs.discovery
    announce(
        asked.net, behaviour.clean_ids, work, "what each part carries", stages, least=sweeps / max(1, places)
    )


def _result(
    asked: CarriedQuestion, cases: Cases, found: CarriedFindings, spread: tuple[SpreadVariable, ...],
    notes: Sequence[str], began: float,
) -> CarriedVariables:  # fmt: skip
    """Put together what was measured, and say what may be said."""
    tables, told, claims = CarriedTables(asked.places, len(found.pairs)), list(notes), []
    tested = tested_of(asked, found)
    for number, name in enumerate(found.pairs):
        tables.searched(number, found.moved[name], found.q[name])
        if name in found.held:
            tables.tested(number, found.held[name], found.every)
        for place, one in zip(found.picked[name], tested[name], strict=False):
            tables.decided(number, place, one)
        if found.left[name]:
            told.append(
                f"{found.left[name]} more places stand out for {name!r} than the {asked.limits.most} that were tested."
            )
        done = found.performed.get(name)
        answering = None if done is None else answered(done, found.pairs[name].one_sided)
        claims.append(
            claim_about(
                asked.net.name, name, tested[name], answering, found.controls[name], asked.limits,
                _caps(asked, found, name),
            )
        )  # fmt: skip
    return CarriedVariables(
        cases.name, tuple(found.pairs), tables.parts, tables.spans, **tables.arrays,
        pairs=tuple((one.discovery.n, one.held.n) for one in found.pairs.values()), claims=tuple(claims),
        spread=spread, limits=asked.limits.to_dict(), notes=tuple(told), complete=found.complete,
        provenance=Provenance.of(asked.net, cases.hash, asked.seed, time.monotonic() - began),
    )  # fmt: skip


def _caps(asked: CarriedQuestion, found: CarriedFindings, name: str) -> list[str]:
    """Why nothing may be supported of a variable."""
    caps = [] if found.complete else [_STOPPED]
    if found.complete and found.every and name not in found.held:
        caps.append("On held-out pairs exchanging the variable changes nothing.")
    if not asked.controls:
        caps.append("No controls were run.")
    scales = [one[name].scale for one in (found.moved, found.held) if name in one]
    if not all(scale.told for scale in scales):
        caps.append(NO_GAP)
    return caps
