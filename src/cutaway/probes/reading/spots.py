"""Moving activations at one place by a vector of one's own for each prompt, and what that does to the metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.interventions import Add
from cutaway.network.inputs import Tokens
from cutaway.network.memory import MOST_TOKENS, rows_at_once
from cutaway.network.sites import Site
from cutaway.probes.reading import beds
from cutaway.probes.reading.beds import Bed
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network

#: So many prompts say enough of a mean direction; so many at a time, for the backward pass keeps all their activations.
PROMPTS, _ROWS = 256, 32


@dataclass(frozen=True)
class Spot:
    """Where activations are moved.

    Attributes:
        site: where.
        head: which head of it; None: all, side by side.
    """

    site: Site
    head: int | None = None

    def read(self, value: Tensor) -> Tensor:
        """The features [... d] in a value of the site [... (h) d]."""
        if not self.by_head:
            return value
        return value.flatten(-2) if self.head is None else value[..., self.head, :]

    @property
    def by_head(self) -> bool:
        """Whether the site has a value for each head."""
        return not self.site.module and bool({"head", "kv_head"} & set(self.site.axes))

    def add(self, vectors: Tensor, pos: Any, width: int | None = None) -> Add:
        """The intervention that adds one vector [d] for each row [b d], or one for all rows [d], at positions."""
        each = vectors.ndim == 2
        if self.by_head and self.head is not None:
            return Add(self.site, vectors[:, None, None] if each else vectors, pos=pos, head=self.head)
        if self.by_head:
            if width is None:
                what = f"The width of a head at {self.site} is not known."
                raise BadInput(what, "Probe one head at a time.")
            vectors = vectors.reshape(*vectors.shape[:-1], -1, width)
        return Add(self.site, vectors[:, None] if each else vectors, pos=pos)


def features(net: Network, spot: Spot, tokens: Tokens, at: Tensor, work: Work | None = None) -> Tensor:
    """The features [n d] of each row at its position [n], in float64."""
    step, parts = rows_at_once(net, tokens.width, work, read=0, most=MOST_TOKENS), []
    for start in range(0, tokens.n, step):
        rows = torch.arange(start, min(start + step, tokens.n))
        kept = net.run(tokens[rows], keep=[spot.site], pos=at[rows][:, None], logits=False)[spot.site]
        parts.append(spot.read(kept[:, 0]).double().cpu())
    return torch.cat(parts)


def head_width(net: Network, spot: Spot, width: int) -> int | None:
    """Width of a head at a site that is read with all heads side by side."""
    if spot.site.module or spot.head is not None:
        return None
    stack, layer = net.anatomy.stack(spot.site.stack), spot.site.layer
    attention = stack.layers[layer].attention() if stack and layer is not None else None
    if attention is None:
        return None
    heads = attention.kv_heads if "kv_head" in spot.site.axes else attention.heads
    return width // heads


def moved(net: Network, bed: Bed, spot: Spot, steps: Tensor, work: Work | None = None) -> np.ndarray:
    """The metric [s n] of each prompt with its activation moved by steps [s n d] (s experiments, many in one batch)."""
    s, n, d = steps.shape
    width = head_width(net, spot, d)
    rows = torch.arange(n).repeat(s)
    flat = steps.reshape(s * n, d).float()

    def edits(part: Tensor, where: slice) -> list[Add]:
        return [spot.add(flat[where], bed.edit[part][:, None], width)]

    logits = beds.run(net, bed, edits, rows, work)
    return bed.score(logits, rows).double().cpu().numpy().reshape(s, n)


def plain(net: Network, bed: Bed) -> np.ndarray:
    """The metric [n] of each prompt with nothing done."""
    return bed.score(beds.run(net, bed), torch.arange(bed.n)).double().cpu().numpy()


def gradients(net: Network, bed: Bed, spots: Sequence[tuple[Spot, int]], edits: Tensor) -> list[Tensor]:
    """Mean gradient [d] of the metric with respect to the features at each spot: what controls it, to first order.

    Every gradient is scaled to length one before the mean, so that no prompt outweighs the others. Each spot comes with the
    column of `edits` [n p] that holds its positions.
    """
    sites = list(dict.fromkeys(spot.site for spot, _ in spots))
    totals: list[Tensor] = []
    for part in torch.arange(bed.n).split(_ROWS):
        run = net.run(bed.tokens[part], keep=sites, logits=bed.read[part][:, None], grad=True)
        values = [run[site] for site in sites]
        total = bed.score(beds.logits_of(net, run), part).sum()
        slopes = torch.autograd.grad(total, values, allow_unused=True)
        rows, at = torch.arange(len(part))[:, None], edits[part] + bed.tokens.first[part][:, None]
        kept = {
            site: (torch.zeros_like(v) if s is None else s)[rows.to(v.device), at.to(v.device)].double().cpu()
            for site, v, s in zip(sites, values, slopes, strict=True)
        }
        each = [spot.read(kept[spot.site][:, column]) for spot, column in spots]
        means = [(g / g.norm(dim=1, keepdim=True).clamp(min=1e-300)).sum(0) / bed.n for g in each]
        totals = [a + b for a, b in zip(totals, means, strict=True)] if totals else means
    return totals


def gradient(net: Network, bed: Bed, spot: Spot) -> Tensor:
    """The mean gradient at one spot, where the bed is edited; of at most 256 prompts."""
    bed = bed.take(torch.arange(min(bed.n, PROMPTS)))
    return gradients(net, bed, [(spot, 0)], bed.edit[:, None])[0]
