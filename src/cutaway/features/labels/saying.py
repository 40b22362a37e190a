"""Labels of the form "say X": tokens that a feature's direction raises on its way to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.features.sets import FeatureSet
from cutaway.network.norms import affine_norm
from cutaway.network.sites import SITES, Site

if TYPE_CHECKING:
    from cutaway.network import Network

#: Tokens that a feature may be said to say.
RAISED = 10
#: Logits that are held at once.
_LOGITS = 1 << 24


def raised(net: Network, features: FeatureSet, which: Sequence[int]) -> NDArray[np.int64] | None:
    """The tokens [G k] whose logits the direction of each feature raises most, through the final norm's linear part.

    None where features write no direction of the stream, where it is not known how the stream becomes logits, or where
    logits are not about the next token.
    """
    places = [i for i, (site, d) in enumerate(features.writes) if _in_stream(net, site, d)]
    head = net.anatomy.head
    if not places or head is None or not net.is_causal:
        return None
    try:
        unembed = net.weights("W_U").value
        norm = affine_norm(net, head.norm) if head.norm else None
    except CutawayError:
        return None
    if not torch.is_tensor(unembed):
        return None
    unembed = unembed.detach().float()
    found = []
    rows = torch.as_tensor(list(which))
    directions = sum((features.writes[i][1][rows].float() for i in places), torch.zeros(()))
    assert isinstance(directions, Tensor)
    directions = directions if norm is None else norm.linear(directions)
    step = max(1, _LOGITS // unembed.shape[1])
    for part in directions.to(unembed.device).split(step):
        found.append((part @ unembed).topk(min(RAISED, unembed.shape[1]), dim=1).indices.cpu())
    return torch.cat(found).numpy()


def _in_stream(net: Network, site: Site, directions: Tensor) -> bool:
    return SITES[site.name].axes == ("batch", "pos", "width") and directions.shape[1] == net.d_model
