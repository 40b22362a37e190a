"""What is asked and what was found: variables run on discovery pairs, roles by score, and their trials on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.algorithms.carried.answering import answers_by
from cutaway.algorithms.carried.pairs import VariablePairs
from cutaway.algorithms.carried.telling import random_control
from cutaway.algorithms.roles.acting import RoleActs, RoleLost, RoleTrial, put_on_trial, signs_of
from cutaway.algorithms.roles.candidates import (
    ANSWER,
    BACKUP,
    ENRICHMENT,
    LOOKING,
    LOOKUP,
    MOVER,
    READER,
    ROLES,
    SUPPRESSION,
    RoleCandidate,
    RoleScorer,
)
from cutaway.algorithms.roles.half import LAST, RoleHalf
from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.neurons import NamedNeurons, named_neurons
from cutaway.algorithms.roles.standing_in import StandingIn, alike_beside, backups_by_score, pairs_among
from cutaway.algorithms.roles.telling import RoleEffect, RoleTest, effect_of, judged, sentence_of
from cutaway.algorithms.roles.weights import RoleWeights
from cutaway.algorithms.roles.witnesses import WeightsWitness, weights_say
from cutaway.behaviours import performance
from cutaway.claims import Control
from cutaway.errors import BadBehaviour, CutawayError, Stopped
from cutaway.network.parts import Part
from cutaway.results import Work
from cutaway.stream.attention_scores import HeadScores, head_scores
from cutaway.trials import percent
from cutaway.trials.scale import NO_GAP

if TYPE_CHECKING:
    from cutaway.network import Network

#: Rows and length of repeated random tokens.
_ROWS, _LENGTH = 16, 12
_PERFORMS = "It is not shown that the network answers by {}."


@dataclass(frozen=True, eq=False)
class RoleQuestion:
    """What is asked of a network.

    Attributes:
        net: the network.
        parts: heads and MLPs that are asked.
        pool: these and every head beside them, from which controls are taken.
        limits: what must be reached.
        controls: are other parts and random weights tried, too?
        seed: of whatever is drawn.
    """

    net: Network
    parts: tuple[Part, ...]
    pool: tuple[Part, ...]
    limits: RoleLimits
    controls: bool
    seed: int


@dataclass(eq=False)
class RoleVariable:
    """One variable on its discovery pairs, the sweep over parts and spans planned.

    Attributes:
        pairs: of both halves.
        half: the discovery pairs, run.
        acts: each part exchanged everywhere and at each span; of the first variable heads ablated, too.
        cells: the number of the cell of a part at a span ("" everywhere).
        standing: heads ablated by twos; None of other variables.
        does: does the network answer by it on discovery pairs?
        lost: what each part's absence loses there, once the sweep was run.
    """

    pairs: VariablePairs
    half: RoleHalf
    acts: RoleActs
    cells: Mapping[tuple[Part, str], int]
    standing: StandingIn | None
    does: bool
    lost: RoleLost = field(init=False)

    @classmethod
    def of(cls, asked: RoleQuestion, pairs: VariablePairs, backups: bool, work: Work) -> RoleVariable:
        """Run the pairs, and enter the sweep. Raises `BadBehaviour` where both prompts are answered alike."""
        done = performance(asked.net, pairs.discovery, work=work)
        half = RoleHalf.of(asked.net, pairs, False, asked.pool, work)
        acts = RoleActs(half)
        spans = ["", *half.spans]
        cells = {(part, span): acts.exchanged(part, span) for part in asked.parts for span in spans}
        standing = StandingIn.enter(acts, pairs_among(asked.parts)) if backups else None
        return cls(pairs, half, acts, cells, standing, answers_by(done, pairs.one_sided))

    @property
    def shares(self) -> dict[tuple[Part, str], np.ndarray]:
        """What exchanging each part at each span takes away [n]."""
        return {key: self.lost.shares[cell] for key, cell in self.cells.items()}


def scored(
    asked: RoleQuestion, variables: Sequence[RoleVariable], weights: RoleWeights, repeated: HeadScores | None
) -> list[RoleCandidate]:
    """Every role that a part may have by its score.

    Ways to look are scored on the pairs of the variable that a part does most of; what is about one variable, on those of
    each.
    """
    size = {
        (part, i): float(np.abs(one.shares[part, ""].mean()))
        for part in asked.parts
        for i, one in enumerate(variables)
    }
    found: list[RoleCandidate] = []
    for i, one in enumerate(variables):
        scorer = RoleScorer(one.half, weights, asked.limits, repeated, one.shares, asked.seed)
        for part in asked.parts:
            own = i == max(range(len(variables)), key=lambda j: size[part, j])
            every = scorer.of(part) if own or size[part, i] >= asked.limits.writes else []
            found += [role for role in every if own or role.role in (READER, ENRICHMENT)]
        if one.standing is not None:
            found += backups_by_score(one.half, one.standing, one.lost, asked.parts, asked.limits)
    order = {part: i for i, part in enumerate(asked.parts)}
    return sorted(found, key=lambda role: (order[role.part], ROLES.index(role.role)))


def looked(net: Network, seed: int, work: Work) -> HeadScores | None:
    """Scores of all heads on repeated random tokens; None where they cannot be had."""
    length = _LENGTH if net.n_ctx is None else min(_LENGTH, (net.n_ctx - 1) // 2)
    if length < 4:
        return None
    try:
        return head_scores(net, n=_ROWS, length=length, seed=seed, work=work)
    except Stopped:
        raise
    except CutawayError:
        return None


@dataclass(eq=False)
class RoleTrials:
    """All roles of one variable on its held-out pairs.

    Attributes:
        half: the pairs, run.
        acts: every intervention.
        trials: the cells of each role.
        backups: of heads that stand in for others, the pairs that are ablated.
        standing: the ablations of these.
    """

    half: RoleHalf
    acts: RoleActs
    trials: list[tuple[RoleTrial, NamedNeurons | None]]
    backups: list[tuple[RoleCandidate, Part, tuple[Part, ...]]]
    standing: StandingIn

    @classmethod
    def of(
        cls,
        asked: RoleQuestion,
        one: RoleVariable,
        roles: Sequence[RoleCandidate],
        weights: RoleWeights,
        work: Work,
    ) -> RoleTrials:
        """Enter the interventions. Raises `BadBehaviour` where held-out prompts are answered alike."""
        half = RoleHalf.of(asked.net, one.pairs, True, asked.pool, work)
        acts, trials, backups, pairs = RoleActs(half), [], [], []
        for role in roles:
            others = _others(asked, role, roles)
            if role.role == BACKUP:
                primary = Part.parse(role.place)
                beside = tuple(part for part in others if part != primary)
                backups.append((role, primary, beside))
                pairs += [(role.part, other) for other in (primary, *beside)]
                continue
            named = None
            if role.role == LOOKUP:
                named = named_neurons(role.half, weights, role.part, asked.limits.neurons)
            neurons = named.neurons if named is not None else ()
            trials.append((put_on_trial(acts, weights, role, others, neurons, asked.seed), named))
        return cls(half, acts, trials, backups, StandingIn.enter(acts, pairs))


def _others(asked: RoleQuestion, role: RoleCandidate, roles: Sequence[RoleCandidate]) -> tuple[Part, ...]:
    """Parts on which the same is done: heads (or any) that do not have that role by score, those nearest first."""
    if not asked.controls:
        return ()
    taken = {other.part for other in roles if other.role == role.role and other.place == role.place} | {
        role.part
    }
    if role.role in (MOVER, ANSWER):
        taken |= {other.part for other in roles if other.role in (MOVER, ANSWER)}
    heads_only = role.role not in (ANSWER, ENRICHMENT)
    pool = [part for part in asked.pool if part not in taken and (part.kind == "head" or not heads_only)]
    rng = np.random.default_rng([asked.seed, 6])
    drawn = [pool[int(i)] for i in rng.permutation(len(pool))]
    near = sorted(
        drawn, key=lambda part: (part.kind != role.part.kind, abs((part.layer or 0) - (role.part.layer or 0)))
    )
    return tuple(near[: int(asked.limits.control)])


def tests_of(
    asked: RoleQuestion, trials: RoleTrials, lost: RoleLost, weights: RoleWeights, repeated: HeadScores | None,
    controls: Sequence[Control], caps: Sequence[str],
) -> list[RoleTest]:  # fmt: skip
    """Every role of one variable, judged; those whose cells were not run are left out."""
    found = []
    for trial, named in trials.trials:
        own, rest = lost.shares[trial.own], [lost.shares[cell] for cell in trial.controls]
        if np.isnan(own).any() or any(np.isnan(values).any() for values in rest):
            continue
        one = trial.candidate
        signs, rows = signs_of(one, trials.half, weights)
        share = None
        if trial.whole is not None:
            whole = float(lost.shares[trial.whole].mean())
            share = float(own.mean()) / whole if abs(whole) > 1e-9 else 0.0
        others = "as many other neurons" if one.role == LOOKUP else _listed(trial.others)
        counted = rows if len(rows) < trials.half.n else None
        effect = effect_of(
            trials.half, own * signs, [values * signs for values in rest], others, share, counted
        )
        said = weights_say(one, weights, _earlier(asked, one.part, repeated), asked.limits, asked.seed)
        found.append(_test(asked, one, said, effect, () if named is None else named.names, controls, caps))
    for one, primary, beside in trials.backups:
        values = [trials.standing.more(lost, one.part, other) for other in (primary, *beside)]
        if any(np.isnan(row).any() for row in values):
            continue
        effect = effect_of(trials.half, values[0], values[1:], f"ablating {_listed(beside)} instead")
        figure, own = alike_beside(weights, one.part, primary, asked.pool)
        passed = True if figure.value >= asked.limits.matches else None
        sentence = (
            f"By weights alone it reads or writes the directions of {primary.words} ({percent(own)} of them), more than "
            f"those of {percent(figure.value)} of other heads (required: {percent(asked.limits.matches)})."
        )
        found.append(_test(asked, one, WeightsWitness(figure, passed, sentence), effect, (), controls, caps))
    return found


def _test(
    asked: RoleQuestion, one: RoleCandidate, said: WeightsWitness, effect: RoleEffect, neurons: Sequence[str],
    controls: Sequence[Control], caps: Sequence[str],
) -> RoleTest:  # fmt: skip
    sentence = sentence_of(one, _about(one), neurons)
    claim = judged(one, sentence, said, effect, controls, asked.limits, caps)
    return RoleTest(
        str(one.part), one.role, one.half.variable, one.place, sentence, one.score, one.chance, said.figure, effect.own,
        effect.beside, tuple(neurons), claim,
    )  # fmt: skip


def _about(one: RoleCandidate) -> str:
    """What a role is about, in words: the span, the part, or the spans that its edges go to."""
    if one.role == BACKUP:
        return one.words
    if one.role in LOOKING:
        return one.words
    if one.place or one.edges is None:
        return f"“{one.place}”" if one.place and one.place != LAST else "the last token"
    mask = one.edges(one.half).mask.any(1)
    hit = {
        name: float((mask & columns).any(1).double().mean())
        for name, columns in one.half.spans.items()
        if name != LAST
    }
    named = [f"“{name}”" for name, share in sorted(hit.items(), key=lambda item: -item[1]) if share >= 0.25][
        :3
    ]
    if one.role == SUPPRESSION:
        return f"at {' or '.join(named)}" if named else "back"
    return f"{one.words} ({' or '.join(named)})" if named else one.words


def _earlier(asked: RoleQuestion, part: Part, repeated: HeadScores | None) -> list[Part]:
    """Heads of earlier layers, those that look at the token before first."""
    if repeated is None:
        return [
            other for other in asked.pool if other.kind == "head" and (other.layer or 0) < (part.layer or 0)
        ]
    mean = dict(zip(repeated.heads, repeated.values["previous"].mean(0).tolist(), strict=True))
    return sorted((h for h in mean if (h.layer or 0) < (part.layer or 0)), key=lambda head: -mean[head])


def _listed(parts: Sequence[Part]) -> str:
    return ", ".join(part.words for part in parts)


def caps_of(asked: RoleQuestion, one: RoleVariable, held: RoleHalf, does: bool) -> list[str]:
    """Why nothing may be supported of a variable."""
    caps = [] if one.does and does else [_PERFORMS.format(one.half.variable)]
    if not asked.controls:
        caps.append("No controls were run.")
    if not (one.half.scale.told and held.scale.told):
        caps.append(NO_GAP)
    return caps


def random_weights_control(asked: RoleQuestion, pairs: VariablePairs, work: Work) -> list[Control]:
    """The same architecture with fresh weights must not answer by the variable."""
    if not asked.controls:
        return []
    try:
        fresh = asked.net.randomized(asked.seed, examine=False)
    except Stopped:
        raise
    except CutawayError as error:
        sentence = f"Fresh weights could not be made. {error.problem}"
        return [Control("Random weights", None, "not performed", None, sentence)]
    return [random_control(pairs.variable, performance(fresh, pairs.held, work=work), pairs.one_sided)]


def prompts_of(variables: Sequence[RoleVariable]) -> torch.Tensor:
    """All tokens of all discovery prompts, in one row."""
    return torch.cat([one.half.ids.flatten() for one in variables])


def ready(
    asked: RoleQuestion, pairs: Sequence[VariablePairs], work: Work
) -> tuple[list[RoleVariable], list[str]]:
    """Every variable that has an effect, run on its discovery pairs; and what is to be said of the others."""
    found: list[RoleVariable] = []
    notes: list[str] = []
    for one in pairs:
        try:
            found.append(RoleVariable.of(asked, one, not found, work))
        except BadBehaviour as error:
            if len(pairs) == 1:
                raise
            notes.append(f"{error.problem} {one.variable!r} is left out.")
    if not found:
        raise BadBehaviour(
            f"No variable changes the answer of {asked.net.name}. {' '.join(notes)}", "Look at the prompts."
        )
    return found, notes
