"""The tokens whose embeddings lie along a probe's direction, where they lie nearer than to probes of shuffled labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cutaway.probes.fits.kinds import fit

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.probes.map.linear_probe import Probe
    from cutaway.probes.map.setting import Setting

#: Tokens that are kept of each end of the direction.
_TOKENS = 12
#: So many shuffled labellings are fitted at most; with fewer than `_FEWEST` nothing is shown.
_SHUFFLED, _FEWEST = 99, 19
_ALPHA = 0.05


@dataclass(frozen=True)
class NearTokens:
    """What the token embeddings say of a direction.

    Attributes:
        tokens: those that lie most along it, and most against it, with their cosines; empty where they are noise.
        said: how near they are beside directions of shuffled labels, in a sentence; "" where it was not asked.
    """

    tokens: tuple[tuple[str, float], ...] = ()
    said: str = ""


def shuffled_directions(features: Tensor, setting: Setting) -> Tensor:
    """Unit directions [k d] of probes that are fitted to features [n d] with shuffled labels."""
    labellings = setting.labellings(most=_SHUFFLED)
    weights = fit(features, labellings, setting.options.fitting).weights[1:, :, 0]
    return weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-300)


def near_tokens(net: Network, probe: Probe, shuffled: Tensor | None) -> NearTokens:
    """The tokens at both ends of a probe's direction.

    Some token lies nearest to any direction, in a large vocabulary quite near. So its cosine is compared with the largest
    that each of the `shuffled` directions [k d] has with any token, and none is kept where more than one in twenty of these
    is as large. Nothing is said where widths do not fit, or there is no tokenizer.
    """
    get = getattr(net.model, "get_input_embeddings", None)
    weight = getattr(get() if callable(get) else None, "weight", None)
    if weight is None or net.tokenizer is None or weight.shape[1] != probe.d or weight.is_meta:
        return NearTokens()
    if shuffled is None or len(shuffled) < _FEWEST:
        return NearTokens(
            said="Whether any token lies near the probe's direction was not asked: too few shuffled labels."
        )
    rows = weight.detach().double().cpu()
    rows = rows - rows.mean(0)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines = (rows @ probe.direction()).numpy()
    largest = (rows @ shuffled.T).abs().amax(0).numpy()
    nearest = float(np.abs(cosines).max())
    as_near = int((largest >= nearest).sum())
    if (1 + as_near) / (1 + len(largest)) > _ALPHA:
        return NearTokens(
            said=f"No token's embedding lies nearer to the probe's direction (largest cosine {nearest:.2f}) than to "
            f"directions of shuffled labels ({as_near} of {len(largest)} are as near to some token), so none is shown."
        )
    order = np.argsort(cosines)
    most = min(_TOKENS, len(order) // 2)
    ends = [*order[:most], *order[-most:]]
    noise = float(np.quantile(largest, 1 - _ALPHA))
    return NearTokens(
        tuple((net.token_strings([int(i)])[0], float(cosines[i])) for i in ends),
        f"Directions of shuffled labels come as near as {noise:.2f} to some token in 1 of 20 cases: shorter bars are noise.",
    )
