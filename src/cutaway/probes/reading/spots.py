"""Moving activations at one place by a vector of one's own for each prompt, and what that does to the metric."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Spot:
    """A site, and which head of it (None: all, side by side)."""

    site: Site
    head: int | None = None

    def read(self, value: Tensor) -> Tensor:
        """The features [... d] in a value of the site [... (h) d]."""
        axes = () if self.site.module else self.site.axes
        by_head = "head" in axes or "kv_head" in axes
        return (
            value if not by_head else value[..., self.head, :] if self.head is not None else value.flatten(-2)
        )

    def add(self, vectors: Tensor, pos: Any, width: int | None = None) -> Add:
        """The intervention that adds one vector [d] for each row [b d], or one for all rows [d], at positions."""
        axes = () if self.site.module else self.site.axes
        by_head = "head" in axes or "kv_head" in axes
        if not by_head:
            shaped = vectors[:, None] if vectors.ndim == 2 else vectors
            return Add(self.site, shaped, pos=pos)
        if self.head is not None:
            shaped = vectors[:, None, None] if vectors.ndim == 2 else vectors
            return Add(self.site, shaped, pos=pos, head=self.head)
        if width is None:
            raise BadInput(f"The width of a head at {self.site} is not known.", "Probe one head at a time.")
        split = vectors.reshape(*vectors.shape[:-1], -1, width)
        return Add(self.site, split[:, None] if vectors.ndim == 2 else split, pos=pos)


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
    stack = net.anatomy.stack(spot.site.stack)
    attention = (
        stack.layers[spot.site.layer or 0].attention() if stack and spot.site.layer is not None else None
    )
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


def gradient(net: Network, bed: Bed, spot: Spot, rows: int = 64) -> Tensor:
    """Mean gradient [d] of the metric with respect to the features: the direction that controls, to first order.

    Every gradient is scaled to length one before the mean, so that no prompt outweighs the others.
    """
    total, count = None, 0
    for start in range(0, min(bed.n, 256), rows):
        part = torch.arange(start, min(start + rows, bed.n, 256))
        run = net.run(bed.tokens[part], keep=[spot.site], logits=bed.read[part][:, None], grad=True)
        value = run[spot.site]
        (slope,) = torch.autograd.grad(
            bed.score(beds.logits_of(net, run), part).sum(), value, allow_unused=True
        )
        if slope is None:
            return torch.zeros(spot.read(value[0, 0]).shape[-1]).double()
        at = bed.edit[part] + bed.tokens.first[part]
        slopes = spot.read(slope[torch.arange(len(part)), at.to(slope.device)]).double().cpu()
        slopes = slopes / slopes.norm(dim=1, keepdim=True).clamp(min=1e-300)
        total = slopes.sum(0) if total is None else total + slopes.sum(0)
        count += len(part)
    assert total is not None
    return total / count
