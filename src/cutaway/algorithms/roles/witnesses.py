"""The second witness: what the weights say of a role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.roles.candidates import (
    ANSWER,
    DUPLICATE,
    ENRICHMENT,
    INDUCTION,
    LOOKUP,
    MOVER,
    PREVIOUS,
    READER,
    SUPPRESSION,
    RoleCandidate,
    said_by,
    strongest_edges,
    suppressed,
)
from cutaway.algorithms.roles.half import RoleHalf, written_site
from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.neurons import above_shuffled
from cutaway.algorithms.roles.weights import RoleWeights, ranks
from cutaway.interventions import Apply
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.statistics import Estimate, mean_of
from cutaway.stream.copying import token_embeddings
from cutaway.trials import percent

#: Earlier heads by way of which an induction head may find its place, those with the largest previous-token scores.
_EARLIER = 6


@dataclass(frozen=True)
class WeightsWitness:
    """What the weights say of a role.

    Attributes:
        figure: a share, of which half is chance.
        passed: do they agree? None where they do not show it.
        sentence: the same in words.
    """

    figure: Estimate
    passed: bool | None
    sentence: str


def weights_say(
    one: RoleCandidate, weights: RoleWeights, earlier: Sequence[Part], limits: RoleLimits, seed: int
) -> WeightsWitness:
    """Do the weights agree with a role?

    earlier: heads of earlier layers, those that look at the token before first.
    """
    values, what, least = _values(one, weights, earlier, seed)
    figure = mean_of(values) if len(values) else Estimate(0.5, None, 0)
    limit = limits.gain if least else limits.matches
    passed = True if figure.value >= limit and figure.above(0.5) is not False else None
    sentence = f"By weights alone {what.format(share=percent(figure.value))} (required: {percent(limit)})."
    return WeightsWitness(figure, passed, sentence)


def _values(
    one: RoleCandidate, weights: RoleWeights, earlier: Sequence[Part], seed: int
) -> tuple[np.ndarray, str, bool]:
    """What is averaged, in words with a place for the share, and whether the limit is the one for reading."""
    half, part = one.half, one.part
    if one.role == PREVIOUS:
        return (
            weights.place_before(part),
            "the place just before is scored above {share} of other distances",
            False,
        )
    spoken = int(torch.isin(weights.ids, half.ids).sum())
    if one.role == DUPLICATE:
        return (
            weights.same_token(part)[:spoken],
            "a token's query puts its own key above {share} of other tokens'",
            False,
        )
    if one.role == INDUCTION:
        found, by = weights.behind_same(part, earlier[:_EARLIER])
        way = "" if by is None else f" by way of {by.words}"
        return (
            found[:spoken],
            f"a token's query puts a place behind the same token above {{share}} of others{way}",
            False,
        )
    if one.role == MOVER:
        tokens = said_by(half, weights, part) if not one.place else _attended(half, part, one)
        wanted = half.number(tokens) if not one.place else half.number(half.right)
        said = ranks(weights.says(part, tokens, half.choices), wanted)
        return said, "looking at that word it raises the answer above {share} of the others", False
    if one.role == SUPPRESSION:
        leading, _, active = suppressed(half, weights, part)
        tokens = _attended(half, part, one)
        said = 1 - ranks(weights.says(part, tokens, half.choices), leading)
        return (
            said[active.numpy()],
            "looking there it lowers what was about to be said below {share} of the others",
            False,
        )
    if one.role == READER:
        return (
            _reads(half, weights, part, one.place),
            "the variable's change is read more than {share} of random directions",
            True,
        )
    if one.role == ENRICHMENT:
        return (
            _from_token(half, weights, part, one.place),
            "the word alone makes it write in the same direction in {share} of pairs",
            False,
        )
    assert one.role in (ANSWER, LOOKUP)
    return (
        above_shuffled(half, weights, part, seed),
        "its output directions give more of the answer than {share} of shuffled ones",
        False,
    )


def _attended(half: RoleHalf, part: Part, one: RoleCandidate) -> Tensor:
    """The token [n], among those that the role is about, that a head looks at most."""
    edges = strongest_edges(half, part) if one.role == SUPPRESSION or one.edges is None else one.edges(half)
    rows = torch.arange(half.n)
    row = half.kept(Site("pattern", part.layer))[:, part.index or 0][rows, half.answer]
    at = row.masked_fill(~edges.mask[rows, half.answer], -1.0).argmax(1)
    return half.ids[rows, at]


def _reads(half: RoleHalf, weights: RoleWeights, part: Part, span: str) -> np.ndarray:
    site = Site("resid_pre", part.layer)
    columns = half.spans[span]
    change = (half.kept(site) - half.kept(site, True)).float()[columns]
    moved = change[change.norm(dim=-1) > 1e-6]
    return weights.reads(part, moved) if len(moved) else np.zeros(0)


def _from_token(half: RoleHalf, weights: RoleWeights, part: Part, span: str) -> np.ndarray:
    """[n] does the word's embedding alone change what a part writes in the direction in which it changes?"""
    columns = half.spans[span]
    at = (columns * torch.arange(columns.shape[1])[None]).argmax(1)
    rows = torch.arange(half.n)
    ids = [side.tokens.ids.cpu()[rows, at] for side in (half.ends.clean, half.ends.corrupted)]
    one, other = (token_embeddings(half.net, found, work=weights.work).float().cpu() for found in ids)
    if part.kind == "head":
        z = half.kept(Site("z", part.layer)) - half.kept(Site("z", part.layer), True)
        change = z[rows, at][:, part.index or 0].float() @ weights.written(part)
        alone = weights.ov(part, one) - weights.ov(part, other)
    else:
        site = written_site(half.net, part)
        change = (half.kept(site) - half.kept(site, True))[rows, at].float()
        alone = _fed(half, part, one) - _fed(half, part, other)
    return ((alone * change).sum(-1) > 0).double().numpy()


def _fed(half: RoleHalf, part: Part, stream: Tensor) -> Tensor:
    """What an MLP writes where the stream is these vectors [n d] alone."""
    net, site = half.net, written_site(half.net, part)
    source = Site("resid_mid", part.layer)
    source = source if net.has(source) else Site("resid_pre", part.layer)
    ids = torch.zeros(len(stream), 1, dtype=torch.long)
    edit = Apply(str(source), lambda value: stream[:, None].to(value))
    return net.run(ids, keep=[site], edits=[edit], logits=False, stop_at=site)[site][:, 0].float().cpu()
