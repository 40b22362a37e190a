"""Where heads look, as edges between tokens: how much attention runs along them, and what a head gives without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.network.parts import Part
from cutaway.network.sites import Site

if TYPE_CHECKING:
    from cutaway.algorithms.roles.half import RoleHalf

#: With less attention than this left, a head looks at nothing else.
_LEFT = 1e-30


@dataclass(frozen=True, eq=False)
class RoleEdges:
    """Edges of attention.

    Attributes:
        mask: from which token to which, BoolTensor [n dest source].
        say: the places that they go to, in words.
    """

    mask: Tensor
    say: str


def previous_edges(half: RoleHalf) -> RoleEdges:
    """From each token to the one before it, where that is not the first, on which many heads rest."""
    first = torch.arange(half.ids.shape[1])[None] == half.first[:, None]
    return RoleEdges(_seen(half) & (_distance(half) == 1) & ~first[:, None], "the token before each token")


def duplicate_edges(half: RoleHalf) -> RoleEdges:
    """From each token to the earlier places of the same token."""
    same = half.ids[:, :, None] == half.ids[:, None]
    return RoleEdges(_seen(half) & same & (_distance(half) > 0), "earlier places of the same token")


def induction_edges(half: RoleHalf) -> RoleEdges:
    """From each token to what stands behind earlier places of the same token."""
    before = torch.full_like(half.ids, -2)
    before[:, 1:] = half.ids[:, :-1]
    behind = half.ids[:, :, None] == before[:, None]
    return RoleEdges(
        _seen(half) & behind & (_distance(half) > 0), "what stands behind earlier places of the same token"
    )


def span_edges(half: RoleHalf, columns: Tensor, say: str) -> RoleEdges:
    """From the token whose logits are read to some columns [n p]."""
    from_last = torch.arange(half.ids.shape[1])[None] == half.answer[:, None]
    return RoleEdges(_seen(half) & from_last[:, :, None] & columns[:, None], say)


def _distance(half: RoleHalf) -> Tensor:
    at = torch.arange(half.ids.shape[1])
    return (at[:, None] - at[None])[None]


def _seen(half: RoleHalf) -> Tensor:
    """Which tokens each token may look at: [n dest source]."""
    there = half.ids >= 0
    return there[:, :, None] & there[:, None] & (_distance(half) >= 0)


def attention_along(
    half: RoleHalf, part: Part, edges: RoleEdges
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attention along edges and, beside it, along as many others from the same tokens, by prompt.

    Returns the attention [k], the same to other earlier places [k], and the rows of these prompts [k]: those that have such
    edges and other places. The first token, which many heads rest on, is no other place.
    """
    pattern, mask = _pattern(half, part), edges.mask
    others = _others(half, mask)
    asked = mask.any(-1) & others.any(-1)
    along = (pattern * mask).sum(-1)
    beside = (pattern * others).sum(-1) * mask.sum(-1) / others.sum(-1).clamp(min=1)
    rows = asked.any(-1)
    count = asked.sum(-1)[rows]
    value = (along * asked).sum(-1)[rows] / count
    chance = (beside * asked).sum(-1)[rows] / count
    return value.double().numpy(), chance.double().numpy(), rows.nonzero()[:, 0].numpy()


def _others(half: RoleHalf, mask: Tensor) -> Tensor:
    """Other places that may be looked at: neither those, nor the first token."""
    first = torch.arange(half.ids.shape[1])[None] == half.first[:, None]
    return _seen(half) & ~mask & ~first[:, None]


def _pattern(half: RoleHalf, part: Part, second: bool = False) -> Tensor:
    return half.kept(Site("pattern", part.layer), second)[:, part.index or 0]


def _values(half: RoleHalf, part: Part, second: bool = False) -> Tensor:
    """The values [n source e] of a head."""
    values = half.kept(Site("v", part.layer), second)
    groups = half.kept(Site("z", part.layer)).shape[2] // values.shape[2]
    return values[:, :, (part.index or 0) // groups]


def looking_elsewhere(half: RoleHalf, part: Part, edges: RoleEdges) -> Tensor:
    """z [n p h e] with these edges knocked out: a head looks at the rest as if there were nothing else (Geva et al. 2023).

    Where it looks at nothing else, its attention is spread evenly over what it may look at.
    """
    pattern, rest = _pattern(half, part), _seen(half) & ~edges.mask
    left = pattern.double() * rest
    left = torch.where(left.sum(-1, keepdim=True) > _LEFT, left, rest.to(left))
    left = left / left.sum(-1, keepdim=True).clamp(min=_LEFT)
    asked = edges.mask.any(-1, keepdim=True)
    change = torch.where(asked, left.to(pattern) - pattern, torch.zeros_like(pattern))
    return _changed(half, part, change @ _values(half, part))


def brought_from_other(half: RoleHalf, part: Part, edges: RoleEdges) -> Tensor:
    """z [n p h e] with what a head brings along the edges taken from the second prompt."""
    here, there = ((_pattern(half, part, s) * edges.mask) @ _values(half, part, s) for s in (False, True))
    return _changed(half, part, there - here)


def _changed(half: RoleHalf, part: Part, change: Tensor) -> Tensor:
    z = half.kept(Site("z", part.layer)).clone()
    z[:, :, part.index or 0] += change
    return z
