"""Roles by score: which roles a part may have, by where it looks and what it writes, each beside a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.roles.edges import (
    RoleEdges,
    attention_along,
    duplicate_edges,
    induction_edges,
    previous_edges,
    span_edges,
)
from cutaway.algorithms.roles.half import LAST, RoleHalf, written_site
from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.weights import RoleWeights, ranks
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.statistics import Estimate, mean_of
from cutaway.stream.attention_scores import HeadScores

PREVIOUS, DUPLICATE, INDUCTION = "previous token", "duplicate token", "induction"
MOVER, SUPPRESSION, READER = "mover", "suppression", "reader"
ENRICHMENT, LOOKUP, ANSWER, BACKUP = "enrichment", "lookup", "answer", "backup"
#: Every role, in the order in which a part's are told.
ROLES = (MOVER, SUPPRESSION, INDUCTION, DUPLICATE, PREVIOUS, READER, ENRICHMENT, LOOKUP, ANSWER, BACKUP)
#: Roles that are a way to look, with the edges they are about, and the name of their score on repeated tokens.
LOOKING: Mapping[str, tuple[Callable[[RoleHalf], RoleEdges], str]] = {
    PREVIOUS: (previous_edges, "previous"),
    DUPLICATE: (duplicate_edges, "duplicate"),
    INDUCTION: (induction_edges, "induction"),
}


@dataclass(frozen=True, eq=False)
class RoleCandidate:
    """A role that a part may have, by its score.

    Attributes:
        part: the part.
        role: the role.
        half: the discovery pairs on which it was scored.
        place: the span, or the other part, that it is about; "" where it is about none.
        score, chance: what was measured, and the control.
        unit: what of.
        words: the places in words.
        edges: of a half, the edges that the role is about; None where it is about none.
    """

    part: Part
    role: str
    half: RoleHalf
    place: str
    score: Estimate
    chance: Estimate
    unit: str
    words: str
    edges: Callable[[RoleHalf], RoleEdges] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class RoleScorer:
    """Scores parts on the discovery pairs of one variable.

    Attributes:
        half: the pairs.
        weights: of heads.
        limits: what a score must reach.
        repeated: scores on repeated random tokens; None where there are none.
        shares: of each part and span, what exchanging it there takes away [n] on these pairs.
        seed: of what is shuffled.
    """

    half: RoleHalf
    weights: RoleWeights
    limits: RoleLimits
    repeated: HeadScores | None
    shares: Mapping[tuple[Part, str], np.ndarray]
    seed: int

    def of(self, part: Part) -> list[RoleCandidate]:
        """All roles that a part may have by score, but standing in for others."""
        found = []
        if part.kind == "head":
            found += [one for role in LOOKING if (one := self._looking(part, role)) is not None]
            found += [one for make in (self._mover, self._suppression) if (one := make(part)) is not None]
            found += self._readers(part)
        else:
            found += [one for one in (self._lookup(part),) if one is not None]
        found += self._enriching(part)
        writer = self._answer(part)
        return found if writer is None else [*found, writer]

    def _attends(self, value: np.ndarray, chance: np.ndarray) -> tuple[Estimate, Estimate] | None:
        """Score and control, where there is enough attention, and more than elsewhere."""
        limits = self.limits
        if len(value) < limits.fewest or not value.mean() >= limits.attends:
            return None
        if not (value - chance).mean() >= limits.beyond:
            return None
        return _pair(value, chance)

    def _looking(self, part: Part, role: str) -> RoleCandidate | None:
        """From every token, from the tokens of the span at which it looks so most, or on repeated random tokens."""
        edges, name = LOOKING[role]
        best: tuple[float, RoleCandidate] | None = None
        for span in ("", *self.half.spans):
            make = _looking_from(edges, span)
            value, chance, _ = attention_along(self.half, part, make(self.half))
            passed = self._attends(value, chance)
            if passed is not None and (best is None or passed[0].value > best[0] + 1e-9):
                unit = f"of its attention {'on these prompts' if not span else f'from {span}'}"
                words = edges(self.half).say
                best = passed[0].value, RoleCandidate(part, role, self.half, span, *passed, unit, words, make)
        if best is not None:
            return best[1]
        if self.repeated is not None and part in self.repeated.heads:
            at = self.repeated.heads.index(part)
            passed = self._attends(self.repeated.values[name][:, at], self.repeated.chance[name][:, at])
            if passed is not None:
                unit = "of its attention on repeated random tokens"
                return RoleCandidate(part, role, self.half, "", *passed, unit, edges(self.half).say, edges)
        return None

    def written(self, part: Part, second: bool = False) -> Tensor:
        """What a part adds to the stream at the token whose logits are read: [n d]."""
        return written_by(self.half, self.weights, part, second)

    def _mover(self, part: Part) -> RoleCandidate | None:
        half = self.half
        adds = half.logits_of(self.written(part))
        centred = adds - adds.mean(1, keepdim=True)
        present = (half.ids[:, None] == half.choices[None, :, None]).any(-1)
        if float((present.sum(1) >= 1).double().mean()) >= 0.5:
            raised = centred.masked_fill(~present, -torch.inf).argmax(1)
            spoken, place, words = half.choices[raised], "", "the word that it says"
        else:
            best = self._most_attended(part)
            if best is None:
                return None
            raised, spoken, place, words = half.number(half.right), half.right, best, best
        mask = _of_span(place)(half) if place else span_edges(half, half.ids == spoken[:, None], words)
        value, chance, rows = attention_along(half, part, mask)
        passed = self._attends(value, chance)
        share = (centred.gather(1, raised[:, None])[:, 0].double().numpy()) / half.scale.gap
        ranked = ranks(adds, raised)
        if (
            passed is None
            or share[rows].mean() < self.limits.writes
            or ranked[rows].mean() < self.limits.matches
        ):
            return None
        make = _of_span(place) if place else lambda other: _said_edges(other, self.weights, part)
        return RoleCandidate(
            part, MOVER, half, place, *passed, "of its attention from the last token", words, make
        )

    def _most_attended(self, part: Part) -> str | None:
        """The span to which most attention goes from the last token."""
        means = {}
        for name in self.half.spans:
            if name != LAST:
                value, _, _ = attention_along(self.half, part, _of_span(name)(self.half))
                means[name] = float(value.mean()) if len(value) else 0.0
        return max(means, key=lambda name: means[name]) if means else None

    def _suppression(self, part: Part) -> RoleCandidate | None:
        half = self.half
        leading, lowered, active = suppressed(half, self.weights, part)
        if int(active.sum()) < self.limits.fewest or len(half.choices) < 3:
            return None
        hit = (leading == lowered)[active].double().numpy()
        order = np.random.default_rng([self.seed, 7]).permutation(int(active.sum()))
        beside = (leading[active][torch.as_tensor(order)] == lowered[active]).double().numpy()
        if hit.mean() < 0.5 or (passed := _pair(hit, beside)) is None:
            return None
        unit = (
            "of the prompts on which it writes most, where what it lowers most is what was about to be said"
        )
        return RoleCandidate(
            part,
            SUPPRESSION,
            half,
            "",
            *passed,
            unit,
            "where it looks",
            lambda other: strongest_edges(other, part),
        )

    def _readers(self, part: Part) -> list[RoleCandidate]:
        found = []
        for name in self.half.spans:
            if name == LAST:
                continue
            edges = _of_span(name)
            value, chance, _ = attention_along(self.half, part, edges(self.half))
            passed = self._attends(value, chance)
            if passed is not None:
                unit = "of its attention from the last token"
                found.append(RoleCandidate(part, READER, self.half, name, *passed, unit, name, edges))
        return found

    def _enriching(self, part: Part) -> list[RoleCandidate]:
        """Where, at a word of the prompt, a part gives something that tells the answers apart and that matters."""
        found = []
        labels = torch.cat([self.half.right, self.half.wrong]).numpy()
        for name in self.half.spans:
            share = self.shares.get((part, name))
            if name == LAST or share is None or share.mean() < self.limits.writes:
                continue
            values = (
                torch.cat([self._at_span(part, name, second) for second in (False, True)]).double().numpy()
            )
            told = _nearest(values, labels)
            rng = np.random.default_rng([self.seed, 9])
            beside = np.mean([_nearest(values, rng.permutation(labels)) for _ in range(8)], 0)
            passed = _pair(told, beside)
            if passed is not None and told.mean() >= self.limits.matches:
                unit = "of prompts whose answer what it gives there tells"
                found.append(RoleCandidate(part, ENRICHMENT, self.half, name, *passed, unit, name))
        return found

    def _at_span(self, part: Part, name: str, second: bool) -> Tensor:
        """What a part gives at the last token of a span: [n d]."""
        site = Site("z", part.layer) if part.kind == "head" else written_site(self.half.net, part)
        value = self.half.kept(site, second)
        value = value[:, :, part.index or 0] if part.kind == "head" else value
        columns = self.half.spans[name]
        at = (columns * torch.arange(columns.shape[1])[None]).argmax(1)
        return value[torch.arange(self.half.n), at]

    def direct(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """What a part itself writes of the effect [n], and the same with answers of other pairs."""
        half, rows = self.half, torch.arange(self.half.n)
        adds = [half.logits_of(self.written(part, second), second) for second in (False, True)]
        change = adds[0] - adds[1]
        right, wrong = half.number(half.right), half.number(half.wrong)
        own = change[rows, right] - change[rows, wrong]
        rng = np.random.default_rng([self.seed, 8])
        drawn = [torch.as_tensor(rng.permutation(half.n)) for _ in range(8)]
        beside = torch.stack([change[rows, right[o]] - change[rows, wrong[o]] for o in drawn]).mean(0)
        return own.double().numpy() / half.scale.gap, beside.double().numpy() / half.scale.gap

    def _answer(self, part: Part) -> RoleCandidate | None:
        own, beside = self.direct(part)
        if own.mean() < self.limits.writes or (passed := _pair(own, beside)) is None:
            return None
        return RoleCandidate(
            part, ANSWER, self.half, "", *passed, "of the effect, written by itself", "the answer"
        )

    def _lookup(self, part: Part) -> RoleCandidate | None:
        share = self.shares.get((part, LAST))
        if share is None or share.mean() < self.limits.writes:
            return None
        own, beside = self.direct(part)
        if own.mean() < self.limits.writes or (passed := _pair(own, beside)) is None:
            return None
        return RoleCandidate(
            part, LOOKUP, self.half, LAST, *passed, "of the effect, written by itself", "the answer"
        )


def written_by(half: RoleHalf, weights: RoleWeights, part: Part, second: bool = False) -> Tensor:
    """What a part adds to the stream at the token whose logits are read: [n d]."""
    if part.kind == "head":
        z = half.at_answer(half.kept(Site("z", part.layer), second))[:, part.index or 0]
        return z.float() @ weights.written(part)
    return half.at_answer(half.kept(written_site(half.net, part), second)).float()


def suppressed(half: RoleHalf, weights: RoleWeights, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """The choice that leads before a head writes [n], the one that it lowers most [n], and where it writes most [n]."""
    before = half.at_answer(half.kept(Site("resid_pre", part.layer)))
    adds = half.logits_of(written_by(half, weights, part))
    adds = adds - adds.mean(1, keepdim=True)
    size = (-adds.min(1).values).double()
    active = (size >= size.median()) & (size > 0.05 * abs(half.scale.gap))
    return half.logits_of(before).argmax(1), adds.argmin(1), active


def strongest_edges(half: RoleHalf, part: Part) -> RoleEdges:
    """From the last token to the one that a head looks at most, the first token aside."""
    pattern = half.kept(Site("pattern", part.layer))[:, part.index or 0]
    row = pattern[torch.arange(half.n), half.answer]
    at = torch.arange(row.shape[1])[None]
    row = row.masked_fill((half.ids < 0) | (at == half.first[:, None]), -1.0)
    return span_edges(half, at == row.argmax(1)[:, None], "where it looks")


def _said_edges(half: RoleHalf, weights: RoleWeights, part: Part) -> RoleEdges:
    """From the last token to the words, of the answers that stand in the prompts, that a head raises most in each."""
    columns = half.ids == said_by(half, weights, part)[:, None]
    other = half.other_ids == said_by(half, weights, part, True)[:, None]
    return span_edges(half, columns | other, "the word that it says")


def said_by(half: RoleHalf, weights: RoleWeights, part: Part, second: bool = False) -> Tensor:
    """Of the answers that stand in each prompt, the one that a head raises most: tokens [n]."""
    adds = half.logits_of(written_by(half, weights, part, second), second)
    ids = half.other_ids if second else half.ids
    present = (ids[:, None] == half.choices[None, :, None]).any(-1)
    return half.choices[adds.masked_fill(~present, -torch.inf).argmax(1)]


def _looking_from(edges: Callable[[RoleHalf], RoleEdges], span: str) -> Callable[[RoleHalf], RoleEdges]:
    """Those edges that begin at a span; all of them without one."""

    def make(half: RoleHalf) -> RoleEdges:
        found = edges(half)
        return found if not span else RoleEdges(found.mask & half.spans[span][:, :, None], found.say)

    return make


def _of_span(name: str) -> Callable[[RoleHalf], RoleEdges]:
    return lambda half: span_edges(half, half.spans[name], name)


def _pair(value: np.ndarray, chance: np.ndarray) -> tuple[Estimate, Estimate] | None:
    """Both means with their intervals, where the first is told to lie above the second."""
    gain = mean_of(value - chance)
    if np.ptp(value - chance) == 0:
        return (mean_of(value), mean_of(chance)) if gain.value > 0 else None
    return (mean_of(value), mean_of(chance)) if gain.above(0.0) else None


def _nearest(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n] whether each row lies nearest to the mean of the other rows of its own label."""
    kinds = np.unique(labels)
    member = labels[:, None] == kinds[None]
    counts = member.sum(0)
    sums = member.T.astype(float) @ values
    right = np.zeros(len(values))
    for i, row in enumerate(values):
        own = member[i]
        means = (sums - own[:, None] * row) / np.maximum(counts - own, 1)[:, None]
        distance = np.where(counts - own > 0, np.square(means - row).sum(1), np.inf)
        right[i] = float(own[np.argmin(distance)])
    return right
