"""Pairs of one variable as they run: answers, tokens, and what heads and neurons gave, on both prompts of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.algorithms.carried.pairs import VariablePairs
from cutaway.effects.baselines import Baselines, measure
from cutaway.effects.box import span_columns
from cutaway.network.norms import affine_norm
from cutaway.network.parts import Part
from cutaway.network.precision import precise
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.stream.copying import token_readout
from cutaway.stream.targets import head_of
from cutaway.trials import GapScale

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens

#: The span of the token whose logits are read.
LAST = "last"


@dataclass(frozen=True, eq=False)
class RoleHalf:
    """The pairs of one variable in one half, run.

    Attributes:
        net: the network.
        variable: in which the prompts of a pair differ.
        behaviour: the pairs.
        ends: both prompts as they are; interventions are made on the first one of each pair.
        names: the spans that are looked at.
    """

    net: Network
    variable: str
    behaviour: Behaviour
    ends: Baselines
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, net: Network, pairs: VariablePairs, held: bool, parts: Sequence[Part], work: Work
    ) -> RoleHalf:
        """Run both prompts of each discovery (or held-out) pair. Raises `BadBehaviour` where the two are answered alike."""
        behaviour = pairs.held if held else pairs.discovery
        behaviour.require_aligned("Asking what parts do")
        ends = measure(net, behaviour, sites_for(net, parts), work)
        return cls(net, pairs.variable, behaviour, ends, spans_before(pairs))

    @property
    def n(self) -> int:
        """Pairs."""
        return self.behaviour.n

    @cached_property
    def scale(self) -> GapScale:
        """0 where the second prompt is answered, 1 where the first one is."""
        return GapScale(self.ends.corrupted.metric, self.ends.clean.metric, self.behaviour.clusters)

    def lost(self, metric: np.ndarray) -> np.ndarray:
        """What each pair [n] loses by an intervention on its first prompt, as share of the mean effect."""
        return (self.ends.clean.metric - metric) / self.scale.gap

    @cached_property
    def ids(self) -> Tensor:
        """Tokens of the first prompts [n p]; -1 where there is none."""
        return _real(self.ends.clean.tokens)

    @cached_property
    def other_ids(self) -> Tensor:
        """Tokens of the second prompts [n p]; -1 where there is none."""
        return _real(self.ends.corrupted.tokens)

    @cached_property
    def first(self) -> Tensor:
        """Column [n] of each prompt's first token."""
        return self.ends.clean.tokens.first.cpu()

    @cached_property
    def answer(self) -> Tensor:
        """Column [n] whose logits are read."""
        return self.ends.clean.tokens.columns(self.ends.positions[:, None])[:, 0].cpu()

    @cached_property
    def spans(self) -> dict[str, Tensor]:
        """Columns of each named span, and of the token whose logits are read: BoolTensor [n p]."""
        last = torch.arange(self.ids.shape[1])[None] == self.answer[:, None]
        found = span_columns(self.behaviour, self.ends.clean)
        return {name: found[name] for name in self.names} | {LAST: last}

    @cached_property
    def right(self) -> Tensor:
        """One right answer of each first prompt [n], and one of the second."""
        return torch.tensor([row[0] for row in self.behaviour.right])

    @cached_property
    def wrong(self) -> Tensor:
        """One answer [n] that is right in the second prompt."""
        return torch.tensor([row[0] for row in self.behaviour.wrong])

    @cached_property
    def choices(self) -> Tensor:
        """Every answer once [c]."""
        return torch.unique(torch.cat([self.right, self.wrong]))

    def kept(self, site: Site, second: bool = False) -> Tensor:
        """A site of the first prompts, or of the second ones, [n p ...]."""
        side = self.ends.corrupted if second else self.ends.clean
        return precise(side.kept[site]).cpu()

    def at_answer(self, value: Tensor) -> Tensor:
        """The entries [n ...] of a value [n p ...] at the token whose logits are read."""
        return value[torch.arange(self.n), self.answer]

    @cached_property
    def readout(self) -> Tensor:
        """What a vector of the last stream adds to the logit of each choice, at scale one: [c d]."""
        return token_readout(self.net, self.choices).float().cpu()

    def rescaled(self, second: bool = False) -> Tensor:
        """The scale of the final norm at the token whose logits are read: [n]."""
        head, before = head_of(self.net), self.at_answer(self.kept(last_stream(self.net), second))
        if head.norm is None or not self.net.has("final_norm"):
            return torch.ones(self.n)
        after = self.at_answer(self.kept(Site("final_norm"), second))
        return affine_norm(self.net, head.norm).at(before, after).scale[:, 0].float()

    def logits_of(self, written: Tensor, second: bool = False) -> Tensor:
        """What a vector [n d], written into the stream at that token, adds to the logit of each choice: [n c]."""
        return (written.float() @ self.readout.mT) * self.rescaled(second)[:, None]

    def number(self, answers: Tensor) -> Tensor:
        """The numbers [n] of answers among the choices."""
        return torch.searchsorted(self.choices, answers)


def spans_before(pairs: VariablePairs) -> tuple[str, ...]:
    """The named spans that all prompts of both halves have, none of which reaches the token whose logits are read."""
    both = (pairs.discovery, pairs.held)
    return tuple(
        name for name in pairs.discovery.spans
        if name in pairs.held.spans and not any(_reaches(behaviour, name) for behaviour in both)
    )  # fmt: skip


def _reaches(behaviour: Behaviour, name: str) -> bool:
    rows = zip(behaviour.spans[name], behaviour.answer_pos, behaviour.clean_ids, strict=True)
    return any(start <= at % len(ids) < stop for (start, stop), at, ids in rows)


def _real(tokens: Tokens) -> Tensor:
    ids = tokens.ids.cpu()
    return torch.where(tokens.mask.cpu(), ids, torch.full_like(ids, -1))


def last_stream(net: Network) -> Site:
    """The stream behind the last layer."""
    return Site("resid_post", net.n_layers - 1)


def written_site(net: Network, part: Part) -> Site:
    """What an MLP adds to the stream."""
    site = Site("mlp_write", part.layer)
    return site if net.has(site) else Site("mlp_out", part.layer)


def sites_for(net: Network, parts: Sequence[Part]) -> list[Site]:
    """What must be kept to say what these heads and MLPs do."""
    sites = {last_stream(net)}
    if net.has("final_norm"):
        sites.add(Site("final_norm"))
    for part in parts:
        if part.kind == "head":
            sites |= {Site(name, part.layer) for name in ("z", "pattern", "v", "resid_pre")}
        else:
            sites |= {Site("mlp_out", part.layer), written_site(net, part), Site("mlp_act", part.layer)}
    return sorted((site for site in sites if net.has(site)), key=lambda site: site.rank)
