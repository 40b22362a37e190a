"""NaN and infinity: found, located, reported. Never averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import NotFinite
from cutaway.network.sites import Site, having

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens

_WATCHED = having(lambda kind: kind.watched)


def require_finite(net: Network, tokens: Tokens, logits: Tensor, what: str) -> None:
    """Raise `NotFinite` when the logits of these prompts are not finite, saying where the first bad value appears.

    Costs one look at the logits; the run that locates the place happens only when something is wrong.
    """
    if not bool(torch.isfinite(logits).all()):
        remedy = "Use a wider dtype (float32 instead of float16), or repair the weights."
        raise NotFinite(f"The {what} give NaN or infinite logits. {locate(net, tokens)}", remedy)


def locate(net: Network, tokens: Tokens) -> str:
    """One sentence that says at which site, layer, row and position NaN or infinity first appears.

    Only real tokens are looked at: padding may hold anything.
    """
    layers = range(net.n_layers)
    sites = [Site(name, layer) for layer in layers for name in _WATCHED if layer in net.layers_with(name)]
    run = net.run(tokens, keep=sites, logits=False)
    for site in sorted(sites, key=lambda s: s.rank):
        bad = ~torch.isfinite(run[site]) & tokens.mask.to(run[site].device)[:, :, None]
        if bool(bad.any()):
            row, column, _ = (int(i) for i in bad.nonzero()[0])
            position = column - int(tokens.first[row])
            token = tokens.strings(row)[position]
            return (
                f"The first is at {site}, prompt {row}, position {position} ({token!r}); "
                f"{int(bad.any(-1).sum())} positions are affected there."
            )
    return "Every layer's output is finite; they arise after the last one."
