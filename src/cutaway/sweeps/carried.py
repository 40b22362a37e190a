"""Linear changes: what writes at `z`, `head_out` or `mlp_act` add to the output of a sublayer that is not run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.network.anatomy import Layer
from cutaway.network.sites import Site
from cutaway.sweeps.masks import Overwrite
from cutaway.sweeps.stages import CARRIERS, Parts, Stage, linear_change

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True, eq=False)
class Window:
    """Some rows of a wave.

    Attributes:
        pairs: which of its pairs.
        rows: LongTensor [b], their examples.
        columns: the columns that are run.
    """

    pairs: slice
    rows: Tensor
    columns: slice


def carried_changes(
    net: Network,
    layer: Layer,
    parts: Parts,
    stage: Stage,
    pending: Mapping[Site, Sequence[Overwrite]],
    base: Mapping[Site, Tensor],
    window: Window,
) -> dict[str, Tensor]:
    """For each sublayer that is taken from the base run, the change of its output: carrier -> [b w d].

    pending: what is written, by site. base: the written sites' values in the base run.
    """
    changes: dict[str, Tensor] = {}
    for name, carrier in CARRIERS.items():
        taken = stage.attention if carrier == "attn_out" else stage.mlp
        site = Site(name, layer.index)
        if not taken or name not in parts.carriers or site not in pending:
            continue
        for item in pending[site]:
            delta = _delta(net, layer, item, base[site], window)
            if delta is not None:
                changes[carrier] = changes[carrier] + delta if carrier in changes else delta
    return changes


def _delta(net: Network, layer: Layer, item: Overwrite, base: Tensor, window: Window) -> Tensor | None:
    """The change of the carrier by one source's writes: [b w d]; None where these rows write nothing."""
    columns = window.columns
    mask = item.mask[window.pairs, columns].to(base.device)  # [b w h u]
    if not bool(mask.any()):
        return None
    rows = window.rows.to(base.device)
    several = (mask.shape[2] > 1) != (mask.shape[3] > 1) and (mask.shape[3] == 1) == (base.ndim == 4)
    units = mask.any(1).flatten(1) if several else None  # [b h] or [b m]
    source = item.source.to(device=base.device, dtype=base.dtype)
    if units is not None and bool((units.sum(1) <= 1).all()):
        # each row writes one head, or one neuron: its slice of the matrix is enough
        chosen = units.float().argmax(1)
        written = mask.any(3).any(2)[..., None]
        change = (_pick(source, rows, columns, chosen) - _pick(base, rows, columns, chosen)) * written
        return linear_change(net, layer, item.site.name, change, chosen)
    source = source[rows if source.shape[0] > 1 else torch.zeros_like(rows)]
    change = source[:, columns if source.shape[1] > 1 else slice(None)] - base[rows, columns]
    shaped = mask if change.ndim == 4 else mask[:, :, 0]
    return linear_change(net, layer, item.site.name, change * shaped, None)


def _pick(value: Tensor, rows: Tensor, columns: slice, chosen: Tensor) -> Tensor:
    """One head [b w e], or one neuron [b w 1], of each row of a site's value [n p h e] or [n p m]."""
    if value.shape[0] == 1:
        rows = torch.zeros_like(rows)
    if value.shape[1] > 1:
        value = value[:, columns]
    return value[rows, :, chosen] if value.ndim == 4 else value[rows, :, chosen][..., None]
