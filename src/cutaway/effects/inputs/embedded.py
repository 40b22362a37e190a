"""Prompts as their embeddings enter the network, run again with other embeddings in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.inputs.asking import InputRows
from cutaway.errors import BadBehaviour, BadInput, SiteUnavailable
from cutaway.interventions import Patch
from cutaway.network.sites import Site
from cutaway.network.slopes import independent, slopes_of, without_parameter_gradients

if TYPE_CHECKING:
    from cutaway.network import Network, Run, Tokens

#: Where what a token is enters the stream: before its position is added, where the two can be told apart.
_PLACES = (Site("embed"), Site("resid_pre", 0))
#: What may stand in the place of a token.
BASELINES = ("zero", "mean", "corrupted")


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """Prompts with their embeddings, and what stands in their place.

    Attributes:
        net: the network.
        rows: the prompts and what is measured on them.
        tokens: the same as a batch of n rows.
        site: where the embeddings are written.
        values: [n p d] the prompts' own embeddings.
        reference: [n p d] what stands in their place.
    """

    net: Network
    rows: InputRows
    tokens: Tokens
    site: Site
    values: Tensor
    reference: Tensor
    _positions: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_positions", torch.tensor(self.rows.answer_pos))

    @classmethod
    def of(cls, net: Network, rows: InputRows, baseline: str) -> EmbeddedRows:
        """The embeddings of prompts and those of a baseline. Special tokens that every prompt begins with stay as they are.

        baseline: "zero"; "mean", of all tokens of these prompts; "corrupted", the other prompt of each pair; or a token.

        Raises `SiteUnavailable` where the network has no embedding that can be written, `BadBehaviour` for corrupted prompts
        that are not there or of another length, `BadInput` for what is no token.
        """
        site = next((place for place in _PLACES if net.has(place)), None)
        if site is None:
            raise SiteUnavailable(
                f"{net.name} has no embedding that can be written.", "Open it whole; look at net.certificate."
            )
        tokens = net.encode([list(ids) for ids in rows.ids])
        values = _embedding(net, tokens, site)
        reference = _reference(net, rows, tokens, site, values, baseline)
        kept = _special(net, tokens).to(values.device)[..., None]
        return cls(net, rows, tokens, site, values, torch.where(kept, values, reference))

    @property
    def n(self) -> int:
        """How many prompts."""
        return len(self.rows.ids)

    def score(self, index: Tensor, values: Tensor) -> np.ndarray:
        """The metric [k] of the prompts `index` [k] with these embeddings [k p d]."""
        return _numbers(self._metric(index, values, False)[0])

    def slopes(self, index: Tensor, values: Tensor) -> Tensor:
        """The gradient [k p d] of the metric of the prompts `index` [k] at these embeddings.

        Raises `BadBehaviour` where the metric has none.
        """
        with without_parameter_gradients(self.net.model):
            score, run = self._metric(index, values, True)
            if not score.requires_grad:
                raise independent()
            return slopes_of(score, run, [self.site])[self.site].detach()

    def _metric(self, index: Tensor, values: Tensor, grad: bool) -> tuple[Tensor, Run]:
        where = self._positions[index][:, None]
        some = self.tokens[index]
        run = self.net.run(
            some,
            keep=[self.site] if grad else [],
            edits=[Patch(self.site, source=values)],
            logits=where,
            grad=grad,
        )
        assert run.logits is not None
        return self.rows.score(run.logits[:, 0], index), run

    def by_token(self, columns: Tensor) -> np.ndarray:
        """[n p] over columns -> [n t] over each prompt's own tokens, NaN behind its last."""
        table = np.full((self.n, max(len(ids) for ids in self.rows.ids)), np.nan)
        given, first = columns.detach().double().cpu().numpy(), self.tokens.first.tolist()
        for row, ids in enumerate(self.rows.ids):
            table[row, : len(ids)] = given[row, first[row] : first[row] + len(ids)]
        return table


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


def _embedding(net: Network, tokens: Tokens, site: Site) -> Tensor:
    return net.run(tokens, keep=[site], logits=False)[site].detach()


def _special(net: Network, tokens: Tokens) -> Tensor:
    """Which columns [n p] hold a special token that stands before a prompt's first other one."""
    known = torch.tensor(
        sorted(getattr(net.tokenizer, "all_special_ids", None) or [-1]), device=tokens.ids.device
    )
    special = torch.isin(tokens.ids, known) | ~tokens.mask.to(tokens.ids.device)
    return special.long().cumprod(1).bool()


def _reference(
    net: Network, rows: InputRows, tokens: Tokens, site: Site, values: Tensor, baseline: str
) -> Tensor:
    if baseline == "zero":
        return torch.zeros_like(values)
    if baseline == "mean":
        mean = values[tokens.mask.to(values.device)].mean(0)
        return mean.expand_as(values).clone()
    if baseline == "corrupted":
        if rows.others is None:
            raise BadBehaviour(
                f"{rows.name!r} has no corrupted prompts to stand in the place of its own.",
                "Give a behaviour of pairs, e.g. cases.behaviour(net, variable), or another baseline.",
            )
        wrong = next(
            (i for i, (a, b) in enumerate(zip(rows.ids, rows.others, strict=True)) if len(a) != len(b)), None
        )
        if wrong is not None:
            raise BadBehaviour(
                f"Example {wrong} of {rows.name!r} has {len(rows.ids[wrong])} clean and {len(rows.others[wrong])} "
                "corrupted tokens, so that no token stands in another's place.",
                "Drop such pairs by behaviour.only_aligned(), or take another baseline.",
            )
        return _embedding(net, net.encode([list(ids) for ids in rows.others]), site)
    token = _token(net, baseline)
    if site.name == "embed":
        alone = _embedding(net, net.encode([[token]]), site)
        return alone[:, -1:].expand_as(values).clone()
    same: Sequence[list[int]] = [[token] * len(ids) for ids in rows.ids]
    return _embedding(net, net.encode(list(same)), site)


def _token(net: Network, baseline: str) -> int:
    if not isinstance(baseline, str) or not baseline:
        raise BadInput(
            f"The baseline {baseline!r:.60} is none.", f"Use {', '.join(BASELINES)}, or a token, ' the'."
        )
    try:
        return net.to_single_token(baseline)
    except Exception as error:
        raise BadInput(
            f"The baseline {baseline!r:.60} is neither {', '.join(BASELINES)} nor one token.",
            "Write a token with its space, e.g. baseline=' the'.",
        ) from error
