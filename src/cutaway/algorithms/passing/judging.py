"""What passes along an edge, and what may be claimed of a variable's way through the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cutaway.algorithms.carried.answering import answered
from cutaway.algorithms.carried.telling import random_control
from cutaway.algorithms.passing.limits import PassingLimits
from cutaway.algorithms.passing.routes import ANSWER, PassingRoutes
from cutaway.algorithms.places import VariablePlace
from cutaway.behaviours import Performance
from cutaway.claims import Claim, Control, Evidence
from cutaway.effects.baselines import Resampling
from cutaway.statistics import Estimate, benjamini_hochberg, sign_flip_p
from cutaway.trials import claim_of, inside, percent, with_interval

#: What an edge is found to be.
PASSES, NOTHING, NOT_SHOWN = "passes", "nothing passes", "not shown"
#: So many edges are named in a statement.
_NAMED = 6


@dataclass(frozen=True, eq=False)
class PassingEdge:
    """One edge of one variable.

    Attributes:
        variable: whose value is exchanged.
        sender, receiver: places by name; `answer` is the logits.
        discovery, held: what passes, as a share of the variable's effect, on both halves.
        lost: what of the sender's effect is lost, on held-out pairs, when the receiver is held; None for the answer.
        q: of the share on held-out pairs, corrected for all edges of all variables.
        beside: what passes to other receivers on average: the same part at other spans, others of its kind; None where
            there are none.
        more: by how much more passes here, on held-out pairs, for the same two.
        frames, agree: held-out sentence frames, and in how many the mean is above what is asked.
        verdict: what it is found to be.
    """

    variable: str
    sender: str
    receiver: str
    discovery: Estimate
    held: Estimate
    lost: Estimate | None
    q: float
    beside: tuple[float | None, float | None]
    more: tuple[Estimate | None, Estimate | None]
    frames: int
    agree: int
    verdict: str

    @property
    def words(self) -> str:
        """For people."""
        return f"{in_words(self.sender)} to {in_words(self.receiver)}"


def in_words(place: str) -> str:
    """A place, or the answer, for people.

    >>> in_words("a1.h0@last"), in_words("answer")
    ('head 1.0 at the last token', 'the answer')
    """
    return "the answer" if place == ANSWER else VariablePlace.parse(place).words


def sentence(edge: PassingEdge) -> str:
    """What an edge says, in words."""
    share, name = with_interval(edge.held), edge.variable
    if edge.receiver == ANSWER:
        return (
            f"What {in_words(edge.sender)} holds of {name} reaches the answer past all other named places: {share} of its "
            "effect"
        )
    return (
        f"{_upper(in_words(edge.receiver))} reads {name} from {in_words(edge.sender)}: {share} of its effect"
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def edges_of(
    found: dict[str, tuple[PassingRoutes, PassingRoutes]], edges: dict[str, list[tuple[str, str]]],
    others: dict[tuple[str, str, str], tuple[list[str], list[str]]], limits: PassingLimits, seed: int,
) -> list[PassingEdge]:  # fmt: skip
    """Every edge of every variable judged, corrected for all.

    found: of each variable what was measured on both halves. others: of each (variable, sender, receiver) the receivers of
    both controls.
    """
    listed = [(name, s, r) for name in found for s, r in edges[name] if found[name][1].has(s, r)]
    q = benjamini_hochberg([_p(found[name][1], s, r, seed) for name, s, r in listed])
    judged = []
    for (name, s, r), significance in zip(listed, q.tolist(), strict=True):
        first, second = found[name]
        held = second.share(s, r)
        beside, more = others.get((name, s, r), ([], [])), []
        means: list[float | None] = []
        for some in beside:
            there = [second.share(s, other).value for other in some if second.has(s, other)]
            means.append(float(np.mean(there)) if there else None)
            more.append(second.more_than(s, r, some))
        frames = second.by_frame(s, r)
        agree = sum(value > limits.passes for value in frames.values())
        judged.append(PassingEdge(
            name, s, r, first.share(s, r), held, second.lost(s, r), significance, (means[0], means[1]), (more[0], more[1]),
            len(frames), agree, _verdict(held, significance, limits),
        ))  # fmt: skip
    return judged


def _p(routes: PassingRoutes, sender: str, receiver: str, seed: int) -> float:
    each = routes.each(sender, receiver)
    if not each.any():
        return 1.0
    return float(sign_flip_p(each, Resampling.of(routes.bench.behaviour.template).signs, seed=seed))


def _verdict(held: Estimate, q: float, limits: PassingLimits) -> str:
    if held.above(limits.passes) and q <= limits.alpha:
        return PASSES
    return NOTHING if inside(held, -limits.nothing, limits.nothing) else NOT_SHOWN


def claim_about(
    net: str, variable: str, edges: Sequence[PassingEdge], done: Performance | None, one_sided: bool,
    fresh: Performance | None, limits: PassingLimits, caps: Sequence[str],
) -> Claim:  # fmt: skip
    """The claim about one variable: along which edges it passes.

    edges: those of this variable. done, fresh: how the network, and one with fresh weights, answer on held-out pairs.
    """
    passing = sorted((one for one in edges if one.verdict == PASSES), key=lambda one: -one.held.value)
    named = [one for one in edges if one in passing[:_NAMED]]  # in the order of computation
    evidence = [] if done is None else [answered(done, one_sided)]
    evidence += [_passed(one, limits) for one in named]
    if not named:
        tried = [one for one in edges if one.receiver != ANSWER]
        nothing = bool(tried) and all(one.verdict == NOTHING for one in tried)
        evidence.append(Evidence(
            "Passes", passed=False if nothing else None,
            sentence=f"Of {len(tried)} pairs of named places none is shown to pass {percent(limits.passes)} or more of what "
            f"exchanging {variable} does.",
        ))  # fmt: skip
    controls = [_beside(one, which) for one in named for which in (0, 1) if one.more[which] is not None]
    if fresh is not None:
        controls.append(random_control(variable, fresh, one_sided))
    notes = [f"{sentence(one)}." for one in passing[_NAMED:]]
    return claim_of(_statement(net, variable, named), evidence, controls, notes, caps)


def _statement(net: str, variable: str, named: Sequence[PassingEdge]) -> str:
    if not named:
        return f"In {net} {variable} passes from one of the named places to another"
    ways = [f"from {one.words}" for one in named]
    listed = ways[0] if len(ways) == 1 else f"{'; '.join(ways[:-1])}; and {ways[-1]}"
    return f"In {net} {variable} passes {listed}"


def _passed(one: PassingEdge, limits: PassingLimits) -> Evidence:
    agree = one.agree >= limits.frames * one.frames
    passed = True if one.verdict == PASSES and agree else None
    what = (
        "with all later named places held at their own values"
        if one.receiver == ANSWER
        else f"only {in_words(one.receiver)} is changed, by what this brings with the named places between held"
    )
    text = (
        f"The value of {one.variable} is exchanged at {in_words(one.sender)} alone, {what}: on {one.held.n} held-out pairs "
        f"{with_interval(one.held)} of what exchanging {one.variable} does (q = {one.q:.2g}; required: more than "
        f"{percent(limits.passes)}), in {one.agree} of {one.frames} sentence frames."
    )
    if one.lost is not None:
        text += f" With {in_words(one.receiver)} held at its own value {with_interval(one.lost)} are lost."
    return Evidence(
        f"From {one.words}", one.held, None, limits.passes, passed, text, "of the variable's effect"
    )


def _beside(one: PassingEdge, which: int) -> Control:
    more, mean = one.more[which], one.beside[which]
    assert more is not None
    assert mean is not None
    what = ("the same part at other spans", "other parts of its kind at this span")[which]
    name = ("Other spans", "Other parts")[which]
    text = f"From {in_words(one.sender)} to {what} there passes {percent(mean)}: {with_interval(more)} less than to it."
    return Control(
        f"{name}: {one.words}", more, "less passes", more.above(0.0), text, "of the variable's effect more"
    )
