"""The mean of a site over a set of texts, a batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.core import Core
from cutaway.network.execution.running import RunOptions, prepare, run
from cutaway.network.inputs import Tokens
from cutaway.network.memory import numbers_of, rows_at_once
from cutaway.network.sites import Site
from cutaway.network.textsets import batches, digest, rows_in

#: A single text must have so many tokens to be taken for a set, with a warning.
FEWEST_TOKENS = 32


def means_over(
    net: Core, sites: Sequence[Site], texts: Sequence[Any], by_position: bool = False
) -> dict[Site, Tensor]:
    """The mean of each site over all tokens of some texts (padding left out), without any edit, standing ones included.

    Each is laid out as the site with one row and one position, [1 1 ...]; with `by_position` [1 p ...], over texts. The sums
    are in double precision, and only one batch of values is held. What was found is remembered with the network.

    Raises BadInput for a single short text, for texts of unequal length with `by_position`, and for sites that have no mean
    over texts (patterns and scores; maps of images).
    """
    for site in sites:
        if "src" in site.axes or (not site.module and "pos" not in site.axes):
            raise BadInput(
                f"{site} has no mean over texts: it lies over two positions, or over none.",
                "Use z, resid_pre, mlp_write or another site with one value for each token.",
            )
    rows = rows_in(net, texts)
    tokens = sum(map(len, rows))
    if len(rows) == 1 and (by_position or tokens < FEWEST_TOKENS):
        raise BadInput(
            f"The set is one text of {tokens} tokens; its mean says little but that text.",
            "Give a few dozen texts like those that the network was trained on.",
        )
    if len(rows) == 1:
        warnings.warn(f"The mean is over a single text ({tokens} tokens): give several.", stacklevel=4)
    lengths = sorted(set(map(len, rows)))
    if by_position and len(lengths) > 1:
        raise BadInput(
            f"A mean by position needs texts of one length; these have {lengths[0]} to {lengths[-1]} tokens.",
            "Take the mean over all positions (by_position=False), or texts of one length.",
        )
    key = ("mean over texts", digest(texts), tuple(sites), by_position)
    return net.fact_of_weights(key, lambda: _means(net, sites, rows, by_position))


def _means(
    net: Core, sites: Sequence[Site], rows: Sequence[Sequence[int]], by_position: bool
) -> dict[Site, Tensor]:
    sums: dict[Site, Tensor] = {}
    longest = max(map(len, rows))
    kept = sum(numbers_of(net, site, 1) for site in sites)  # type: ignore[arg-type]
    for batch in batches(net, rows, rows_at_once(net, longest, kept=2 * kept)):  # type: ignore[arg-type]
        tokens = net.texts.encode([list(rows[i]) for i in batch])
        found = run(net, prepare(net, tokens), list(sites), [], RunOptions(logits=False))
        for site in sites:
            total = _total(site, found[site], tokens, by_position)
            sums[site] = sums[site] + total if site in sums else total
    count = len(rows) if by_position else sum(map(len, rows))
    return {site: (total / count).to(net.dtype) for site, total in sums.items()}


def _total(site: Site, value: Tensor, tokens: Tokens, by_position: bool) -> Tensor:
    """The sum over rows and real columns, or over rows: [1 1 ...] or [1 p ...]."""
    if value.shape[:2] != tokens.mask.shape:
        raise BadInput(
            f"{site} of shape {tuple(value.shape)} has no value for each token.", "Use a site with positions."
        )
    real = tokens.mask.to(value.device).reshape(*tokens.mask.shape, *[1] * (value.ndim - 2))
    return (value.double() * real).sum(0 if by_position else (0, 1), keepdim=True)
