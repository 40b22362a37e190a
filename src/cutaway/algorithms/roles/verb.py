"""The verb: run the pairs, score the parts, ask the weights, intervene on held-out pairs, and say what each part does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cutaway.algorithms.carried.answering import answers_by
from cutaway.algorithms.carried.pairs import VariablePairs, pairs_of
from cutaway.algorithms.carried.result import CarriedVariables
from cutaway.algorithms.roles.asking import (
    RoleQuestion,
    RoleTrials,
    RoleVariable,
    caps_of,
    looked,
    prompts_of,
    random_weights_control,
    ready,
    scored,
    tests_of,
)
from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.result import PartRoles
from cutaway.algorithms.roles.screening import sizes_by_gradient
from cutaway.algorithms.roles.telling import RoleTest
from cutaway.algorithms.roles.weights import RoleWeights
from cutaway.behaviours import performance
from cutaway.behaviours.cases import Cases
from cutaway.effects.question import chosen
from cutaway.effects.summary import FEWEST
from cutaway.errors import BadBehaviour, BadInput, SiteUnavailable, Stopped
from cutaway.network.parts import Part, parts_of
from cutaway.network.pricing import announce
from cutaway.results import Provenance, Work, strict, working
from cutaway.stream.head_weights import weights_price

if TYPE_CHECKING:
    from cutaway.network import Network

_STOPPED = "It was stopped before the end."


@strict
def roles(
    net: Network,
    cases: Cases,
    parts: Sequence[Part | str] | None = None,
    *,
    variables: Sequence[str] | None = None,
    carried: CarriedVariables | None = None,
    n: int = 24,
    limits: RoleLimits | None = None,
    controls: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> PartRoles:
    """Say what kind of work each part does in answering: each role is claimed by three witnesses, or it is not.

    Heads: previous token, duplicate token, induction; mover (copies what it looks at into the answer), suppression (takes
    what was about to be said out of it), reader (brings a variable from its span), backup (does more while another is
    ablated). MLPs: lookup (turns what came to the last token into the answer, by neurons that are named). Both: enrichment
    (puts what follows from a word into the stream at that word), answer (writes the answer itself).

    A role is looked for by score on discovery pairs, on prompts or on repeated random tokens, beside a control. Then the
    weights are asked, and on held-out pairs an intervention, which is made on other parts as well. Supported: all three
    agree. Refuted: the score is high and nothing comes of the intervention. Otherwise it is inconclusive.

    Args:
        net: the network.
        cases: prompts whose variables are known (`cutaway.behaviours.cases`).
        parts: heads and MLPs to ask; default those that `carried` found, else all, or of many those with the largest effect.
        variables: free ones to exchange; default all that change the answer by themselves.
        carried: which part carries what (`cutaway.carried`), for its parts.
        n: pairs of each variable in each half.
        limits: what must be reached.
        controls: other parts and random weights; without them nothing is supported.
        seed: of the pairs, of random tokens and directions, and of the other parts.
        work: hears of the price and of progress, and may stop it; what is finished comes back then.

    Raises:
        BadInput: for what are no cases, parts that are neither heads nor MLPs, fewer pairs than can tell anything.
        NotFound: for a part that the network does not have.
        BadBehaviour: where no variable changes the answer by itself.
        SiteUnavailable: where heads cannot be told apart, or patterns not be read.
    """
    began, work = time.monotonic(), working(work)
    if not isinstance(cases, Cases):
        raise BadInput(
            f"{cases!r:.60} are no cases.", "Make them: cutaway.behaviours.cases.cases(net, frames, ...)."
        )
    if n < FEWEST:
        raise BadInput(f"With n={n} pairs no share can be told from zero.", f"Give at least {FEWEST}.")
    limits = RoleLimits() if limits is None else limits
    if not isinstance(limits, RoleLimits):
        raise BadInput(f"{limits!r:.60} are no limits.", "Give RoleLimits(...), or leave them out.")
    if carried is not None and not isinstance(carried, CarriedVariables):
        raise BadInput(f"{carried!r:.60} is no result of carried.", "Give what cutaway.carried returned.")
    known = _known(net)
    wanted = _wanted(parts, carried, known)
    with work.interruptible() as work:
        quiet = replace(work, listener=None)
        pairs, notes = pairs_of(net, cases, variables, n, seed)
        if wanted is None:
            wanted, more = _strongest(net, pairs, known, limits, quiet)
            notes += more
        asked = RoleQuestion(net, wanted, _pool(known, wanted), limits, controls, seed)
        found, more = ready(asked, pairs, quiet)
        _announce(asked, found, work)
        tests, complete = _tested(asked, found, work)
    return PartRoles(
        cases.name, tuple(one.half.variable for one in found), tuple(map(str, wanted)), tuple(tests),
        tuple((one.pairs.discovery.n, one.pairs.held.n) for one in found), limits.to_dict(),
        (*cases.notes, *notes, *more, *(() if complete else (_STOPPED,))), complete,
        Provenance.of(net, cases.hash, seed, time.monotonic() - began),
    )  # fmt: skip


def _known(net: Network) -> list[Part]:
    """Heads and MLPs. Raises what the network raises where patterns or heads are refused."""
    net.resolve("pattern")
    net.resolve("head_out")
    found = [part for part in parts_of(net) if part.kind in ("head", "mlp") and not part.place]
    if not found:
        raise SiteUnavailable(
            f"{net.name} has no heads and MLPs that are told apart.", "Look at net.certificate."
        )
    return found


def _wanted(
    parts: Sequence[Part | str] | None, carried: CarriedVariables | None, known: Sequence[Part]
) -> tuple[Part, ...] | None:
    """The parts that are named, or found by `carried`; None where neither says."""
    if parts is None and carried is not None:
        names = {name.partition("@")[0] for name in carried.carriers(alone=False)}
        wanted = tuple(part for part in known if str(part) in names)
        return wanted or None
    return None if parts is None else tuple(chosen(parts, known, known, Part.of, "part"))


def _pool(known: Sequence[Part], parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts that are asked, and all heads of their layers."""
    layers = {part.layer for part in parts}
    return tuple(part for part in known if part in parts or (part.kind == "head" and part.layer in layers))


def _strongest(
    net: Network, pairs: Sequence[VariablePairs], known: Sequence[Part], limits: RoleLimits, work: Work
) -> tuple[tuple[Part, ...], list[str]]:
    """All parts, or where there are many those that exchanging everywhere would take most from, as a gradient says it."""
    if len(known) <= 2 * limits.screened:
        return tuple(known), []
    size = np.zeros(len(known))
    for one in pairs:
        size = np.maximum(size, sizes_by_gradient(net, one.discovery, known, work))
    best = set(np.argsort(-size, kind="stable")[: int(limits.screened)].tolist())
    note = f"Of {len(known)} parts the {len(best)} were asked whose exchange should take most away, as a gradient says."
    return tuple(part for i, part in enumerate(known) if i in best), [note]


def _announce(asked: RoleQuestion, variables: Sequence[RoleVariable], work: Work) -> None:
    """Say what is about to be run: sweeps on discovery pairs, weights and repeated tokens, trials and controls."""
    sweeps = sum(one.acts.forwards for one in variables)
    cells = sum(len(one.acts.cells) for one in variables)
    each = sweeps / max(1, cells)
    held = sum(one.pairs.held.n for one in variables)
    trials = _EXPECTED * len(asked.parts) * (1 + (asked.limits.control if asked.controls else 0))
    stages = [
        ("parts at spans", sweeps),
        ("repeated tokens and weights", 16.0 + weights_price(asked.net)),
        ("trials on held-out pairs", 4.0 * held + each * trials),
        ("controls", 2.0 * held if asked.controls else 0.0),
    ]
    announce(
        asked.net, variables[0].pairs.discovery.clean_ids, work, "what each part does", stages, least=sweeps
    )


#: Roles that a part is expected to have by score.
_EXPECTED = 1.5


def _tested(
    asked: RoleQuestion, variables: Sequence[RoleVariable], work: Work
) -> tuple[list[RoleTest], bool]:
    """Every role that a part has by score, tested; and whether all of it was run."""
    tests: list[RoleTest] = []
    try:
        for one in variables:
            one.lost = one.acts.run(work, f"exchanging {one.half.variable}")
            if one.lost.stopped:
                return tests, False
        repeated = looked(asked.net, asked.seed, work)
        layers = sorted({part.layer or 0 for part in asked.pool if part.kind == "head"})
        weights = RoleWeights.of(asked.net, prompts_of(variables), layers, asked.seed, work)
        roles_ = scored(asked, variables, weights, repeated)
        for one in variables:
            mine = [role for role in roles_ if role.half is one.half]
            if not mine:
                continue
            done = performance(asked.net, one.pairs.held, work=work)
            try:
                trials = RoleTrials.of(asked, one, mine, weights, work)
            except BadBehaviour:
                continue  # there is no effect on held-out pairs
            lost = trials.acts.run(work, f"testing roles on held-out pairs of {one.half.variable}")
            controls = [] if lost.stopped else random_weights_control(asked, one.pairs, work)
            caps = caps_of(asked, one, trials.half, answers_by(done, one.pairs.one_sided))
            caps += [_STOPPED] if lost.stopped else []
            tests += tests_of(asked, trials, lost, weights, repeated, controls, caps)
            if lost.stopped:
                return _ordered(asked, tests), False
    except Stopped:
        return _ordered(asked, tests), False
    return _ordered(asked, tests), True


def _ordered(asked: RoleQuestion, tests: Sequence[RoleTest]) -> list[RoleTest]:
    """Part by part."""
    names = [str(part) for part in asked.parts]
    return sorted(tests, key=lambda test: names.index(test.part))
